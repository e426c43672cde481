"""One energy-discrepancy loss with fixed weights and noise, its value and gradients by hand.

Either host must agree with these numbers, and so with the other.

    E(x) = v . tanh(W x + b),   base N(0, 2^2),   U = E - log base
"""

import numpy as np

BASE_SCALE, STABILIZATION, NUM_SAMPLES = 2.0, 0.7, 5
_rng = np.random.default_rng(7)
X = _rng.normal(size=(6, 3))
Y = X + 0.5 * _rng.normal(size=X.shape)
NEGATIVES = Y + 0.5 * _rng.normal(size=(NUM_SAMPLES, *X.shape))
W, B, V = _rng.normal(size=(4, 3)), _rng.normal(size=4), _rng.normal(size=4)


def _hidden(x):
    return np.tanh(x @ W.T + B)


def _potential(x):
    return _hidden(x) @ V + 0.5 * (x / BASE_SCALE) ** 2 @ np.ones(3)


def losses() -> np.ndarray:
    """Loss of each of the six points."""
    weights = np.exp(_potential(X) - _potential(NEGATIVES))
    return np.log((STABILIZATION + weights.sum(0)) / NUM_SAMPLES)


def metrics() -> dict[str, float]:
    """Gap and scale of the potentials."""
    values, copies = _potential(X), _potential(NEGATIVES)
    scale = np.concatenate([values, copies.ravel()]).std()
    return {"energy_gap": copies.mean() - values.mean(), "energy_scale": scale}


def gradients() -> dict[str, np.ndarray]:
    """Gradients of the mean loss: the weighted differences of the energy's own gradients."""
    weights = np.exp(_potential(X) - _potential(NEGATIVES))
    weights = weights / (STABILIZATION + weights.sum(0)) / len(X)

    def weighted(gradient_of):
        differences = gradient_of(X) - gradient_of(NEGATIVES)
        return np.tensordot(weights, differences, axes=((0, 1), (0, 1)))

    def slope(x):
        return V * (1 - _hidden(x) ** 2)

    return {
        "v": weighted(_hidden),
        "b": weighted(slope),
        "w": weighted(lambda x: slope(x)[..., :, None] * x[..., None, :]),
    }
