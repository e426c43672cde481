"""Sequential Monte Carlo: the weights of modes, one population for each law, its record."""

import math

import numpy as np
import pytest

LEFT = 0.615


def two_modes(host, **options):
    """Modes at -1.5 and 1.5 of standard deviation 0.1, with exact mass LEFT below zero."""

    def energy(x):
        lower, upper = (-0.5 * ((x - m) / 0.1) ** 2 for m in (-1.5, 1.5))
        log_density = host.xp.logaddexp(math.log(LEFT) + lower, math.log(1 - LEFT) + upper)
        return -log_density - 0.25 * x**2

    return host.ebm.EnergyBased(energy, host.dist.Normal(0.0, math.sqrt(2.0)), **options)


# Z: the density of the modes integrates to 0.1 sqrt(2 pi); the base's is divided out of e^{x^2/4}.
LOG_Z = math.log(0.1 / math.sqrt(2.0))


def test_modes_and_scales(host):
    draws = host.run_smc(host.ebm.SMC(), two_modes(host), num_samples=2000)
    x = np.asarray(draws.samples)
    error = math.sqrt(LEFT * (1 - LEFT) / float(draws.effective_ancestors))
    assert (x < 0).mean() == pytest.approx(LEFT, abs=4 * error)
    assert abs(abs(x) - 1.5).std() < abs(x).std() == pytest.approx(0.1, rel=0.1)
    assert float(draws.log_normalizer) == pytest.approx(LOG_Z, abs=4 * float(draws.standard_error))
    assert 100 < float(draws.effective_ancestors) < 2000
    assert np.unique(np.asarray(draws.ancestors)).size > 100
    assert str(draws).startswith("2000 draws over 3 temperatures, log Z = -2.")


def test_one_population_for_expanded_dimensions(host):
    # With one population for each element the 600 draws would need 600 x 256 particles.
    draws = host.sample(two_modes(host).expand((3, 4)), (50,))
    assert draws.shape == (50, 3, 4)
    assert (draws < 0).mean() == pytest.approx(LEFT, abs=0.15)
    assert np.all((draws < 0).mean((0, 2)) > 0.3)


def test_a_population_for_each_context_and_element_of_a_base(host):
    center = np.array([-3.0, 0.0, 3.0])
    base = host.dist.Normal(host.array([[0.0], [10.0]]), 2.0)
    tilted = host.ebm.EnergyBased(
        lambda x, c: 50.0 * (x - c) ** 2, base, context=host.array(center + [[0.0], [10.0]])
    )
    assert tilted.batch_shape == (2, 3)
    draws = host.sample(tilted.expand((5, 2, 3)), (40,))
    assert draws.shape == (40, 5, 2, 3)
    # Precision 100 at the context, 1 / 4 at the base.
    expected = 100 * center / 100.25 + [[0.0], [10.0]]
    np.testing.assert_allclose(draws.mean((0, 1)), expected, atol=0.05)
    record = host.run_smc(host.ebm.SMC(), tilted, num_samples=10)
    assert record.log_normalizer.shape == record.effective_ancestors.shape == (2, 3)
    # Z = sd / base sd * exp(-c^2 / (2 (4 + 0.01))).
    log_z = -0.5 * np.log(1 + 400.0) - center**2 / (2 * 4.01)
    difference = abs(np.asarray(record.log_normalizer) - log_z)
    assert np.all(difference < 5 * np.asarray(record.standard_error))


def test_supports_and_missing_bases(host):
    # Half of the base is inside: log Z counts it.
    half = host.ebm.EnergyBased(
        lambda x: 2.0 * x, host.dist.Normal(0.0, 1.0), support=host.constraints.positive
    )
    draws = host.run_smc(host.ebm.SMC(), half, num_samples=1000)
    log_z = 2.0 + math.log(math.erfc(math.sqrt(2.0)) / 2)
    assert float(draws.log_normalizer) == pytest.approx(log_z, abs=4 * float(draws.standard_error))
    assert np.all(np.asarray(draws.samples) > 0)
    # Without a base the path starts at a standard normal: log of the integral of exp(-x^2 / 18).
    flat = host.ebm.EnergyBased(lambda x: ((x - 2.0) ** 2).sum(-1) / 18, event_shape=(2,))
    draws = host.run_smc(host.ebm.SMC(), flat, num_samples=1000)
    assert np.asarray(draws.samples).mean() == pytest.approx(2.0, abs=0.5)
    assert float(draws.log_normalizer) == pytest.approx(
        math.log(18 * math.pi), abs=4 * float(draws.standard_error)
    )


@pytest.mark.once
def test_doubts(host):
    base = host.normal((3,))
    prior = host.ebm.EnergyBased(lambda x: 50.0 * (x**2).sum(-1), base)
    with pytest.warns(UserWarning, match="fewer than 10 effective ancestors") as caught:
        host.run_smc(host.ebm.SMC(num_particles=8), prior, num_samples=4)
    assert "site-packages" not in caught[0].filename
    hopeless = host.ebm.EnergyBased(lambda x: x.sum(-1) * math.nan, base, validate_args=True)
    with pytest.raises(ValueError, match="lead draws of the base to EnergyBased"):
        host.sample(hopeless, (3,))
    quiet = host.ebm.EnergyBased(lambda x: x.sum(-1) * math.nan, base, validate_args=False)
    assert np.all(np.isnan(host.sample(quiet, (3,))))


def test_short_runs_tune_their_step(host):
    """Without a step size of its own a kernel is right at any scale."""
    for scale in (1e-3, 1e3):
        prior = host.ebm.EnergyBased(
            host.Bowl(0.5 / scale**2),
            host.dist.Normal(0.0, 30 * scale),
            sampler=host.ebm.MALA(),
            num_sampler_steps=60,
        )
        draws = host.sample(prior, (1000,))
        assert draws.std() == pytest.approx(scale, rel=0.15)


@pytest.mark.once
def test_a_mode_that_chains_miss(host):
    prior = two_modes(host)
    start, kernel = -1.5 + 0 * np.arange(4.0), host.ebm.MALA(0.005)
    with pytest.warns(UserWarning, match=r"\d+% of the draws of SMC lie where no chain on Energy"):
        host.run_chains(kernel, prior, init=start, num_samples=250)
    both = np.array([-1.5, 1.5] * 2)
    assert len(host.run_chains(kernel, prior, init=both, num_samples=250).samples) == 4
    options = {"init": start, "num_samples": 20}
    with pytest.warns(UserWarning, match="40% of the values of `check` lie"):
        host.run_chains(kernel, prior, check=np.array([1.5, 1.4, -1.5, -1.4, -1.6] * 4), **options)
    host.run_chains(kernel, prior, check=False, init=start, num_samples=250)
