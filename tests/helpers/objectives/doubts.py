import numpy as np
import pytest

X = np.linspace(-1.0, 1.0, 16)


def read(host, objective, slope, draws, **attached):
    """Metrics of E(x) = slope x at attached draws of the model."""

    def model(x):
        base, weight = host.dist.Normal(host.array(0.0), 1.0), host.ppl.param("slope", start)
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("x", host.ebm.EnergyBased(lambda x: weight * x, base), obs=x)

    def guide(x):
        host.ebm.attach("x", chains=host.array(draws), **attached)

    host.forget()
    start, loss = host.array(slope), host.ebm.EnergyELBO(objective, num_normalizer_samples=0)
    return host.known_metrics(loss, model, guide, host.array(X))


def test_log_ratios_that_are_clipped(host):
    objective, critic = host.ebm.FDivergence("kl"), lambda x: 0 * x
    with pytest.warns(UserWarning, match="`clipped` of site 'x' is above one half: energy and cr"):
        read(host, objective, 100.0, X, critic=critic)
    assert read(host, objective, 1.0, X, critic=critic)["clipped"] == 0


def test_one_value_with_all_the_weight(host):
    objective = host.ebm.PseudoSpherical(1.0)
    with (
        pytest.warns(UserWarning, match="`effective_values` of site 'x' is below 2"),
        pytest.warns(UserWarning, match="`effective_negatives` of site 'x' is below 2"),
    ):
        read(host, objective, 100.0, X)
    assert read(host, objective, 0.1, X)["effective_values"] > 10


def test_chains_that_diverged(host):
    with pytest.warns(UserWarning, match="`energy_gap` of site 'x' is not finite: chains have div"):
        read(host, host.ebm.ContrastiveDivergence(), 10.0, np.full(16, 1e38))
