r"""Score matching: training by the gradient of the potential, free of the log-normalizer.

All three objectives fit :math:`-\nabla U` to the score (the gradient of the log-density) of the
data, with :math:`U = E - \log p_0` over unconstrained space: where the support is constrained, the
log-determinant of the change of variables is part of U. Energy and base are trained together,
without MCMC. A score says little about the share of the data in each of several distant modes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_positive, check_positive_integer
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.numerics import sum_event
from pyro_ebm.core.objectives.loss import Objective
from pyro_ebm.core.objectives.settings import convert_fields


@dataclass(frozen=True)
class ScoreMatching(Objective):
    r"""Objective that matches scores, by the trace of the Hessian at the data.

    .. math:: \ell(x) = \tfrac12 |\nabla U(x)|^2 - \mathrm{tr}\, \nabla^2 U(x)

    The energy must have a continuous gradient, as with SiLU or softplus: with ReLU or LeakyReLU the
    Hessian is zero wherever it exists, and training goes wrong. ``EnergyELBO`` raises for such an
    energy where it sees numbers.

    Costs D products with the Hessian, D being the number of coordinates of a value: in many
    dimensions use :class:`SlicedScoreMatching` or :class:`DenoisingScoreMatching`.

    References:
        | Estimation of Non-Normalized Statistical Models by Score Matching (Hyvarinen, 2005)
    """


@dataclass(frozen=True)
class SlicedScoreMatching(Objective):
    r"""Objective that matches scores along K random directions.

    .. math::
        \ell(x) = \tfrac12 |\nabla U(x)|^2 - \frac1K \sum_{k=1}^K v_k^\top \nabla^2 U(x)\, v_k

    Its expectation is :class:`ScoreMatching`, with the same condition on the energy. Entries of
    :math:`v_k` are random signs (Rademacher), which have the lowest variance, none at all where
    the Hessian is diagonal.

    Args:
        num_projections: :math:`K`.

    Raises:
        ValueError: If the number is not a positive integer.

    References:
        | Sliced Score Matching: A Scalable Approach to Density and Score Estimation
          (Song et al., 2019), https://arxiv.org/abs/1905.07088 (the variance-reduced form)
    """

    num_projections: int = 1

    def __post_init__(self) -> None:
        convert_fields(self, num_projections=check_positive_integer)


@dataclass(frozen=True)
class DenoisingScoreMatching(Objective):
    r"""Objective that matches the score of noisy data.

    .. math::
        \ell(x) = \tfrac12 \big| \sqrt t\, \nabla U(\tilde x) - \xi \big|^2, \qquad
        \tilde x = x + \sqrt t\, \xi

    One call of the energy and its first derivative only. The density that is fitted is that of
    the *noisy* data, whose variance is larger by :math:`t`.

    Args:
        variance: :math:`t`, the *variance* of the noise (papers give the standard deviation).

    Raises:
        ValueError: If the variance is not a positive number.

    References:
        | A Connection Between Score Matching and Denoising Autoencoders (Vincent, 2011),
          https://doi.org/10.1162/NECO_a_00142
    """

    variance: float

    def __post_init__(self) -> None:
        convert_fields(self, variance=check_positive)


def score_matching(gradient: Any, directions: Any, products: Any, event_ndim: int) -> Any:
    r"""Compute score matching, shape ``(*batch,)``, with the trace taken from K directions.

    The mean over directions is the trace of the Hessian where :math:`v v^\top` is the identity on
    average: over the :math:`K = D` vectors :math:`\sqrt D\, e_k` it is exact, over random vectors
    it holds in expectation.

    Args:
        gradient: :math:`\nabla U`, shape ``(*batch, *event)``.
        directions: :math:`v_k`, shape ``(K, *batch, *event)``.
        products: :math:`\nabla^2 U\, v_k`, shape ``(K, *batch, *event)``.
        event_ndim: Number of event dimensions.
    """
    xp = array_namespace(gradient, directions, products)
    curvature = xp.mean(sum_event(directions * products, event_ndim), axis=0)
    return 0.5 * sum_event(gradient**2, event_ndim) - curvature


def denoising_score_matching(gradient: Any, noise: Any, variance: float, event_ndim: int) -> Any:
    r"""Compute denoising score matching of each data point, shape ``(*batch,)``.

    .. math::
        \ell = \frac t2 \Big| \nabla U(\tilde x) - \frac{\tilde x - x}t \Big|^2

    The factor :math:`t` is not in the paper. With it a flat energy has the loss :math:`D/2` on
    average at every variance, and the size of gradients does not depend on the variance.

    Args:
        gradient: :math:`\nabla U(\tilde x)`, shape ``(*batch, *event)``.
        noise: :math:`\xi`, standard normal, of the same shape.
        variance: :math:`t`.
        event_ndim: Number of event dimensions.
    """
    return 0.5 * sum_event((math.sqrt(variance) * gradient - noise) ** 2, event_ndim)


def coordinate_directions(identity: Any, batch_ndim: int, event_shape: tuple[int, ...]) -> Any:
    r"""Return the D vectors :math:`\sqrt D\, e_k`, shape ``(D, *ones, *event)``.

    From the identity matrix of D dimensions; there is a one for each batch dimension.
    """
    xp = array_namespace(identity)
    shape = (identity.shape[0], *(1,) * batch_ndim, *event_shape)
    return math.sqrt(identity.shape[0]) * xp.reshape(identity, shape)


# Jumps are looked for at this many points, a step of so many deviations to each side.
_NUM_POINTS, _NUM_ROWS, _STEP = 1024, 256, 0.01
# Of the mean gradient. ReLU and LeakyReLU have jumps from 0.036 up, smooth energies below 0.004.
_LARGEST_JUMP = 0.01


def check_gradient(
    distribution: Any,
    target: Any,
    value: Any,
    counts: Any,
    hessian_products: Callable[..., tuple[Any, ...]],
    random_signs: Callable[[tuple[int, ...], Any], Any],
    site: str,
) -> None:
    r"""Raise if the gradient of an energy jumps, so that second derivatives miss a part of it.

    .. math::
        \max_x \Big| \tfrac12\, v^\top \big(\nabla E(x + h v) - \nabla E(x - h v)\big)
            - h\, v^\top \nabla^2 E(x)\, v \Big| \Big/ \overline{|v^\top \nabla E|}

    Args:
        distribution: An energy-based distribution.
        target: Its target.
        value: Shape ``(*batch, *event)``.
        counts: How often each value counts, shape ``(*batch,)``.
        hessian_products: Function of the host, from a partial of the distribution, points and
            directions, whose last results are gradient and products.
        random_signs: Signs of a shape, of the type of an array.
        site: Name of the sample site.
    """
    xp = array_namespace(value)
    x, event_ndim = _points(distribution, target, value, counts)
    batch_shape = x.shape[: x.ndim - event_ndim]
    num_rows = math.prod(batch_shape)
    if num_rows == 0:
        return
    deviation = xp.std(x, axis=tuple(range(len(batch_shape))))
    v = deviation * random_signs((max(1, _NUM_POINTS // num_rows), *x.shape), x)
    points, along = xp.stack([x - _STEP * v, x + 0 * v, x + _STEP * v]), xp.stack([v, v, v])
    energy = partial(_energy_at, distribution)
    *_, gradient, products = hessian_products(energy, points, along[None, ...])
    before, here, after = (sum_event(gradient * along, event_ndim)[k, ...] for k in range(3))
    curvature = sum_event(products[0, ...] * along, event_ndim)[1, ...]
    jump = float(xp.max(xp.abs((after - before) / 2 - _STEP * curvature)))
    if jump > _LARGEST_JUMP * float(xp.mean(xp.abs(here))):
        raise ValueError(
            f"Expected the energy of site {site!r} to have a continuous gradient, got one that "
            "jumps, as with ReLU and LeakyReLU: score matching by second derivatives cannot train "
            "it. Use SiLU or softplus, or DenoisingScoreMatching."
        )


def _energy_at(distribution: Any, position: Any) -> Any:
    value = distribution._target_class.of(distribution).value(position)
    return scaled_energy(distribution, value)


def _points(distribution: Any, target: Any, value: Any, counts: Any) -> tuple[Any, int]:
    """Unconstrained values; of a shared distribution few, that count more than zero times."""
    x, batch_ndim = target.position(value), value.ndim - len(distribution.event_shape)
    event_shape, batch_shape = tuple(x.shape[batch_ndim:]), tuple(x.shape[:batch_ndim])
    is_shared = (
        distribution.context is None
        and not math.prod(getattr(distribution.base, "batch_shape", ())) > 1
    )
    if is_shared:
        xp = array_namespace(value)
        x = xp.reshape(x, (math.prod(batch_shape), *event_shape))
        x = x[xp.reshape(xp.broadcast_to(counts, batch_shape), (-1,)) > 0][:_NUM_ROWS, ...]
    return x, len(event_shape)
