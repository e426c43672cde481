import math

import numpy as np
import pytest
from helpers import tanh_energy

from pyro_ebm.core.objectives.score_matching import (
    coordinate_directions,
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
    matched = score_matching(gradient, directions, products, event_ndim)
    np.testing.assert_allclose(matched, half_square - curvature, rtol=1e-13)
    denoised = denoising_score_matching(gradient, noise, 0.09, event_ndim)
    np.testing.assert_allclose(denoised, 0.5 * residual.sum(events), rtol=1e-13)


@pytest.mark.parametrize("event_shape", [(), (3,), (1, 2, 2)])
def test_coordinate_directions_give_the_trace(event_shape):
    size = math.prod(event_shape)
    directions = coordinate_directions(np.eye(size), 2, event_shape)
    assert directions.shape == (size, 1, 1, *event_shape)
    hessian, rows = rng.normal(size=(size, size)), directions.reshape(size, size)
    trace = np.mean([row @ hessian @ row for row in rows])
    assert trace == pytest.approx(np.trace(hessian))


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
def test_gradients_of_the_helper(method):
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
