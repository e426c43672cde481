"""Implicit distributions: the output of a generator on a random latent."""

from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from pyro.distributions import Normal, TorchDistribution, constraints
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Transform,
    TransformedDistribution,
    biject_to,
    transform_to,
)

from pyro_ebm.core.distributions import checks
from pyro_ebm.core.distributions import pushforward as core
from pyro_ebm.core.samplers.truncation import infinite_outside, move_inside
from pyro_ebm.pyro.distributions.bound_energy import kept_buffers
from pyro_ebm.pyro.distributions.flows import latent_and_generator
from pyro_ebm.pyro.samplers.target import Target


class Pushforward(core.AbstractPushforward, TorchDistribution):
    """The distribution of a generator's output on a random latent.

    Definition and arguments: the base class
    :class:`~pyro_ebm.core.distributions.pushforward.AbstractPushforward`. Without ``event_shape``
    making one costs a call of the generator.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> circle = lambda angle: torch.stack([angle.cos(), angle.sin()], dim=-1)
        >>> Pushforward(dist.Normal(0.0, 1.0), circle).rsample((5,)).shape
        torch.Size([5, 2])
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
        checks.check_distribution("latent", latent, Distribution)
        checks.check_callable("generator", generator)
        self.latent: Any = latent
        self.generator = generator
        self.noise_scale = core.check_noise_scale(noise_scale, Tensor)
        if event_shape is None:
            event_shape = _event_shape(latent, generator)
        TorchDistribution.__init__(
            self, latent.batch_shape, torch.Size(event_shape), validate_args=validate_args
        )

    def __repr__(self) -> str:
        name = getattr(self.generator, "__name__", type(self.generator).__name__)
        return f"Pushforward({self.latent}, {name}, noise_scale={self.noise_scale})"

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        if not self.is_implicit:
            return self._transformed.support
        return constraints.independent(_Image(), len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Pushforward":
        new: Any = self._get_checked_instance(Pushforward, _instance)
        new.latent = self.latent.expand(torch.Size(batch_shape))
        new.generator, new.noise_scale = self.generator, self.noise_scale
        TorchDistribution.__init__(
            new, torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        value = self.generate(_draw(self.latent, sample_shape))
        return value + self.noise_scale * torch.randn_like(value) if self.has_noise else value

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) if self.is_implicit else self._transformed.log_prob(value)

    @property
    def noiseless(self) -> "Pushforward":
        if not self.has_noise:
            return self
        joint = LatentWithNoise(self.latent, self.event_shape)
        return Pushforward(joint, _Noisy(self, joint), event_shape=tuple(self.event_shape))

    @property
    def _is_invertible(self) -> bool:
        return isinstance(self.generator, Transform)

    @property
    def _transformed(self) -> TransformedDistribution:
        return TransformedDistribution(self.latent, cast(Transform, self.generator))


class LatentWithNoise(TorchDistribution):
    """A latent variable and standard normal noise, joined in one vector."""

    arg_constraints: ClassVar[Any] = {}
    has_rsample = True
    support: Any = constraints.real_vector

    def __init__(self, latent: Any, noise_shape: torch.Size) -> None:
        checks.check_real_latent(latent, is_real=Target.is_real(latent.support))
        self.latent = latent
        self.noise_shape = noise_shape
        self.sizes = latent.event_shape.numel(), noise_shape.numel()
        super().__init__(latent.batch_shape, torch.Size((sum(self.sizes),)), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "LatentWithNoise":
        return LatentWithNoise(self.latent.expand(torch.Size(batch_shape)), self.noise_shape)

    def split(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """Latent values and noise, each in its own shape."""
        latent, noise = both.split(self.sizes, dim=-1)
        shape = both.shape[:-1]
        return latent.reshape(shape + self.latent.event_shape), noise.reshape(
            shape + self.noise_shape
        )

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        latent = _draw(self.latent, sample_shape)
        shape = self._extended_shape(torch.Size(sample_shape))[:-1]
        latent = latent.reshape((*shape, self.sizes[0]))
        return torch.cat([latent, torch.randn_like(latent.new_empty((*shape, self.sizes[1])))], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        latent, _ = self.split(value)
        noise = value[..., self.sizes[0] :]
        density = Normal(torch.zeros_like(noise), 1.0, validate_args=False).log_prob(noise)
        return self.latent.log_prob(latent) + density.sum(-1)


def as_pushforward(base: Any) -> Pushforward:
    """Write a base as a generator on a latent variable, without noise."""
    if isinstance(base, Pushforward):
        return base.noiseless
    source = Pushforward(*latent_and_generator(base))
    checks.check_one_transform(source, base)
    return source


class LatentEnergy(nn.Module):
    """An energy of the values that a generator makes; it has the parameters of both."""

    def __init__(self, energy: Callable[..., Tensor], source: Pushforward) -> None:
        super().__init__()
        self.energy = energy
        self.generator = source.generator
        self.event_shape = source.event_shape

    def forward(self, latent: Tensor, *context: Any) -> Tensor:
        values = self.generator(latent)
        return self.energy(values.reshape((len(latent), *self.event_shape)), *context)


class _Noisy(nn.Module):
    """A generator of latent and noise together."""

    def __init__(self, source: Pushforward, joint: LatentWithNoise) -> None:
        super().__init__()
        self.generator = source.generator
        self.generate, self.split, self.scale = source.generate, joint.split, source.noise_scale

    def forward(self, both: Tensor) -> Tensor:
        latent, noise = self.split(both)
        return self.generate(latent) + self.scale * noise


class _Image(constraints.Constraint):
    """Support of a generator's output: no bijection to unconstrained space is known."""

    is_discrete = False
    event_dim = 0

    def __repr__(self) -> str:
        return core.IMAGE

    def check(self, value: Tensor) -> Tensor:
        return value.isfinite()


@transform_to.register(_Image)
@biject_to.register(_Image)
def _no_bijection(constraint: _Image) -> Any:
    raise NotImplementedError(core.NO_BIJECTION)


def _draw(latent: Any, sample_shape: Any) -> Tensor:
    draw = latent.rsample if latent.has_rsample else latent.sample
    return draw(torch.Size(sample_shape))


def _event_shape(latent: Any, generator: Callable[[Tensor], Tensor]) -> tuple[int, ...]:
    if isinstance(generator, Transform):
        return generator.forward_shape(latent.event_shape)
    like = next(generator.parameters(), None) if isinstance(generator, nn.Module) else None
    options = {} if like is None else {"dtype": like.dtype, "device": like.device}
    zeros = torch.zeros((1, *latent.event_shape), **options)
    with torch.no_grad(), kept_buffers(generator):
        shape = generator(zeros).shape
    return checks.check_generated_shape(shape, zeros.shape)


class Restricted(nn.Module):
    """Energy of a distribution, infinite outside of its support."""

    def __init__(self, distribution: Any) -> None:
        super().__init__()
        self.energy, self.distribution = distribution.energy, distribution

    def forward(self, value: Tensor, *context: Any) -> Tensor:
        inside, value = move_inside(self.distribution, value)
        return cast(Tensor, infinite_outside(inside, self.energy(value, *context)))
