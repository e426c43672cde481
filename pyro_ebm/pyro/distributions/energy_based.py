"""Energy-based distributions for Pyro's sample sites."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.distributions.util import broadcast_shape
from torch import Tensor
from torch.distributions import Distribution

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.distributions import energy_based as core
from pyro_ebm.core.distributions.checks import (
    check_distribution,
    check_expansion,
    check_ingredients,
    check_inverse_temperature,
    describe_learned_scale,
    no_inverse,
)
from pyro_ebm.core.distributions.context import (
    context_shape,
    number_of_batch_dims,
    own_shape,
    with_context,
)
from pyro_ebm.core.distributions.joint import part_names
from pyro_ebm.core.distributions.known import identity, numbers_of
from pyro_ebm.core.distributions.probe import check_rows
from pyro_ebm.core.samplers.settings import Source, check_source
from pyro_ebm.core.samplers.smc_draws import (
    NUM_REFERENCE_DRAWS,
    arrange,
    check_draws,
    number_of_draws,
)
from pyro_ebm.pyro.distributions.bound_energy import (
    KnownLogProb,
    bind,
    drawn_weights,
    frozen_in_parameters,
    held,
    shadowed,
    trainable_parameters,
    warn_if_untrained,
    with_kept_buffers,
)
from pyro_ebm.pyro.distributions.draws import draw_values
from pyro_ebm.pyro.distributions.flows import as_distribution, tolerant_log_prob
from pyro_ebm.pyro.distributions.joint import ConditionalEnergy, Joint
from pyro_ebm.pyro.distributions.latents import evaluate_watching, is_scale_learned, latents_so_far
from pyro_ebm.pyro.distributions.pushforward import LatentEnergy, Restricted, as_pushforward
from pyro_ebm.pyro.distributions.supports import real_space, support_of
from pyro_ebm.pyro.samplers.base import Sampler
from pyro_ebm.pyro.samplers.smc import SMC
from pyro_ebm.pyro.samplers.target import Target

# Attributes that copies of a distribution share beside its energy and its base.
_SETTINGS = (
    "context",
    "context_batch_ndims",
    "sampler",
    "num_sampler_steps",
    "inverse_temperature",
    "log_normalizer",
    "_support",
    "_is_truncated",
    "_is_held",
    "_is_conditional",
    "_lacks_constant",
    "_drawn",
    "_latents",
    "_has_learned_scale",
)


class EnergyBased(core.AbstractEnergyBased, TorchDistribution):
    """A Pyro distribution given by an energy, known up to its normalizing constant.

    Definition and arguments: the base class
    :class:`~pyro_ebm.core.distributions.energy_based.AbstractEnergyBased`. The energy is an
    ``nn.Module`` registered by ``pyro.module`` or as a child of a ``PyroModule``, or a function;
    the base may be ``flow()`` of zuko.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> prior = EnergyBased(lambda x: x.pow(4).sum(-1), base)
        >>> prior.log_prob(torch.ones(5, 2)).shape
        torch.Size([5])
    """

    arg_constraints: ClassVar[Any] = {}
    has_rsample = False
    _target_class = Target
    # Of an observed value that an objective has evaluated in the same run of a model.
    _known: KnownLogProb | None = None

    def __init__(
        self,
        energy: Callable[..., Tensor],
        base: Any = None,
        *,
        context: Any = None,
        context_batch_ndims: int | None = None,
        event_shape: tuple[int, ...] | None = None,
        support: Any = None,
        sampler: Sampler | Source | None = None,
        num_sampler_steps: int = 100,
        inverse_temperature: float = 1.0,
        log_normalizer: Callable[[], Tensor | float] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        base = as_distribution(base)
        check_ingredients(
            energy, base, event_shape, log_normalizer, has_context=context is not None
        )
        batch_shape = torch.Size()
        if base is not None:
            check_distribution("base", base, Distribution)
            batch_shape, event_shape = base.batch_shape, base.event_shape
        self.context = context
        self.context_batch_ndims = number_of_batch_dims(context_batch_ndims, base)
        if context is not None:
            batch_shape = torch.Size(
                context_shape(_leaves(context), self.context_batch_ndims, batch_shape)
            )
            # Whatever draws from the base draws for each context.
            base = None if base is None else base.expand(batch_shape)
        self.energy = bind(energy)
        self._drawn = drawn_weights(energy, log_normalizer)
        self._latents = {} if log_normalizer is not None else latents_so_far()
        self._has_learned_scale = is_scale_learned()
        self.base: Any = base
        self.sampler = check_source(SMC() if sampler is None else sampler)
        self.num_sampler_steps = check_positive_integer("num_sampler_steps", num_sampler_steps)
        self.inverse_temperature = check_inverse_temperature(inverse_temperature)
        self.log_normalizer = None if log_normalizer is None else bind(log_normalizer)
        batch_shape = self._set_support(support, len(event_shape or ()), batch_shape)
        TorchDistribution.__init__(
            self, batch_shape, torch.Size(event_shape or ()), validate_args=validate_args
        )

    def __repr__(self) -> str:
        energy = getattr(self.energy, "__name__", type(self.energy).__name__)
        return (
            f"EnergyBased({energy}, base={self.base}, batch_shape={tuple(self.batch_shape)}, "
            f"event_shape={tuple(self.event_shape)})"
        )

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        if self._support is not None:
            return self._support
        return real_space(len(self.event_shape)) if self.base is None else support_of(self.base)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "EnergyBased":
        check_expansion(self.batch_shape, batch_shape, torch.broadcast_shapes)
        new: Any = self._get_checked_instance(EnergyBased, _instance)
        return self._with_shape(torch.Size(batch_shape), new)

    def _with_shape(self, batch_shape: torch.Size, new: Any) -> "EnergyBased":
        for name in ("energy", "base", *_SETTINGS):
            setattr(new, name, getattr(self, name))
        new._has_learned_scale |= is_scale_learned()
        TorchDistribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def potential(self, value: Tensor) -> Tensor:
        with shadowed(self._drawn):
            return self._broadcast(self._potential(self.energy, value))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        if self._known is not None and self._known.is_at(value):
            log_prob = self._broadcast(self._known.log_prob)
        elif self.log_normalizer is None or self._is_held:
            log_prob = self._frozen(value)
        else:
            log_prob = self._normalized(value, self.log_normalizer)
        if self._validate_args and bool(torch.isnan(log_prob).any()):
            raise ValueError("Expected the energy and its base to give numbers, got NaN.")
        return log_prob

    def normalized(self, log_normalizer: Any) -> "EnergyBased":
        numbers = [torch.as_tensor(x).detach() for x in numbers_of(log_normalizer)]
        core.check_log_normalizer(self, numbers[0])
        return core.normalize(self.expand(self.batch_shape), partial(identity, *numbers))

    def conditional(self, **given: Any) -> "EnergyBased":
        given = {name: torch.as_tensor(value) for name, value in given.items()}
        base, settings = core.conditioned(self, given, Joint)
        energy = ConditionalEnergy(self.energy, part_names(self.base))
        new = EnergyBased(energy, base, **settings)
        new._is_held, new._is_conditional = True, True
        new._lacks_constant = self.log_normalizer is None
        new._drawn, new._latents = self._drawn, self._latents
        return new

    def sample(self, sample_shape: Any = ()) -> Tensor:
        model, shape = without_plates(self), tuple(sample_shape)
        number = number_of_draws(shape, self.batch_shape, model.batch_shape)
        steps = self.num_sampler_steps
        draws = draw_values(model, self.sampler, number, steps, has_holes=True)
        if self._validate_args:
            for doubt in check_draws(self, self.sampler, draws):
                warnings.warn(doubt, stacklevel=2)
        shapes = self.batch_shape, model.batch_shape, self.event_shape
        return arrange(draws.samples, shape, *shapes)

    def _reference(self) -> Any:
        return draw_values(without_plates(self), SMC(), NUM_REFERENCE_DRAWS, 0)

    def _map_context(self, function: Callable[..., Any], *contexts: Any) -> Any:
        if isinstance(contexts[0], Tensor):
            return function(*contexts)
        return {name: function(*(c[name] for c in contexts)) for name in contexts[0]}

    @property
    def latent(self) -> "EnergyBased":
        source = as_pushforward(self.base)
        energy = Restricted(self) if self._is_truncated else self.energy
        new = EnergyBased(LatentEnergy(energy, source), source.latent, **self._settings())
        return new.expand(self.batch_shape)

    def __getstate__(self) -> dict[str, Any]:
        # Values of a run have a graph, which no copy can have.
        return {**self.__dict__, "_latents": {}}

    def _base_log_prob(self, value: Tensor) -> Tensor:
        try:
            return tolerant_log_prob(super()._base_log_prob, value, self.base)
        except KeyError as error:  # Planar and others look up their latent value in a cache.
            raise no_inverse(self.base) from error

    @torch.no_grad()
    def _check_rows(self, value: Tensor, site: str | None = None) -> None:
        probed = with_kept_buffers(self)
        with shadowed(self._drawn):
            check = lambda value, *_: check_rows(probed, value, site)  # noqa: E731
            evaluate_watching(self._latents, check, self._free(value))

    def _normalized(self, value: Tensor, log_normalizer: Callable[[], Any]) -> Tensor:
        with shadowed(self._drawn):
            return -self._broadcast(self._potential(self.energy, value)) - log_normalizer()

    def _frozen(self, value: Tensor) -> Tensor:
        free, latents = self._free(value), self._latents
        potential, found = frozen_in_parameters(self._frozen_potential, *free, latents=latents)
        if self._has_learned_scale and self._is_unnormalized:
            raise ValueError(describe_learned_scale())
        if self.log_normalizer is not None:
            return -potential - self.log_normalizer()
        warn_if_untrained(self, found + trainable_parameters(self.energy))
        return -potential

    def _free(self, value: Tensor) -> list[Tensor]:
        return [value, *(self.context.values() if self._is_conditional else ())]

    def _frozen_potential(self, value: Tensor, *given: Tensor) -> Tensor:
        new = self
        if given:
            new = with_context(self, dict(zip(self.context, given, strict=True)))
        with held(self.energy):
            return self._broadcast(new._potential(self.energy, value))

    def _broadcast(self, potential: Tensor) -> Tensor:
        shape = broadcast_shape(potential.shape, self.batch_shape)
        return potential if potential.shape == shape else potential.expand(shape)

    def score_parts(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Raise: Pyro calls this on sites of guides, and ``TraceTMC_ELBO`` on those of models."""
        raise ValueError(
            "Expected a guide of normalized distributions, got an EnergyBased site: its "
            "log-normalizer is unknown, and the gradient of its draws too. Use it in the model, "
            "with an ELBO other than TraceTMC_ELBO, which cannot tell a model from a guide."
        )


def without_plates(distribution: EnergyBased) -> EnergyBased:
    """Drop all batch dimensions but those of base and context."""
    new = type(distribution).__new__(type(distribution))
    return distribution._with_shape(torch.Size(own_shape(distribution)), new)


def _leaves(context: Any) -> list[Tensor]:
    """Tensors of a context; raise unless it is one tensor or a dictionary of them."""
    leaves = list(context.values()) if isinstance(context, Mapping) else [context]
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise TypeError(
                "Expected `context` to be a tensor or a dictionary of tensors, got "
                f"{type(leaf).__name__}."
            )
    return leaves
