"""Persistent chains: draws from an energy-based site that outlive a step of training."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_ebm.core.checks import check_chain_shapes, check_chains
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.samplers import Langevin, Sampler

__all__ = ["ChainStore", "PersistentChains"]


@dataclass(frozen=True)
class PersistentChains:
    """Markov chains that follow an energy while it is trained, for objectives that need draws.

    A guide declares them by ``auxiliary("z", chains=PersistentChains(...))``. In each step of
    ``SVI``, :class:`~pyro_ebm.pyro.EnergyELBO` takes ``num_chains`` of them out at random, moves
    them by ``sampler.num_steps`` steps on the energy of site ``z`` as it is then, puts them back,
    and hands their values to the objective's ``loss`` as constants: once a step, whatever the
    number of particles. ``SVI.evaluate_loss`` leaves them where they are.

    They start at draws from the site's base, and start again there when they are no longer finite.
    Their values stand in Pyro's parameter store under the name ``"z$chains"``, where no optimizer
    moves them: ``pyro.get_param_store().save(...)`` saves them with the parameters.

    Args:
        num_chains: Chains that move in a step.
        event_shape: Shape of one value of the site.
        sampler: What moves them, for ``sampler.num_steps`` steps.
        buffer_size: Chains in all (a replay buffer), at least ``num_chains``, the default.
        restart_probability: Probability with which a chain that is taken out starts again; Du and
            Mordatch have 0.05.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If ``sampler`` is no sampler.

    References:
        | Training restricted Boltzmann machines using approximations to the likelihood gradient
          (Tieleman, 2008)
        | Implicit generation and modeling with energy-based models (Du and Mordatch, 2019)
        | https://arxiv.org/abs/1903.08689
    """

    num_chains: int
    event_shape: tuple[int, ...]
    _: KW_ONLY
    sampler: Sampler = Langevin(0.05, num_steps=10)
    buffer_size: int | None = None
    restart_probability: float = 0.0

    def __post_init__(self) -> None:
        check_chains(self.num_chains, self.event_shape, self.buffer_size, self.restart_probability)
        if not isinstance(self.sampler, Sampler):
            raise TypeError(
                f"Expected `sampler` to have init and step, got {type(self.sampler).__name__}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values of all chains."""
        return (self.buffer_size or self.num_chains, *self.event_shape)

    def advance(self, distribution: EnergyBased, values: Tensor) -> tuple[Tensor, Tensor]:
        """Move some of the chains.

        Args:
            distribution: An energy-based distribution without batch dimensions.
            values: All chains, shape ``(buffer_size, *event_shape)``.

        Returns:
            All chains thereafter, and those that moved, shape ``(num_chains, *event_shape)``.
        """
        device = values.device
        taken = torch.randperm(len(values), device=device)[: self.num_chains]
        fresh = distribution.start(torch.Size((self.num_chains,)))
        restarts = torch.rand(self.num_chains, device=device) < self.restart_probability
        astray = ~torch.isfinite(values[taken]).reshape(self.num_chains, -1).all(dim=1)
        again = (restarts | astray).reshape(-1, *(1 for _ in self.event_shape))
        moved = distribution.move(self.sampler, torch.where(again, fresh, values[taken]))
        return values.index_copy(0, taken, moved), moved


class ChainStore:
    """Persistent chains during one step: each moves once, however many particles ask for it.

    Args:
        keeps: Whether Pyro's parameter store is told of the moves.
    """

    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps
        self.moved: dict[str, Tensor] = {}

    def resolve(
        self, site: str, learners: Mapping[str, Any], distribution: EnergyBased
    ) -> dict[str, Any]:
        """Put the values of chains that moved in the place of the chains.

        Args:
            site: Name of the energy-based site.
            learners: What the guide declared for it.
            distribution: Its distribution, of any batch shape.

        Raises:
            ValueError: If the chains do not fit the site, or what the store has of them.
        """
        return {
            key: self._values(f"{site}${key}", learner, distribution)
            if isinstance(learner, PersistentChains)
            else learner
            for key, learner in learners.items()
        }

    def _values(self, name: str, chains: PersistentChains, distribution: EnergyBased) -> Tensor:
        if name not in self.moved:
            store = pyro.get_param_store()
            with torch.no_grad():
                values = store[name] if name in store else None
                check_chain_shapes(name, chains.shape, values, distribution)
                distribution = distribution.unexpanded
                if values is None:
                    values = distribution.start(torch.Size(chains.shape[:1]))
                values, self.moved[name] = chains.advance(distribution, values)
                if self.keeps:
                    # In place: the store holds on to every tensor it was ever given.
                    store.setdefault(name, values).copy_(values)
        return self.moved[name]
