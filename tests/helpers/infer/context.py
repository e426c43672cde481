"""Conditional energies in models: y | c ~ exp(-exp(b c) y^2 / 2) N(0, 9), b = 1.5."""

import numpy as np
import pytest

CONTEXT = np.linspace(-2.0, 2.0, 64)
RATE = np.exp(1.5 * CONTEXT)
Y = np.random.default_rng(0).normal(size=(64, 1)) / np.sqrt(RATE + 1 / 9)[:, None]
NEGATIVE_LOG_LIKELIHOOD = (
    (RATE + 1 / 9) * Y[:, 0] ** 2 / 2 + np.log(2 * np.pi) / 2 - np.log(RATE + 1 / 9) / 2
).sum()


def model_of(host, *, mask=None, size=None):
    def model(y, c):
        b = host.ppl.param("b", host.array(1.5))
        energy = lambda y, c: host.xp.exp(b * c) * y[:, 0] ** 2 / 2  # noqa: E731
        prior = host.ebm.EnergyBased(energy, host.normal((1,), 0.0, 3.0), context=c)
        if mask is not None:
            prior = prior.mask(host.xp.asarray(mask))
        with host.ppl.plate("data", size or len(y), subsample_size=len(y) if size else None):
            host.ppl.sample("y", prior, obs=y)

    return model


def run(host, elbo=None, rows=slice(None), num_normalizer_samples=0, **options):
    objective = host.ebm.ScoreMatching()
    loss = host.ebm.EnergyELBO(objective, elbo, num_normalizer_samples=num_normalizer_samples)
    args = host.array(Y[rows]), host.array(CONTEXT[rows])
    value, gradients = host.loss_and_gradients(
        loss, model_of(host, **options), host.empty_guide, *args
    )
    return value, gradients["b"]


def test_the_reported_number_has_a_log_normalizer_for_each_row(host):
    value, _ = run(host, num_normalizer_samples=20_000)
    assert value == pytest.approx(NEGATIVE_LOG_LIKELIHOOD, abs=0.3)


def test_plates_particles_and_masks_change_no_gradient(host):
    _, gradient = run(host)
    particles = host.infer.Trace_ELBO(num_particles=8, vectorize_particles=True)
    assert run(host, particles)[1] == pytest.approx(gradient, rel=1e-4)
    assert run(host, size=128)[1] == pytest.approx(2 * gradient, rel=1e-4)
    even = np.arange(64) % 2 == 0
    _, masked = run(host, mask=even)
    assert masked == pytest.approx(run(host, rows=even)[1], rel=1e-4)
    assert masked != pytest.approx(gradient, rel=1e-2)


def test_persistent_chains_are_of_one_law(host):
    def guide(y, c):
        chains = host.ebm.PersistentChains(4, (1,), sampler=host.ebm.MALA(0.1))
        host.ebm.attach("y", chains=chains)

    loss = host.ebm.EnergyELBO(host.ebm.ContrastiveDivergence())
    args = host.array(Y), host.array(CONTEXT)
    with pytest.raises(
        ValueError, match="one distribution for all batch elements.*'y\\$chains'.*a context"
    ):
        host.loss_and_gradients(loss, model_of(host), guide, *args)


def test_particles_at_an_observed_site(host):
    """Noise is drawn once for all particles, which are no contexts."""
    elbo = host.infer.Trace_ELBO(num_particles=4, vectorize_particles=True)
    objective = host.ebm.EnergyDiscrepancy(variance=1.0, num_samples=16)
    loss = host.ebm.EnergyELBO(objective, elbo, num_normalizer_samples=0)
    args = host.array(Y), host.array(CONTEXT)
    _, gradients = host.loss_and_gradients(loss, model_of(host), host.empty_guide, *args)
    assert np.isfinite(gradients["b"])
