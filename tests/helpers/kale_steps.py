"""One step of KALE with fixed weights and noise: its values and gradients, by hand.

    E(x) = theta . (x, x^2 / 2),   base N(0.3, 1.5^2), drawn from as 0.3 + 1.5 noise

Either host must agree with these numbers, and so with the other.
"""

import numpy as np

LOC, SCALE, LOG_NORMALIZER = 0.3, 1.5, 0.4
_rng = np.random.default_rng(3)
X, NOISE = _rng.normal(size=7), _rng.normal(size=5)
THETA = np.array([-0.4, 0.3])

FORMS = {
    "donsker_varadhan": {},
    "fenchel": {"form": "fenchel", "safe_gradient": False},
    "fenchel, safe": {"form": "fenchel"},
}
BASE_LOSSES = ("full", "likelihood", "generalized")

_draws = LOC + SCALE * NOISE


def features(x):
    return np.stack([x, x**2 / 2])


def log_density(x):
    return -0.5 * ((x - LOC) / SCALE) ** 2 - np.log(SCALE * np.sqrt(2 * np.pi))


def _density_gradient(x):
    """In the base's mean and standard deviation, shape ``(2, *x.shape)``."""
    z = (x - LOC) / SCALE
    return np.stack([z, z**2 - 1]) / SCALE


_weights = np.exp(-THETA @ features(_draws))
_partition = np.log(_weights.mean())
_weights = _weights / _weights.sum()
_ratio = np.exp(_partition - LOG_NORMALIZER)


def losses(form):
    """Of each of the seven values."""
    taken = LOG_NORMALIZER + _ratio - 1 if form.startswith("fenchel") else _partition
    return THETA @ features(X) + taken - log_density(X)


def gradients(form, base_loss, *, has_rsample):
    """Of the mean loss in theta, in the base's mean and scale, and in the log-normalizer."""
    factor = _ratio if form.startswith("fenchel") else 1.0
    by_energy = features(X).mean(1) - factor * features(_draws) @ _weights
    through_draws = -(THETA[0] + THETA[1] * _draws) * np.stack([np.ones_like(NOISE), NOISE])
    of_draws = through_draws if has_rsample else _density_gradient(_draws)
    of_partition, of_data = of_draws @ _weights, _density_gradient(X).mean(1)
    by_base = {
        "full": of_partition - of_data,
        "likelihood": -of_data,
        "generalized": -of_partition,
    }[base_loss]
    by_number = {
        "donsker_varadhan": 0.0,
        "fenchel": 1 - _ratio,
        "fenchel, safe": 1 / _ratio - 1,
    }[form]
    return by_energy, by_base, by_number


METRICS = {
    "energy_gap": (THETA @ features(_draws)).mean() - (THETA @ features(X)).mean(),
    "energy_scale": (THETA @ np.concatenate([features(X), features(_draws)], axis=1)).std(),
    "effective_sample_size": 1 / (_weights**2).sum(),
    "normalizer_lag": LOG_NORMALIZER - _partition,
}
