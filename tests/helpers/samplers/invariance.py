"""Invariance of the kernels, each beside a cooled density that must fail; biases of others."""

import numpy as np
import pytest

from helpers.targets import TARGETS, rank_p_value

pytestmark = pytest.mark.usefixtures("optimized")

KERNELS = {
    "mala": lambda host, step_size: host.ebm.MALA(step_size**2 / 2),
    "hmc": lambda host, step_size: host.ebm.HMC(step_size, 3),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scaled", [False, True])
def test_exact_draws_stay_exact(host, kernel, name, scaled):
    target = TARGETS[name]
    sampler = KERNELS[kernel](host, target.step_size)
    exact = target.exact(100_000 // target.dims)
    state, _, rate = host.walk(sampler, name, exact, 20, scaled=scaled)
    assert 0.3 < rate < 0.99
    assert target.p_value(state.position) > 1e-3
    state, _, _ = host.walk(sampler, name, exact, 20, scaled=scaled, cooling=1.1)
    assert target.p_value(state.position) < 1e-4


@pytest.mark.parametrize("kernel", KERNELS)
def test_start_has_a_uniform_rank(host, kernel):
    target = TARGETS["banana"]
    sampler = KERNELS[kernel](host, target.step_size)
    exact = target.exact(20_000)

    def p_value(cooling):
        runs = (host.walk(sampler, "banana", exact, 9, cooling=cooling, seed=k) for k in range(2))
        forward, backward = (potentials for _, potentials, _ in runs)
        return rank_p_value(target.potential(exact.astype(np.float32)), forward, backward)

    assert p_value(1.0) > 1e-3
    assert p_value(1.1) < 1e-4


def moments(host, sampler, num_steps):
    """Variances of position and velocity after a run from exact Gaussian draws, and covariance."""
    exact = TARGETS["gaussian"].exact(100_000)
    state, _, _ = host.walk(sampler, "gaussian", exact, num_steps)
    position = np.asarray(state.position)
    velocity = 0 * position if state.velocity is None else np.asarray(state.velocity)
    return position.var(), velocity.var(), (position * velocity).mean()


# Variances are estimated with a relative error of sqrt(2 / N), of which 0.018 is four.
@pytest.mark.parametrize("step_size", [0.1, 0.5, 1.0])
def test_bias_of_langevin(host, step_size):
    variance, _, _ = moments(host, host.ebm.Langevin(step_size), int(6 / step_size))
    assert variance == pytest.approx(1 / (1 - step_size / 2), rel=0.018)


@pytest.mark.parametrize("step_size", [0.5, 1.0, 1.5])
def test_bias_of_kinetic_langevin(host, step_size):
    sampler = host.ebm.KineticLangevin(step_size, friction=1.0)
    variance, of_velocity, covariance = moments(host, sampler, int(12 / step_size))
    assert variance == pytest.approx(1.0, rel=0.018)
    assert of_velocity == pytest.approx(1 / (1 - step_size**2 / 4), rel=0.018)
    assert covariance == pytest.approx(0.0, abs=0.02)


def falling(index):
    """Temperature of 4 for ten steps, then 1."""
    return 1.0 + 3.0 * (index < 10)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 4.0}, 4 / 0.95),
        ({"temperature": falling}, 1 / 0.95),
        ({"noise_scale": 0.5}, 0.25 / 0.95),
    ],
)
def test_temperature_of_langevin(host, options, expected):
    variance, _, _ = moments(host, host.ebm.Langevin(0.1, **options), 60)
    assert variance == pytest.approx(expected, rel=0.018)
