"""Pushforwards of a latent by a generator, as pytrees."""

import copy
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random, tree_util
from numpyro.distributions import (
    Distribution,
    Normal,
    TransformedDistribution,
    biject_to,
    constraints,
)
from numpyro.distributions.transforms import ComposeTransform, Transform

from pyro_ebm.core.distributions import checks
from pyro_ebm.core.distributions import pushforward as core
from pyro_ebm.numpyro.distributions.bound_energy import StaticPytree
from pyro_ebm.numpyro.distributions.flows import latent_and_generator
from pyro_ebm.numpyro.samplers.target import Target


class Pushforward(core.AbstractPushforward, Distribution):
    """A generator's output on a random latent, as a NumPyro distribution and a pytree.

    All else: :class:`~pyro_ebm.core.distributions.pushforward.AbstractPushforward`, the base
    class. The generator is what ``eqx_module``, ``nnx_module`` or ``flax_module`` return, a
    function, or a ``numpyro.distributions.transforms.Transform``.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> circle = lambda angle: jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        >>> Pushforward(dist.Normal(0.0, 1.0), circle).rsample(jax.random.key(0), (5,)).shape
        (5, 2)
    """

    arg_constraints = {}
    pytree_data_fields = ("_latent", "_generator", "_noise_scale")
    has_rsample = True

    def __init__(
        self,
        latent: Any,
        generator: Callable[[Array], Array],
        *,
        noise_scale: float | Array = 0.0,
        event_shape: tuple[int, ...] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        checks.check_distribution("latent", latent, Distribution)
        checks.check_callable("generator", generator)
        self._latent = StaticPytree.pack(latent)
        self._generator = StaticPytree.pack(generator)
        self._noise_scale = StaticPytree.pack(core.check_noise_scale(noise_scale, Array))
        if event_shape is None:
            event_shape = _event_shape(latent, generator)
        Distribution.__init__(
            self, latent.batch_shape, tuple(event_shape), validate_args=validate_args
        )

    def __repr__(self) -> str:
        name = getattr(self.generator, "__name__", type(self.generator).__name__)
        latent = type(self.latent).__name__
        return f"Pushforward({latent}, {name}, noise_scale={self.noise_scale})"

    @property
    def latent(self) -> Any:
        """Distribution of the latent values."""
        return self._latent.content

    @property
    def generator(self) -> Any:
        """Function from latent values to values."""
        return self._generator.content

    @property
    def noise_scale(self) -> Any:
        """Standard deviation of the noise; 0 for none."""
        return self._noise_scale.content

    @property
    def support(self) -> Any:
        if not self.is_implicit:
            return self._transformed.support
        return constraints.independent(_image, len(self.event_shape))

    @classmethod
    def infer_shapes(cls, *args: Any, **kwargs: Any) -> Any:
        """Raise: shapes are those of the generator's output, not of arguments."""
        raise NotImplementedError

    def expand(self, batch_shape: Sequence[int]) -> "Pushforward":
        new = copy.copy(self)
        new._latent = StaticPytree.pack(self.latent.expand(tuple(batch_shape)))
        new._batch_shape = tuple(batch_shape)
        return new

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        latent_key, noise_key = random.split(key)
        value = self.generate(self.latent.sample(latent_key, sample_shape))
        if not self.has_noise:
            return value
        return value + self.noise_scale * random.normal(noise_key, value.shape, value.dtype)

    def log_prob(self, value: Array) -> Array:
        return super().log_prob(value) if self.is_implicit else self._transformed.log_prob(value)

    @property
    def noiseless(self) -> "Pushforward":
        if not self.has_noise:
            return self
        joint = LatentWithNoise(self.latent, self.event_shape)
        generator = tree_util.Partial(_generate_noisy, self, joint)
        return Pushforward(joint, generator, event_shape=self.event_shape)

    @property
    def _is_invertible(self) -> bool:
        return isinstance(self.generator, Transform)

    @property
    def _transformed(self) -> TransformedDistribution:
        generator = self.generator
        # Of one part, to use a transform's own way to compute value and volume at once.
        parts = generator.parts if isinstance(generator, ComposeTransform) else [generator]
        return TransformedDistribution(self.latent, parts)


class LatentWithNoise(Distribution):
    """Joint distribution of a latent and standard normal noise, as a pytree."""

    arg_constraints = {}
    pytree_data_fields = ("_latent",)
    pytree_aux_fields = ("noise_shape", "size")
    support = constraints.real_vector

    def __init__(self, latent: Any, noise_shape: tuple[int, ...]) -> None:
        checks.check_real_latent(latent, is_real=Target.is_real(latent.support))
        self._latent = StaticPytree.pack(latent)
        self.noise_shape = noise_shape
        self.size = prod(latent.event_shape)
        shape = (self.size + prod(noise_shape),)
        super().__init__(latent.batch_shape, shape, validate_args=False)

    @property
    def latent(self) -> Any:
        return self._latent.content

    def expand(self, batch_shape: Sequence[int]) -> "LatentWithNoise":
        return LatentWithNoise(self.latent.expand(tuple(batch_shape)), self.noise_shape)

    def split(self, both: Array) -> tuple[Array, Array]:
        latent, noise = jnp.split(both, [self.size], axis=-1)
        shape = both.shape[:-1]
        return (
            latent.reshape((*shape, *self.latent.event_shape)),
            noise.reshape((*shape, *self.noise_shape)),
        )

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        latent_key, noise_key = random.split(key)
        shape = (*sample_shape, *self.batch_shape)
        latent = self.latent.sample(latent_key, sample_shape).reshape((*shape, self.size))
        noise = random.normal(noise_key, (*shape, prod(self.noise_shape)), latent.dtype)
        return jnp.concatenate([latent, noise], axis=-1)

    def log_prob(self, value: Array) -> Array:
        latent, _ = self.split(value)
        noise = Normal(validate_args=False).log_prob(value[..., self.size :])
        return self.latent.log_prob(latent) + noise.sum(-1)


def as_pushforward(base: Any) -> Pushforward:
    if isinstance(base, Pushforward):
        return base.noiseless
    source = Pushforward(*latent_and_generator(base))
    checks.check_one_transform(source, base)
    return source


def latent_energy(
    energy: Callable[..., Array], source: Pushforward, latent: Array, *context: Any
) -> Array:
    values = source.generator(latent)
    return energy(values.reshape((len(latent), *source.event_shape)), *context)


def _generate_noisy(source: Pushforward, joint: LatentWithNoise, both: Array) -> Array:
    latent, noise = joint.split(both)
    return source.generate(latent) + source.noise_scale * noise


class _Image(constraints.Constraint):
    """Support of a generator's output, without a bijection to unconstrained space."""

    def __repr__(self) -> str:
        return core.IMAGE

    def __call__(self, x: Any) -> Any:
        return jnp.isfinite(x)

    def feasible_like(self, prototype: Any) -> Any:
        return jnp.zeros_like(prototype)

    def tree_flatten(self) -> Any:
        return (), ((), {})

    def eq(self, other: object, static: bool = False) -> Any:  # noqa: FBT001, FBT002
        return isinstance(other, _Image)


_image = _Image()


@biject_to.register(_Image)
def _no_bijection(constraint: _Image) -> Any:
    raise NotImplementedError(core.NO_BIJECTION)


def _event_shape(latent: Any, generator: Any) -> tuple[int, ...]:
    if isinstance(generator, Transform):
        return generator.forward_shape(latent.event_shape)
    zeros = jax.ShapeDtypeStruct((1, *latent.event_shape), jnp.result_type(float))
    shape = jax.eval_shape(lambda z: generator(z), zeros).shape
    return checks.check_generated_shape(shape, zeros.shape)
