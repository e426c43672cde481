"""Implicit distributions: what a generator makes of a latent variable."""

import copy
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random, tree_util
from numpyro.distributions import (
    Distribution,
    TransformedDistribution,
    biject_to,
    constraints,
)
from numpyro.distributions.transforms import ComposeTransform, Transform

from pyro_ebm.core.checks import check_nonnegative, check_scalar
from pyro_ebm.numpyro.distributions.bound_energy import Packed
from pyro_ebm.numpyro.distributions.flows import latent_and_generator
from pyro_ebm.numpyro.distributions.noise import WithNoise

__all__ = ["Pushforward", "as_pushforward", "latent_energy"]


class Pushforward(Distribution):
    r"""The distribution of what a generator makes of a latent variable.

    .. math:: x = G(z) + \sigma \epsilon, \qquad z \sim \eta, \quad \epsilon \sim N(0, I)

    As the base of an :class:`~pyro_ebm.numpyro.EnergyBased` distribution it makes a generalized
    energy-based model: it says where values may lie, the energy how likely they are there. It can
    be sampled, with gradients in the parameters of generator and latent. It has a density only
    where the generator is a ``numpyro.distributions.transforms.Transform``, which can be inverted,
    and there is no noise; otherwise :meth:`log_prob` raises, for values lie on a set of fewer
    dimensions, or have a density without a closed form. (For the latter,
    :func:`~pyro_ebm.numpyro.log_marginal` of the model ``z ~ latent; x ~ Normal(G(z), sigma)``
    estimates it.)

    Args:
        latent: :math:`\eta`, any distribution.
        generator: :math:`G`, from ``(N, *latent.event_shape)`` to ``(N, *event_shape)``: what
            ``eqx_module``, ``nnx_module`` or ``flax_module`` return, a function, or a
            ``Transform``.
        noise_scale: :math:`\sigma \ge 0`, a *standard deviation*; a number, or a positive array of
            one element, such as a ``numpyro.param``.
        event_shape: Shape of one value. Default: that of what the generator makes of zeros.
        validate_args: As in any NumPyro distribution.

    Raises:
        TypeError: If ``latent`` is no distribution or ``generator`` cannot be called.
        ValueError: If the noise is negative, or the generator gives anything but one value for
            each latent one.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> circle = lambda angle: jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        >>> Pushforward(dist.Normal(0.0, 1.0), circle).rsample(jax.random.key(0), (5,)).shape
        (5, 2)

    References:
        | Generalized Energy Based Models (Arbel, Zhou and Gretton, 2021)
        | https://arxiv.org/abs/2003.05033
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
        _check_arguments(latent, generator)
        self._latent = Packed.pack(latent)
        self._generator = Packed.pack(generator)
        self._noise_scale = Packed.pack(_check_scale(noise_scale))
        if event_shape is None:
            event_shape = _event_shape(latent, generator)
        super().__init__(latent.batch_shape, tuple(event_shape), validate_args=validate_args)

    def __repr__(self) -> str:
        name = getattr(self.generator, "__name__", type(self.generator).__name__)
        latent = type(self.latent).__name__
        return f"Pushforward({latent}, {name}, noise_scale={self.noise_scale})"

    @property
    def latent(self) -> Any:
        """The distribution of the latent variable."""
        return self._latent.content

    @property
    def generator(self) -> Any:
        """What makes values of latent ones."""
        return self._generator.content

    @property
    def noise_scale(self) -> Any:
        """Standard deviation of the noise."""
        return self._noise_scale.content

    @property
    def has_noise(self) -> bool:
        """Whether there is noise; a scale that is an array counts as positive."""
        return not isinstance(self.noise_scale, float) or self.noise_scale > 0

    @property
    def is_implicit(self) -> bool:
        """Whether there is no ``log_prob``."""
        return self.has_noise or not isinstance(self.generator, Transform)

    @property
    def support(self) -> Any:
        """Constraint on the values; where there is no density, one that no chain can walk in."""
        if not self.is_implicit:
            return self._transformed.support
        return constraints.independent(_image, len(self.event_shape))

    @classmethod
    def infer_shapes(cls, *args: Any, **kwargs: Any) -> Any:
        """Not possible: shapes are those of what the generator makes, not of arguments."""
        raise NotImplementedError

    def expand(self, batch_shape: Sequence[int]) -> "Pushforward":
        """The same distribution with a larger batch shape; the generator is shared."""
        new = copy.copy(self)
        new._latent = Packed.pack(self.latent.expand(tuple(batch_shape)))
        new._batch_shape = tuple(batch_shape)
        return new

    def generate(self, latent: Array) -> Array:
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

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws, with gradients in the generator, and in the latent where that has ``rsample``."""
        latent_key, noise_key = random.split(key)
        value = self.generate(self.latent.sample(latent_key, sample_shape))
        if not self.has_noise:
            return value
        return value + self.noise_scale * random.normal(noise_key, value.shape, value.dtype)

    def log_prob(self, value: Array) -> Array:
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
        return Pushforward(
            joint, tree_util.Partial(_generate_noisy, self, joint), event_shape=self.event_shape
        )

    @property
    def _transformed(self) -> TransformedDistribution:
        generator = self.generator
        # Of one part, so that a transform's own way to give value and volume at once is used.
        parts = generator.parts if isinstance(generator, ComposeTransform) else [generator]
        return TransformedDistribution(self.latent, parts)


def latent_energy(
    energy: Callable[[Array], Array], source: Pushforward
) -> Callable[[Array], Array]:
    """The energy of what a generator makes of latent values; its parameters are those of both."""
    return tree_util.Partial(_energy_of_generated, energy, source)


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


def _energy_of_generated(energy: Any, source: Pushforward, latent: Array) -> Array:
    values = source.generator(latent)
    return energy(values.reshape((len(latent), *source.event_shape)))


def _generate_noisy(source: Pushforward, joint: "WithNoise", both: Array) -> Array:
    latent, noise = joint.split(both)
    return source.generate(latent) + source.noise_scale * noise


class _Image(constraints.Constraint):
    """What a generator can make: no bijection to unconstrained space is known."""

    def __repr__(self) -> str:
        return "image of a generator (a base without density: chains walk on `.latent`)"

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
    raise NotImplementedError(
        "Expected a density for chains to walk on, got a base without one: go to the latent space, "
        "EnergyBased(...).latent."
    )


def _event_shape(latent: Any, generator: Any) -> tuple[int, ...]:
    if isinstance(generator, Transform):
        return generator.forward_shape(latent.event_shape)
    zeros = jax.ShapeDtypeStruct((1, *latent.event_shape), jnp.result_type(float))
    shape = jax.eval_shape(lambda z: generator(z), zeros).shape
    if shape[:1] != (1,):
        raise ValueError(
            "Expected the generator to map (N, *latent.event_shape) to (N, *event_shape), got "
            f"shape {shape} from {zeros.shape}."
        )
    return shape[1:]


def _check_scale(noise_scale: Any) -> float | Array:
    if isinstance(noise_scale, Array):
        check_scalar("noise_scale", noise_scale.shape)
        return noise_scale
    return check_nonnegative("noise_scale", noise_scale)


def _check_arguments(latent: Any, generator: Any) -> None:
    if not isinstance(latent, Distribution):
        raise TypeError(f"Expected `latent` to be a distribution, got {type(latent).__name__}.")
    if not callable(generator):
        raise TypeError(f"Expected `generator` to be callable, got {type(generator).__name__}.")
