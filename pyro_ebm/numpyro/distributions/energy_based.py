"""Energy-based distributions for NumPyro's sample sites."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.batch_util import promote_batch_shape, vmap_over
from numpyro.util import not_jax_tracer

from pyro_ebm.core.checks import check_ingredients, check_positive, is_implicit
from pyro_ebm.numpyro.distributions.bound_energy import (
    _as_pytree,
    _ScannedEnergy,
    evaluate_energy,
    score_only,
)
from pyro_ebm.numpyro.distributions.flows import as_distribution
from pyro_ebm.numpyro.distributions.pushforward import Pushforward, as_pushforward, latent_energy
from pyro_ebm.numpyro.distributions.training import warn_if_untrained
from pyro_ebm.numpyro.samplers import Langevin, Sampler
from pyro_ebm.numpyro.samplers.run import draw
from pyro_ebm.numpyro.samplers.target import (
    only_starting_values,
    to_unconstrained,
    unconstrained_potential,
)

__all__ = ["EnergyBased"]


class EnergyBased(Distribution):
    r"""A distribution given by an energy, known up to its normalizing constant.

    .. math:: p(x) = \frac1Z e^{-\beta E(x)} p_0(x), \qquad Z = \int e^{-\beta E(x)} p_0(x)\, dx

    :meth:`log_prob` is a *score*: it leaves out :math:`\log Z` and is differentiable in the value
    alone, the parameters of energy and base being constants in it. So every stock ELBO, guide
    and MCMC kernel is right for everything but these parameters, which are trained by an
    objective: see :class:`~pyro_ebm.numpyro.EnergyELBO`. Objectives use :meth:`potential`.

    On a :class:`Pushforward` base, chains walk in its latent space (:attr:`latent`). Where that
    has no density, :meth:`log_prob` is relative to the base: minus the energy.

    Args:
        energy: :math:`E`, any callable from ``(N, *event_shape)`` to ``(N,)``: what
            ``eqx_module``, ``nnx_module`` or ``flax_module`` return, or a function. Low where
            values are likely. Rows must not influence each other (no batch norm). Equinox
            modules and ``jax.tree_util.Partial`` of top-level functions are compiled once; a
            new closure, also that of ``nnx_module`` and ``flax_module``, once each time.
        base: :math:`p_0`, a distribution with ``log_prob``, and with ``sample`` where draws or
            the log-normalizer are wanted; a :class:`Pushforward`, which may lack the former; a
            flow of flowjax. Default: the flat measure.
        event_shape: Shape of one value; needed without a base only.
        support: Constraint on the values. Default: that of the base, else all real numbers.
        sampler: Sampler that :meth:`sample` runs for ``sampler.num_steps`` steps from the base.
            Default: short-run Langevin, an approximation.
        inverse_temperature: :math:`\beta`, a number that multiplies the energy. Above 1 it
            sharpens what was trained at 1. (The images of Arbel et al. were drawn at 100, and
            hardly differ from the base's at 1.)
        log_normalizer: Function without arguments that gives :math:`\log Z` where it is known,
            a number or an array that broadcasts with ``batch_shape``. Then ``log_prob`` is the
            exact density, with gradients in everything.
        validate_args: As in any NumPyro distribution.

    Raises:
        TypeError: If the energy is not callable or the base is not a distribution.
        ValueError: If shapes are missing or disagree.

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> base = dist.Normal(jnp.zeros(2), 1.0).to_event(1)
        >>> prior = EnergyBased(lambda x: (x**4).sum(-1), base)
        >>> prior.log_prob(jnp.ones((5, 2))).shape
        (5,)
    """

    arg_constraints = {}
    pytree_data_fields = ("energy", "base", "log_normalizer", "_support")
    pytree_aux_fields = ("sampler", "inverse_temperature")
    has_rsample = False

    def __init__(
        self,
        energy: Callable[[Array], Array],
        base: Any = None,
        *,
        event_shape: tuple[int, ...] | None = None,
        support: Any = None,
        sampler: Sampler | None = None,
        inverse_temperature: float = 1.0,
        log_normalizer: Callable[[], Array | float] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        base = as_distribution(base)
        check_ingredients(energy, base, event_shape, log_normalizer)
        if base is not None and not isinstance(base, Distribution):
            raise TypeError(f"Expected `base` to be a distribution, got {type(base).__name__}.")
        if sampler is not None and not isinstance(sampler, Sampler):
            raise TypeError(
                f"Expected `sampler` to have init and step, got {type(sampler).__name__}."
            )
        batch_shape = base.batch_shape if base is not None else ()
        event_shape = base.event_shape if base is not None else event_shape
        self.energy = _as_pytree(energy)
        self.base: Any = base
        self.sampler = sampler if sampler is not None else Langevin(0.05)
        self.inverse_temperature = check_positive("inverse_temperature", inverse_temperature)
        self.log_normalizer = None if log_normalizer is None else _as_pytree(log_normalizer)
        self._support = support
        super().__init__(batch_shape, tuple(event_shape or ()), validate_args=validate_args)

    def __repr__(self) -> str:
        return (
            f"EnergyBased({self.energy}, base={type(self.base).__name__}, "
            f"batch_shape={self.batch_shape}, event_shape={self.event_shape})"
        )

    @property
    def support(self) -> Any:
        """Constraint on the values."""
        if self._support is not None:
            return self._support
        if self.base is not None:
            return self.base.support
        if not self.event_shape:
            return constraints.real
        return constraints.independent(constraints.real, len(self.event_shape))

    @classmethod
    def infer_shapes(cls, *args: Any, **kwargs: Any) -> Any:
        """Not possible: shapes are those of the base, not of arguments."""
        raise NotImplementedError

    def expand(self, batch_shape: Sequence[int]) -> "EnergyBased":
        """The same distribution with a larger batch shape; energy and base are shared."""
        new = copy.copy(self)
        new._batch_shape = jnp.broadcast_shapes(self.batch_shape, tuple(batch_shape))
        return new

    @property
    def latent(self) -> "EnergyBased":
        r"""The same distribution in the latent space of its base: an energy on a density.

        .. math:: \nu(z) \propto \eta(z)\, e^{-\beta E(G(z))}, \qquad G(z) \sim p \text{ for }
            z \sim \nu

        Run NUTS, :func:`run_chains` or :func:`log_normalizer` on it, for ArviZ to look at; its
        log-normalizer is this distribution's. The noise of a ``Pushforward`` is a part of its
        latent, which is then one vector, noise last.

        Raises:
            ValueError: If the base is no ``Pushforward``, ``TransformedDistribution`` or flow.
        """
        source = as_pushforward(self.base)
        new = EnergyBased(
            latent_energy(self.energy, source),
            source.latent,
            sampler=self.sampler,
            inverse_temperature=self.inverse_temperature,
            log_normalizer=self.log_normalizer,
            validate_args=self._validate_args,
        )
        return new.expand(self.batch_shape)

    def potential(self, value: Array) -> Array:
        """Energy minus log-density of the base, differentiable in value *and* parameters.

        The energy alone where the base has no density.

        Args:
            value: Shape ``(*sample, *batch_shape, *event_shape)``.

        Returns:
            Shape ``(*sample, *batch_shape)``.
        """
        potential = self.evaluate(value)
        if self.base is not None and not is_implicit(self.base):
            potential = potential - self.base.log_prob(value)
        shape = jnp.broadcast_shapes(potential.shape, self.batch_shape)
        return jnp.broadcast_to(potential, shape)

    def log_prob(self, value: Array) -> Array:
        r"""Log-density up to :math:`-\log Z`, differentiable in the value alone.

        With a known ``log_normalizer``: the log-density, differentiable in everything.

        Raises:
            ValueError: Where arguments are validated, outside ``jit``, if the energy is NaN.
        """
        value = jnp.asarray(value)
        if self.log_normalizer is not None:
            log_prob = -self.potential(value) - self.log_normalizer()
        else:
            potential, held = score_only(self.potential, value)
            log_prob = -warn_if_untrained(potential, held)
        if not self._validate_args:
            return log_prob
        log_prob = jnp.where(self._validate_sample(value), log_prob, -jnp.inf)
        if not_jax_tracer(log_prob) and jnp.isnan(log_prob).any():
            raise ValueError("Expected the energy and its base to give numbers, got NaN.")
        return log_prob

    def start(self, rng_key: Array, sample_shape: tuple[int, ...]) -> Array:
        """Values for chains to start from: draws from the base, else standard normal.

        Shape ``(*sample_shape, *batch_shape, *event_shape)``. Standard normal means in
        unconstrained space.
        """
        if self.base is not None:
            return self.base.expand(self.batch_shape).sample(rng_key, tuple(sample_shape))
        bijection = to_unconstrained(self)
        shape = bijection.inverse_shape((*sample_shape, *self.batch_shape, *self.event_shape))
        return bijection(random.normal(rng_key, shape))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws that the sampler makes, started at the base; detached.

        Raises:
            ValueError: Where arguments are validated, outside ``jit``, if the chains diverged.
        """
        if only_starting_values():
            return lax.stop_gradient(self.start(key, tuple(sample_shape)))
        draws = _sample(lax.stop_gradient(self), key, tuple(sample_shape))
        if self._validate_args and not_jax_tracer(draws) and not jnp.isfinite(draws).all():
            raise ValueError(
                f"Expected {self.sampler} to give finite draws, got NaN or infinity: "
                "lower its `step_size`, or look at the energy."
            )
        return lax.stop_gradient(draws)

    def draw(
        self,
        rng_key: Array,
        sampler: Sampler,
        sample_shape: tuple[int, ...],
        num_steps: int | None = None,
    ) -> Array:
        """Draws after ``num_steps`` (default: the sampler's) steps from the base; detached."""
        frozen = lax.stop_gradient(self)
        if isinstance(frozen.base, Pushforward):
            values = frozen.latent.draw(rng_key, sampler, sample_shape, num_steps)
            return frozen.base.noiseless.generate(values)
        start_key, chain_key = random.split(rng_key)
        return frozen.move(chain_key, sampler, frozen.start(start_key, sample_shape), num_steps)

    def move(
        self, rng_key: Array, sampler: Sampler, value: Array, num_steps: int | None = None
    ) -> Array:
        """Values after ``num_steps`` (default: the sampler's) steps from ``value``; detached."""
        frozen, value = lax.stop_gradient((self, value))
        bijection = to_unconstrained(self)
        potential = unconstrained_potential(frozen)
        return bijection(draw(rng_key, sampler, potential, bijection.inv(value), num_steps))

    @property
    def unexpanded(self) -> "EnergyBased":
        """The same distribution with no batch dimensions but those of its base."""
        new = copy.copy(self)
        if self.base is not None:
            new._batch_shape = self.base.batch_shape
        elif not isinstance(self.energy, _ScannedEnergy):  # It has an energy for each step.
            new._batch_shape = ()
        return new

    def evaluate(self, value: Array) -> Array:
        """Energies times the inverse temperature; shape ``(*sample, *batch)`` of the value."""
        energies = evaluate_energy(self.energy, value, self.event_shape)
        return energies if self.inverse_temperature == 1 else self.inverse_temperature * energies

    def importance_log_weights(self, rng_key: Array, num_samples: int) -> Array:
        """Minus the energies of draws from the base; shape ``(num_samples, *base.batch_shape)``.

        The mean of their exponentials estimates the normalizing constant. Detached.

        Raises:
            NotImplementedError: If there is no base, or it cannot be sampled.
        """
        if self.base is None:
            raise NotImplementedError("Expected a base to draw from, got base=None.")
        values = self.base.sample(rng_key, (num_samples,))
        return lax.stop_gradient(-self.evaluate(values))


@partial(jax.jit, static_argnames="sample_shape")
def _sample(distribution: EnergyBased, key: Array, sample_shape: tuple[int, ...]) -> Array:
    return distribution.draw(key, distribution.sampler, sample_shape)


@vmap_over.register
def _vmap_over_energy_based(
    dist: EnergyBased, energy: Any = None, base: Any = None, log_normalizer: Any = None
) -> Any:
    axes: Any = copy.copy(dist)
    axes.energy, axes.base, axes.log_normalizer, axes._support = energy, base, log_normalizer, None
    return axes


@promote_batch_shape.register
def _promote_energy_based(dist: EnergyBased) -> EnergyBased:
    # A scan has stacked every array, so that each step comes with an energy of its own.
    new = copy.copy(dist)
    arrays = jax.tree.leaves(dist.energy)
    if arrays:
        new.energy = _ScannedEnergy(dist.energy, prod(dist.batch_shape))
        new._batch_shape = (arrays[0].shape[0], *dist.batch_shape)
    if dist.base is not None:
        new.base = promote_batch_shape(dist.base.expand(dist.batch_shape))
        new._batch_shape = new.base.batch_shape
    return new
