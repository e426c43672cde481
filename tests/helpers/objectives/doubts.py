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


def reported(host, base, rate, value=0.0):
    """Loss, model, guide and data of E(x) = rate x^2 / 2."""

    def model(x):
        with host.ppl.plate("data", len(x)):
            energy = lambda x: 0.5 * rate * (x**2).reshape(len(x), -1).sum(-1)  # noqa: E731
            host.ppl.sample("x", host.ebm.EnergyBased(energy, base), obs=x)

    x = host.array(np.full((1, *base.event_shape), value))
    loss = host.ebm.EnergyELBO(host.ebm.MaximumLikelihood(num_samples=20))
    return loss, model, lambda x: None, x


@pytest.mark.once
def test_a_reported_number_of_few_draws_is_warned_of(host):
    base = host.dist.Normal(host.array(np.zeros(16)), 1.0).to_event(1)
    with pytest.warns(UserWarning, match="`effective_normalizer_samples` of site 'x' is below 10"):
        metrics = host.known_metrics(*reported(host, base, 100.0))
    assert 1 <= metrics["effective_normalizer_samples"] < 10
    metrics = host.known_metrics(*reported(host, base, 0.1))
    assert 64 < metrics["effective_normalizer_samples"] <= 128


@pytest.mark.parametrize("shape", [(), (1,)])
def test_the_reported_number_is_precise_in_one_dimension(host, shape):
    base = host.dist.Normal(host.array(np.zeros(shape)), 1.0).to_event(len(shape))
    losses = host.losses(*reported(host, base, 8.0), 20)
    # Of independent draws a standard deviation of .11.
    assert np.std(losses) < 0.005
    exact = 0.5 * np.log(2 * np.pi) - 0.5 * np.log(9)
    assert np.mean(losses) == pytest.approx(exact, abs=0.005)


@pytest.mark.once
def test_the_reported_number_of_a_base_without_quantiles(host):
    base = host.dist.Gamma(host.array(2.0), 1.0)
    case = reported(host, base, 0.0, value=1.0)
    metrics = host.known_metrics(*case)
    assert metrics["effective_normalizer_samples"] == pytest.approx(128)
    assert np.std(host.losses(*case, 20)) < 1e-6
