"""Metropolis-adjusted Langevin algorithm."""

from dataclasses import dataclass

from jax import Array, random

from pyro_ebm.core.samplers.dynamics import langevin_move, mala_log_acceptance
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

__all__ = ["MALA"]


@dataclass(frozen=True)
class MALA:
    r"""Metropolis-adjusted Langevin algorithm: :class:`Langevin` proposals, exact in the limit.

    Args:
        step_size: :math:`h` of the proposal :math:`x - h \nabla U(x) + \sqrt{2h}\, \xi`.
        num_steps: Steps of one independent draw, when a distribution's ``sample`` runs this.
        target_acceptance: Acceptance rate that warm-up tunes the step size to; None keeps it. The
            default is the best one in many dimensions.
        adapt_scale: Whether warm-up measures every coordinate's standard deviation too.

    Raises:
        ValueError: If a number is out of range.

    References:
        | Langevin diffusions and Metropolis-Hastings algorithms (Roberts and Stramer, 2002)
        | Optimal scaling of discrete approximations to Langevin diffusions (Roberts and
          Rosenthal, 1998)
    """

    step_size: float
    num_steps: int = 100
    target_acceptance: float | None = 0.574
    adapt_scale: bool = False

    def __post_init__(self) -> None:
        check_steps(self)

    def init(self, potential: Potential, position: Array) -> ChainState:
        """Start chains at a position of shape ``(*chains, *event)``."""
        return initial_state(potential, position, self.step_size)

    def step(self, rng_key: Array, potential: Potential, state: ChainState) -> Transition:
        """Propose and accept or reject in every chain; one gradient."""
        noise_key, accept_key = random.split(rng_key)
        noise, (step_size, scale) = noise_like(noise_key, state), units(state)
        proposal = langevin_move(state.position, state.gradient, noise, step_size, scale=scale)
        value, gradient = value_and_gradient(potential, proposal)
        log_ratio = mala_log_acceptance(
            state.potential, state.gradient, value, gradient, noise, step_size, scale=scale
        )
        return decide(accept_key, state, (proposal, value, gradient), log_ratio)
