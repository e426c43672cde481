r"""Moves of Markov chains, given the noise and the gradients.

Conventions: ``potential`` is minus the log-density up to a constant, ``step_size`` is the
:math:`h` of :math:`x' = x - h \nabla U(x) + \sqrt{2h}\,\xi` (so the noise has variance
:math:`2h`), and the leading axes of ``position`` are independent chains.
"""

import math
from typing import Any

from array_api_compat import array_namespace

__all__ = ["accept", "langevin_move", "mala_log_acceptance"]


def langevin_move(position: Any, gradient: Any, noise: Any, step_size: float) -> Any:
    r"""Euler step of overdamped Langevin dynamics.

    .. math:: x' = x - h \nabla U(x) + \sqrt{2h}\, \xi, \qquad \xi \sim \mathcal N(0, I)

    Args:
        position: :math:`x`, any shape.
        gradient: :math:`\nabla U(x)`, shape of ``position``.
        noise: :math:`\xi`, shape of ``position``.
        step_size: :math:`h`.

    Returns:
        :math:`x'`, shape of ``position``.

    References:
        | Exponential convergence of Langevin distributions and their discrete approximations
          (Roberts and Tweedie, 1996)
    """
    return position - step_size * gradient + math.sqrt(2.0 * step_size) * noise


def mala_log_acceptance(
    position: Any,
    potential: Any,
    gradient: Any,
    proposal: Any,
    proposal_potential: Any,
    proposal_gradient: Any,
    step_size: float,
) -> Any:
    r"""Log of the Metropolis ratio for a proposal made by :func:`langevin_move`.

    .. math::
        \log \alpha = U(x) - U(x') + \log q(x \mid x') - \log q(x' \mid x), \qquad
        \log q(x' \mid x) = -\frac{|x' - x + h \nabla U(x)|^2}{4h} + c

    Args:
        position: :math:`x`, shape ``(*chains, *event)``.
        potential: :math:`U(x)`, shape ``(*chains,)``.
        gradient: :math:`\nabla U(x)`, shape of ``position``.
        proposal: :math:`x'`, shape of ``position``.
        proposal_potential: :math:`U(x')`, shape ``(*chains,)``.
        proposal_gradient: :math:`\nabla U(x')`, shape of ``position``.
        step_size: :math:`h`.

    Returns:
        :math:`\log \alpha`, shape ``(*chains,)``; minus infinity where the proposal has no density.

    References:
        | Langevin diffusions and Metropolis-Hastings algorithms (Roberts and Stramer, 2002)
    """
    xp = array_namespace(position)
    move = proposal - position
    forward = _squared_norm(move + step_size * gradient, potential.ndim)
    backward = _squared_norm(-move + step_size * proposal_gradient, potential.ndim)
    log_ratio = potential - proposal_potential + (forward - backward) / (4.0 * step_size)
    # A proposal without a density is one that the chain never takes.
    return xp.where(xp.isnan(log_ratio), xp.full_like(log_ratio, -math.inf), log_ratio)


def accept(accepted: Any, proposal: Any, current: Any) -> Any:
    """Take ``proposal`` in the chains that accepted it and ``current`` in the others.

    Args:
        accepted: Booleans, shape ``(*chains,)``.
        proposal: Shape ``(*chains, *event)``.
        current: Shape of ``proposal``.
    """
    xp = array_namespace(proposal)
    shape = tuple(accepted.shape) + (1,) * (proposal.ndim - accepted.ndim)
    return xp.where(xp.reshape(accepted, shape), proposal, current)


def _squared_norm(x: Any, num_chain_dims: int) -> Any:
    xp = array_namespace(x)
    event_axes = tuple(range(num_chain_dims, x.ndim))
    return xp.sum(x * x, axis=event_axes) if event_axes else x * x
