"""Persistent chains as ``mutable`` sites of NumPyro guides."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.primitives import apply_stack

from pyro_ebm.core.infer import persistent_chains as settings
from pyro_ebm.core.objectives.negatives import with_acceptance
from pyro_ebm.core.samplers.run import ShortRun
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased, without_plates
from pyro_ebm.numpyro.samplers.mala import MALA
from pyro_ebm.numpyro.samplers.run import move_levels, move_values
from pyro_ebm.numpyro.samplers.target import initial_values


@dataclass(frozen=True)
class PersistentChains(settings.PersistentChains):
    """Markov chains that follow an energy during training, for objectives that need draws.

    Their values are a ``mutable`` site of the guide and so a part of ``SVIState``, under
    ``mutable_state["z$chains"]``, which ``save_checkpoint`` keeps. Chains of a buffer that were
    never taken are infinite.

    Example:
        >>> import pyro_ebm.numpyro as ebm
        >>> def guide(x):
        ...     ebm.attach("x", chains=ebm.PersistentChains(64, (2,), num_steps=20))
    """

    _: KW_ONLY
    sampler: Any = MALA()

    def advance(
        self, rng_key: Array, distribution: EnergyBased, values: Array
    ) -> tuple[Array, ShortRun]:
        """Move some of all chains, ``values``, on a distribution without batch dimensions.

        Returns all chains thereafter, and those that moved, as constants.
        """
        return _advance(rng_key, self, *lax.stop_gradient((distribution, values)))


class AttachedChains(NamedTuple):
    """Persistent chains that a guide attached, with their values.

    Attributes:
        name: Name of the ``mutable`` site.
        chains: Their settings.
        values: Values of all of them, shape ``(buffer_size, *event_shape)``.
    """

    name: str
    chains: PersistentChains
    values: Array

    @classmethod
    def attach(cls, name: str, chains: PersistentChains) -> "AttachedChains":
        """Read the values from the ``mutable`` site of that name; infinite at the start."""
        # They start at the base of the model, which a guide does not know.
        start = jnp.full(chains.shape, jnp.inf)
        # As `mutable` does, which does not tell the name that a `scope` gave.
        message: Any = {"type": "mutable", "name": name, "fn": lambda x: x, "value": start}
        message = apply_stack(message | {"args": (start,), "kwargs": {}})
        return cls(message["name"], chains, message["value"])

    def advance(self, rng_key: Array, distribution: EnergyBased) -> tuple[Array, ShortRun]:
        """Move some of them on a site's distribution, of any batch shape."""
        self.chains.check(self.name, self.values, distribution)
        return self.chains.advance(rng_key, without_plates(distribution), self.values)


def with_values(attached: Mapping[str, Any], values: Mapping[str, ShortRun]) -> dict[str, Any]:
    """Replace chains among attached parts by values, given by the name of their ``mutable``."""
    return {
        key: values[part.name].samples
        if isinstance(part, AttachedChains) and part.name in values
        else part
        for key, part in attached.items()
    }


@partial(jax.jit, static_argnames="chains")
def _advance(
    rng_key: Array, chains: PersistentChains, distribution: EnergyBased, values: Array
) -> tuple[Array, ShortRun]:
    take_key, start_key, restart_key, move_key = random.split(rng_key, 4)
    taken = random.permutation(take_key, len(values))[: chains.num_chains]
    fresh = initial_values(start_key, distribution, (chains.num_chains, *chains.levels))
    restarts = random.bernoulli(restart_key, chains.restart_probability, taken.shape)
    diverged = ~jnp.isfinite(values[taken]).reshape(chains.num_chains, -1).all(axis=1)
    again = (restarts | diverged).reshape(-1, *(1 for _ in chains.shape[1:]))
    start = jnp.where(again, fresh.astype(values.dtype), values[taken])
    run = move_key, chains.sampler, distribution, start, chains.num_steps
    moved = move_levels(*run) if chains.levels else move_values(*run)
    samples = moved.samples.astype(values.dtype)
    drawn = replace(moved, samples=chains.draws(samples))
    return values.at[taken].set(samples), with_acceptance(chains.sampler, drawn)
