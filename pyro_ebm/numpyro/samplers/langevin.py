"""Overdamped Langevin dynamics."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
from jax import Array

from pyro_ebm.core.checks import check_nonnegative, check_positive
from pyro_ebm.core.samplers.dynamics import langevin_move
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

__all__ = ["Langevin"]


@dataclass(frozen=True)
class Langevin:
    r"""Unadjusted Langevin dynamics (ULA).

    .. math:: x' = x - h \nabla U(x) + c \sqrt{2 h T_k}\, \xi, \qquad \xi \sim \mathcal N(0, I)

    Its stationary law is biased by a term of order :math:`h`: for a Gaussian of variance
    :math:`\sigma^2` it has variance :math:`\sigma^2 / (1 - h / (2\sigma^2))`.

    Args:
        step_size: :math:`h`. Papers that write :math:`x' = x - \frac{s^2}{2} \nabla U + s \xi`
            mean :math:`h = s^2 / 2`.
        num_steps: Steps of one independent draw, when a distribution's ``sample`` runs this.
        temperature: :math:`T_k`, a number or a schedule: a function of the number :math:`k` of
            steps taken. The density at temperature :math:`T` is :math:`e^{-U / T}`.
        noise_scale: :math:`c`, a factor on the noise. Below 1 chains settle in modes, as short
            runs in the literature do; they no longer sample the density.

    Raises:
        ValueError: If a number is out of range.

    References:
        | Exponential convergence of Langevin distributions and their discrete approximations
          (Roberts and Tweedie, 1996)
    """

    step_size: float
    num_steps: int = 100
    temperature: float | Callable[[Array], Any] = 1.0
    noise_scale: float = 1.0
    target_acceptance: None = field(default=None, init=False, repr=False)
    adapt_scale: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        check_steps(self)
        check_nonnegative("noise_scale", self.noise_scale)
        if not callable(self.temperature):
            check_positive("temperature", self.temperature)

    def init(self, potential: Potential, position: Array) -> ChainState:
        """Start chains at a position of shape ``(*chains, *event)``."""
        return initial_state(potential, position, self.step_size)._replace(potential=None)

    def step(self, rng_key: Array, potential: Potential, state: ChainState) -> Transition:
        """Move every chain once; one gradient."""
        temperature = self.temperature
        if callable(temperature):
            temperature = jnp.asarray(temperature(state.index), state.step_size.dtype)
        noise = self.noise_scale * noise_like(rng_key, state)
        position = langevin_move(
            state.position,
            state.gradient,
            noise,
            state.step_size,
            scale=state.scale,
            temperature=temperature,
        )
        value, gradient = value_and_gradient(potential, position)
        return advanced(state, position, None, gradient), unadjusted_info(value, gradient)
