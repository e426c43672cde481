"""Implicit distributions: what a generator makes of a latent variable."""

from collections.abc import Callable
from math import prod
from typing import Any, ClassVar, cast

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Transform,
    TransformedDistribution,
    biject_to,
    transform_to,
)

from pyro_ebm.core.checks import check_nonnegative, check_scalar
from pyro_ebm.pyro.distributions.bound_energy import kept_buffers
from pyro_ebm.pyro.distributions.flows import latent_and_generator
from pyro_ebm.pyro.distributions.noise import WithNoise

__all__ = ["Pushforward", "as_pushforward", "latent_energy"]


class Pushforward(TorchDistribution):
    r"""The distribution of what a generator makes of a latent variable.

    .. math:: x = G(z) + \sigma \epsilon, \qquad z \sim \eta, \quad \epsilon \sim N(0, I)

    As the base of an :class:`~pyro_ebm.pyro.EnergyBased` distribution it makes a generalized
    energy-based model: it says where values may lie, the energy how likely they are there. It can
    be sampled, with gradients in the parameters of generator and latent. It has a density only
    where the generator is a ``torch.distributions.Transform``, which can be inverted, and there
    is no noise; otherwise :meth:`log_prob` raises, for values lie on a set of fewer dimensions, or
    have a density without a closed form. (For the latter,
    :func:`~pyro_ebm.pyro.log_marginal` of the model ``z ~ latent; x ~ Normal(G(z), sigma)``
    estimates it.)

    Args:
        latent: :math:`\eta`, any distribution.
        generator: :math:`G`, from ``(N, *latent.event_shape)`` to ``(N, *event_shape)``: an
            ``nn.Module``, a function, or a ``Transform``.
        noise_scale: :math:`\sigma \ge 0`, a *standard deviation*; a number, or a positive tensor of
            one element, such as a ``pyro.param``.
        event_shape: Shape of one value. Default: that of what the generator makes of zeros,
            which costs a call of it.
        validate_args: As in any Pyro distribution.

    Raises:
        TypeError: If ``latent`` is no distribution or ``generator`` cannot be called.
        ValueError: If the noise is negative, or the generator gives anything but one value for
            each latent one.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> circle = lambda angle: torch.stack([angle.cos(), angle.sin()], dim=-1)
        >>> Pushforward(dist.Normal(0.0, 1.0), circle).rsample((5,)).shape
        torch.Size([5, 2])

    References:
        | Generalized Energy Based Models (Arbel, Zhou and Gretton, 2021)
        | https://arxiv.org/abs/2003.05033
    """

    arg_constraints: ClassVar[Any] = {}
    has_rsample = True

    def __init__(
        self,
        latent: Any,
        generator: Callable[[Tensor], Tensor],
        *,
        noise_scale: float | Tensor = 0.0,
        event_shape: tuple[int, ...] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        _check_arguments(latent, generator)
        self.latent: Any = latent
        self.generator = generator
        self.noise_scale = _check_scale(noise_scale)
        if event_shape is None:
            event_shape = _event_shape(latent, generator)
        super().__init__(latent.batch_shape, torch.Size(event_shape), validate_args=validate_args)

    def __repr__(self) -> str:
        name = getattr(self.generator, "__name__", type(self.generator).__name__)
        return f"Pushforward({self.latent}, {name}, noise_scale={self.noise_scale})"

    @property
    def has_noise(self) -> bool:
        """Whether there is noise; a scale that is a tensor counts as positive."""
        return isinstance(self.noise_scale, Tensor) or self.noise_scale > 0

    @property
    def is_implicit(self) -> bool:
        """Whether there is no ``log_prob``."""
        return self.has_noise or not isinstance(self.generator, Transform)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """Constraint on the values; where there is no density, one that no chain can walk in."""
        if not self.is_implicit:
            return self._transformed.support
        return constraints.independent(_Image(), len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Pushforward":
        """The same distribution with a larger batch shape; the generator is shared."""
        new: Any = self._get_checked_instance(Pushforward, _instance)
        new.latent = self.latent.expand(torch.Size(batch_shape))
        new.generator, new.noise_scale = self.generator, self.noise_scale
        super(Pushforward, new).__init__(
            torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def generate(self, latent: Tensor) -> Tensor:
        """What the generator makes of latent values, without noise.

        Args:
            latent: Shape ``(*sample, *batch_shape, *latent.event_shape)``.

        Returns:
            Shape ``(*sample, *batch_shape, *event_shape)``.
        """
        latent_shape = self.latent.event_shape
        batch_shape = latent.shape[: latent.ndim - len(latent_shape)]
        values = self.generator(latent.reshape((prod(batch_shape), *latent_shape)))
        return values.reshape((*batch_shape, *self.event_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, with gradients in the generator, and in the latent where that has ``rsample``."""
        draw = self.latent.rsample if self.latent.has_rsample else self.latent.sample
        value = self.generate(draw(torch.Size(sample_shape)))
        return value + self.noise_scale * torch.randn_like(value) if self.has_noise else value

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, where the generator is a ``Transform`` and there is no noise.

        Raises:
            NotImplementedError: Elsewhere.
        """
        if not self.is_implicit:
            return self._transformed.log_prob(value)
        reason = (
            "with noise the density has no closed form"
            if self.has_noise
            else f"{type(self.generator).__name__} cannot be inverted"
        )
        raise NotImplementedError(
            f"Expected a Transform as the generator of a Pushforward to give a density, {reason}."
        )

    @property
    def noiseless(self) -> "Pushforward":
        """The same distribution with its noise, if there is any, as a part of the latent.

        Raises:
            ValueError: If there is noise, and the latent is not spread over all real numbers.
        """
        if not self.has_noise:
            return self
        joint = WithNoise(self.latent, self.event_shape)
        return Pushforward(joint, _Noisy(self, joint), event_shape=tuple(self.event_shape))

    @property
    def _transformed(self) -> TransformedDistribution:
        return TransformedDistribution(self.latent, cast(Transform, self.generator))


def latent_energy(energy: Callable[[Tensor], Tensor], source: Pushforward) -> nn.Module:
    """The energy of what a generator makes of latent values; its parameters are those of both."""
    return _LatentEnergy(energy, source)


def as_pushforward(base: Any) -> Pushforward:
    """A base as a generator of a latent variable without noise.

    Raises:
        ValueError: If it is nothing of the kind.
    """
    if isinstance(base, Pushforward):
        return base.noiseless
    source = Pushforward(*latent_and_generator(base))
    if source.event_shape != base.event_shape:
        raise ValueError(f"Expected one transform for all batch elements, got {base}.")
    return source


class _LatentEnergy(nn.Module):
    def __init__(self, energy: Callable[[Tensor], Tensor], source: Pushforward) -> None:
        super().__init__()
        self.energy = energy
        self.generator = source.generator
        self.event_shape = source.event_shape

    def forward(self, latent: Tensor) -> Tensor:
        values = self.generator(latent)
        return self.energy(values.reshape((len(latent), *self.event_shape)))


class _Noisy(nn.Module):
    """A generator of latent and noise together."""

    def __init__(self, source: Pushforward, joint: "WithNoise") -> None:
        super().__init__()
        self.generator = source.generator
        self.generate, self.split, self.scale = source.generate, joint.split, source.noise_scale

    def forward(self, both: Tensor) -> Tensor:
        latent, noise = self.split(both)
        return self.generate(latent) + self.scale * noise


class _Image(constraints.Constraint):
    """What a generator can make: no bijection to unconstrained space is known."""

    is_discrete = False
    event_dim = 0

    def __repr__(self) -> str:
        return "image of a generator (a base without density: chains walk on `.latent`)"

    def check(self, value: Tensor) -> Tensor:
        return value.isfinite()


@transform_to.register(_Image)
@biject_to.register(_Image)
def _no_bijection(constraint: _Image) -> Any:
    raise NotImplementedError(
        "Expected a density for chains to walk on, got a base without one: go to the latent space, "
        "EnergyBased(...).latent."
    )


def _event_shape(latent: Any, generator: Callable[[Tensor], Tensor]) -> torch.Size:
    if isinstance(generator, Transform):
        return generator.forward_shape(latent.event_shape)
    like = next(generator.parameters(), None) if isinstance(generator, nn.Module) else None
    options = {} if like is None else {"dtype": like.dtype, "device": like.device}
    zeros = torch.zeros((1, *latent.event_shape), **options)
    with torch.no_grad(), kept_buffers(generator):
        values = generator(zeros)
    if values.shape[:1] != (1,):
        raise ValueError(
            "Expected the generator to map (N, *latent.event_shape) to (N, *event_shape), got "
            f"shape {tuple(values.shape)} from {tuple(zeros.shape)}."
        )
    return values.shape[1:]


def _check_scale(noise_scale: Any) -> float | Tensor:
    if isinstance(noise_scale, Tensor):
        check_scalar("noise_scale", noise_scale.shape)
        return noise_scale
    return check_nonnegative("noise_scale", noise_scale)


def _check_arguments(latent: Any, generator: Any) -> None:
    if not isinstance(latent, Distribution):
        raise TypeError(f"Expected `latent` to be a distribution, got {type(latent).__name__}.")
    if not callable(generator):
        raise TypeError(f"Expected `generator` to be callable, got {type(generator).__name__}.")
