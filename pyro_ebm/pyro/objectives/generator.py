"""A generator as the variational partner of an energy: its draws, and how likely it makes them."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import Transform

from pyro_ebm.core.objectives.bidirectional_bounds import (
    check_encoder,
    check_partner,
    describe_small_latent,
)
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.distributions.flows import as_distribution
from pyro_ebm.pyro.distributions.pushforward import Pushforward, as_pushforward
from pyro_ebm.pyro.objectives.jacobian import log_det_jtj

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

    value: Tensor
    log_inverse_density: Tensor
    potential: Tensor
    score: Tensor
    pull: Callable[..., Any]
    push: Callable[[Tensor], Tensor]

    @property
    def log_ratio(self) -> Tensor:
        r""":math:`f`, shape ``(N,)``; the mean of :math:`e^f` estimates Z. A constant."""
        return (self.log_inverse_density - self.potential).detach()

    @property
    def slope(self) -> Tensor:
        r""":math:`\nabla_w f`, shape ``(N, *latent)``; a constant."""
        return self.slope_at(self.score.detach()).detach()

    def slope_at(self, score: Tensor) -> Tensor:
        """The slope if the potential's were ``score``, differentiable in that."""
        (slope,) = self.pull((-score, torch.ones_like(self.log_inverse_density)))
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
        distribution: EnergyBased,
        generator: Any,
        encoder: Any = None,
        *,
        entropy: str = "exact",
        num_iterations: int | None = None,
        num_probes: int = 1,
    ) -> "Partner":
        """The partner that a generator, and an encoder, are to an energy-based distribution.

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
        sizes = source.latent.event_shape.numel(), source.event_shape.numel()
        if sizes[0] < sizes[1]:
            warnings.warn(describe_small_latent(*sizes), stacklevel=2)
        if entropy == "exact" and isinstance(source.generator, Transform):
            return cls(source, _of_transform(source.generator, len(source.event_shape)))
        options = {"num_iterations": num_iterations, "num_probes": num_probes}
        return cls(source, _of_jacobian(source, entropy, options))

    def draw(self, num_samples: int) -> Tensor:
        """Latent values, shape ``(num_samples, *latent)``, differentiable where that is so."""
        latent, shape = self.source.latent, torch.Size((num_samples,))
        return latent.rsample(shape) if latent.has_rsample else latent.sample(shape)

    def transport(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Values of latent ones, and their negative log-density."""
        value, log_volume = self.stretch(latent)
        return value, log_volume - self.source.latent.log_prob(latent)

    def compare(self, distribution: EnergyBased, latent: Tensor) -> Compared:
        """Draws beside an energy, with one evaluation of it and one of its gradient.

        Args:
            distribution: Energy-based distribution with one base.
            latent: Shape ``(N, *latent)``.
        """
        (value, log_inverse_density), pull = _vjp(self.transport, latent)
        potential, score = with_slope(distribution.unexpanded.potential, value.detach())
        push = partial(_push, self.source.generate, latent.detach())
        return Compared(value, log_inverse_density, potential, score, pull, push)


def with_slope(function: Callable[[Tensor], Tensor], value: Tensor) -> tuple[Tensor, Tensor]:
    """A function of one number for each value, and its gradient; differentiable in parameters."""
    # With torch.func, for a leaf of autograd would stay in the loss: one more to be trained.
    result, pull = _vjp(function, value)
    return result, pull(torch.ones_like(result))[0]


# Its annotation does not tell what comes back without ``has_aux``.
_vjp: Any = torch.func.vjp


@torch.no_grad()
def _push(function: Callable[[Tensor], Tensor], value: Tensor, direction: Tensor) -> Tensor:
    """Directional derivative: reverse over reverse, for torch lacks many forward rules."""
    result, pull = _vjp(function, value)
    _, push = _vjp(lambda cotangent: pull(cotangent)[0], torch.zeros_like(result))
    return push(direction)[0]


Stretch = Callable[[Tensor], tuple[Tensor, Tensor]]


def _with_encoder(
    source: Pushforward, noise_scale: Any, encoder: Callable[[Tensor], Any]
) -> Stretch:
    """Noise has the volume of its scale; the encoder tells which latent value made a value."""
    num_dims = source.event_shape.numel()

    def stretch(both: Tensor) -> tuple[Tensor, Tensor]:
        value = source.generate(both)
        posterior, (latent, noise) = encoder(value), source.latent.split(both)
        check_encoder(posterior, latent)
        log_scale = torch.as_tensor(noise_scale, dtype=noise.dtype).log()
        return value, num_dims * log_scale + posterior.log_prob(latent)

    return stretch


def _of_transform(transform: Transform, event_dim: int) -> Stretch:
    dims = event_dim - transform.codomain.event_dim

    def one_by_one(latent: Tensor) -> tuple[Tensor, Tensor]:
        value: Any = transform(latent)
        return value, transform.log_abs_det_jacobian(latent, value)

    # Transforms of zuko give both at the cost of one.
    both = getattr(transform, "call_and_ladj", one_by_one)

    def stretch(latent: Tensor) -> tuple[Tensor, Tensor]:
        value, log_det = both(latent)
        return value, cast(Tensor, sum_rightmost(log_det, dims))

    return stretch


def _of_jacobian(source: Pushforward, method: str, options: dict[str, Any]) -> Stretch:
    latent_shape = source.latent.event_shape

    def flat(latent: Tensor) -> Tensor:
        return source.generate(latent.reshape(len(latent), *latent_shape)).reshape(len(latent), -1)

    def stretch(latent: Tensor) -> tuple[Tensor, Tensor]:
        rows = latent.reshape(len(latent), -1)
        log_det = log_det_jtj(flat, rows, method=method, **options)
        return source.generate(latent), 0.5 * log_det

    return stretch
