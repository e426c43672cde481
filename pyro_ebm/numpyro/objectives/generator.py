"""A generator as the variational partner of an energy: its draws, and how likely it makes them."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from numpyro.distributions.transforms import Transform
from numpyro.distributions.util import sum_rightmost

from pyro_ebm.core.objectives.bidirectional_bounds import (
    check_encoder,
    check_partner,
    describe_small_latent,
)
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.distributions.flows import as_distribution
from pyro_ebm.numpyro.distributions.pushforward import Pushforward, as_pushforward
from pyro_ebm.numpyro.objectives.jacobian import log_det_jtj

__all__ = ["Compared", "Partner", "with_slope"]


@dataclass(frozen=True)
class Compared:
    r"""Draws of a generator beside an energy.

    Attributes:
        value: :math:`x = T(w)`, shape ``(N, *event)``, with gradients for the generator.
        log_inverse_density: :math:`-\log \eta(w) + \log v(w)`, shape ``(N,)``, with gradients for
            generator and encoder; its mean is the generator's entropy.
        potential: :math:`U(x)`, shape ``(N,)``, with gradients for energy and base alone.
        score: :math:`\nabla_x U(x)`, shape ``(N, *event)``, with gradients for energy and base.
        pull: From cotangents of the first two to one of the latent.
        push: From directions in the latent to directions of the value; constants.
    """

    value: Array
    log_inverse_density: Array
    potential: Array
    score: Array
    pull: Callable[..., Any]
    push: Callable[[Array], Array]

    @property
    def log_ratio(self) -> Array:
        r""":math:`f`, shape ``(N,)``; the mean of :math:`e^f` estimates Z. A constant."""
        return lax.stop_gradient(self.log_inverse_density - self.potential)

    @property
    def slope(self) -> Array:
        r""":math:`\nabla_w f`, shape ``(N, *latent)``; a constant."""
        return lax.stop_gradient(self.slope_at(lax.stop_gradient(self.score)))

    def slope_at(self, score: Array) -> Array:
        """The slope if the potential's were ``score``, differentiable in that."""
        (slope,) = self.pull((-score, jnp.ones_like(self.log_inverse_density)))
        return slope


@dataclass(frozen=True)
class Partner:
    r"""A map :math:`x = T(w)` of a latent variable :math:`w \sim \eta` with a volume.

    .. math::
        f(w) = -U(T(w)) - \log \eta(w) + \log v(w), \qquad
        \mathbb E[f] \le \log \mathbb E[e^f]

    :math:`v` is the generator's volume element, an estimate of it or, where noise is a part of
    the latent, that of the noise times the encoder's density of what was drawn.

    Attributes:
        source: The generator, without noise.
        stretch: From latent values ``(N, *latent)`` to what the generator makes of them, and to
            :math:`\log v` there, shape ``(N,)``.
    """

    source: Pushforward
    stretch: "Stretch"

    @classmethod
    def of(
        cls,
        rng_key: Array,
        distribution: EnergyBased,
        generator: Any,
        encoder: Any = None,
        *,
        entropy: str = "exact",
        num_iterations: int | None = None,
        num_probes: int = 1,
    ) -> "Partner":
        """The partner that a generator, and an encoder, are to an energy-based distribution.

        The key is for estimates of the volume; the same latent values always get the same ones.

        Raises:
            ValueError: If they do not fit it.

        Warns:
            UserWarning: If there are fewer latent than data dimensions, and no noise.
        """
        generator = as_distribution(generator)
        check_partner(entropy, distribution, generator, encoder)
        source = as_pushforward(generator)
        if entropy == "noise":
            return cls(source, _with_encoder(source, generator.noise_scale, encoder))
        sizes = prod(source.latent.event_shape), prod(source.event_shape)
        if sizes[0] < sizes[1]:
            warnings.warn(describe_small_latent(*sizes), stacklevel=2)
        if entropy == "exact" and isinstance(source.generator, Transform):
            return cls(source, _of_transform(source.generator, len(source.event_shape)))
        options = {"num_iterations": num_iterations, "num_probes": num_probes}
        return cls(source, _of_jacobian(rng_key, source, entropy, options))

    def draw(self, rng_key: Array, num_samples: int) -> Array:
        """Latent values, shape ``(num_samples, *latent)``, differentiable where that is so."""
        return self.source.latent.sample(rng_key, (num_samples,))

    def transport(self, latent: Array) -> tuple[Array, Array]:
        """Values of latent ones, and their negative log-density."""
        value, log_volume = self.stretch(latent)
        return value, log_volume - self.source.latent.log_prob(latent)

    def compare(self, distribution: EnergyBased, latent: Array) -> Compared:
        """Draws beside an energy, with one evaluation of it and one of its gradient.

        Args:
            distribution: Energy-based distribution with one base.
            latent: Shape ``(N, *latent)``.
        """
        (value, log_inverse_density), pull = jax.vjp(self.transport, latent)
        evaluate = distribution.unexpanded.potential
        potential, score = with_slope(evaluate, lax.stop_gradient(value))

        def push(direction: Array) -> Array:
            tangents = jax.jvp(self.source.generate, (latent,), (direction,))[1]
            return lax.stop_gradient(tangents)

        return Compared(value, log_inverse_density, potential, score, pull, push)


def with_slope(function: Callable[[Array], Array], value: Array) -> tuple[Array, Array]:
    """A function of one number for each value, and its gradient; differentiable in parameters."""
    result, pull = jax.vjp(function, value)
    return result, pull(jnp.ones_like(result))[0]


Stretch = Callable[[Array], tuple[Array, Array]]


def _with_encoder(
    source: Pushforward, noise_scale: Any, encoder: Callable[[Array], Any]
) -> Stretch:
    """Noise has the volume of its scale; the encoder tells which latent value made a value."""
    num_dims = prod(source.event_shape)

    def stretch(both: Array) -> tuple[Array, Array]:
        value = source.generate(both)
        posterior, (latent, _) = encoder(value), source.latent.split(both)
        check_encoder(posterior, latent)
        return value, num_dims * jnp.log(noise_scale) + posterior.log_prob(latent)

    return stretch


def _of_transform(transform: Transform, event_dim: int) -> Stretch:
    def stretch(latent: Array) -> tuple[Array, Array]:
        value = transform(latent)
        log_det = transform.log_abs_det_jacobian(latent, value)
        return value, sum_rightmost(log_det, event_dim - transform.codomain.event_dim)

    return stretch


def _of_jacobian(
    rng_key: Array, source: Pushforward, method: str, options: dict[str, Any]
) -> Stretch:
    latent_shape = source.latent.event_shape

    def flat(latent: Array) -> Array:
        return source.generate(latent.reshape((-1, *latent_shape))).reshape((len(latent), -1))

    def stretch(latent: Array) -> tuple[Array, Array]:
        rows = latent.reshape((len(latent), -1))
        return source.generate(latent), 0.5 * log_det_jtj(
            rng_key, flat, rows, method=method, **options
        )

    return stretch
