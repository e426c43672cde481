"""Energy-based distributions for NumPyro's sample sites."""

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, tree_util
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.batch_util import promote_batch_shape, vmap_over
from numpyro.util import not_jax_tracer

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.distributions import energy_based as core
from pyro_ebm.core.distributions.checks import (
    check_distribution,
    check_expansion,
    check_ingredients,
    check_inverse_temperature,
)
from pyro_ebm.core.distributions.context import (
    context_shape,
    number_of_batch_dims,
    own_shape,
    rows_of,
    with_context,
)
from pyro_ebm.core.distributions.joint import conditional_energy, part_names
from pyro_ebm.core.distributions.known import identity, numbers_of
from pyro_ebm.core.distributions.probe import single_value
from pyro_ebm.core.samplers.settings import Source, check_source
from pyro_ebm.core.samplers.smc_draws import (
    NUM_REFERENCE_DRAWS,
    arrange,
    check_draws,
    number_of_draws,
)
from pyro_ebm.core.samplers.truncation import infinite_outside, move_inside
from pyro_ebm.numpyro.distributions.bound_energy import (
    ScannedEnergy,
    as_context,
    bind,
    frozen_in_parameters,
    held,
    noted_in_a_trace,
    warn_if_drawn,
    warn_if_untrained,
)
from pyro_ebm.numpyro.distributions.draws import draw_values
from pyro_ebm.numpyro.distributions.flows import as_distribution
from pyro_ebm.numpyro.distributions.joint import Joint
from pyro_ebm.numpyro.distributions.latents import Latents
from pyro_ebm.numpyro.distributions.probe import probe_rows
from pyro_ebm.numpyro.distributions.pushforward import as_pushforward, latent_energy
from pyro_ebm.numpyro.distributions.scanned import promote_energy_based, vmap_over_energy_based
from pyro_ebm.numpyro.distributions.supports import support_of
from pyro_ebm.numpyro.samplers.base import Sampler
from pyro_ebm.numpyro.samplers.columns import are_indices
from pyro_ebm.numpyro.samplers.smc import SMC
from pyro_ebm.numpyro.samplers.target import Target


class EnergyBased(core.AbstractEnergyBased, Distribution):
    """A NumPyro distribution given by an energy: a pytree, whose leaves are the parameters.

    Definition and arguments: the base class
    :class:`~pyro_ebm.core.distributions.energy_based.AbstractEnergyBased`. The energy is what
    ``eqx_module``, ``nnx_module`` or ``flax_module`` return, or a function. A function is bound to
    what it refers to, including states of modules, when the distribution is made. The same function
    with other arrays does not compile again. The base may be a flow of flowjax.

    Do not use it in a guide, since it is unnormalized: ``Trace_ELBO`` and ``TraceMeanField_ELBO``
    warn, ``EnergyELBO`` refuses it, and ``check_model(model, guide)`` lists it.

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> double_well = EnergyBased(lambda x: (x**2 - 1) ** 2, event_shape=())
        >>> double_well.log_prob(jnp.array([0.0, 2.0])).tolist()
        [-1.0, -9.0]
    """

    arg_constraints = {}
    pytree_data_fields = ("energy", "base", "context", "log_normalizer", "_support")
    pytree_aux_fields = (
        "context_batch_ndims",
        "sampler",
        "num_sampler_steps",
        "inverse_temperature",
        "_is_truncated",
        "_is_held",
        "_is_conditional",
        "_lacks_constant",
    )
    has_rsample = False
    # The value that a site of a trace has drawn.
    _drawn: Any = None
    _latents = Latents()
    _target_class = Target

    def __init__(
        self,
        energy: Callable[..., Array],
        base: Any = None,
        *,
        context: Any = None,
        context_batch_ndims: int | None = None,
        event_shape: tuple[int, ...] | None = None,
        support: Any = None,
        sampler: Sampler | Source | None = None,
        num_sampler_steps: int = 100,
        inverse_temperature: float = 1.0,
        log_normalizer: Callable[[], Array | float] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        base = as_distribution(base)
        check_ingredients(
            energy, base, event_shape, log_normalizer, has_context=context is not None
        )
        batch_shape = ()
        if base is not None:
            check_distribution("base", base, Distribution)
            batch_shape, event_shape = base.batch_shape, base.event_shape
        self.context = jax.tree.map(as_context, context)
        self.context_batch_ndims = number_of_batch_dims(context_batch_ndims, base)
        if context is not None:
            batch_shape = context_shape(
                jax.tree.leaves(self.context), self.context_batch_ndims, batch_shape
            )
            # Whatever draws from the base draws for each context.
            base = None if base is None else base.expand(batch_shape)
        self.energy = bind(energy)
        self.base: Any = base
        self.sampler = check_source(SMC() if sampler is None else sampler)
        self.num_sampler_steps = check_positive_integer("num_sampler_steps", num_sampler_steps)
        self.inverse_temperature = check_inverse_temperature(inverse_temperature)
        self.log_normalizer = None if log_normalizer is None else bind(log_normalizer)
        self._latents = Latents.of(self.energy, base, self.context, support)
        batch_shape = self._set_support(support, len(event_shape or ()), batch_shape)
        Distribution.__init__(
            self, batch_shape, tuple(event_shape or ()), validate_args=validate_args
        )

    def __repr__(self) -> str:
        return (
            f"EnergyBased({self.energy}, base={type(self.base).__name__}, "
            f"batch_shape={self.batch_shape}, event_shape={self.event_shape})"
        )

    @property
    def support(self) -> Any:
        if self._support is not None:
            return self._support
        if self.base is not None:
            return support_of(self.base)
        if not self.event_shape:
            return constraints.real
        return constraints.independent(constraints.real, len(self.event_shape))

    @classmethod
    def infer_shapes(cls, *args: Any, **kwargs: Any) -> Any:
        """Raise: shapes are those of the base, not of arguments."""
        raise NotImplementedError

    def expand(self, batch_shape: Sequence[int]) -> "EnergyBased":
        check_expansion(self.batch_shape, batch_shape, jnp.broadcast_shapes)
        new = copy.copy(self)
        new._batch_shape = tuple(batch_shape)
        return new

    def potential(self, value: Array) -> Array:
        potential = self._potential(self.energy, jnp.asarray(value))
        shape = jnp.broadcast_shapes(potential.shape, self.batch_shape)
        return jnp.broadcast_to(potential, shape)

    def log_prob(self, value: Array) -> Array:
        given, value = value, jnp.asarray(value)
        if self.log_normalizer is None or self._is_conditional:
            log_prob = self._frozen(value)
        else:
            log_prob = -self.potential(value) - self.log_normalizer()
        if not self._validate_args:
            return log_prob
        # Inside of `jit` what comes from NumPy is still known, and the host warns of it.
        is_inside = self._validate_sample(given if isinstance(given, np.ndarray) else value)
        log_prob = jnp.where(is_inside, log_prob, -jnp.inf)
        if not_jax_tracer(log_prob) and jnp.isnan(log_prob).any():
            raise ValueError("Expected the energy and its base to give numbers, got NaN.")
        return log_prob

    def normalized(self, log_normalizer: Any) -> "EnergyBased":
        numbers = [lax.stop_gradient(jnp.asarray(x)) for x in numbers_of(log_normalizer)]
        if not_jax_tracer(numbers[0]):
            core.check_log_normalizer(self, numbers[0])
        return core.normalize(copy.copy(held(self)), tree_util.Partial(identity, *numbers))

    def conditional(self, **given: Any) -> "EnergyBased":
        given = {name: jnp.asarray(value) for name, value in given.items()}
        base, settings = core.conditioned(self, given, Joint)
        energy = tree_util.Partial(conditional_energy, self.energy, part_names(self.base))
        new = EnergyBased(energy, base, **settings)
        new._is_held, new._is_conditional = True, True
        new._lacks_constant = self.log_normalizer is None
        new._latents = self._latents
        return new

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        model, shape = without_plates(lax.stop_gradient(self)), tuple(sample_shape)
        number = number_of_draws(shape, self.batch_shape, model.batch_shape)
        draws = _draw(key, model, self.sampler, number)
        if self._validate_args and not_jax_tracer(draws.samples):
            for doubt in check_draws(self, self.sampler, draws):
                warnings.warn(doubt, stacklevel=2)
        shapes = self.batch_shape, model.batch_shape, self.event_shape
        values = lax.stop_gradient(arrange(draws.samples, shape, *shapes))
        self._drawn = noted_in_a_trace(values)
        return values

    def _reference(self, key: Array) -> Any:
        return _draw(key, without_plates(lax.stop_gradient(self)), SMC(), NUM_REFERENCE_DRAWS)

    def _frozen(self, value: Array) -> Array:
        def potential(value: Array, *given: Any) -> Array:
            return (with_context(self, *given) if given else self).potential(value)

        free = (value, self.context) if self._is_conditional else (value,)
        found, constants = frozen_in_parameters(potential, *free)
        log_prob = -warn_if_untrained(found, constants, self._latents)
        if self.log_normalizer is not None:
            return log_prob - self.log_normalizer()
        warn_if_drawn(value, self._drawn)
        return log_prob

    _map_context = staticmethod(jax.tree.map)

    def _base_log_prob(self, value: Array) -> Array:
        # Codes as real numbers have derivatives in the energy.
        return self.base.log_prob(value.astype(int) if are_indices(self.base) else value)

    def _scaled(self, energy: Any, value: Array) -> Array:
        try:
            return cast(Array, super()._scaled(energy, value))
        except (TypeError, ValueError) as error:
            if self._takes_one_value(value):
                raise single_value(self, None) from error
            raise

    def _check_rows(self, value: Array, site: str | None = None) -> None:
        if isinstance(self.energy, ScannedEnergy):  # It has an energy for each step.
            return
        try:
            probe_rows(held(self), value, site)
        except ValueError as error:
            if error.__cause__ is not None and self._takes_one_value(value):
                raise single_value(self, site) from error
            raise

    def _takes_one_value(self, value: Array) -> bool:
        """Whether the energy maps one value, and the context of one, to a number."""
        rows, _ = rows_of(self, value)
        try:
            first = jax.tree.map(lambda leaf: leaf[0], rows)
            energy = jax.eval_shape(self.energy, *first)
        except (TypeError, ValueError, IndexError):
            return False
        return getattr(energy, "shape", None) == ()

    @property
    def latent(self) -> "EnergyBased":
        source = as_pushforward(self.base)
        energy = tree_util.Partial(_restricted, self) if self._is_truncated else self.energy
        energy = tree_util.Partial(latent_energy, energy, source)
        new = EnergyBased(energy, source.latent, **self._settings())
        return new.expand(self.batch_shape)


def _restricted(distribution: EnergyBased, value: Array, *context: Any) -> Array:
    inside, value = move_inside(distribution, value)
    return cast(Array, infinite_outside(inside, distribution.energy(value, *context)))


def without_plates(distribution: EnergyBased) -> EnergyBased:
    new = copy.copy(distribution)
    # Without a base that has the steps of a scan, its energy has them.
    if distribution.base is not None or not isinstance(distribution.energy, ScannedEnergy):
        new._batch_shape = own_shape(distribution)
    return new


@partial(jax.jit, static_argnames=("sampler", "number"))
def _draw(key: Array, model: EnergyBased, sampler: Any, number: int) -> Any:
    return draw_values(key, model, sampler, number, model.num_sampler_steps, has_holes=True)


vmap_over.register(EnergyBased, vmap_over_energy_based)
promote_batch_shape.register(EnergyBased, promote_energy_based)
