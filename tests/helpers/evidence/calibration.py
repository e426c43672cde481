"""Simulation-based calibration of a learned likelihood: theta ~ N(0, 1), x ~ N(theta, 1/4)."""

import numpy as np
import pytest

from helpers.evidence.conditional import tilted


def calibrate(host, posterior, **options):
    options = {"num_simulations": 200, "num_draws": 19, **options}
    return host.simulation_based_calibration(host.normal(()), 0.5, posterior, **options)


def test_a_joint_energy(host):
    """It passes with a log Z that does not depend on theta, and fails with one that does."""
    kernel = {"sampler": host.ebm.MALA(0.15), "num_sampler_steps": 80}
    assert calibrate(host, tilted(host, 0.0, **kernel)).p_values > 1e-3
    wrong = calibrate(host, tilted(host, 3.0, **kernel))
    assert wrong.p_values < 1e-6
    assert wrong.ranks.shape == (200,)


def test_a_posterior_of_ones_own(host):
    """In batches; data sets keep their order."""

    def posterior(x):
        assert x.shape == (2,)
        noise = np.random.default_rng(1).normal(size=(40, 2))
        return host.array(host.to_numpy(x) / 1.25 + 0.2**0.5 * noise)

    found = calibrate(host, posterior, num_simulations=10, batch_size=2)
    assert found.ranks.shape == (10,)
    assert 0 < found.ranks.mean() < 19


def test_several_parameters(host):
    """One vector of them, after the error that names this remedy."""
    prior = host.ebm.Joint(mu=host.normal(()), log_scale=host.normal(()))
    joint = host.ebm.EnergyBased(
        lambda mu, log_scale, x: 0 * (mu + log_scale + x[:, 0]),
        host.ebm.Joint(**prior.parts, x=host.normal((2,))),
    )
    options = {"num_simulations": 20, "num_draws": 9}
    with pytest.raises(ValueError, match=r"'log_scale', 'x'\]: for several parameters give Joint"):
        host.simulation_based_calibration(prior, 0.5, joint, **options)
    draws = np.random.default_rng(0).normal(size=(9, 20, 2))
    found = host.simulation_based_calibration(prior, 0.5, lambda _: host.array(draws), **options)
    assert (found.ranks.shape, found.names) == ((20, 2), ("mu", "log_scale"))


def test_simulators_and_posteriors_that_do_not_fit(host):
    with pytest.raises(ValueError, match=r"Expected `posterior` to be .*, got parts \[\]"):
        calibrate(host, host.ebm.EnergyBased(lambda x: x**2, host.normal(())))
    with pytest.raises(
        ValueError, match="Expected `num_draws` to be an integer of at least 1, got 0"
    ):
        calibrate(host, tilted(host, 0.0), num_draws=0)
    with pytest.raises(ValueError, match=r"19 draws or more, each of shape \(200,\)"):
        calibrate(host, lambda x: x[None])
    with pytest.raises(ValueError, match=r"Expected `simulator` to map \(200, \*event_shape\)"):
        host.simulation_based_calibration(host.normal(()), None, tilted(host, 0.0))
