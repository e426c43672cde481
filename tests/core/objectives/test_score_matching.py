import array_api_strict
import numpy as np
import pytest
from helpers import tanh_energy

from pyro_ebm.core.objectives.score_matching import (
    check_method,
    denoising_score_matching,
    score_matching,
)

rng = np.random.default_rng(0)


@pytest.mark.parametrize("event_shape", [(), (3,), (1, 2, 2)])
def test_formulas(event_shape):
    batch_shape, event_ndim = (4, 2), len(event_shape)
    gradient, noise = rng.normal(size=(2, *batch_shape, *event_shape))
    directions, products = rng.normal(size=(2, 5, *batch_shape, *event_shape))
    events = tuple(range(2, 2 + event_ndim))
    half_square = 0.5 * (gradient**2).sum(events)
    curvature = np.mean([(directions[k] * products[k]).sum(events) for k in range(5)], 0)
    residual = 0.09 * (gradient - noise / 0.3) ** 2
    for asarray in (np.asarray, array_api_strict.asarray):
        arrays = [asarray(array) for array in (gradient, directions, products, noise)]
        matched = np.asarray(score_matching(*arrays[:3], event_ndim))
        np.testing.assert_allclose(matched, half_square - curvature, rtol=1e-13)
        denoised = np.asarray(denoising_score_matching(arrays[0], arrays[3], 0.09, event_ndim))
        np.testing.assert_allclose(denoised, 0.5 * residual.sum(events), rtol=1e-13)


def central_difference(function, parameters, name):
    def shifted(step):
        return function(parameters | {name: parameters[name] + step})[0].sum()

    gradient = np.empty_like(parameters[name])
    for index in np.ndindex(gradient.shape):
        step = np.zeros_like(gradient)
        step[index] = 1e-5
        gradient[index] = (shifted(step) - shifted(-step)) / 2e-5
    return gradient


@pytest.mark.parametrize("method", ["exact", "sliced", "denoising"])
def test_gradients_by_hand_are_right(method):
    x, noise = tanh_energy.data((2,)), rng.normal(size=(3, tanh_energy.NUM_DATA, 2))
    losses = {
        "exact": lambda parameters: tanh_energy.exact(x, parameters),
        "sliced": lambda parameters: tanh_energy.sliced(x, noise, parameters),
        "denoising": lambda parameters: tanh_energy.denoising(x, noise[0], parameters),
    }[method]
    parameters = tanh_energy.parameters(2)
    for name, gradient in losses(parameters)[1].items():
        expected = central_difference(losses, parameters, name)
        np.testing.assert_allclose(gradient, expected, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("exact ", 1, None), "`method` to be one of .* got 'exact '"),
        (("exact", 1, 0.1), "`variance` with method='denoising' only, got 0.1 with method='exact'"),
        (("sliced", 1, 0.1), "`variance` with method='denoising' only"),
        (("denoising", 1, None), "`variance` to be a positive number, got None"),
        (("denoising", 1, 0.0), "`variance` to be a positive number, got 0.0"),
        (("denoising", 2, 0.1), "`num_projections` with method='sliced' only, got 2"),
        (("exact", 2, None), "`num_projections` with method='sliced' only, got 2"),
        (("sliced", 0, None), "`num_projections` to be an integer of at least 1, got 0"),
        (("sliced", 1.5, None), "`num_projections` to be an integer of at least 1, got 1.5"),
    ],
)
def test_what_does_not_go_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_method(*arguments)
