import math
from dataclasses import replace

import numpy as np
import pytest

from pyro_ebm.core.evidence.quadrature import (
    check_num_dims,
    integrate,
    is_fine,
    summarize_grid,
)
from pyro_ebm.core.samplers.boxes import first_box, limits_of


def on_grid(log_density, box, num_intervals):
    low, high = box
    num_dims = low.shape[-1]
    axes = num_dims * [np.arange(num_intervals + 1) / num_intervals]
    unit = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    unit = unit.reshape(unit.shape[:-1] + (1,) * (low.ndim - 1) + (num_dims,))
    return log_density(low + unit * (high - low))


def integral(log_density, box, *limits):
    """Result, and its warnings."""
    result, doubts = integrate("prior", lambda *grid: on_grid(log_density, *grid), box, *limits)
    return result, list(doubts)


def normal(num_dims, center=0.3, scale=0.5):
    """Unnormalised; log of its integral is ``num_dims * log(scale * sqrt(2 pi))``."""
    truth = num_dims * math.log(scale * math.sqrt(2 * math.pi))
    return lambda x: -0.5 * (((x - center) / scale) ** 2).sum(-1), truth


@pytest.mark.parametrize(
    ("low", "high"), [(-1, 1), (-400, 30), (0.3, 0.31), (7, 9)], ids=["fair", "wide", "tiny", "off"]
)
@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_any_first_box_leads_to_the_integral(low, high, num_dims):
    log_density, truth = normal(num_dims)
    box = np.full(num_dims, float(low)), np.full(num_dims, float(high))
    result, doubts = integral(log_density, box)
    assert result.lower < truth < result.upper
    assert result.upper - result.lower < 1e-3
    assert result.estimate == pytest.approx(truth, abs=1e-5)
    assert doubts == []


def test_batch_elements_have_boxes_of_their_own():
    scales = np.array([0.1, 10.0])
    box = np.full((2, 2), -3.0), np.full((2, 2), 3.0)
    result, _ = integral(lambda x: -0.5 * ((x / scales[:, None]) ** 2).sum(-1), box)
    np.testing.assert_allclose(result.estimate, np.log(2 * math.pi * scales**2), atol=1e-6)
    assert np.all(result.effective_sample_size == math.inf)
    assert result.log_weights is None


def test_a_coarse_grid_has_wide_bounds():
    # Spikes that the coarser grids miss or count too often.
    def log_density(x):
        return np.logaddexp(normal(1, 0.3, 0.02)[0](x), normal(1, 4.0, 0.02)[0](x))

    truth = normal(1, scale=0.02)[1] + math.log(2)
    box = np.array([0.0]), np.array([4.5])
    for num_intervals in (64, 128, 256, 1024):
        result = summarize_grid(on_grid(log_density, box, num_intervals), box)
        assert result.lower < truth < result.upper
    assert result.upper - result.lower < 1e-6


@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_the_rule_is_exact_for_multilinear_densities(num_dims):
    box = np.zeros(num_dims), np.full(num_dims, 2.0)
    values = on_grid(lambda x: np.log1p(x).sum(-1), box, 16)
    assert summarize_grid(values, box).estimate == pytest.approx(num_dims * math.log(4.0))


def test_mass_outside_counts_in_the_upper_bound_alone():
    log_density, _ = normal(1, 0.0, 1.0)
    box = np.array([-6.0]), np.array([6.0])
    result = summarize_grid(on_grid(log_density, box, 256), box)
    outside = math.log(math.erfc(6 / math.sqrt(2)))
    assert result.upper - result.estimate > math.exp(outside)
    small = np.array([-2.0]), np.array([2.0])
    assert summarize_grid(on_grid(log_density, small, 256), small).upper == math.inf


def test_heavy_tails_are_named():
    box = np.array([-2.0]), np.array([2.0])
    result, (doubt,) = integral(lambda x: -1e-30 * np.abs(x[..., 0]), box)
    assert result.upper == math.inf
    assert "No box encloses prior: on the faces of a box that is 4.4e+12 wide" in doubt
    assert "only 0.0 below its maximum" in doubt


def test_no_box_exceeds_its_limits():
    log_density, _ = normal(1)
    limits = np.array([-2.0]), np.array([0.3])
    result, (doubt,) = integral(log_density, (np.array([-9.0]), np.array([9.0])), limits)
    assert result.estimate == pytest.approx(math.log(0.25 * math.sqrt(2 * math.pi)), abs=1e-4)
    assert result.upper == math.inf
    assert "only 0.0 below its maximum" in doubt


def test_limits_are_where_a_bijection_loses_positions():
    position = np.zeros((1, 2, 2), np.float32)
    low, high = limits_of(lambda u: np.clip(u, -3.0, [5.0, np.inf]), position)
    np.testing.assert_array_equal(low, np.full((2, 2), -3.0))
    np.testing.assert_array_equal(high, np.array([[5.0, np.inf]] * 2))


def test_an_infinite_density_on_a_wider_box_is_named():
    with pytest.raises(ValueError, match="Expected prior to have a finite density.* inf on"):
        integral(lambda x: np.where(x[..., 0] > 3, np.inf, 0.0), (np.zeros(1), np.ones(1)))


def test_an_element_of_a_batch_without_density_is_named():
    box = np.zeros((2, 1)), np.ones((2, 1))
    with pytest.raises(ValueError, match="Expected prior to have a finite density.*-inf"):
        integral(lambda x: np.where([True, False], -x[..., 0], -np.inf), box)


def test_refinement_ends():
    log_density, _ = normal(2)
    box = np.full(2, -3.0), np.full(2, 3.5)
    values = on_grid(log_density, box, 64)
    fine = summarize_grid(values, box)
    assert is_fine(fine, values, box)
    wide = replace(fine, upper=fine.upper + 1)
    assert not is_fine(wide, values, box)
    assert is_fine(wide, np.broadcast_to(values[0, 0], (1025, 1025)), box)


def test_first_box_ignores_positions_without_density():
    position = np.array([[0.0], [1.0], [2.0], [100.0]])
    low, high = first_box(position, np.array([-1.0, 0.0, -2.0, -1e3]))
    assert (low[0], high[0]) == (-25.0, 27.0)


@pytest.mark.parametrize("at", [0.0, 7.0, -1e6])
def test_one_position_is_enough(at):
    low, high = first_box(np.array([[at]], np.float32), np.zeros(1))
    assert low < at < high
    log_density, truth = normal(1, at, 1.0)
    assert integral(log_density, (low, high))[0].estimate == pytest.approx(truth, abs=1e-2)


def test_errors():
    with pytest.raises(ValueError, match="1 to 3 dimensions .* for method 'grid', got 4"):
        check_num_dims(4)
    with pytest.raises(ValueError, match="Expected prior to have a finite density.*-inf"):
        integral(lambda x: np.full(x.shape[:-1], -math.inf), (np.zeros(1), np.ones(1)))
