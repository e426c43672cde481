"""Pointwise log-likelihoods of models that MCMC has run on."""

from types import SimpleNamespace

import arviz as az
import numpy as np
import pytest
from scipy import stats

NUM_CHAINS, NUM_DRAWS = 2, 500
X = np.array([0.3, -1.2, 2.0, 0.8, -0.4])
rng = np.random.default_rng(0)


def finished(host, model, draws, *args):
    """MCMC after a run with these draws, shape ``(chain, draw, *shape)``."""

    class MCMC(host.infer.MCMC):
        kernel = sampler = SimpleNamespace(model=model)
        _args, _kwargs = tuple(map(host.array, args)), {}

        def __init__(self):
            pass

        def get_samples(self, group_by_chain=False):
            shapes = {
                n: x.shape if group_by_chain else (-1, *x.shape[2:]) for n, x in draws.items()
            }
            return {name: host.array(x.reshape(shapes[name])) for name, x in draws.items()}

        def diagnostics(self):
            return {}

        def get_extra_fields(self, group_by_chain):
            return {}

    return MCMC()


def log_likelihood(mcmc, host):
    data = host.ebm.to_arviz(mcmc, log_likelihood=True)
    return {name: values.values for name, values in data.log_likelihood.items()}


def test_leave_one_out_is_the_closed_form(host):
    """z ~ N(0, 1), x_n ~ N(z, 2^2): given some of them, z has precision 1 + number / 4."""

    def model(x):
        z = host.ppl.sample("z", host.dist.Normal(0.0, 1.0))
        host.ppl.deterministic("twice", 2 * z)
        host.ppl.factor("nothing", 0.0 * z)
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("x", host.dist.Normal(z, 2.0), obs=x)

    precision = 1 + len(X) / 4
    z = rng.normal(X.sum() / 4 / precision, precision**-0.5, size=(NUM_CHAINS, NUM_DRAWS))
    data = host.ebm.to_arviz(finished(host, model, {"z": z}, X), log_likelihood=True)
    assert set(data.log_likelihood) == {"x"}
    expected = stats.norm(z[..., None], 2).logpdf(X)
    np.testing.assert_allclose(data.log_likelihood["x"].values, expected, rtol=1e-5)
    precision -= 1 / 4
    others = stats.norm((X.sum() - X) / 4 / precision, (4 + 1 / precision) ** 0.5)
    assert az.loo(data).elpd_loo == pytest.approx(others.logpdf(X).sum(), abs=0.05)


def test_energies_with_a_log_normalizer_and_masks(host):
    """E(x) = x^2 on N(0, 1): precision 3. Sites without a plate have the shape of their values."""

    def model(x):
        host.ppl.sample("z", host.dist.Normal(0.0, 1.0))
        prior = host.ebm.EnergyBased(lambda x: x**2, host.dist.Normal(0.0, 1.0))
        with host.mask(mask=x > 0), host.ppl.plate("data", len(x)):
            host.ppl.sample("x", prior.normalized(-0.5 * np.log(3.0)), obs=x)
        host.ppl.sample("y", host.dist.Normal(0.0, 2.0), obs=x)

    z = rng.normal(size=(1, 3))
    found = log_likelihood(finished(host, model, {"z": z}, X), host)
    expected = np.where(X > 0, stats.norm(0, 3**-0.5).logpdf(X), 0)
    np.testing.assert_allclose(found["x"], np.broadcast_to(expected, (1, 3, 5)), rtol=1e-5)
    expected = np.broadcast_to(stats.norm(0, 2).logpdf(X), (1, 3, 5))
    np.testing.assert_allclose(found["y"], expected, rtol=1e-5)


def nothing_observed(host):
    return lambda x: host.ppl.sample("z", host.dist.Normal(0.0, 1.0))


def an_energy(host, mixed=False):
    def model(x):
        host.ppl.sample("z", host.dist.Normal(0.0, 1.0))
        energy = host.ebm.EnergyBased(
            lambda x: x**2, host.dist.Normal(host.array(np.zeros(5)), 1.0)
        )
        host.ppl.sample("x", energy.to_event(1), obs=x)

    return model


def a_sum(host):
    def model(x):
        z = host.ppl.sample("z", host.dist.Normal(0.0, 1.0))
        k = host.ppl.sample("k", host.dist.Bernoulli(0.5))
        host.ppl.sample("x", host.dist.Normal(z + k, 1.0), obs=x)

    return model


def conditional(host, given=lambda joint, z: joint.conditional(z=z)):
    """E makes x | theta ~ N(theta, 0.5^2), up to a constant: log Z is -1.5 for every theta."""

    def model(x):
        z = host.ppl.sample("z", host.dist.Normal(0.0, 1.0))
        base = host.dist.Normal(0.0, 2.0)
        energy = lambda z, x: 2 * (x - z) ** 2 - x**2 / 8 - np.log(4) + 1.5  # noqa: E731
        joint = host.ebm.EnergyBased(energy, host.ebm.Joint(z=host.dist.Normal(0.0, 1.0), x=base))
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("x", given(joint, z), obs=x)

    return model


@pytest.mark.parametrize(
    "given",
    [
        lambda joint, z: joint.normalized(-1.5).conditional(z=z),
        lambda joint, z: joint.conditional(z=z).normalized(-1.5),
    ],
)
def test_conditionals_of_a_normalized_joint(host, given):
    z = rng.normal(size=(1, 3))
    model = conditional(host, given)
    found = log_likelihood(finished(host, model, {"z": z}, X), host)
    np.testing.assert_allclose(found["x"], stats.norm(z[..., None], 0.5).logpdf(X), rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (conditional, r"site 'x', whose density .* `joint.normalized\("),
        (an_energy, r"site 'x', whose density is known up to .* `distribution.normalized\("),
        (a_sum, "draws of every latent variable .* got none of 'k'"),
        (nothing_observed, "Expected observed sites .* got none"),
        (lambda host: None, "an MCMC object with a model .* got SimpleNamespace"),
    ],
)
def test_what_has_no_log_likelihood(host, model, message):
    mcmc = finished(host, model(host), {"z": np.zeros((1, 2))}, X)
    with pytest.raises(ValueError, match=message):
        host.ebm.to_arviz(mcmc, log_likelihood=True)


def test_subsampled_data(host):
    def model(x):
        z = host.ppl.sample("z", host.dist.Normal(0.0, 1.0))
        with host.ppl.plate("data", len(x), subsample_size=2) as index:
            host.ppl.sample("x", host.dist.Normal(z, 2.0), obs=x[index])

    mcmc = finished(host, model, {"z": np.zeros((NUM_CHAINS, 3))}, X)
    with pytest.raises(ValueError, match="all data .* got 2 of 5 elements of plate 'data'"):
        log_likelihood(mcmc, host)
