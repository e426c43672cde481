"""Invariance of the kernels, each beside a cooled density that must fail; biases of others."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.targets import TARGETS, rank_p_value
from jax import random

import pyro_ebm.numpyro as ebm

pytestmark = pytest.mark.usefixtures("optimized")

KERNELS = {
    "mala": lambda step_size: ebm.MALA(step_size**2 / 2),
    "hmc": lambda step_size: ebm.HMC(step_size, num_steps=3),
}


def nothing(state):
    return None


@partial(jax.jit, static_argnames=("sampler", "target", "num_steps", "keep"))
def _walk(key, sampler, target, position, num_steps, step_size, scale, cooling, keep):
    def potential(x):
        return cooling * TARGETS[target].potential(x)

    def step(state, key):
        state, info = sampler.step(key, potential, state)
        return state, (keep(state), info.acceptance_rate.mean())

    state = sampler.init(potential, position)._replace(step_size=step_size, scale=scale)
    state, (kept, rates) = jax.lax.scan(step, state, random.split(key, num_steps))
    return state, kept, rates.mean()


def walk(sampler, target, position, num_steps, *, scaled=False, cooling=1.0, keep=nothing, key=0):
    """The last state, what `keep` gives of each, and the mean acceptance."""
    dims = position.shape[-1]
    scale = jnp.linspace(1.2, 0.8, dims) if scaled else jnp.ones(dims)
    # As an array, so that another step size compiles nothing.
    step_size = jnp.array(sampler.step_size)
    return _walk(
        random.key(key), sampler, target, position, num_steps, step_size, scale, cooling, keep
    )


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scaled", [False, True])
def test_exact_draws_stay_exact(kernel, name, scaled):
    target = TARGETS[name]
    sampler = KERNELS[kernel](target.step_size)
    exact = target.exact(100_000 // target.dims)
    state, _, rate = walk(sampler, name, exact, 20, scaled=scaled)
    assert 0.3 < rate < 0.99
    assert target.p_value(state.position) > 1e-3
    state, _, _ = walk(sampler, name, exact, 20, scaled=scaled, cooling=1.1)
    assert target.p_value(state.position) < 1e-4


def banana_potential(state):
    return TARGETS["banana"].potential(state.position)


@pytest.mark.parametrize("kernel", KERNELS)
def test_start_has_a_uniform_rank(kernel):
    target = TARGETS["banana"]
    sampler = KERNELS[kernel](target.step_size)
    exact = jnp.asarray(target.exact(20_000))
    start = np.asarray(target.potential(exact))

    def p_value(cooling):
        forward, backward = (
            walk(sampler, "banana", exact, 9, cooling=cooling, keep=banana_potential, key=key)[1]
            for key in range(2)
        )
        return rank_p_value(start, np.asarray(forward), np.asarray(backward))

    assert p_value(1.0) > 1e-3
    assert p_value(1.1) < 1e-4


@pytest.mark.parametrize("step_size", [0.1, 0.5, 1.0])
def test_bias_of_langevin(step_size):
    exact = TARGETS["gaussian"].exact(100_000)
    state, _, _ = walk(ebm.Langevin(step_size), "gaussian", exact, int(6 / step_size))
    # Variance 1 / (1 - h / 2), estimated with a relative error of sqrt(2 / N).
    assert float(state.position.var()) == pytest.approx(1 / (1 - step_size / 2), rel=0.018)


@pytest.mark.parametrize("step_size", [0.5, 1.0, 1.5])
def test_bias_of_kinetic_langevin(step_size):
    sampler = ebm.KineticLangevin(step_size, friction=1.0)
    exact = TARGETS["gaussian"].exact(100_000)
    state, _, _ = walk(sampler, "gaussian", exact, int(12 / step_size))
    position, velocity = state.position, state.velocity
    assert float(position.var()) == pytest.approx(1.0, rel=0.018)
    assert float(velocity.var()) == pytest.approx(1 / (1 - step_size**2 / 4), rel=0.018)
    assert float((position * velocity).mean()) == pytest.approx(0.0, abs=0.02)


def test_temperature_of_langevin():
    def variance(**options):
        sampler = ebm.Langevin(0.1, **options)
        exact = TARGETS["gaussian"].exact(100_000)
        return float(walk(sampler, "gaussian", exact, 60)[0].position.var())

    assert variance(temperature=4.0) == pytest.approx(4 / 0.95, rel=0.018)
    assert variance(temperature=cooling) == pytest.approx(1 / 0.95, rel=0.018)
    assert variance(noise_scale=0.5) == pytest.approx(0.25 / 0.95, rel=0.018)


def cooling(index):
    return jnp.where(index < 10, 4.0, 1.0)
