r"""Gibbs with gradients: settings, proposals of one code, and their Metropolis ratio.

With codes as numbers, a first-order expansion of the potential :math:`U` weighs every change of one
column :math:`c` to a code :math:`v`:

.. math::
    q(c, v \mid x) \propto e^{-\frac12 (v - x_c)\, \partial_c U(x)}, \qquad v \ne x_c
"""

import math
from itertools import chain
from typing import Any

from array_api_compat import array_namespace, device

from pyro_ebm.core.columns import Columns
from pyro_ebm.core.numerics import logsumexp
from pyro_ebm.core.samplers.dynamics import ChainState, TransitionInfo, rejected_where_nan
from pyro_ebm.core.samplers.gibbs import ColumnKernel, alternatives


class GibbsWithGradients(ColumnKernel):
    r"""Gibbs with gradients: a change of the one code that the gradient favours; one gradient.

    .. math::
        \log \alpha = U(x) - U(x') + \log q(x \mid x') - \log q(x' \mid x), \qquad
        q(x' \mid x) \propto e^{-\frac12 (x' - x) \cdot \nabla U(x)}

    over all :math:`x'` that differ from :math:`x` in one column of codes. Acceptance makes it exact
    for any energy; the energy need only be a function of codes as real numbers, whose derivative
    there is a guide. A step changes one column at most, where a sweep of :class:`Gibbs` draws all
    of them for as many evaluations as there are codes: it pays with hundreds of columns, of which
    few are undecided. For an energy that looks codes up in a table (``one_hot``, indices) the
    derivative is 0, proposals are uniform, and :class:`Gibbs` is better: ``run_chains`` raises.

    Numeric columns first move together, as in :class:`Gibbs`.

    Args:
        numeric: Kernel of numeric columns, which accepts or rejects its moves. Default:
            ``MALA()``.
        columns: A ``Column`` for each coordinate of the flattened event. Default: those of the
            distribution; a potential alone has none.

    References:
        | Oops I took a gradient: scalable sampling for discrete distributions (Grathwohl, Swersky,
          Hashemi, Duvenaud and Maddison, 2021)
    """

    def check_start(self, position: Any, gradient: Any, gradient_at: Any) -> None:
        """Raise unless the potential has a derivative in some code, in some chain.

        Chains may all start where it is 0: then it is looked for after a change of one code, each
        in turn. A quadratic energy without one there has none at all.
        """
        xp, shape = array_namespace(position), position.shape
        flat = xp.reshape(position, (-1, len(self.columns)))
        sizes = [(c, column.size) for c, column in enumerate(self.columns) if column.size]
        changed = (alternatives(flat, c, size)[0, ...] for c, size in sizes)
        gradients = (gradient_at(xp.reshape(each, shape)) for each in changed)
        is_code = xp.asarray([bool(c.size) for c in self.columns], device=device(gradient))
        for each in chain([gradient], gradients):
            if bool(xp.any((xp.reshape(each, flat.shape) != 0) & is_code)):
                return
        raise ValueError(
            f"Expected an energy with derivatives in its codes for {self}, got 0 everywhere, "
            "as where codes are indices: use Gibbs()."
        )


def propose(state: ChainState, columns: Columns, noise: Any) -> tuple[Any, Any]:
    r"""Propose a change of one code; return the proposal and :math:`\log q(x' \mid x)`.

    ``noise`` is standard Gumbel noise, shape ``(*chains, num_changes(columns))``.
    """
    xp = array_namespace(noise)
    changes, log_rates = _changes(state.position, state.gradient, columns, noise.shape)
    chosen = xp.argmax(log_rates + noise, axis=-1)[..., None]
    is_chosen = xp.arange(noise.shape[-1], device=device(noise)) == chosen
    rate = xp.take_along_axis(log_rates, chosen, axis=-1)[..., 0]
    steps = xp.where(is_chosen, xp.reshape(changes, noise.shape), xp.zeros_like(noise))
    move = xp.sum(xp.reshape(steps, changes.shape), axis=-1)
    move = xp.astype(xp.reshape(move, state.position.shape), state.position.dtype)
    return state.position + move, rate - logsumexp(log_rates, axis=-1)


def log_acceptance(
    state: ChainState, proposal: tuple[Any, Any, Any], log_proposal: Any, columns: Columns
) -> Any:
    """Compute the log of the Metropolis ratio of :func:`propose`.

    ``proposal`` is a position with its potential and gradient, ``log_proposal`` the
    log-probability of proposing it.
    """
    (position, potential, gradient), xp = proposal, array_namespace(log_proposal)
    shape = (*log_proposal.shape, num_changes(columns))
    _, log_rates = _changes(position, gradient, columns, shape)
    move = xp.astype(state.position - position, gradient.dtype)
    way_back = xp.reshape(move * _guide(gradient), (*log_proposal.shape, len(columns)))
    log_return = -0.5 * xp.sum(way_back, axis=-1) - logsumexp(log_rates, axis=-1)
    return rejected_where_nan(state.potential - potential + log_return - log_proposal)


def never_diverging(info: TransitionInfo) -> TransitionInfo:
    """Return statistics without divergences: a code of probability zero is none."""
    xp = array_namespace(info.diverging)
    return info._replace(diverging=xp.zeros_like(info.diverging))


def num_changes(columns: Columns) -> int:
    """Count changes of one code, where all columns have as many as the largest."""
    return len(columns) * (_largest(columns) - 1)


def _changes(position: Any, gradient: Any, columns: Columns, shape: Any) -> tuple[Any, Any]:
    """Differences ``(*chains, num_columns, S - 1)``, and their log-rates, of the given shape."""
    xp, like = array_namespace(position), {"dtype": gradient.dtype, "device": device(position)}
    flat = (*shape[:-1], len(columns), 1)
    sizes = xp.asarray([float(column.size or 1) for column in columns], **like)[:, None]
    # The k-th value is k codes on, modulo the size; a smaller column has fewer.
    steps = xp.arange(1, _largest(columns), **like)
    is_beyond = xp.astype(xp.reshape(position, flat), gradient.dtype) + steps >= sizes
    changes = xp.where(is_beyond, steps - sizes, steps)
    log_rates = -0.5 * xp.reshape(_guide(gradient), flat) * changes
    log_rates = xp.where(steps < sizes, log_rates, xp.full_like(log_rates, -math.inf))
    return changes, xp.reshape(log_rates, shape)


def _guide(gradient: Any) -> Any:
    """Replace derivatives that are not finite, which would forbid a move or its way back, by 0."""
    xp = array_namespace(gradient)
    return xp.where(xp.isfinite(gradient), gradient, xp.zeros_like(gradient))


def _largest(columns: Columns) -> int:
    return max(column.size or 1 for column in columns)
