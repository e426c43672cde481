"""One step of bidirectional bounds in the plane with given weights and noise, by hand.

    U(x) = theta . (x, x^2 / 2),   x = A z + b, or x = A z + b + sigma eps,   z, eps ~ N(0, I)

Losses are written down as plain functions, one for each player with the others held constant, and
differentiated by complex steps. Either host must agree with them, and so with the other.
"""

import numpy as np

_rng = np.random.default_rng(5)
X, NOISE = _rng.normal(size=(7, 2)), _rng.normal(size=(5, 4))
LATENT, EPSILON = NOISE[:, :2], NOISE[:, 2:]
THETA = np.array([-0.4, 0.7, 0.9, 1.3])  # slopes, then curvatures
MATRIX, SHIFT = np.array([[1.1, 0.3], [-0.2, 0.6]]), np.array([0.2, -0.5])
NOISE_SCALE, ENCODER, ENCODER_SCALE = 0.4, np.array([[0.7, -0.2], [0.1, 0.9]]), 0.5
WEIGHT, ENTROPY_WEIGHT = 0.7, 0.8
ENTROPIES = ("exact", "smallest_singular_value", "noise")

GENERATOR = {"matrix": MATRIX, "shift": SHIFT}
FAMILY = GENERATOR | {
    "noise_scale": np.array(NOISE_SCALE),
    "encoder": ENCODER,
    "encoder_scale": np.array(ENCODER_SCALE),
}


def players(entropy):
    return FAMILY if entropy == "noise" else GENERATOR


def potential(theta, x):
    return x @ theta[:2] + x**2 @ theta[2:] / 2


def gradient(theta, x):
    return theta[:2] + theta[2:] * x


def _log_normal(x, scale=1.0):
    return (-0.5 * (x / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)).sum(-1)


def value_and_neg_log_density(entropy, latent, family):
    """Values of the generator at latent ones, and -log of its density (h)."""
    z, epsilon = latent[:, :2], latent[:, 2:]
    x = z @ family["matrix"].T + family["shift"]
    if entropy == "noise":
        x = x + family["noise_scale"] * epsilon
        posterior = _log_normal(z - x @ family["encoder"].T, family["encoder_scale"])
        log_volume = 2 * np.log(family["noise_scale"]) + posterior
        return x, log_volume - _log_normal(z) - _log_normal(epsilon)
    square = family["matrix"].T @ family["matrix"]
    trace, det = square[0, 0] + square[1, 1], np.linalg.det(square)
    if entropy == "exact":
        return x, 0.5 * np.log(det) - _log_normal(z)
    smallest = (trace - np.sqrt(trace**2 - 4 * det)) / 2
    return x, np.log(smallest) - _log_normal(z)


def latent_of(entropy):
    return NOISE if entropy == "noise" else LATENT


def slope(entropy, theta):
    """Of the log-ratio f in each latent value, generator and encoder as they are."""

    def log_ratio(latent):
        x, h = value_and_neg_log_density(entropy, latent, FAMILY)
        return h - potential(theta, x)

    latent = latent_of(entropy)
    columns = np.eye(latent.shape[1])
    return np.stack([_complex_step(log_ratio, latent, column) for column in columns], axis=-1)


def energy_losses(entropy, penalty, theta, threshold=0.0):
    """Of each of the seven values, as the energy sees them."""
    x, h = value_and_neg_log_density(entropy, latent_of(entropy), FAMILY)
    bound = (h - potential(theta, x)).mean()
    if penalty == "data":
        square = (gradient(theta, X) ** 2).sum(-1)
        return potential(theta, X) + bound + WEIGHT * square
    beyond = WEIGHT * _mean_half_square(entropy, theta) - threshold
    return potential(theta, X) + bound + (beyond if beyond.real > 0 else 0.0)


def _mean_half_square(entropy, theta):
    """R as a function of theta: slopes are linear in the gradient of U, whatever the entropy."""
    latent, jacobian = latent_of(entropy), MATRIX
    if entropy == "noise":
        jacobian = np.concatenate([MATRIX, NOISE_SCALE * np.eye(2)], axis=1)
    x, _ = value_and_neg_log_density(entropy, latent, FAMILY)
    change = -(gradient(theta, x) - gradient(THETA, x)) @ jacobian
    return 0.5 * ((slope(entropy, THETA) + change) ** 2).sum(-1).mean()


def energy_gradient(entropy, penalty, threshold=0.0):
    """Of the mean loss in theta."""

    def loss(theta):
        return energy_losses(entropy, penalty, theta, threshold).mean()

    return np.array([_complex_step(loss, THETA, column) for column in np.eye(4)])


def generator_gradients(entropy):
    """Of the mean potential of draws minus the weighted entropy, by name of the parameter."""

    def loss(family):
        x, h = value_and_neg_log_density(entropy, latent_of(entropy), family)
        return (potential(THETA, x) - ENTROPY_WEIGHT * h).mean()

    return {
        name: np.array(
            [
                _complex_step(lambda v, n=name: loss(FAMILY | {n: v}), value, direction)
                for direction in np.eye(value.size).reshape((-1, *value.shape))
            ]
        ).reshape(value.shape)
        for name, value in players(entropy).items()
    }


def _complex_step(function, value, direction):
    return np.imag(function(value + 1e-30j * direction)) / 1e-30
