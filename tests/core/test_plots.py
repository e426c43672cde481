"""Plots, read back from the artists of matplotlib."""

from dataclasses import replace
from types import SimpleNamespace

import array_api_strict
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.contour import QuadContourSet
from scipy.stats import binom

from pyro_ebm.calibration import Calibration
from pyro_ebm.core.columns import Column
from pyro_ebm.core.evidence.weights import bracket
from pyro_ebm.diagnostics import Chains
from pyro_ebm.plots import (
    plot_energy_histogram,
    plot_energy_landscape,
    plot_log_weights,
    plot_metric,
    plot_ranks,
    plot_table,
)


@pytest.fixture(autouse=True)
def no_display():
    mpl.use("Agg")
    yield
    plt.close("all")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def bowl(points):
    return 0.5 * (points**2).sum(axis=-1)


def areas(ax):
    """Areas under the histograms' filled patches, by color."""
    filled = [patch.get_data() for patch in ax.patches if patch.get_fill()]
    return [(data.values * np.diff(data.edges)).sum() for data in filled]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def contours(ax):
    (contour,) = [artist for artist in ax.collections if isinstance(artist, QuadContourSet)]
    return contour


# --- landscape ---


def test_landscape_shows_every_draw_on_the_energy():
    draws = normal(4, 30, 2)
    ax = plot_energy_landscape(lambda x: bowl(x) + 1000, Chains(draws, {}, state=None))
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), draws.reshape(-1, 2))
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert left < draws[..., 0].min() < draws[..., 0].max() < right
    assert bottom < draws[..., 1].min() < draws[..., 1].max() < top
    # Counted from the lowest energy on the grid, to the farthest corner.
    corners = bowl(np.array([[x, y] for x in (left, right) for y in (bottom, top)]))
    assert contours(ax).zmin == 0
    assert contours(ax).zmax == pytest.approx(corners.max(), abs=0.01)
    assert [other.get_ylabel() for other in ax.figure.axes] == [
        "$x_2$",
        "energy above its lowest (nats)",
    ]


def test_landscape_has_the_axes_in_order():
    ax = plot_energy_landscape(
        lambda x: np.where((x[:, 0] > 0) & (x[:, 1] < 0), 0.0, 5.0),
        normal(10, 2),
        limits=((-1, 1), (-3, 3)),
        num_points=40,
    )
    lowest = contours(ax).get_paths()[0].vertices
    assert lowest[:, 0].min() > -0.1
    assert lowest[:, 1].max() < 0.1
    assert ax.get_xlim() == (-1, 1)
    assert ax.get_ylim() == (-3, 3)


def test_landscape_calls_the_energy_with_arrays_like_the_draws():
    seen = []

    def energy(points):
        seen.append(points)
        return array_api_strict.sum(points * points, axis=-1)

    draws = array_api_strict.asarray(normal(5, 2), dtype=array_api_strict.float32)
    plot_energy_landscape(energy, draws, num_points=7)
    assert type(seen[0]) is type(draws)
    assert seen[0].dtype == array_api_strict.float32
    assert seen[0].shape == (49, 2)


def test_landscape_thins_many_draws_evenly():
    draws = np.stack([np.linspace(0, 1, 9001), np.zeros(9001)], axis=1)
    dots = plot_energy_landscape(bowl, draws).lines[0].get_xydata()
    assert 1000 < len(dots) <= 2000
    assert dots[0, 0] == 0
    assert dots[-1, 0] == pytest.approx(1, abs=0.001)


def test_landscape_of_paths():
    chains = normal(8, 20, 2).cumsum(axis=1)
    ax = plot_energy_landscape(bowl, chains, paths=True)
    lines, starts, ends = ax.lines[::3], ax.lines[1::3], ax.lines[2::3]
    assert len(lines) == len({line.get_color() for line in lines}) == 6
    for chain, line, start, end in zip(chains, lines, starts, ends, strict=False):
        np.testing.assert_array_equal(line.get_xydata(), chain)
        np.testing.assert_array_equal(start.get_xydata()[0], chain[0])
        np.testing.assert_array_equal(end.get_xydata()[0], chain[-1])
        assert (start.get_marker(), end.get_marker()) == ("o", "s")


def test_landscape_with_walls_holes_and_stray_chains():
    def energy(points):
        walled = np.where(points[:, 0] > 0, bowl(points), np.inf)
        return np.where(points[:, 1] > 0, walled, np.nan)

    draws = normal(2, 20, 2)
    draws[1, 10:] = np.inf
    ax = plot_energy_landscape(energy, draws)
    assert np.isfinite(ax.get_xlim()).all()
    assert 0 <= contours(ax).zmin < 0.1
    ax.figure.savefig("/dev/null", format="png")


def test_landscape_without_draws():
    ax = plot_energy_landscape(bowl, np.zeros((0, 2)), limits=((-1, 1), (-1, 1)))
    assert len(ax.lines[0].get_xydata()) == 0


# --- energies ---


def test_histogram_compares_densities_on_the_same_bins():
    ax = plot_energy_histogram(normal(500), normal(3, 400, seed=1))
    edges = {tuple(patch.get_data().edges) for patch in ax.patches}
    assert len(edges) == 1
    assert areas(ax) == pytest.approx([1, 1], abs=0.01)
    assert legend(ax) == ["data", "model", "its chains"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("energy (nats)", "density (1/nat)")
    chains = [patch.get_data().values for patch in ax.patches[4:]]
    model = ax.patches[2].get_data().values
    assert len(chains) == 3
    np.testing.assert_allclose(np.mean(chains, axis=0), model)


@pytest.mark.parametrize("model", [normal(400), normal(1, 400), normal(100, 4)])
def test_histogram_without_lines_for_chains(model):
    assert legend(plot_energy_histogram(normal(500), model)) == ["data", "model"]


@pytest.mark.parametrize("stray", [1e30, np.inf, np.nan])
def test_histogram_names_the_share_off_the_axis(stray):
    model = normal(4, 100)
    model[2] = stray
    ax = plot_energy_histogram(normal(500) + 3, model)
    assert "model (25% off the axis)" in legend(ax)
    assert areas(ax) == pytest.approx([1, 0.75], abs=0.01)
    low, high = ax.get_xlim()
    assert -4 < low < 0
    assert 3 < high < 8


def test_histogram_of_one_number():
    ax = plot_energy_histogram(np.full(5, 2.0), np.full(5, 2.0))
    assert areas(ax) == pytest.approx([1, 1])


# --- log-weights ---


def weigh(num_samples=1000, batch=(), spread=0.7, reverse=True):
    """Result from weights whose log is normal, with log Z = 3."""
    shape = (num_samples, *batch)
    forward = 3 - spread**2 / 2 + spread * normal(*shape)
    backward = 3 + spread**2 / 2 + spread * normal(*shape, seed=1)
    return bracket(forward, backward if reverse else None)


def test_log_weights_with_their_estimate_and_bounds():
    result = weigh()
    ax = plot_log_weights(result)
    assert areas(ax) == pytest.approx([1, 1], abs=0.01)
    marks = {line.get_label(): line.get_xdata()[0] for line in ax.lines}
    assert marks == {name: getattr(result, name) for name in ("lower", "estimate", "upper")}
    assert legend(ax) == ["forward", "reverse", "lower", "estimate", "upper"]
    assert ax.get_xlabel() == "log-weight (nats)"
    size = round(float(result.effective_sample_size))
    assert f"effective sample size {size} of 1000" in ax.get_title()
    assert f"estimate {result.estimate:.3f}" in ax.get_title()


def test_log_weights_of_one_direction():
    ax = plot_log_weights(weigh(reverse=False))
    assert legend(ax) == ["forward", "lower", "estimate"]
    assert np.isfinite(ax.get_xlim()).all()
    assert "upper inf" in ax.get_title()


def test_bounds_far_from_the_weights_are_on_the_axis():
    far = replace(weigh(), upper=np.array(40.0))
    assert plot_log_weights(far).get_xlim()[1] >= 40


def test_sorted_weights():
    result = weigh(spread=3.0)
    ax = plot_log_weights(result, kind="sorted")
    forward, reverse, equal = (line.get_ydata() for line in ax.lines)
    for ranked in (forward, reverse):
        assert ranked.sum() == pytest.approx(1)
        assert (np.diff(ranked) <= 0).all()
    largest = np.exp(result.log_weights.max()) / np.exp(result.log_weights).sum()
    assert forward[0] == pytest.approx(largest)
    largest = np.exp(-result.reverse_log_weights.min()) / np.exp(-result.reverse_log_weights).sum()
    assert reverse[0] == pytest.approx(largest)
    assert equal[0] == 1 / 1000
    assert ax.get_xscale() == ax.get_yscale() == "log"


@pytest.mark.parametrize("kind", ["histogram", "sorted"])
def test_one_element_of_a_batch(kind):
    result = weigh(batch=(2, 3))
    ax = plot_log_weights(result, kind=kind, element=(1, 2))
    assert f"estimate {result.estimate[1, 2]:.3f}" in ax.get_title()


# --- all of them ---


def recorder():
    gaps = {"x": {"energy_gap": normal(3)}, "z": {"energy_gap": normal(3, seed=1)}, "y": {}}
    gaps["z"]["energy_gap"][1] = np.nan
    return SimpleNamespace(steps=[10, 20, 30], metrics=gaps)


def test_metric_over_training():
    ax = plot_metric(recorder())
    assert legend(ax) == ["x", "z"]
    for line, seed in zip(ax.lines, (0, 1), strict=True):  # Without a gap where z was not.
        points = np.stack([[10, 20, 30], normal(3, seed=seed)])[:, :: 1 + seed]
        np.testing.assert_array_equal(line.get_xydata().T, points)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "energy gap")
    with pytest.raises(ValueError, match=r"one of the metrics \['energy_gap'\], got 'clipped'"):
        plot_metric(recorder(), "clipped")


def test_metric_of_many_sites():
    sites = {f"x{index}": {"energy_gap": normal(3)} for index in range(9)}
    assert len(plot_metric(SimpleNamespace(steps=[1, 2, 3], metrics=sites)).lines) == 9


@pytest.mark.parametrize(
    "plot",
    [
        lambda ax: plot_energy_landscape(bowl, normal(10, 2), ax=ax),
        lambda ax: plot_energy_histogram(normal(10), normal(10), ax=ax),
        lambda ax: plot_log_weights(weigh(), ax=ax),
    ],
)
def test_axes_can_be_given(plot):
    figure, (_, ax) = plt.subplots(1, 2)
    assert plot(ax) is ax
    assert len(plt.get_fignums()) == 1
    figure.canvas.draw()


def test_errors():
    with pytest.raises(ValueError, match=r"\(draw, 2\) or \(chain, draw, 2\), got \(10, 3\)\. Of"):
        plot_energy_landscape(bowl, normal(10, 3))
    with pytest.raises(ValueError, match=r"\(chain, draw, 2\), got \(4, 10, 5, 2\)"):
        plot_energy_landscape(bowl, Chains(normal(4, 10, 5, 2), {}, state=None))
    with pytest.raises(ValueError, match=r"map \(100, 2\) to \(100,\), got \(100, 2\)"):
        plot_energy_landscape(lambda x: x, normal(10, 2), num_points=10)
    with pytest.raises(ValueError, match="finite energies or log-weights, got none"):
        plot_energy_landscape(lambda x: np.nan * bowl(x), normal(10, 2))
    with pytest.raises(ValueError, match="Expected finite draws or `limits`, got neither"):
        plot_energy_landscape(bowl, np.full((10, 2), np.nan))
    with pytest.raises(ValueError, match="draws of real numbers, got int64"):
        plot_energy_landscape(bowl, np.ones((10, 2), dtype=np.int64))
    with pytest.raises(ValueError, match="`energy_range` to be a positive number, got 0"):
        plot_energy_landscape(bowl, normal(10, 2), energy_range=0)
    with pytest.raises(ValueError, match="`num_points` to be an integer of at least 2, got 1"):
        plot_energy_landscape(bowl, normal(10, 2), num_points=1)
    with pytest.raises(ValueError, match=r"shape \(N,\) .* got \(10, 1\) and \(10,\)"):
        plot_energy_histogram(normal(10, 1), normal(10))
    with pytest.raises(ValueError, match="finite energies or log-weights, got none"):
        plot_energy_histogram(normal(10), np.full(10, np.nan))
    with pytest.raises(ValueError, match=r"`element` to be an index of \(2, 3\), got \(\)"):
        plot_log_weights(weigh(batch=(2, 3)))
    with pytest.raises(ValueError, match=r"an index of \(2, 3\), got \(5, 0\)"):
        plot_log_weights(weigh(batch=(2, 3)), element=(5, 0))
    with pytest.raises(ValueError, match=r"index of \(2, 3\), got \(1,\)"):
        plot_log_weights(weigh(batch=(2, 3)), element=1)
    assert plot_log_weights(weigh(batch=(3,)), element=1).get_title()
    for of_smc in (SimpleNamespace(log_weights=None), SimpleNamespace()):
        with pytest.raises(ValueError, match="a result of log_normalizer with log-weights, got"):
            plot_log_weights(of_smc)
    with pytest.raises(ValueError, match=r"`kind` to be one of \['histogram', 'sorted'\]"):
        plot_log_weights(weigh(), kind="bars")


# --- ranks ---


def test_ranks_of_each_number():
    ranks = np.random.default_rng(0).integers(100, size=(500, 2))
    calibration = Calibration(ranks, 99)
    ax = plot_ranks(calibration)
    band, flat, *lines = [patch.get_data() for patch in ax.patches]
    counts, expected = calibration.counts
    assert (np.asarray(band.baseline) < expected).all()
    assert (band.values > expected).all()
    np.testing.assert_allclose(flat.values, expected)
    np.testing.assert_array_equal([line.values for line in lines], counts.T)
    np.testing.assert_allclose(lines[0].edges[[0, -1]], [0, 100])
    assert legend(ax)[1] == f"number 0 (p = {calibration.p_values[0]:.2g})"
    named = plot_ranks(Calibration(ranks, 99, ("mu", "sigma")))
    assert legend(named)[2] == f"sigma (p = {calibration.p_values[1]:.2g})"


def test_band_of_ranks_is_that_of_all_simulations():
    """Expected counts add up to 119.99... here."""
    calibration = Calibration(np.random.default_rng(0).integers(26, size=(120, 1)), 25)
    _, expected = calibration.counts
    assert 119 < expected.sum() < 120
    band = plot_ranks(calibration).patches[0].get_data()
    np.testing.assert_array_equal(band.values, binom.ppf(0.995, 120, expected / 120))


# --- tables ---


def test_table_of_draws_and_data():
    columns = [Column.numeric("age"), Column.ordinal(3, "rating"), Column.cyclic(4)]
    rng = np.random.default_rng(0)
    data, draws = (
        np.stack([rng.normal(size=n), rng.integers(3, size=n), rng.integers(m, size=n)], -1)
        for n, m in ((60, 4), (40, 2))
    )
    axes = plot_table(columns, draws.reshape(4, 10, 3), data)
    # Frequencies of codes on the diagonal.
    heights = [patch.get_data().values for patch in axes[2, 2].patches]
    np.testing.assert_allclose(heights[0], np.bincount(data[:, 2].astype(int)) / 60)
    np.testing.assert_allclose(heights[1], np.bincount(draws[:, 2].astype(int), minlength=4) / 40)
    # Data above it, draws below, codes moved by less than half.
    for ax, table, pair in ((axes[0, 1], data, [1, 0]), (axes[1, 0], draws, [0, 1])):
        dots = ax.lines[0].get_xydata()
        code = pair.index(1)
        np.testing.assert_array_equal(dots[:, 1 - code], table[:, 0])
        np.testing.assert_array_equal(np.round(dots[:, code]), table[:, 1])
    shares = axes[2, 1].collections[0].get_array()
    counts = np.histogram2d(draws[:, 2], draws[:, 1], bins=(range(5), range(4)))[0]
    np.testing.assert_allclose(shares, counts / 40)
    assert [ax.get_xlabel() for ax in axes[-1]] == ["age", "rating", "column_2"]
    assert axes[2, 1].get_ylim() == axes[2, 2].get_xlim()


@pytest.mark.parametrize(
    ("columns", "draws", "message"),
    [
        (3, np.zeros((5, 2)), r"`draws` of shape \(..., 3\), .* got \(5, 2\)"),
        (9, np.zeros((5, 9)), r"at most 8 columns, got 9: plot some of them, plot_table\("),
    ],
)
def test_tables_that_cannot_be_plotted(columns, draws, message):
    with pytest.raises(ValueError, match=message):
        plot_table([Column.nominal(2)] * columns, draws, np.zeros((5, columns)))
