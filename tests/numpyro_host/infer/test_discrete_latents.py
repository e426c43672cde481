"""A prior over bits in a latent-variable model, whose guide learns by score functions."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from jax import random
from numpyro.infer import HMC, MCMC, NUTS, SA, SVI, DiscreteHMCGibbs, MixedHMC, TraceGraph_ELBO

import pyro_ebm.numpyro as ebm

MIXING = jnp.array([[2.0, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, -1.0], [0.0, 0.0, 2.0, 1.0]])
OBJECTIVE = ebm.EnergyDiscrepancy(perturbation=ebm.Uniform(1.0))


def data(number=400):
    bits, noise = random.split(random.key(0))
    z = 1.0 * (random.uniform(bits, (number, 3)) < jnp.array([0.2, 0.5, 0.9]))
    return z.mean(0), z @ MIXING + 0.4 * random.normal(noise, (number, 4))


def model(x):
    weights = numpyro.param("weights", jnp.zeros(3))
    base = dist.Bernoulli(jnp.full(3, 0.5)).to_event(1)
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", ebm.EnergyBased(lambda z: -(z * weights).sum(-1), base))
        numpyro.sample("x", dist.Normal(z @ MIXING, 0.4).to_event(1), obs=x)


def guide(x):
    slope = numpyro.param("slope", 4.0)
    logits = slope * (x @ jnp.linalg.pinv(MIXING) - 0.5)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Bernoulli(logits=logits).to_event(1))


def test_prior_and_guide_learn():
    share, x = data()
    svi = SVI(model, guide, optax.adam(0.03), ebm.EnergyELBO(OBJECTIVE, TraceGraph_ELBO()))
    params = svi.run(random.key(0), 300, x, progress_bar=False).params
    assert jax.nn.sigmoid(params["weights"]).tolist() == pytest.approx(share.tolist(), abs=0.06)
    assert params["slope"] > 5.0  # The posterior is sharp.


CENTERS = jnp.array([-2.0, 0.0, 2.0])


def test_a_prior_over_one_code():
    share = jnp.array([0.6, 0.3, 0.1])
    code = jnp.repeat(jnp.arange(3), jnp.array([240, 120, 40]))
    x = CENTERS[code] + 0.5 * random.normal(random.key(0), (400,))

    def model(x):
        weights = numpyro.param("weights", jnp.zeros(3))
        prior = ebm.EnergyBased(lambda k: -weights[k], dist.Categorical(jnp.ones(3) / 3))
        with numpyro.plate("data", len(x)):
            k = numpyro.sample("k", prior)
            numpyro.sample("x", dist.Normal(CENTERS[k], 0.5), obs=x)

    def guide(x):
        slope = numpyro.param("slope", 1.0)
        with numpyro.plate("data", len(x)):
            logits = -slope * (x[:, None] - CENTERS) ** 2
            numpyro.sample("k", dist.Categorical(logits=logits))

    svi = SVI(model, guide, optax.adam(0.05), ebm.EnergyELBO(OBJECTIVE, TraceGraph_ELBO()))
    params = svi.run(random.key(0), 150, x, progress_bar=False).params
    assert jax.nn.softmax(params["weights"]).tolist() == pytest.approx(share.tolist(), abs=0.06)
    assert params["slope"] > 1.5


def test_elbo_without_score_functions_is_refused():
    svi = SVI(model, guide, optax.adam(0.03), ebm.EnergyELBO(OBJECTIVE))
    with pytest.warns(UserWarning, match="discrete latent variables"):
        state = svi.init(random.key(0), jnp.zeros((2, 4)))
    with pytest.raises(
        ValueError, match=r"TraceGraph_ELBO\(\)\) with the discrete latent site 'z'"
    ):
        svi.update(state, jnp.zeros((2, 4)))


def test_nuts_refuses():
    mcmc = MCMC(NUTS(model), num_samples=1, num_warmup=1, progress_bar=False)
    with pytest.raises(RuntimeError, match="EnergyBased distribution at site z"):
        mcmc.run(random.key(0), jnp.zeros((2, 4)))


def test_gibbs_of_the_host_moves_one_code():
    """k has energies 0, 1, 2; x | k ~ N(k, 2)."""

    def model(x):
        loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
        prior = ebm.EnergyBased(lambda k: jnp.arange(3.0)[k], dist.Categorical(jnp.ones(3) / 3))
        k = numpyro.sample("k", prior)
        numpyro.sample("x", dist.Normal(loc + k, 1.0), obs=x)

    mcmc = MCMC(DiscreteHMCGibbs(NUTS(model)), num_warmup=200, num_samples=2000, progress_bar=False)
    mcmc.run(random.key(0), 1.5)
    expected = jax.nn.softmax(-jnp.arange(3.0) - (1.5 - jnp.arange(3.0)) ** 2 / 4)
    shares = jnp.bincount(mcmc.get_samples()["k"], length=3) / 2000
    assert shares.tolist() == pytest.approx(expected.tolist(), abs=0.06)


# --- kernels without gradients in what they move ---


def behind(x, where):
    loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
    k = numpyro.sample("k", dist.Bernoulli(0.5))
    energy = {"energy": lambda v: 4.0 * k * v**2, "context": lambda v, c: c * v**2}[where]
    options = {} if where == "energy" else {"context": k, "context_batch_ndims": 0}
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", ebm.EnergyBased(energy, dist.Normal(0.0, 1.0), **options), obs=x - loc)


def scale(x, _):
    k = numpyro.sample("k", dist.Gamma(2.0, 0.5))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", ebm.EnergyBased(lambda v: k * v**2, dist.Normal(0.0, 1.0)), obs=x)


def support(x, _):
    k = numpyro.sample("k", dist.Gamma(2.0, 0.5))
    base, options = dist.Normal(0.0, 1.0), {"support": dist.constraints.interval(-20.0, k)}
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", ebm.EnergyBased(lambda v: v**2, base, **options), obs=x - 9.0)


@pytest.mark.parametrize(
    ("kernel", "where"),
    [
        (DiscreteHMCGibbs(NUTS(behind)), "energy"),
        (MixedHMC(HMC(behind)), "context"),
        (SA(scale), "energy"),
        (SA(support), "support"),
    ],
    ids=["Gibbs", "MixedHMC", "SA", "SA, support"],
)
def test_kernels_without_gradients_warn(kernel, where):
    mcmc = MCMC(kernel, num_warmup=1, num_samples=1, progress_bar=False)
    with pytest.warns(UserWarning, match="latent variable 'k': .* doubly intractable"):
        mcmc.run(random.key(0), random.normal(random.key(1), (5,)), where)
