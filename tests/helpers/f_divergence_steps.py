"""One step of f-EBM with fixed weights and draws: its value and gradients, by hand.

    E(x) = theta . (1, x, x^2),   H(x) = omega . (1, x, x^2, sin x),   base N(0.3, 1.5^2)

Either host must agree with these numbers, and so with the other.
"""

import numpy as np

from helpers.divergence_games import LE_CAM

BASE_LOC, BASE_SCALE = 0.3, 1.5
_rng = np.random.default_rng(5)
X, DRAWS = _rng.normal(size=7), 0.3 + 1.4 * _rng.normal(size=5)
THETA = np.array([0.2, -0.4, 0.3])
OMEGA = np.array([-0.1, 0.3, -0.2, 0.5])
ENERGY_PENALTY, CRITIC_PENALTY = 0.3, 0.7

# a, a', b and b' of l, from the methods page; the last is not in the library.
TABLE = {
    "kl": (lambda x: 1 + x, np.ones_like, np.exp, np.exp),
    "reverse_kl": (
        lambda x: -np.exp(-x),
        lambda x: np.exp(-x),
        lambda x: x - 1,
        np.ones_like,
    ),
    "jensen_shannon": (
        lambda x: np.log(2) - np.log1p(np.exp(-x)),
        lambda x: 1 / (1 + np.exp(x)),
        lambda x: np.log1p(np.exp(x)) - np.log(2),
        lambda x: 1 / (1 + np.exp(-x)),
    ),
    "pearson": (
        lambda x: 2 * np.exp(x) - 2,
        lambda x: 2 * np.exp(x),
        lambda x: np.exp(2 * x) - 1,
        lambda x: 2 * np.exp(2 * x),
    ),
    "le_cam": (LE_CAM.a, LE_CAM.a_derivative, LE_CAM.b, LE_CAM.b_derivative),
}


def le_cam(u):
    return (u - 1) ** 2 / (u + 1)


def energy_features(x):
    return np.stack([np.ones_like(x), x, x**2])


def critic_features(x):
    return np.stack([np.ones_like(x), x, x**2, np.sin(x)])


def base_features(x):
    """Minus the derivatives of the base's log-density in its mean and standard deviation."""
    z = (x - BASE_LOC) / BASE_SCALE
    return np.stack([-z, 1 - z**2]) / BASE_SCALE


def log_ratios():
    """Of the values and of the draws."""
    return [THETA @ energy_features(x) + OMEGA @ critic_features(x) for x in (X, DRAWS)]


def values(divergence, *, bound=np.inf):
    """Losses of the seven values."""
    a, _, b, _ = TABLE[divergence]
    plus, minus = (np.clip(ratio, -bound, bound) for ratio in log_ratios())
    return a(plus) - b(minus).mean()


def gradients(divergence, *, bound=np.inf, covariance_only=False, penalties=False):
    """Gradients of the mean loss in theta, in omega, and in the base's mean and scale."""
    _, slope, b, b_slope = TABLE[divergence]
    energies = [THETA @ energy_features(x) for x in (X, DRAWS)]
    critics = [OMEGA @ critic_features(x) for x in (X, DRAWS)]
    plus, minus = (np.clip(ratio, -bound, bound) for ratio in log_ratios())
    lam, mu = (ENERGY_PENALTY, CRITIC_PENALTY) if penalties else (0.0, 0.0)

    def descent(features, penalty):
        at_x, at_draws = features(X), features(DRAWS)
        covariance = np.cov(at_draws, b(minus)[None])[:-1, -1]
        path = (slope(plus) * at_x).mean(1) - (b_slope(minus) * at_draws).mean(1)
        regular = sum(2 * (e * f).mean(1) for e, f in zip(energies, (at_x, at_draws), strict=True))
        return covariance + (0 if covariance_only else path) + penalty * regular

    def ascent(features):
        at_x, at_draws = features(X), features(DRAWS)
        path = (slope(plus) * at_x).mean(1) - (b_slope(minus) * at_draws).mean(1)
        regular = sum(2 * (h * f).mean(1) for h, f in zip(critics, (at_x, at_draws), strict=True))
        return -path + mu * regular

    return descent(energy_features, lam), ascent(critic_features), descent(base_features, 0.0)
