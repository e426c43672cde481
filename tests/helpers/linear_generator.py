"""Generalized energy-based model with all figures known: z ~ N(0, 1), x = W z, E(x) = A x^2 / 2."""

import math

W, A = 1.5, 0.8
LOG_NORMALIZER = -0.5 * math.log(1 + A * W**2)
# Of noise added to W z.
NOISE_SCALE = 0.5
NOISY_VARIANCE = W**2 + NOISE_SCALE**2


def stretch(z):
    return W * z


def square(x):
    return A * (x**2).sum(-1) / 2


def latent_variance(inverse_temperature=1.0):
    return 1 / (1 + inverse_temperature * A * W**2)


def assert_variance(draws, expected):
    """Within four standard errors of a normal's variance."""
    error = expected * math.sqrt(2 / len(draws))
    assert abs(draws.var(0).mean().item() - expected) < 4 * error
