"""Settings of persistent chains: draws from an energy-based site that outlive a training step."""

from dataclasses import KW_ONLY, dataclass
from typing import Any

from pyro_ebm.core.checks import check_finite, check_positive_integer
from pyro_ebm.core.distributions.checks import check_one_distribution
from pyro_ebm.core.samplers.replica_exchange import ReplicaExchange
from pyro_ebm.core.samplers.settings import check_sampler


@dataclass(frozen=True)
class PersistentChains:
    """Markov chains that follow an energy during training, for objectives that need draws.

    Attach them in the guide: ``attach("z", chains=PersistentChains(...))``. In a step of ``SVI``,
    ``EnergyELBO`` takes ``num_chains`` of them at random, moves them by ``num_steps`` steps on the
    current energy of site ``z``, puts them back, and passes their values to the objective's
    ``loss`` as constants, once a step for any number of particles. Evaluations of the loss do not
    move them.

    They start at draws from the site's base, and start again if they are no longer finite. They are
    refused at a site whose energy has a context, where each row has its own distribution.

    With ``ReplicaExchange`` the stored values are those of all levels, shape ``(buffer_size,
    num_levels, *event_shape)``: the hottest first, and the draws that an objective gets last.

    Args:
        num_chains: Number of chains that move in a step.
        event_shape: Shape of one value of the site.
        sampler: Moves them. Default: ``MALA()``, whose step size follows its
            acceptance within each training step.
        num_steps: Steps in each training step.
        buffer_size: Chains in all (a replay buffer), at least ``num_chains``, the default.
        restart_probability: Probability that a chain starts again when it is taken; 0.05 in Du and
            Mordatch.

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
    sampler: Any
    num_steps: int = 10
    buffer_size: int | None = None
    restart_probability: float = 0.0

    def __post_init__(self) -> None:
        check_positive_integer("num_chains", self.num_chains)
        if not isinstance(self.event_shape, tuple):
            raise ValueError(
                f"Expected `event_shape` to be a tuple of integers, got {self.event_shape!r}."
            )
        for size in self.event_shape:
            check_positive_integer("event_shape", size)
        check_sampler(self.sampler)
        check_positive_integer("num_steps", self.num_steps)
        if self.buffer_size is not None:
            check_positive_integer("buffer_size", self.buffer_size, minimum=self.num_chains)
        if not 0 <= check_finite("restart_probability", self.restart_probability) <= 1:
            raise ValueError(
                "Expected `restart_probability` to be a number from 0 to 1, "
                f"got {self.restart_probability!r}."
            )

    @property
    def levels(self) -> tuple[int, ...]:
        """Shape of the levels of a chain."""
        is_levelled = isinstance(self.sampler, ReplicaExchange)
        return (len(self.sampler.temperatures),) if is_levelled else ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values of all chains."""
        return (self.buffer_size or self.num_chains, *self.levels, *self.event_shape)

    def draws(self, values: Any) -> Any:
        """Take the coldest level of values."""
        return values[:, -1, ...] if self.levels else values

    def check(self, name: str, values: Any, distribution: Any) -> None:
        """Raise unless the chains fit their energy-based site and, after the start, their values.

        ``name`` is that of the stored values, for example ``"z$chains"``.
        """
        event_shape, shape = tuple(distribution.event_shape), self.shape
        if event_shape != self.event_shape:
            raise ValueError(
                f"Expected {name!r} to have the event shape of its site, {event_shape}, got "
                f"{self.event_shape}."
            )
        check_one_distribution(distribution, f" of the site of {name!r}")
        if values is not None and tuple(values.shape) != shape:
            raise ValueError(
                f"Expected the stored values of {name!r} to have shape {shape}, got "
                f"{tuple(values.shape)}. Are they from an earlier run with other chains?"
            )
