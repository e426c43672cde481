"""Samplers and evidence with NumPyro."""

import api_numpyro as api
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from host_numpyro import Encoder, Gaussian, Net, Residual, Scalar, recorded, standard_normal
from inputs import DATA, points
from numpyro.infer import MCMC


def tilted(**options):
    return api.energy_based(Scalar(1), Gaussian()(), **options)


def generated(**options):
    base = api.pushforward(standard_normal(), Residual(2))
    return api.energy_based(Scalar(1), base, **options)


# --- samplers ---


def chains(rng_key, kernel, num_warmup):
    options = {"num_chains": 3, "num_samples": 5, "num_warmup": num_warmup, "thinning": 2}
    return api.run_chains(rng_key, kernel, tilted(), **options)


@recorded
def langevin(rng_key):
    return chains(rng_key, api.langevin(0.1, temperature=0.8, noise_scale=0.9), 5)


@recorded
def kinetic_langevin(rng_key):
    return chains(rng_key, api.kinetic_langevin(0.3, friction=1.5), 5)


@recorded
def mala(rng_key):
    return chains(rng_key, api.mala(0.1, target=0.574, adapts=True), 40)


@recorded
def hmc(rng_key):
    return chains(rng_key, api.hmc(0.02, num_leapfrog=3, target=0.95, adapts=True), 20)


@recorded
def sample(rng_key):
    """Draws where the base has a density, and where it is a pushforward."""
    by_langevin = tilted(kernel=api.langevin(0.1), num_steps=6)
    by_mala = generated(kernel=api.mala(0.2), num_steps=6)
    return [by_langevin.sample(rng_key, (4,)), by_mala.sample(rng_key, (4,))]


@recorded
def sampler_kernel(rng_key):
    """Draws and statistics of a short run of NumPyro's MCMC."""

    def model(x):
        rate = numpyro.sample("rate", dist.Gamma(3.0, 2.0))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", tilted())
            numpyro.sample("x", dist.Normal(z, rate).to_event(1), obs=x)

    kernel = api.sampler_kernel(model, api.mala(0.01, target=0.574, adapts=True))

    @jax.jit
    def run(rng_key):
        mcmc = MCMC(kernel, num_warmup=20, num_samples=8, progress_bar=False)
        mcmc.run(rng_key, jnp.asarray(DATA[:3]))
        draws, told = mcmc.get_samples(), mcmc.get_extra_fields()
        names = "potential_energy", "accept_prob", "adapt_state.step_size"
        return [draws["z"], draws["rate"], *(told[name] for name in names)]

    return run(rng_key)


# --- evidence ---


@recorded
def log_normalizer_importance(rng_key):
    draws = jnp.asarray(points(7, 20, 2))
    return api.log_normalizer(rng_key, tilted(), "importance", num_samples=40, draws=draws)


@recorded
def log_normalizer_annealed(rng_key):
    options = {"num_samples": 30, "num_temperatures": 6, "num_moves": 4}
    kernel = api.mala(0.3, target=0.574)
    return api.log_normalizer(rng_key, tilted(), "annealed", kernel=kernel, **options)


@recorded
def log_normalizer_grid(rng_key):
    """Where the base has a density, and where it is a pushforward."""
    options = {"method": "grid", "num_samples": 50}
    records = [api.log_normalizer(rng_key, prior, **options) for prior in (tilted(), generated())]
    return [number for record in records for number in record]


def observed(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", tilted())
        numpyro.sample("x", dist.Normal(z, 0.7).to_event(1), obs=x)


def encoded(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", Encoder(5)(x))


@recorded
def log_marginal_importance(rng_key):
    options = {"log_z": 0.3, "num_samples": 60, "batch_size": 20}
    x = jnp.asarray(DATA[:3])
    return api.log_marginal(rng_key, observed, encoded, x, "importance", **options)


@recorded
def log_marginal_annealed(rng_key):
    options = {"log_z": 0.3, "num_samples": 60, "num_temperatures": 6, "batch_size": 30}
    kernel, x = api.mala(0.2, target=0.574), jnp.asarray(DATA[:3])
    return api.log_marginal(rng_key, observed, None, x, "annealed", kernel=kernel, **options)


@recorded
def generator_bounds(rng_key):
    generator = api.pushforward(standard_normal(), Residual(4))
    options = {"num_samples": 40, "log_sobolev_constant": 0.8}
    return api.generator_bounds(rng_key, tilted(), generator, "exact", **options)


# --- Jacobians ---


def log_det_jtj(rng_key, method, **options):
    """Values, and gradients in the latent."""
    net = Net(9, 3, 5)

    @jax.jit
    def run(z):
        result, pull = jax.vjp(lambda z: api.log_det_jtj(rng_key, net, z, method, **options), z)
        return result, *pull(jnp.ones_like(result))

    return run(jnp.asarray(points(8, 4, 3)))


@recorded
def log_det_jtj_exact(rng_key):
    return log_det_jtj(rng_key, "exact")


@recorded
def log_det_jtj_stochastic(rng_key):
    return log_det_jtj(rng_key, "stochastic", num_iterations=3, num_probes=2)


@recorded
def log_det_jtj_smallest_singular_value(rng_key):
    return log_det_jtj(rng_key, "smallest_singular_value", num_iterations=3)
