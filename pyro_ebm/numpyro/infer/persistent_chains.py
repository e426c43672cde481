"""Persistent chains: draws from an energy-based site that outlive a step of training."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.primitives import mutable

from pyro_ebm.core.checks import check_chain_shapes, check_chains
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.samplers import Langevin, Sampler

__all__ = ["DeclaredChains", "PersistentChains", "with_values"]


@dataclass(frozen=True)
class PersistentChains:
    """Markov chains that follow an energy while it is trained, for objectives that need draws.

    A guide declares them by ``auxiliary("z", chains=PersistentChains(...))``. In each step of
    ``SVI``, :class:`~pyro_ebm.numpyro.EnergyELBO` takes ``num_chains`` of them out at random,
    moves them by ``sampler.num_steps`` steps on the energy of site ``z`` as it is then, puts them
    back, and hands their values to the objective's ``loss`` as constants: once a step, whatever
    the number of particles. ``SVI.evaluate`` leaves them where they are.

    They start at draws from the site's base, and start again there when they are no longer finite.
    Their values are a ``mutable`` site of the guide and so a part of ``SVIState``, under
    ``mutable_state["z$chains"]``: save the state to go on later. Those of a buffer that were never
    taken out are infinite.

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

    def advance(
        self, rng_key: Array, distribution: EnergyBased, values: Array
    ) -> tuple[Array, Array]:
        """Move some of the chains.

        Args:
            rng_key: Random key.
            distribution: An energy-based distribution without batch dimensions.
            values: All chains, shape ``(buffer_size, *event_shape)``.

        Returns:
            All chains thereafter, and those that moved, shape ``(num_chains, *event_shape)``.
        """
        return _advance(rng_key, self, *lax.stop_gradient((distribution, values)))


class DeclaredChains(NamedTuple):
    """Persistent chains as a guide declares them.

    Attributes:
        name: Name of the ``mutable`` site.
        chains: What they are.
        values: Values of all of them, shape ``(buffer_size, *event_shape)``.
    """

    name: str
    chains: PersistentChains
    values: Array

    @classmethod
    def declare(cls, name: str, chains: PersistentChains) -> "DeclaredChains":
        """Chains with what the ``mutable`` site of that name holds; infinite at the start."""
        # The base to start from is the model's: a guide cannot know it.
        return cls(name, chains, mutable(name, jnp.full(chains.shape, jnp.inf)))

    def advance(self, rng_key: Array, distribution: EnergyBased) -> tuple[Array, Array]:
        """Move some of them on a site's distribution, of any batch shape.

        Raises:
            ValueError: If the chains do not fit the site or their values.
        """
        check_chain_shapes(self.name, self.chains.shape, self.values, distribution)
        return self.chains.advance(rng_key, distribution.unexpanded, self.values)


def with_values(learners: Mapping[str, Any], values: Mapping[str, Array]) -> dict[str, Any]:
    """Put values of chains, by the name of their ``mutable`` site, in the place of chains."""
    return {
        key: values.get(learner.name, learner) if isinstance(learner, DeclaredChains) else learner
        for key, learner in learners.items()
    }


@partial(jax.jit, static_argnames="chains")
def _advance(
    rng_key: Array, chains: PersistentChains, distribution: EnergyBased, values: Array
) -> tuple[Array, Array]:
    take_key, start_key, restart_key, move_key = random.split(rng_key, 4)
    taken = random.permutation(take_key, len(values))[: chains.num_chains]
    fresh = distribution.start(start_key, (chains.num_chains,)).astype(values.dtype)
    restarts = random.bernoulli(restart_key, chains.restart_probability, taken.shape)
    astray = ~jnp.isfinite(values[taken]).reshape(chains.num_chains, -1).all(axis=1)
    again = (restarts | astray).reshape(-1, *(1 for _ in chains.event_shape))
    moved = distribution.move(move_key, chains.sampler, jnp.where(again, fresh, values[taken]))
    moved = moved.astype(values.dtype)
    return values.at[taken].set(moved), moved
