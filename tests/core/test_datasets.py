"""Toys: sizes, seeds, densities against draws; digits as they are split."""

import numpy as np
import pytest

from pyro_ebm.datasets import TOYS, ColoredRings, Toy, bimodal, codes, digits, toy

ALL = [*TOYS.values(), bimodal(0.3)]


def by_name(value):
    return value.name if isinstance(value, Toy) else None


# Extent and step of the grid that is fine for a toy: each costs what it must.
GRIDS = {
    **{"bimodal": (12.0, 0.04), "two_spirals": (4.5, 0.1), "pinwheel": (6.0, 0.06)},
    **{"circles": (4.8, 0.12), "rings": (3.84, 0.08), "swiss_roll": (4.8, 0.12)},
    "two_moons": (4.8, 0.12),
}


def grid(distribution):
    """Cell centers of a square grid, shape (n, ..., dimension), and the volume of a cell."""
    extent, step = GRIDS.get(distribution.name, (8.0, 0.04))
    axis = np.arange(-extent, extent, step) + step / 2
    axes = np.meshgrid(*[axis] * distribution.dimension, indexing="ij")
    return np.stack(axes, axis=-1), step**distribution.dimension


def test_names_of_toys():
    assert set(TOYS) == {
        *("25_gaussians", "8_gaussians", "checkerboard", "circles", "pinwheel"),
        *("rings", "swiss_roll", "two_moons", "two_spirals"),
    }


@pytest.mark.parametrize("distribution", ALL, ids=by_name)
@pytest.mark.parametrize("n", [0, 1, 7, 1003])
def test_sample_has_exact_size(distribution, n):
    x = distribution.sample(n, seed=1)
    assert x.shape == (n, distribution.dimension)
    assert x.dtype == np.float64
    assert np.isfinite(x).all()


@pytest.mark.parametrize("distribution", ALL, ids=by_name)
def test_sample_depends_on_the_seed_alone(distribution):
    first = distribution.sample(50, seed=3)
    np.random.default_rng().random(10)
    np.testing.assert_array_equal(first, distribution.sample(50, seed=3))
    assert not np.array_equal(first, distribution.sample(50, seed=4))


@pytest.mark.parametrize("distribution", ALL, ids=by_name)
def test_density_integrates_to_one(distribution):
    points, volume = grid(distribution)
    total = np.exp(distribution.log_density(points)).sum() * volume
    assert total == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("distribution", ALL, ids=by_name)
def test_draws_match_their_density(distribution):
    """Means, products and -log p of draws within five standard errors of the grid's integrals."""
    n = 40_000
    points, volume = grid(distribution)
    log_density = distribution.log_density(points)
    weight = np.exp(log_density) * volume
    draws = distribution.sample(n, seed=0)

    def statistics(x):
        pairs = x[..., :, None] * x[..., None, :]
        return np.concatenate([x, pairs.reshape(*x.shape[:-1], -1), np.abs(np.sin(5 * x))], axis=-1)

    expected = np.tensordot(weight, statistics(points), axes=weight.ndim)
    observed = statistics(draws)
    errors = 5 * observed.std(axis=0) / np.sqrt(n) + 2e-3
    assert (np.abs(observed.mean(axis=0) - expected) < errors).all()

    entropy = -np.sum(weight * np.where(weight > 0, log_density, 0.0))
    surprise = -distribution.log_density(draws[:10_000])
    assert np.isfinite(surprise).all()
    assert abs(surprise.mean() - entropy) < 5 * surprise.std() / np.sqrt(len(surprise)) + 2e-3


def test_25_gaussians_have_the_published_centers():
    centers = np.array([(a, b) for a in range(-4, 5, 2) for b in range(-4, 5, 2)]) / 1.414
    log_density = toy("25_gaussians").log_density(centers)
    std = 0.2 / 1.414
    np.testing.assert_allclose(log_density, -np.log(25 * 2 * np.pi * std**2), rtol=1e-12)


def test_8_gaussians_lie_on_a_circle():
    x = toy("8_gaussians").sample(4000, seed=0)
    # The mean square of a shifted Gaussian: squared radius plus two variances.
    assert np.mean(np.sum(x**2, axis=1)) == pytest.approx((16 + 0.5) / 1.414**2, rel=0.02)


def test_rings_have_their_radii():
    radius = np.linalg.norm(toy("rings").sample(4000, seed=0), axis=1)
    nearest = np.abs(radius[:, None] - 0.75 * np.arange(1, 5))
    assert (nearest.min(axis=1) < 0.4).all()
    np.testing.assert_allclose(np.bincount(nearest.argmin(axis=1)) / 4000, 0.25, atol=0.04)


def test_two_spirals_are_symmetric():
    x = toy("two_spirals").sample(20_000, seed=0)
    assert np.abs(x.mean(axis=0)).max() < 5 * x.std() / np.sqrt(20_000)
    assert np.linalg.norm(x, axis=1).max() < 4


def test_two_spirals_density_is_that_of_the_draws():
    """Chi-squared over cells of side 0.2 of the half-plane x > 0; the other is the same, turned."""
    n, side, parts = 40_000, 0.2, 4
    draws = toy("two_spirals").sample(n, seed=1)
    draws = np.where(draws[:, :1] < 0, -draws, draws)
    edges = side * np.arange(21), side * np.arange(-20, 21)
    observed, *_ = np.histogram2d(*draws.T, bins=edges)

    x, y = (side / parts * (np.arange(parts * first, parts * 20) + 0.5) for first in (0, -20))
    points = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
    density = 2 * np.exp(toy("two_spirals").log_density(points))
    expected = n * side**2 * density.reshape(20, parts, 40, parts).mean(axis=(1, 3))

    assert expected.sum() == pytest.approx(n, rel=1e-3)
    often = expected > 5
    squares = (observed - expected)[often] ** 2 / expected[often]
    assert abs(squares.sum() - often.sum()) < 4 * np.sqrt(2 * often.sum())


def test_pinwheel_has_five_blades():
    x = toy("pinwheel").sample(20_000, seed=0)
    angle = np.angle(x[:, 0] + 1j * x[:, 1])
    harmonics = [abs(np.exp(1j * k * angle).mean()) for k in range(1, 6)]
    assert max(harmonics[:4]) < 0.03
    assert harmonics[4] > 0.2


def test_bimodal_weights_its_modes():
    x = bimodal(0.2).sample(20_000, seed=0)
    assert np.mean(x < 0) == pytest.approx(0.2, abs=0.015)
    assert bimodal(1.0).log_density(np.array([-5.0])) == pytest.approx(-0.5 * np.log(2 * np.pi))


@pytest.mark.parametrize("shape", [(), (0,), (4, 3)])
@pytest.mark.parametrize("distribution", TOYS.values(), ids=by_name)
def test_log_density_keeps_the_batch_shape(distribution, shape):
    assert distribution.log_density(np.ones((*shape, 2))).shape == shape


def test_no_density_outside_of_the_checkerboard():
    assert toy("checkerboard").log_density(np.array([9.0, 9.0])) == -np.inf


def test_errors():
    with pytest.raises(ValueError, match="one of 25_gaussians, .*got 'spiral'"):
        toy("spiral")
    with pytest.raises(ValueError, match=r"shape \(\*batch, 2\), got \(5, 3\)"):
        toy("25_gaussians").log_density(np.zeros((5, 3)))
    with pytest.raises(ValueError, match="at least 0, got -1"):
        toy("rings").sample(-1)
    with pytest.raises(ValueError, match="between 0 and 1, got 1.5"):
        bimodal(1.5)


def test_digits_are_split_by_seed():
    data = digits()
    assert [part.images.shape for part in data] == [(1197, 64), (200, 64), (400, 64)]
    assert [part.labels.shape for part in data] == [(1197,), (200,), (400,)]
    images = np.concatenate([part.images for part in data])
    assert images.dtype == np.float32
    assert images.min() == 0
    assert images.max() == 1
    assert len(np.unique(images, axis=0)) == 1797
    assert all(len(np.unique(part.labels)) == 10 for part in data)
    np.testing.assert_array_equal(data.test.images, digits().test.images)
    assert not np.array_equal(data.test.images, digits(seed=1).test.images)


@pytest.mark.parametrize(("base", "num_digits"), [(2, 16), (5, 8), (10, 6)])
def test_codes_are_read_back(base, num_digits):
    written = codes("two_moons", base, num_digits)
    x = written.toy.sample(500, seed=3)
    digits = written.encode(x)
    assert digits.shape == (500, 2 * num_digits)
    assert (digits.min(), digits.max()) == (0, base - 1)
    cell = 2 * (written.reach + 1) / base**num_digits
    np.testing.assert_allclose(written.decode(digits), x, atol=cell)
    np.testing.assert_array_equal(written.encode(written.decode(digits)), digits)


def test_neighbors_differ_in_one_bit():
    # Of one coordinate, away from zero.
    written = codes("8_gaussians")
    step = (written.reach + 1) / 2**15
    x = np.stack([0.5 + step * np.arange(100), np.full(100, 0.5)], -1)
    assert set(abs(np.diff(written.encode(x), axis=0)).sum(-1)) == {1}


def test_codes_that_no_number_holds():
    with pytest.raises(ValueError, match="got 60 digits of base 2"):
        codes("rings", 2, 60)
    with pytest.raises(ValueError, match="`base` to be an integer of at least 2, got 1"):
        codes("rings", 1)


# --- tables ---


def test_colored_rings_density_integrates_to_one():
    grid = np.linspace(-8.0, 8.0, 121)
    x, y = np.meshgrid(grid, grid)
    total = sum(
        np.exp(ColoredRings(0.3).log_density(np.stack([x, y, 0 * x + g, 0 * x + k], -1))).sum()
        for g in range(4)
        for k in (4 * g + np.arange(8)) % 16
    )
    assert total * (grid[1] - grid[0]) ** 2 == pytest.approx(1.0, abs=1e-6)


def test_colors_go_round_the_rings():
    draws = ColoredRings(noise=0.1).sample(20_000)
    radius = np.hypot(draws[:, 0], draws[:, 1])
    assert np.abs(radius - 1.5 * (draws[:, 2] + 1)).max() < 0.5
    probabilities = ColoredRings(noise=0.1).color_probabilities(draws)
    np.testing.assert_allclose(probabilities.sum(-1), 1.0)
    # Calibrated: as many of each color as their probabilities add up to.
    counts = np.bincount(draws[:, 3].astype(int), minlength=16)
    error = np.sqrt((probabilities * (1 - probabilities)).sum(0))
    assert (np.abs(probabilities.sum(0) - counts) < 4 * error).all()
    never = draws + [0, 0, 0, 8]
    assert (ColoredRings(noise=0.1).log_density(never % [99, 99, 99, 16]) == -np.inf).all()
