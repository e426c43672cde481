"""Invariance of the kernels, each beside a cooled density that must fail; biases of others."""

import numpy as np
import pytest
import torch
from helpers.targets import TARGETS, rank_p_value

import pyro_ebm.pyro as ebm

KERNELS = {
    "mala": lambda step_size: ebm.MALA(step_size**2 / 2),
    "hmc": lambda step_size: ebm.HMC(step_size, num_steps=3),
}


def walk(sampler, potential, position, num_steps, *, scaled=False):
    """States after each of some steps, and the mean acceptance."""
    state = sampler.init(potential, torch.as_tensor(position, dtype=torch.float32))
    if scaled:
        state = state._replace(scale=torch.linspace(1.2, 0.8, position.shape[-1]))
    states, rates = [], []
    for _ in range(num_steps):
        state, info = sampler.step(potential, state)
        states.append(state)
        rates.append(info.acceptance_rate.mean())
    return states, torch.stack(rates).mean().item()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scaled", [False, True])
def test_exact_draws_stay_exact(kernel, target, scaled):
    target = TARGETS[target]
    sampler = KERNELS[kernel](target.step_size)
    exact = target.exact(100_000 // target.dims)
    states, rate = walk(sampler, target.potential, exact, 20, scaled=scaled)
    assert 0.3 < rate < 0.99
    assert target.p_value(states[-1].position) > 1e-3
    states, _ = walk(sampler, lambda x: 1.1 * target.potential(x), exact, 20, scaled=scaled)
    assert target.p_value(states[-1].position) < 1e-4


@pytest.mark.parametrize("kernel", KERNELS)
def test_start_has_a_uniform_rank(kernel):
    target = TARGETS["banana"]
    sampler = KERNELS[kernel](target.step_size)
    exact = target.exact(20_000)
    start = target.potential(torch.as_tensor(exact, dtype=torch.float32)).numpy()

    def p_value(potential):
        runs = [walk(sampler, potential, exact, 9)[0] for _ in range(2)]
        forward, backward = (
            np.stack([target.potential(state.position).numpy() for state in run]) for run in runs
        )
        return rank_p_value(start, forward, backward)

    assert p_value(target.potential) > 1e-3
    assert p_value(lambda x: 1.1 * target.potential(x)) < 1e-4


@pytest.mark.parametrize("step_size", [0.1, 0.5, 1.0])
def test_bias_of_langevin(step_size):
    target = TARGETS["gaussian"]
    exact = target.exact(100_000)
    states, _ = walk(ebm.Langevin(step_size), target.potential, exact, int(6 / step_size))
    # Variance 1 / (1 - h / 2), estimated with a relative error of sqrt(2 / N).
    assert states[-1].position.var().item() == pytest.approx(1 / (1 - step_size / 2), rel=0.018)


@pytest.mark.parametrize("step_size", [0.5, 1.0, 1.5])
def test_bias_of_kinetic_langevin(step_size):
    target = TARGETS["gaussian"]
    sampler = ebm.KineticLangevin(step_size, friction=1.0)
    states, _ = walk(sampler, target.potential, target.exact(100_000), int(12 / step_size))
    position, velocity = states[-1].position, states[-1].velocity
    assert position.var().item() == pytest.approx(1.0, rel=0.018)
    assert velocity.var().item() == pytest.approx(1 / (1 - step_size**2 / 4), rel=0.018)
    assert (position * velocity).mean().item() == pytest.approx(0.0, abs=0.02)


def test_temperature_of_langevin():
    target = TARGETS["gaussian"]

    def variance(**options):
        sampler = ebm.Langevin(0.1, **options)
        states, _ = walk(sampler, target.potential, target.exact(100_000), 60)
        return states[-1].position.var().item()

    assert variance(temperature=4.0) == pytest.approx(4 / 0.95, rel=0.018)
    assert variance(temperature=lambda k: 4.0 if k < 10 else 1.0) == pytest.approx(1 / 0.95, 0.018)
    assert variance(noise_scale=0.5) == pytest.approx(0.25 / 0.95, rel=0.018)
