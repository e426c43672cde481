"""Energy discrepancy: training by energies of values and of perturbed copies alone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_nonnegative, check_positive, check_positive_integer
from pyro_ebm.core.numerics import logsumexp
from pyro_ebm.core.objectives.loss import Loss, Objective
from pyro_ebm.core.objectives.negatives import energy_metrics
from pyro_ebm.core.objectives.perturbations import check_perturbation
from pyro_ebm.core.objectives.settings import as_tuple, convert_fields, each, optional


@dataclass(frozen=True, kw_only=True)
class EnergyDiscrepancy(Objective):
    r"""Objective that compares the potential of a value with those of perturbed copies.

    .. math::
        \ell(x) = \log\Big( \frac{w}{M} + \frac1M \sum_{j=1}^M e^{U(x) - U(x_j)} \Big), \qquad
        y = x + \sqrt t\, \xi, \quad x_j = y + \sqrt t\, \xi_j, \quad U = E - \log p_0

    Each value is perturbed once, to y, and M copies are drawn back from y. It costs one call of the
    energy, on M + 1 values for each data point, and needs neither MCMC nor gradients in the value.
    Energy and base are trained together. On a constrained support, noise is added in unconstrained
    space. Discrete events (columns of codes) need a ``perturbation``: ``Uniform``, ``Cyclic``,
    ``Ordinal``, ``Masking`` or ``MaskOne``; tables with numbers too, a ``Product`` of one a column.

    Args:
        variance: :math:`t`, the *variance* of one of the two steps of Gaussian noise (some papers
            give the standard deviation). Try 0.5 to 1 times the squared distance between modes. If
            several numbers are given, their losses, each with M copies, are averaged.
        num_samples: :math:`M`, copies of each value; raise it with the variance.
        stabilization: :math:`w \ge 0`. At 1 the minimizer is exact for every M. At 0 training can
            diverge unless M is large.
        perturbation: Noise kernel, or several, instead of ``variance``. A kernel of your own needs
            ``forward`` and ``backward``; see
            :class:`~pyro_ebm.core.objectives.perturbations.GaussianPerturbation`.
        chunk_size: Number of copies of each value in memory at once; by default all. With chunks,
            noise and energies are computed again for gradients. A step then takes about 1.5 times
            as long if a chunk has thousands of rows, and longer if it has fewer. A seed gives
            different noise, and a kernel of your own must draw from the host's random numbers.

    Raises:
        TypeError: If ``perturbation`` is no noise kernel.
        ValueError: If a number is out of range, not exactly one of ``variance`` and
            ``perturbation`` is given, or ``MaskOne(exact=True)`` has a ``chunk_size``.

    References:
        | Energy Discrepancies: A Score-Independent Loss for Energy-Based Models
          (Schroder et al., 2023), https://arxiv.org/abs/2307.06431
        | Training Discrete Energy-Based Models with Energy Discrepancy (Schroder et al., 2023),
          https://arxiv.org/abs/2307.07595
    """

    variance: float | Sequence[float] | None = None
    num_samples: int = 16
    stabilization: float = 1.0
    perturbation: Any = None
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        if (self.variance is None) == (self.perturbation is None):
            given = "neither" if self.variance is None else "both"
            raise ValueError(f"Expected one of `variance` and `perturbation`, got {given}.")
        convert_fields(
            self,
            variance=optional(each(check_positive)),
            perturbation=optional(each(check_perturbation)),
            num_samples=check_positive_integer,
            stabilization=check_nonnegative,
            chunk_size=optional(check_positive_integer),
        )
        if self.chunk_size is not None and is_exact(self.perturbation):
            raise ValueError(
                f"Expected no `chunk_size` with {self.perturbation}, which draws no copies, got "
                f"{self.chunk_size}."
            )

    def _perturbations(self, gaussian: Callable[[float], Any]) -> tuple[Any, ...]:
        """Noise kernels; ``gaussian`` makes one of the host from a variance."""
        if self.variance is None:
            return as_tuple(self.perturbation)
        return tuple(gaussian(variance) for variance in as_tuple(self.variance))

    def _loss(self, potential: Any, num_scales: int) -> Loss:
        """Loss from potentials of values, first, and of their copies, shape ``(1 + K M, *batch)``.

        Copies of the K perturbations follow one another.
        """
        xp, positive, negative = array_namespace(potential), potential[0, ...], potential[1:, ...]
        scales = xp.reshape(negative, (num_scales, self.num_samples, *positive.shape))
        return self._mean_loss(positive, scales, negative)

    def _chunks(self) -> list[int]:
        """Numbers of copies that each chunk has of a value."""
        size = min(self.chunk_size or self.num_samples, self.num_samples)
        num_whole, rest = divmod(self.num_samples, size)
        return [size] * num_whole + [rest] * (rest > 0)

    def _mean_loss(self, positive: Any, scales: Any, negative: Any) -> Loss:
        """Mean loss over K perturbations; negatives are for metrics.

        ``scales`` are potentials of copies, or soft minima of parts of them, shape
        ``(K, copies, *batch)``.
        """
        w, num_samples = self.stabilization, self.num_samples
        losses = [
            energy_discrepancy(positive, scales[k, ...], w, num_samples)
            for k in range(scales.shape[0])
        ]
        return self._with_metrics(sum(losses) / len(losses), positive, negative)

    def _exact_loss(self, potential: Any, target: Any) -> Loss:
        """Loss of ``MaskOne(exact=True)``, from potentials of values and of all alternatives."""
        positive, negative = potential[0, ...], potential[1:, ...]
        loss = mask_one_discrepancy(positive, negative, [column.size for column in target.columns])
        return self._with_metrics(loss, positive, negative)

    def _with_metrics(self, loss: Any, positive: Any, negative: Any) -> Loss:
        return Loss(loss, energy_metrics(self._constant(positive), self._constant(negative)))


def is_exact(perturbation: Any) -> bool:
    """Check whether noise is averaged over without a draw."""
    return bool(getattr(perturbation, "exact", False))


def mask_one_discrepancy(positive: Any, negative: Any, sizes: Sequence[int]) -> Any:
    """Compute the loss of :class:`~pyro_ebm.column_perturbations.MaskOne`, exactly.

    Args:
        positive: Potentials of values, shape ``(*batch,)``.
        negative: Those with another code in one column, column by column, shape
            ``(sum(sizes) - C, *batch)``.
        sizes: Numbers of codes of the C columns.
    """
    xp = array_namespace(positive)
    terms, start, total = positive[None, ...] - negative, 0, 0.0
    for size in sizes:
        own = terms[start : start + size - 1, ...]
        total = total + logsumexp(xp.concat([xp.zeros_like(own[:1, ...]), own])) - math.log(size)
        start += size - 1
    return total / len(sizes)


def energy_discrepancy(
    positive: Any, negative: Any, stabilization: float, num_samples: int | None = None
) -> Any:
    r"""Compute the energy discrepancy :math:`\ell` of each data point, shape ``(*batch,)``.

    With :math:`w = 1` the minimizer is exactly :math:`-\log p`, up to a constant, for every M;
    smaller :math:`w` sharpens the fit and larger :math:`w` flattens it. The authors' code omits
    :math:`-\log M`, which shifts the value and changes no gradient. A constant
    potential gives :math:`\log((M + w)/M)`.

    Args:
        positive: :math:`U(x)`, shape ``(*batch,)``.
        negative: :math:`U(x_j)`, shape ``(M, *batch)``; or the soft minima of parts of them. Plus
            infinity (outside the support) counts as a zero term.
        stabilization: :math:`w \ge 0`.
        num_samples: M. Default: the number of negatives.
    """
    xp = array_namespace(positive, negative)
    terms = positive[None, ...] - negative
    # log 0 would be a term of its own with a NaN gradient.
    if stabilization > 0:
        constant = xp.full_like(terms[:1, ...], math.log(stabilization))
        terms = xp.concat([terms, constant], axis=0)
    return logsumexp(terms) - math.log(num_samples or negative.shape[0])


def soft_minimum(potential: Any) -> Any:
    r"""Compute :math:`-\log \sum_j e^{-U_j}` over the first axis; of infinities alone, infinity."""
    xp = array_namespace(potential)
    outside = xp.all(potential == math.inf, axis=0)
    # Replaced beforehand, or their gradient would be infinity times zero.
    minimum = -logsumexp(-xp.where(outside, xp.zeros_like(potential), potential))
    return xp.where(outside, xp.full_like(minimum, math.inf), minimum)
