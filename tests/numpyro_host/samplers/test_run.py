import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers.hosts.numpyro import normal
from helpers.samplers.run import *  # noqa: F403
from jax import lax, random

import pyro_ebm.numpyro as ebm
from pyro_ebm.numpyro.samplers.run import _keep, short_run

KEY = random.key(0)


def test_divergence():
    def half_defined(x):
        return jnp.where(x > 0, jnp.nan, 0.5 * x**2)

    def run(sampler, potential):
        keys, start = random.split(KEY, 10), sampler.init(potential, -jnp.ones(200))
        return lax.scan(lambda state, key: sampler.step(key, potential, state), start, keys)

    state, info = run(ebm.MALA(1.0), half_defined)
    assert info.diverging.any()
    assert jnp.isfinite(state.position).all()
    state, info = run(ebm.Langevin(1.0), lambda x: jnp.exp(x**2))
    assert info.diverging.any()
    assert (info.diverging[-1] == ~jnp.isfinite(state.position)).all()


SHORT_RUNS = [
    ebm.MALA(0.5),
    ebm.Langevin(0.1, temperature=lambda step: 1 / (1 + step), noise_scale=0.5),
    ebm.KineticLangevin(0.3),
]


@pytest.mark.parametrize("sampler", SHORT_RUNS)
def test_short_run_is_a_run_of_steps(sampler):
    start = random.normal(KEY, (7,))
    state = sampler.init(jnp.square, start)
    for key in random.split(KEY, 3):
        state, _ = sampler.step(key, jnp.square, state)
    moved = short_run(KEY, sampler, jnp.square, start, 3).samples
    assert jnp.allclose(moved, state.position, rtol=1e-5)


def test_new_parameters_compile_nothing_anew(host, quartic):
    def run(weight):
        prior = ebm.EnergyBased(type(quartic)(jnp.array(weight)), normal())
        return host.run_chains(ebm.MALA(0.01), prior, num_samples=40).samples

    first = run(0.1)
    compiled = _keep._cache_size()
    assert jnp.abs(run(4.0)).mean() < jnp.abs(first).mean()
    assert _keep._cache_size() == compiled


def test_chains_inside_jit_and_vmap():
    def run(key, scale):
        energy = jax.tree_util.Partial(lambda scale, x: 0.5 * ((x / scale) ** 2).sum(-1), scale)
        target = ebm.EnergyBased(energy, event_shape=(2,))
        return ebm.run_chains(key, ebm.MALA(), target, num_samples=50, num_warmup=200)

    keys, scales = random.split(KEY, 4), jnp.array([0.1, 1.0, 10.0, jnp.nan])
    chains = jax.jit(jax.vmap(run))(keys, scales)
    assert chains.samples.shape == (4, 4, 50, 2)
    assert chains.statistics["lp"].shape == (4, 4, 50)
    np.testing.assert_allclose(chains.samples[:3].std((1, 2, 3)), scales[:3], rtol=0.3)
    # Nothing is checked there: a bad start gives NaN instead of an error.
    assert jnp.isnan(chains.statistics["lp"][3]).all()
    assert jax.eval_shape(run, keys[0], scales[0]).samples.shape == (4, 50, 2)


@pytest.mark.parametrize("sampler", [ebm.MALA(0.1), ebm.HMC(0.1, num_steps=2), ebm.Langevin(0.1)])
def test_double_parameters_and_single_values(float64, sampler):
    weight, start = jnp.array(0.7, jnp.float64), jnp.zeros((3, 2), jnp.float32)
    base = dist.Normal(jnp.zeros(2, jnp.float32), jnp.ones(2, jnp.float32)).to_event(1)
    prior = ebm.EnergyBased(lambda x: weight * (x**2).sum(-1), base)
    options = {"num_samples": 4, "init": start, "check": False, "progress_bar": False}
    assert ebm.run_chains(KEY, sampler, prior, **options).samples.dtype == jnp.float64
    assert short_run(KEY, sampler, prior.potential, start, 3).samples.dtype == jnp.float64


def test_single_precision_stays_single_where_there_is_double(float64):
    prior = dist.Normal(jnp.zeros(2, jnp.float32), jnp.ones(2, jnp.float32)).to_event(1)
    options = {"num_samples": 4, "check": False, "progress_bar": False}
    start = jnp.zeros((3, 2), jnp.float32)
    samples = ebm.run_chains(KEY, ebm.MALA(0.1), prior, init=start, **options).samples
    assert samples.dtype == jnp.float32
