r"""Moves of Markov chains, from given noise and gradients.

Arguments, in all functions: ``potential`` :math:`U`, minus the log-density up to a constant, shape
``(*chains,)``; ``position`` :math:`x`, ``gradient`` :math:`\nabla U(x)`, ``velocity`` :math:`v` and
``noise`` :math:`\xi`, standard normal, shape ``(*chains, *event)``; ``step_size`` :math:`h`; and
``scale`` :math:`s`, the standard deviation that a coordinate is measured in (a diagonal mass matrix
is :math:`s^{-2}`), which broadcasts with ``position``. In these units the gradient is
:math:`s \nabla U`, and velocities are standard normal. A prime marks what is proposed. ``evaluate``
is a function of positions that returns potentials and gradients.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from pyro_ebm.core.numerics import expand_right

Evaluate = Callable[[Any], tuple[Any, Any]]

# A move that loses this many nats has left the region where the integrator works (Stan's number).
_DIVERGENCE = -1000.0


class ChainState(NamedTuple):
    """State of a set of chains, with what the next step needs of it.

    Attributes:
        position: Unconstrained values, shape ``(*chains, *event)``.
        potential: Potentials there, shape ``(*chains,)``; None for samplers that need none.
        gradient: Gradients of the potential there, shape of ``position``; None for kinetic
            Langevin dynamics, which needs them elsewhere.
        velocity: Velocities, shape of ``position``; None for samplers without.
        step_size: Step size in use, 0-dimensional or one for each element of the target's batch.
        scale: Units that coordinates are measured in, broadcasts with ``position``.
        index: Number of steps taken.
        hotter: States of the hotter levels of replica exchange, the hottest first.
    """

    position: Any
    potential: Any
    gradient: Any
    velocity: Any
    step_size: Any
    scale: Any
    index: Any
    hotter: tuple["ChainState", ...] = ()

    def moved(self, position: Any, potential: Any, gradient: Any) -> "ChainState":
        """Replace what a step changes."""
        return self._replace(
            position=position, potential=potential, gradient=gradient, index=self.index + 1
        )

    def jittered(self, uniform: Any, jitter: float) -> "ChainState":
        r"""Multiply the step size of each chain by :math:`1 + j (2 u - 1)`.

        Args:
            uniform: :math:`u`, uniform numbers of shape ``(*chains,)``.
            jitter: :math:`j`.
        """
        return self._replace(step_size=self.step_size * (1.0 + jitter * (2.0 * uniform - 1.0)))

    def levels(self) -> tuple["ChainState", ...]:
        """States of all levels, the hottest first; of one where there is no replica exchange."""
        return (*self.hotter, self)

    def units(self) -> tuple[Any, Any]:
        """Step size and scale, shaped to broadcast with positions."""
        # Without potentials nothing was tuned: a step size of a coordinate or chain fits already.
        if not self.step_size.ndim or self.potential is None:
            return self.step_size, self.scale
        num_event_dims = self.position.ndim - self.potential.ndim
        return expand_right(self.step_size, self.step_size.ndim + num_event_dims), self.scale


class TransitionInfo(NamedTuple):
    """Statistics of one step, under ArviZ's names.

    Attributes:
        acceptance_rate: Probability of acceptance, shape ``(*chains,)``.
        diverging: Whether the move lost more than 1,000 nats or, without acceptance, met a
            gradient that is not finite; shape ``(*chains,)``.
        swap_rate: Probabilities that neighbouring levels of replica exchange would swap, the
            hottest first, shape ``(*chains, num_levels - 1)``; None for other samplers.
        hotter: Statistics of the hotter levels.
    """

    acceptance_rate: Any
    diverging: Any
    swap_rate: Any = None
    hotter: tuple["TransitionInfo", ...] = ()

    def of_draw(self) -> dict[str, Any]:
        """Statistics that there are of the draw, by name."""
        return {k: v for k, v in self._asdict().items() if v is not None and k != "hotter"}


def langevin_move(
    position: Any,
    gradient: Any,
    noise: Any,
    step_size: Any,
    *,
    scale: Any = None,
    temperature: Any = 1.0,
) -> Any:
    r"""Make an Euler step of overdamped Langevin dynamics.

    .. math:: x' = x - h s^2 \nabla U(x) + \sqrt{2 h T}\, s\, \xi, \qquad \xi \sim \mathcal N(0, I)

    References:
        | Exponential convergence of Langevin distributions and their discrete approximations
          (Roberts and Tweedie, 1996)
    """
    spread = (2.0 * step_size * temperature) ** 0.5
    if scale is None:
        return position + (spread * noise - step_size * gradient)
    return position + scale * (spread * noise - step_size * scale * _free(gradient, scale))


def mala_log_acceptance(
    potential: Any,
    gradient: Any,
    proposal_potential: Any,
    proposal_gradient: Any,
    noise: Any,
    step_size: Any,
    *,
    scale: Any = 1.0,
) -> Any:
    r"""Compute the log of the Metropolis ratio of a proposal by :func:`langevin_move`.

    .. math::
        \log \alpha = U(x) - U(x') + \tfrac12 |\xi|^2 - \tfrac12 |\xi - \delta|^2, \qquad
        \delta = \sqrt{h / 2}\, s\, (\nabla U(x) + \nabla U(x'))

    because the way back from :math:`x'` to :math:`x` needs the noise :math:`\delta - \xi`.

    References:
        | Langevin diffusions and Metropolis-Hastings algorithms (Roberts and Stramer, 2002)
    """
    delta = (0.5 * step_size) ** 0.5 * scale * _free(gradient + proposal_gradient, scale)
    gain = _sum_event(delta * (noise - 0.5 * delta), potential.ndim)
    return rejected_where_nan(potential - proposal_potential + gain)


def hmc_log_acceptance(
    potential: Any, velocity: Any, proposal_potential: Any, proposal_velocity: Any
) -> Any:
    r"""Compute the log of the Metropolis ratio of Hamiltonian Monte Carlo.

    .. math:: \log \alpha = U(x) + \tfrac12 |v|^2 - U(x') - \tfrac12 |v'|^2

    References:
        | MCMC using Hamiltonian dynamics (Neal, 2011)
    """
    kinetic = velocity * velocity - proposal_velocity * proposal_velocity
    gain = 0.5 * _sum_event(kinetic, potential.ndim)
    return rejected_where_nan(potential - proposal_potential + gain)


def kick(velocity: Any, gradient: Any, step_size: Any, *, scale: Any = 1.0) -> Any:
    r"""Change velocities by the force: :math:`v' = v - h s \nabla U`."""
    return velocity - step_size * scale * _free(gradient, scale)


def drift(position: Any, velocity: Any, step_size: Any, *, scale: Any = 1.0) -> Any:
    """Move positions by their velocities: :math:`x' = x + h s v`."""
    return position + step_size * scale * velocity


def refresh(velocity: Any, noise: Any, step_size: Any, friction: float) -> Any:
    r"""Change velocities by friction and noise (an exact Ornstein-Uhlenbeck step).

    .. math:: v' = c v + \sqrt{1 - c^2}\, \xi, \qquad c = e^{-\kappa h}
    """
    xp = array_namespace(velocity)
    decay = xp.exp(-friction * step_size)
    return decay * velocity + (1.0 - decay * decay) ** 0.5 * noise


def leapfrog(evaluate: Evaluate, moving: tuple[Any, ...], step_size: Any, scale: Any) -> Any:
    """Make a leapfrog step of ``moving``: position, potential, gradient and velocity."""
    position, _, gradient, velocity = moving
    velocity = kick(velocity, gradient, 0.5 * step_size, scale=scale)
    position = drift(position, velocity, step_size, scale=scale)
    potential, gradient = evaluate(position)
    return position, potential, gradient, kick(velocity, gradient, 0.5 * step_size, scale=scale)


def aboba(
    evaluate: Evaluate,
    position: Any,
    velocity: Any,
    noise: Any,
    step_size: Any,
    scale: Any,
    friction: float,
) -> tuple[Any, Any, TransitionInfo]:
    """Make a step of kinetic Langevin dynamics: drift, kick, refresh, kick, drift.

    References:
        | Rational construction of stochastic numerical methods for molecular sampling
          (Leimkuhler and Matthews, 2013)
    """
    half = 0.5 * step_size
    position = drift(position, velocity, half, scale=scale)
    potential, gradient = evaluate(position)
    velocity = kick(velocity, gradient, half, scale=scale)
    velocity = refresh(velocity, noise, step_size, friction)
    velocity = kick(velocity, gradient, half, scale=scale)
    position = drift(position, velocity, half, scale=scale)
    return position, velocity, unadjusted_info(potential, gradient)


def accept(accepted: Any, proposal: Any, current: Any) -> Any:
    """Take ``proposal`` in the chains that accepted it and ``current`` in the others."""
    return array_namespace(proposal).where(expand_right(accepted, proposal.ndim), proposal, current)


def decide(
    state: ChainState, proposal: tuple[Any, Any, Any], log_ratio: Any, uniform: Any
) -> tuple[ChainState, TransitionInfo]:
    """Accept or reject a proposal of position, potential and gradient in every chain.

    ``log_ratio`` is the log of the Metropolis ratio; ``uniform`` are random numbers of its shape.
    """
    accepted = array_namespace(uniform).log(uniform) < log_ratio
    new = (accept(accepted, *pair) for pair in zip(proposal, state[:3], strict=True))
    return state.moved(*new), decision_info(log_ratio)


def decision_info(log_ratio: Any) -> TransitionInfo:
    """Compute statistics of a step with acceptance from the log of its Metropolis ratio."""
    xp = array_namespace(log_ratio)
    rate = xp.exp(xp.minimum(log_ratio, xp.zeros_like(log_ratio)))
    return TransitionInfo(rate, log_ratio < _DIVERGENCE)


def unadjusted_info(potential: Any, gradient: Any) -> TransitionInfo:
    """Compute statistics of a step without acceptance from potential and gradient on its way.

    Only the shape of the potential is used: compiled code need not compute it.
    """
    ones = array_namespace(gradient).ones_like(potential)
    return TransitionInfo(ones, ~is_finite(gradient, potential.ndim))


def is_finite(gradient: Any, num_chain_dims: int) -> Any:
    """Find the chains whose gradient is finite in every coordinate."""
    xp = array_namespace(gradient)
    size, event_axes = xp.abs(gradient), tuple(range(num_chain_dims, gradient.ndim))
    # NaN is a maximum that is not below infinity; torch's `isfinite` takes longer.
    return (xp.max(size, axis=event_axes) if event_axes else size) < math.inf


def _free(gradient: Any, scale: Any) -> Any:
    """Replace by 0 what a scale of 0 holds, where a gradient may be infinite."""
    # Codes are held by a scale for each coordinate.
    if not getattr(scale, "ndim", 0):
        return gradient
    xp = array_namespace(gradient)
    return xp.where(scale == 0, xp.zeros_like(gradient), gradient)


def _sum_event(x: Any, num_chain_dims: int) -> Any:
    xp = array_namespace(x)
    event_axes = tuple(range(num_chain_dims, x.ndim))
    return xp.sum(x, axis=event_axes) if event_axes else x


def rejected_where_nan(log_ratio: Any) -> Any:
    """Replace NaN by minus infinity: a chain never accepts a proposal without a density."""
    xp = array_namespace(log_ratio)
    return xp.where(xp.isnan(log_ratio), xp.full_like(log_ratio, -math.inf), log_ratio)
