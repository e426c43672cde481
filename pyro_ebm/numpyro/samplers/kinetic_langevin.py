"""Underdamped Langevin dynamics."""

from dataclasses import dataclass, field

import jax.numpy as jnp
from jax import Array

from pyro_ebm.core.checks import check_positive
from pyro_ebm.core.samplers.dynamics import drift, kick, refresh
from pyro_ebm.numpyro.samplers.base import (
    ChainState,
    Transition,
    advanced,
    check_steps,
    initial_state,
    noise_like,
    unadjusted_info,
)
from pyro_ebm.numpyro.samplers.target import Potential, value_and_gradient

__all__ = ["KineticLangevin"]


@dataclass(frozen=True)
class KineticLangevin:
    r"""Kinetic (underdamped) Langevin dynamics, by the ABOBA splitting.

    Half a drift, half a kick, friction and noise, half a kick, half a drift, where

    .. math::
        \text{drift: } x \mathrel{+}= h v, \qquad \text{kick: } v \mathrel{-}= h \nabla U, \qquad
        \text{friction: } v \leftarrow e^{-\kappa h} v + \sqrt{1 - e^{-2 \kappa h}}\, \xi

    For a Gaussian of variance :math:`\sigma^2` the positions have exactly that variance for every
    :math:`h < 2 \sigma`, the velocities :math:`1 / (1 - h^2 / (4 \sigma^2))`.

    Args:
        step_size: :math:`h`, a time. A comparable :class:`Langevin` step is :math:`h^2 / 2`.
        friction: :math:`\kappa`, an inverse time.
        num_steps: Steps of one independent draw, when a distribution's ``sample`` runs this.

    Raises:
        ValueError: If a number is out of range.

    References:
        | Rational construction of stochastic numerical methods for molecular sampling
          (Leimkuhler and Matthews, 2013)
        | Generalized energy based models (Arbel, Zhou and Gretton, 2021)
    """

    step_size: float
    friction: float = 1.0
    num_steps: int = 100
    target_acceptance: None = field(default=None, init=False, repr=False)
    adapt_scale: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        check_steps(self)
        check_positive("friction", self.friction)

    def init(self, potential: Potential, position: Array) -> ChainState:
        """Start chains at a position of shape ``(*chains, *event)``, at rest."""
        state = initial_state(potential, position, self.step_size)
        return state._replace(potential=None, gradient=None, velocity=jnp.zeros_like(position))

    def step(self, rng_key: Array, potential: Potential, state: ChainState) -> Transition:
        """Move every chain once; one gradient, in the middle of the step."""
        step_size, half, scale = state.step_size, 0.5 * state.step_size, state.scale
        position = drift(state.position, state.velocity, half, scale=scale)
        value, gradient = value_and_gradient(potential, position)
        velocity = kick(state.velocity, gradient, half, scale=scale)
        velocity = refresh(velocity, noise_like(rng_key, state), step_size, self.friction)
        velocity = kick(velocity, gradient, half, scale=scale)
        position = drift(position, velocity, half, scale=scale)
        moved = advanced(state, position, None, None)._replace(velocity=velocity)
        return moved, unadjusted_info(value, gradient)
