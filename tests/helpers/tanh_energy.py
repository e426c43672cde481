"""Score matching of a small energy with fixed weights, its values and gradients by hand.

Either host must agree with these numbers, and so with the other.

    E(x) = v . tanh(W x + b),   base N(0, s^2),   U = E - log base
"""

import math

import numpy as np

SHAPES = [(1,), (2,), (16,), (1, 2, 2)]
SCALE, VARIANCE, NUM_PROJECTIONS, NUM_DATA = 1.5, 0.3, 3, 5


def parameters(num_coordinates):
    """By name; `w` has shape ``(4, D)``."""
    rng = np.random.default_rng(num_coordinates)
    w = rng.normal(size=(4, num_coordinates)) / math.sqrt(num_coordinates)
    return {"w": w, "b": rng.normal(size=4), "v": rng.normal(size=4), "scale": np.array(SCALE)}


def data(shape):
    return np.random.default_rng(9).normal(size=(NUM_DATA, *shape))


def exact(x, parameters):
    """Losses of the values, and gradients of their sum by the name of the parameter."""
    basis = np.eye(x[0].size)[:, None] * np.ones((len(x), 1))
    return _curved(x.reshape(len(x), -1), basis, **parameters)


def sliced(x, directions, parameters):
    """The same with directions of shape ``(K, N, *event)``."""
    flat = directions.reshape(*directions.shape[:2], -1)
    return _curved(x.reshape(len(x), -1), flat / math.sqrt(len(flat)), **parameters)


def denoising(x, noise, parameters):
    """The same with noise of the shape of the values."""
    x, noise = x.reshape(len(x), -1), noise.reshape(len(x), -1)
    noisy, root = x + math.sqrt(VARIANCE) * noise, math.sqrt(VARIANCE)
    residual = root * _gradient(noisy, **parameters) - noise
    return 0.5 * (residual**2).sum(-1), _pull_back(noisy, root * residual, **parameters)


def _slopes(x, w, b, v):
    """First three derivatives of each v tanh(.)."""
    s = np.tanh(x @ w.T + b)
    return v * (1 - s**2), -2 * v * s * (1 - s**2), -2 * v * (1 - s**2) * (1 - 3 * s**2)


def _gradient(x, w, b, v, scale):
    return _slopes(x, w, b, v)[0] @ w + x / scale**2


def _pull_back(x, cotangent, w, b, v, scale):
    """Gradients, in the parameters, of the sum of ``cotangent * _gradient(x)``."""
    first, second, _ = _slopes(x, w, b, v)
    along = cotangent @ w.T
    return {
        "v": (first / v * along).sum(0),
        "b": (second * along).sum(0),
        "w": (second * along).T @ x + first.T @ cotangent,
        "scale": -2 / scale**3 * (cotangent * x).sum(),
    }


def _curved(x, directions, w, b, v, scale):
    """Half the squared gradient less the sum of the Hessian along ``directions``."""
    _, second, third = _slopes(x, w, b, v)
    gradient = _gradient(x, w, b, v, scale)
    along = directions @ w.T
    squares = (along**2).sum(0)
    lengths = (directions**2).sum((0, 2))
    losses = 0.5 * (gradient**2).sum(-1) - (second * squares).sum(-1) - lengths / scale**2
    of_curvature = {
        "v": (second / v * squares).sum(0),
        "b": (third * squares).sum(0),
        "w": (third * squares).T @ x + 2 * np.einsum("nh,knh,knd->hd", second, along, directions),
        "scale": -2 / scale**3 * lengths.sum(),
    }
    of_slope = _pull_back(x, gradient, w, b, v, scale)
    return losses, {name: of_slope[name] - of_curvature[name] for name in of_slope}
