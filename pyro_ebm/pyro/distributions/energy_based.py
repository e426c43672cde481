"""Energy-based distributions for Pyro's sample sites."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.distributions.util import broadcast_shape
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_ebm.core.checks import check_ingredients, check_positive, is_implicit
from pyro_ebm.pyro.distributions.bound_energy import (
    evaluate_energy,
    freeze_module,
    score_only,
    trainable_parameters,
)
from pyro_ebm.pyro.distributions.flows import as_distribution
from pyro_ebm.pyro.distributions.pushforward import Pushforward, as_pushforward, latent_energy
from pyro_ebm.pyro.distributions.training import warn_if_untrained
from pyro_ebm.pyro.samplers import Langevin, Sampler
from pyro_ebm.pyro.samplers.run import draw
from pyro_ebm.pyro.samplers.target import (
    only_starting_values,
    to_unconstrained,
    unconstrained_potential,
)

__all__ = ["EnergyBased"]

# What copies of a distribution share beside its energy and its base.
_SETTINGS = ("sampler", "inverse_temperature", "log_normalizer", "_support")


class EnergyBased(TorchDistribution):
    r"""A distribution given by an energy, known up to its normalizing constant.

    .. math:: p(x) = \frac1Z e^{-\beta E(x)} p_0(x), \qquad Z = \int e^{-\beta E(x)} p_0(x)\, dx

    :meth:`log_prob` is a *score*: it leaves out :math:`\log Z` and is differentiable in the value
    alone, the parameters of energy and base being constants in it. So every stock ELBO, guide
    and MCMC kernel is right for everything but these parameters, which are trained by an
    objective: see :class:`~pyro_ebm.pyro.EnergyELBO`. Objectives use :meth:`potential`.

    On a :class:`Pushforward` base, chains walk in its latent space (:attr:`latent`). Where that
    has no density, :meth:`log_prob` is relative to the base: minus the energy.

    Args:
        energy: :math:`E`, any callable from ``(N, *event_shape)`` to ``(N,)``: an ``nn.Module``
            registered by ``pyro.module`` or as a child of a ``PyroModule``, or a function. Low
            where values are likely. Rows must not influence each other (no batch norm).
        base: :math:`p_0`, a distribution with ``log_prob``, and with ``sample`` where draws or
            the log-normalizer are wanted; a :class:`Pushforward`, which may lack the former; a
            flow of zuko, ``flow()``. Default: the flat measure.
        event_shape: Shape of one value; needed without a base only.
        support: Constraint on the values. Default: that of the base, else all real numbers.
        sampler: Sampler that :meth:`sample` runs for ``sampler.num_steps`` steps from the base.
            Default: short-run Langevin, an approximation.
        inverse_temperature: :math:`\beta`, a number that multiplies the energy. Above 1 it
            sharpens what was trained at 1. (The images of Arbel et al. were drawn at 100, and
            hardly differ from the base's at 1.)
        log_normalizer: Function without arguments that gives :math:`\log Z` where it is known,
            a number or a tensor that broadcasts with ``batch_shape``. Then ``log_prob`` is the
            exact density, with gradients in everything.
        validate_args: As in any Pyro distribution.

    Raises:
        TypeError: If the energy is not callable or the base is not a distribution.
        ValueError: If shapes are missing or disagree.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> prior = EnergyBased(lambda x: x.pow(4).sum(-1), base)
        >>> prior.log_prob(torch.ones(5, 2)).shape
        torch.Size([5])
    """

    arg_constraints: ClassVar[Any] = {}
    has_rsample = False

    def __init__(
        self,
        energy: Callable[[Tensor], Tensor],
        base: Any = None,
        *,
        event_shape: tuple[int, ...] | None = None,
        support: Any = None,
        sampler: Sampler | None = None,
        inverse_temperature: float = 1.0,
        log_normalizer: Callable[[], Tensor | float] | None = None,
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
        if base is not None:
            batch_shape, event_shape = base.batch_shape, base.event_shape
        else:
            batch_shape = torch.Size()
        self.energy = energy
        self.base: Any = base
        self.sampler: Sampler = sampler if sampler is not None else Langevin(0.05)
        self.inverse_temperature = check_positive("inverse_temperature", inverse_temperature)
        self.log_normalizer = log_normalizer
        self._support = support
        super().__init__(batch_shape, torch.Size(event_shape or ()), validate_args=validate_args)

    def __repr__(self) -> str:
        energy = getattr(self.energy, "__name__", type(self.energy).__name__)
        return (
            f"EnergyBased({energy}, base={self.base}, batch_shape={tuple(self.batch_shape)}, "
            f"event_shape={tuple(self.event_shape)})"
        )

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """Constraint on the values."""
        if self._support is not None:
            return self._support
        try:
            if self.base is not None:
                return self.base.support
        except NotImplementedError:  # Flows of zuko do not tell: all real numbers.
            pass
        if not self.event_shape:
            return constraints.real
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "EnergyBased":
        """The same distribution with a larger batch shape; energy and base are shared."""
        new: Any = self._get_checked_instance(EnergyBased, _instance)
        for name in ("energy", "base", *_SETTINGS):
            setattr(new, name, getattr(self, name))
        super(EnergyBased, new).__init__(
            torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def potential(self, value: Tensor) -> Tensor:
        """Energy minus log-density of the base, differentiable in value *and* parameters.

        The energy alone where the base has no density.

        Args:
            value: Shape ``(*sample, *batch_shape, *event_shape)``.

        Returns:
            Shape ``(*sample, *batch_shape)``.
        """
        return self._potential(self.energy, value)

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Log-density up to :math:`-\log Z`, differentiable in the value alone.

        With a known ``log_normalizer``: the log-density, differentiable in everything.

        Raises:
            ValueError: Where arguments are validated, if the value lies outside the support or
                the energy is NaN.
        """
        if self._validate_args:
            self._validate_sample(value)
        if self.log_normalizer is not None:
            log_prob = -self.potential(value) - self.log_normalizer()
        else:
            energy = freeze_module(self.energy)
            potential, held = score_only(lambda value: self._potential(energy, value), value)
            log_prob = -potential
            warn_if_untrained(self, held + trainable_parameters(self.energy))
        if self._validate_args and bool(torch.isnan(log_prob).any()):
            raise ValueError("Expected the energy and its base to give numbers, got NaN.")
        return log_prob

    def start(self, sample_shape: torch.Size) -> Tensor:
        """Values for chains to start from: draws from the base, else standard normal.

        Shape ``(*sample_shape, *batch_shape, *event_shape)``. Standard normal means in
        unconstrained space.
        """
        if self.base is not None:
            return self.base.expand(self.batch_shape).sample(sample_shape).detach()
        bijection = to_unconstrained(self)
        shape = bijection.inverse_shape(sample_shape + self.batch_shape + self.event_shape)
        like = next(self.energy.parameters(), None) if isinstance(self.energy, nn.Module) else None
        options = {} if like is None else {"dtype": like.dtype, "device": like.device}
        return bijection(torch.randn(shape, **options))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws that the sampler makes, started at the base; detached.

        Raises:
            ValueError: Where arguments are validated, if the chains diverged.
        """
        if only_starting_values():
            return self.start(torch.Size(sample_shape))
        draws = self.draw(self.sampler, torch.Size(sample_shape))
        if self._validate_args and not bool(torch.isfinite(draws).all()):
            raise ValueError(
                f"Expected {self.sampler} to give finite draws, got NaN or infinity: "
                "lower its `step_size`, or look at the energy."
            )
        return draws

    @torch.no_grad()
    def draw(
        self, sampler: Sampler, sample_shape: torch.Size, num_steps: int | None = None
    ) -> Tensor:
        """Draws after ``num_steps`` (default: the sampler's) steps from the base; detached."""
        if isinstance(self.base, Pushforward):
            values = self.latent.draw(sampler, sample_shape, num_steps)
            return self.base.noiseless.generate(values)
        return self.move(sampler, self.start(sample_shape), num_steps)

    @torch.no_grad()
    def move(self, sampler: Sampler, value: Tensor, num_steps: int | None = None) -> Tensor:
        """Values after ``num_steps`` (default: the sampler's) steps from ``value``; detached."""
        bijection = to_unconstrained(self)
        potential = unconstrained_potential(self)
        return bijection(draw(sampler, potential, bijection.inv(value), num_steps))

    @property
    def unexpanded(self) -> "EnergyBased":
        """The same distribution with no batch dimensions but those of its base."""
        new = EnergyBased(self.energy, self.base, event_shape=self.event_shape)
        for name in _SETTINGS:
            setattr(new, name, getattr(self, name))
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

    def score_parts(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Refuse: Pyro asks this of guide sites only."""
        raise ValueError(
            "Expected a guide of normalized distributions, got an EnergyBased site: its "
            "log-normalizer is unknown, and the gradient of its draws too. Use it in the model."
        )

    def evaluate(self, value: Tensor) -> Tensor:
        """Energies times the inverse temperature; shape ``(*sample, *batch)`` of the value."""
        return self._evaluate(self.energy, value)

    @torch.no_grad()
    def importance_log_weights(self, num_samples: int) -> Tensor:
        """Minus the energies of draws from the base; shape ``(num_samples, *base.batch_shape)``.

        The mean of their exponentials estimates the normalizing constant.
        """
        return -self.evaluate(self.base.sample((num_samples,)))

    def _potential(self, energy: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
        potential = self._evaluate(energy, value)
        if self.base is not None and not is_implicit(self.base):
            potential = potential - self.base.log_prob(value)
        return potential.expand(broadcast_shape(potential.shape, self.batch_shape))

    def _evaluate(self, energy: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
        energies = evaluate_energy(energy, value, self.event_shape)
        return energies if self.inverse_temperature == 1 else self.inverse_temperature * energies
