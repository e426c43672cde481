"""Hamiltonian Monte Carlo."""

from dataclasses import dataclass
from typing import Any

from jax import Array, lax, random

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.samplers.dynamics import drift, hmc_log_acceptance, kick
from pyro_ebm.numpyro.samplers.base import (
    ChainState,
    Transition,
    check_steps,
    decide,
    initial_state,
    noise_like,
    units,
)
from pyro_ebm.numpyro.samplers.target import Potential, value_and_gradient

__all__ = ["HMC"]


@dataclass(frozen=True)
class HMC:
    r"""Hamiltonian Monte Carlo: a fresh velocity, leapfrog steps, acceptance; exact in the limit.

    Args:
        step_size: The leapfrog step :math:`h`, a time. One leapfrog step is a :class:`MALA` step
            of size :math:`h^2 / 2`.
        num_leapfrog: Leapfrog steps in one transition. Their number is fixed: a trajectory that
            is a whole number of half periods of the target comes back, so do not choose
            ``step_size * num_leapfrog`` near :math:`\pi \sigma`.
        num_steps: Transitions of one independent draw, when a distribution's ``sample`` runs this.
        target_acceptance: Acceptance rate that warm-up tunes the step size to; None keeps it.
        adapt_scale: Whether warm-up measures every coordinate's standard deviation too.

    Raises:
        ValueError: If a number is out of range.

    References:
        | MCMC using Hamiltonian dynamics (Neal, 2011)
    """

    step_size: float
    num_leapfrog: int = 10
    num_steps: int = 10
    target_acceptance: float | None = 0.8
    adapt_scale: bool = False

    def __post_init__(self) -> None:
        check_steps(self)
        check_positive_integer("num_leapfrog", self.num_leapfrog)

    def init(self, potential: Potential, position: Array) -> ChainState:
        """Start chains at a position of shape ``(*chains, *event)``."""
        return initial_state(potential, position, self.step_size)

    def step(self, rng_key: Array, potential: Potential, state: ChainState) -> Transition:
        """One transition of every chain; ``num_leapfrog`` gradients."""
        noise_key, accept_key = random.split(rng_key)
        velocity = noise_like(noise_key, state)
        step_size, scale = units(state)
        half = 0.5 * step_size

        def leapfrog(_: Any, moving: Any) -> Any:
            position, _, gradient, velocity = moving
            velocity = kick(velocity, gradient, half, scale=scale)
            position = drift(position, velocity, step_size, scale=scale)
            value, gradient = value_and_gradient(potential, position)
            return position, value, gradient, kick(velocity, gradient, half, scale=scale)

        moving = (*state[:3], velocity)
        *proposal, end = lax.fori_loop(0, self.num_leapfrog, leapfrog, moving)
        log_ratio = hmc_log_acceptance(state.potential, velocity, proposal[1], end)
        return decide(accept_key, state, tuple(proposal), log_ratio)
