"""Chains of `LangevinGuide(start="stored")`, which go on where a row's chain stopped."""

import numpy as np
import pytest

NUM_ROWS, BATCH_SIZE = 12, 5
X = np.random.default_rng(0).normal(size=NUM_ROWS)
# On -log p(x, z) = z^2 / 2 + (x - z)^2 / 2, without noise, a step goes a fifth of the way to x / 2.
STEP_SIZE, KEPT = 0.1, 0.8


def subsampled(host):
    def model(x):
        with host.ppl.plate("data", len(x), subsample_size=BATCH_SIZE) as rows:
            z = host.ppl.sample("z", host.dist.Normal(0.0, 1.0))
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x[rows])

    return model


def stored(host, model, noise_scale=0.0, **options):
    sampler = host.ebm.Langevin(STEP_SIZE, noise_scale=noise_scale)
    return host.ebm.LangevinGuide(model, sampler, num_steps=1, start="stored", **options)


def training(host, model, elbo="Trace", **options):
    guide, loss = stored(host, model, **options), host.infer.Trace_ELBO()
    if elbo != "Trace":
        loss = host.ebm.EnergyELBO(elbo, num_normalizer_samples=0)
    return host.Training(model, guide, loss, host.sgd(0.0))


def test_rows_go_on_where_they_stopped(host):
    run = training(host, subsampled(host))
    run.step(X)
    before, num_moved = run.chains("z$positions")[:, 0], 0
    for _ in range(6):
        run.step(X)
        after = run.chains("z$positions")[:, 0]
        changed = before != after
        assert changed.sum() == BATCH_SIZE
        moved = changed & np.isfinite(before)
        towards = X / 2 + KEPT * (before - X / 2)
        np.testing.assert_allclose(after[moved], towards[moved], atol=1e-5)
        before, num_moved = after, num_moved + moved.sum()
    assert num_moved > 10
    assert run.is_compiled_once


def test_a_saved_run_goes_on_exactly(host, tmp_path):
    host.start_again()
    run = training(host, subsampled(host), noise_scale=1.0)
    for _ in range(3):
        run.step(X)
    run.save(tmp_path / "run")
    expected = [run.step(X) for _ in range(2)], run.chains("z$positions")
    run.load(tmp_path / "run", X)
    assert (run.chains("z$positions") != expected[1]).any()
    assert [run.step(X) for _ in range(2)] == expected[0]
    np.testing.assert_array_equal(run.chains("z$positions"), expected[1])


def test_several_latents_masks_and_energies(host):
    """A latent of each row and two of each column, one of them positive; the last row is masked."""

    def model(x):
        counts = host.array(np.arange(4) < 3)[:, None]
        with host.mask(mask=counts), host.ppl.plate("rows", 4, dim=-2):
            prior = host.ebm.EnergyBased(lambda z: z**2 / 2, host.dist.Normal(0.0, 1.0))
            a = host.ppl.sample("a", prior)
            with host.ppl.plate("columns", 3, dim=-1):
                b = host.ppl.sample("b", host.dist.Gamma(2.0, 1.0))
                host.ppl.sample("x", host.dist.Normal(a + b, 1.0), obs=x)

    x = np.ones((4, 3))
    run = training(host, model, elbo=host.ebm.EnergyDiscrepancy(variance=0.1))
    run.step(x)
    before = run.chains("a$positions")
    assert before.shape == (4, 1 + 3)
    run.step(x)
    after = run.chains("a$positions")
    assert np.isinf(after[3]).all()
    a, b = before[:3, 0], np.exp(before[:3, 1:])
    residual = (1 - a[:, None] - b).sum(1)
    expected = a - STEP_SIZE * (2 * a - residual)
    np.testing.assert_allclose(after[:3, 0], expected, rtol=1e-4)
    expected = before[:3, 1:] - STEP_SIZE * (b - 2 - b * (1 - a[:, None] - b))
    np.testing.assert_allclose(after[:3, 1:], expected, rtol=1e-4, atol=1e-5)


def in_no_plate(host):
    def model(x):
        z = host.ppl.sample("z", host.dist.Normal(0.0, 1.0))
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x)

    return model


def test_refusals(host):
    with pytest.raises(ValueError, match=r"latent variables \['z'\] in a plate .* got none"):
        training(host, in_no_plate(host)).step(X)
    with pytest.raises(ValueError, match="Expected `start` .* got 'warm'"):
        host.ebm.LangevinGuide(in_no_plate(host), start="warm")
    run = training(host, subsampled(host))
    run.step(X)
    with pytest.raises(ValueError, match=r"'z\$positions' of shape \(13, 1\), .* got \(12, 1\)"):
        run.step(np.ones(13))
