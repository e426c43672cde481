"""Games of f-EBM on finitely many nodes, where every expectation is a sum."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pyro_ebm.core.objectives.divergences import (
    DIVERGENCES,
    Divergence,
    alpha_divergence,
)
from pyro_ebm.core.objectives.f_divergence import f_divergence

# A divergence that the library lacks, the discrimination of Le Cam, in closed form.
LE_CAM = Divergence(
    f=lambda u: (u - 1) ** 2 / (u + 1),
    a=lambda ell: (np.exp(ell) - 1) * (np.exp(ell) + 3) / (np.exp(ell) + 1) ** 2,
    b=lambda ell: (np.exp(ell) - 1) * (3 * np.exp(ell) + 1) / (np.exp(ell) + 1) ** 2,
    a_derivative=lambda ell: 8 * np.exp(ell) / (np.exp(ell) + 1) ** 3,
    b_derivative=lambda ell: 8 * np.exp(2 * ell) / (np.exp(ell) + 1) ** 3,
)
ALPHAS = [-1, -0.5, 0, 0.5, 0.9, 1, 2]
BY_NAME = {
    **DIVERGENCES,
    **{f"alpha={alpha}": alpha_divergence(alpha).closed_form for alpha in ALPHAS},
    "le_cam": LE_CAM,
}


@dataclass(frozen=True)
class Game:
    """Data against a model on N nodes of a quadrature rule.

    Energy and critic map parameters, also complex ones, to their values on the nodes, (N,).
    """

    log_data: np.ndarray
    log_base: np.ndarray
    energy: Callable
    critic: Callable

    @property
    def data(self):
        return normalized(self.log_data)

    def model(self, theta):
        return normalized(self.log_base - self.energy(theta))

    def value(self, divergence, theta, omega):
        log_ratio = self.energy(theta) + self.critic(omega)
        a, b = divergence.a(log_ratio), divergence.b(log_ratio)
        return self.data @ a - self.model(theta) @ b

    def divergence(self, divergence, theta):
        model = self.model(theta)
        return model @ divergence.f(self.data / model)

    def best_critic(self, theta):
        """Values on the nodes of the critic that finds the divergence."""
        return np.log(self.data / self.model(theta)) - self.energy(theta)

    def gradients(self, divergence, theta, omega, gradient="full", *, num_samples=2):
        """Expected gradients of the loss in theta and omega, over every tuple of draws.

        Computed from the weights that objectives use.
        """
        log_ratio, model = self.energy(theta) + self.critic(omega), self.model(theta)
        positive = log_ratio.reshape(-1, *(num_samples - 1) * [1])
        negative = np.stack(np.meshgrid(*num_samples * [log_ratio], indexing="ij"))
        weights = f_divergence(divergence, positive, negative, gradient=gradient)

        def expected(function, parameters, of_data, of_model):
            # The draws are exchangeable: what holds for the first holds for each.
            of_first = of_model[0]
            for _ in range(num_samples - 1):
                of_first = of_first @ model
            return jacobian(function, parameters) @ (self.data * of_data.ravel() + model * of_first)

        return (
            expected(self.energy, theta, weights.positive_energy, weights.negative_energy),
            expected(self.critic, omega, -weights.positive_critic, weights.negative_critic),
        )


def normalized(log_weights):
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum()


def jacobian(function, parameters, step=1e-30):
    """Derivatives by a complex step, exact to rounding: shape ``(*parameters, *values)``."""
    directions = 1j * step * np.eye(len(parameters))
    return np.stack([function(parameters + direction).imag for direction in directions]) / step


def differences(function, parameters, step=2e-4):
    """Derivatives by central differences of fourth order: shape ``(*parameters, *values)``."""

    def difference(direction):
        return function(parameters + direction) - function(parameters - direction)

    directions = step * np.eye(len(parameters))
    return np.stack([8 * difference(d) - difference(2 * d) for d in directions]) / (12 * step)


def normal_energy(x):
    """Energy of N(mean, scale^2) in (mean, scale)."""
    return lambda theta: 0.5 * ((x - theta[0]) / theta[1]) ** 2


def log_mixture(x):
    """Data of the toy: 0.33 N(-1, 0.25^2) + 0.67 N(2, 2), unnormalized."""
    narrow = np.log(0.33 / 0.25) - 0.5 * ((x + 1) / 0.25) ** 2
    wide = np.log(0.67 / np.sqrt(2)) - 0.5 * (x - 2) ** 2 / 2
    return np.logaddexp(narrow, wide)


# Best normal for this data: divergence, its mean and scale, and D_f there (methods page, O7).
TOY_OPTIMA = [
    ("kl", 1.0100, 1.8304, 0.28809),
    ("reverse_kl", 1.5841, 1.6294, 0.25067),
    ("jensen_shannon", 1.3125, 1.7525, 0.12983),
    ("squared_hellinger", 1.3175, 1.7316, 0.13658),
    ("alpha=-0.5", 1.7449, 1.5587, 0.22474),
    ("alpha=-1", 1.8286, 1.5171, 0.20360),
    ("alpha=0.9", 1.0694, 1.8132, 0.28535),
    ("neyman", 1.8286, 1.5171, 0.40719),
    ("pearson", 0.5663, 1.9268, 0.66162),
    ("jeffreys", 1.3249, 1.7023, 0.57910),
    ("alpha=0.5", 1.3175, 1.7316, 0.27315),
    ("alpha=2", 0.5663, 1.9268, 0.33081),
]
