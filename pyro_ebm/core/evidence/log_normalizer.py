r"""Normalizing constants of energy-based distributions: settings, result, checks."""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_choice, check_positive_integer
from pyro_ebm.core.distributions.context import own_shape
from pyro_ebm.core.samplers.settings import check_exact, check_sampler

# An error estimate from fewer effective samples than this is unreliable.
FEW = 10.0
# A wider bracket, in nats, triggers a warning: Z is then known to within a factor of e at best.
_WIDE = 1.0
# Chains of the pilot run, or those that search for the bulk of a density.
NUM_PILOTS = 100
# Elements of a batch that a result or a warning shows.
_MAX_LINES = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class LogNormalizerSettings:
    r"""Method and effort of an estimate of the normalizing constant of an energy-based density.

    .. math:: \log Z = \log \int e^{-E(x)} p_0(x)\, dx

    *Importance sampling* draws from the base: :math:`Z = \mathrm E_{p_0}[e^{-E(x)}]`. Without
    ``draws`` nothing bounds :math:`\log Z` from above, and ``upper`` is infinite.

    *Annealed importance sampling* moves chains from the base to the distribution and back through
    :math:`p_k \propto e^{-\beta_k E} p_0`, :math:`0 = \beta_0 < \dots < \beta_K = 1`, with one
    transition of the kernel at each. A path has the log-weight
    :math:`\log w = -\sum_k (\beta_k - \beta_{k-1}) E(x_{k-1})`. If fewer than half of the paths
    are effective, they are resampled. A pilot run of 100 other chains chooses the :math:`\beta_k`,
    and for each the step size and the units of coordinates
    (:func:`~pyro_ebm.core.samplers.local_units.local_scale`). Both leave the mean weight unbiased.
    The reverse paths start at the ends of the forward ones, resampled by weight and then moved
    ``num_moves`` times at :math:`\beta = 1`. The moves separate copies of the same draw: choose as
    many as the chains need to forget their start, or provide exact ``draws``. Cost with MALA, in
    gradients: ``2 * num_temperatures + 1`` for each forward and each reverse path, ``num_moves``
    for each sample, 400 for each temperature, and 40,000 at most, for the pilot run.

    *Quadrature on a grid*, in one to three dimensions of unconstrained space and with or without a
    base, refines the grid until the bounds are 0.001 nats apart or it has two million points.

    *Enumeration* sums over all values of a discrete event, at most a million. With discrete
    columns, annealing moves by ``Gibbs()``.

    The bounds are those of :func:`~pyro_ebm.core.evidence.weights.bracket`, or of
    :func:`~pyro_ebm.core.evidence.quadrature.summarize_grid`. On a ``Pushforward`` base all methods
    except importance sampling work on the ``latent`` of the distribution, whose log-normalizer is
    the same.

    Args:
        method: ``"annealed"``, ``"importance"``, ``"grid"`` or ``"enumeration"``. The first two
            need a base that can be sampled; the first also needs its density.
        num_samples: Number of forward paths, and of reverse ones; of draws of the base otherwise.
        num_temperatures: :math:`K`.
        num_moves: Transitions between the forward and the reverse paths.
        sampler: Kernel of ``"annealed"``, which must leave a density invariant, and of the search
            by ``"grid"`` without a base. Tuning towards its ``target_accept_prob`` starts at its
            step size, or by a rule of thumb if it has ``adapt_mass_matrix``. Default:
            ``MALA(0.1)``, or ``Gibbs()``.
        draws: Independent exact draws of the distribution (or of its ``latent``), shape
            ``(num_draws, *batch, *event)``: starts of the reverse paths, or first points of a grid.

    Raises:
        ValueError: If an argument is out of range, the base lacks what the method needs, the
            sampler is not exact, or energies at draws of the base are NaN.

    Warns:
        UserWarning: If there are fewer than 10 effective samples, the bracket is wider than one
            nat, the chains that make draws hardly move, or no box encloses the density.

    References:
        | Annealed importance sampling (Neal, 2001)
        | Sequential Monte Carlo samplers (Del Moral, Doucet and Jasra, 2006)
        | Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse, Ghahramani
          and Adams, 2015)
        | The exponentially convergent trapezoidal rule (Trefethen and Weideman, 2014)
    """

    method: str = "annealed"
    num_samples: int = 1000
    num_temperatures: int = 100
    num_moves: int = 100
    sampler: Any = None
    draws: Any = None

    def __post_init__(self) -> None:
        check_choice("method", self.method, ("annealed", "importance", "grid", "enumeration"))
        for name in ("num_samples", "num_temperatures", "num_moves"):
            check_positive_integer(name, getattr(self, name))
        if self.method == "annealed":
            check_exact(self.sampler)
        if self.sampler is not None:
            check_sampler(self.sampler)


@dataclass(frozen=True, eq=False)
class LogNormalizer:
    r"""Estimate of :math:`\log Z` with a bracket. A base counts as normalized.

    Attributes:
        estimate: Estimate of :math:`\log Z`, shape ``(*batch,)`` of the base, as all numbers here.
        lower: Lower end of the bracket.
        upper: Upper end; plus infinity without an upper bound.
        standard_error: Of ``estimate``; plus infinity where it is unknown.
        effective_sample_size: Kish's :math:`(\sum w)^2 / \sum w^2` of the forward or of the reverse
            weights, whichever is smaller, by families of paths with one start where they were
            resampled; infinity for ``"grid"`` and ``"enumeration"``.
        log_weights: :math:`\log w_k`, shape ``(num_samples, *batch)``; None for these two. The
            mean of :math:`w_k` is unbiased for :math:`Z`.
        reverse_log_weights: Log-weights of paths that start at draws of the distribution, shape
            ``(num_draws, *batch)``, with the same sign: the mean of :math:`1 / w_k` is unbiased
            for :math:`1 / Z`. None where there are none.
    """

    estimate: Any
    lower: Any
    upper: Any
    standard_error: Any
    effective_sample_size: Any
    log_weights: Any = field(repr=False)
    reverse_log_weights: Any = field(repr=False)

    def __str__(self) -> str:
        return describe(self)


def describe(result: Any) -> str:
    """Return the sentence that a result prints, a line for each element of a batch."""
    shape = result.estimate.shape
    if not shape:
        return _describe(result, ())
    indices = list(product(*map(range, shape)))
    lines = [f"{list(index)}: {_describe(result, index)}" for index in indices[:_MAX_LINES]]
    if len(indices) > _MAX_LINES:
        lines.append(f"... {len(indices) - _MAX_LINES} more")
    return "\n".join(lines)


def _describe(result: Any, index: tuple[int, ...]) -> str:
    names = ("estimate", "standard_error", "lower", "upper")
    estimate, error, lower, upper = (float(getattr(result, name)[index]) for name in names)
    sentence = f"log Z = {estimate:.3f} ± {error:.3f} in [{lower:.3f}, {upper:.3f}]"
    if result.log_weights is None:
        return sentence
    size, num_weights = float(result.effective_sample_size[index]), result.log_weights.shape[0]
    return f"{sentence}, effective samples {size:.0f} of {num_weights}"


def as_values(distribution: Any, draws: Any) -> Any:
    """Return draws of columns of codes in the type of values; others are unchanged."""
    if draws is None or not distribution.support.is_discrete:
        return draws
    return distribution._target_class.of_any(distribution).position(draws)


def search(distribution: Any, run: Callable[..., Any]) -> Any:
    """Find the bulk of a density by short chains, where no draws of a base show it."""
    options = {"num_samples": 1, "num_warmup": 300, "progress_bar": False}
    with warnings.catch_warnings():
        # Divergent and stuck chains matter to draws, not to a search.
        warnings.filterwarnings("ignore", r"\d+ of \d+ ", UserWarning)
        samples = run(distribution, num_chains=NUM_PILOTS, **options).samples
    shape = (-1, *own_shape(distribution), *distribution.event_shape)
    return array_namespace(samples).reshape(samples, shape)


def check_base(distribution: Any, use: Callable[[], Any], *, needs_density: bool) -> None:
    """Raise unless the base of a distribution can be sampled and, if needed, has a density.

    ``use`` samples from the base and, if needed, evaluates its density.
    """
    if distribution.base is None:
        raise ValueError(
            "Expected a distribution with a base to start from, got base=None; in up to three "
            "dimensions method 'grid' needs none."
        )
    try:
        use()
    except NotImplementedError as error:
        wanted = "sample and log_prob" if needs_density else "sample"
        raise ValueError(f"Expected a base with {wanted}, got {distribution.base}.") from error


def check_draws(distribution: Any, draws: Any) -> None:
    """Raise unless draws of a distribution have its shape, and its energy takes them."""
    expected = (*own_shape(distribution), *distribution.event_shape)
    if draws.ndim != 1 + len(expected) or not draws.shape[0] or tuple(draws.shape[1:]) != expected:
        raise ValueError(
            f"Expected `draws` of shape (num_draws, *batch, *event) with {expected} after "
            f"the first, got {tuple(draws.shape)}."
        )
    distribution._check_rows(draws)


def check_result(distribution: Any, result: LogNormalizer) -> None:
    """Raise if energies were NaN or minus infinity on a path, or infinite on all paths.

    Likewise if they were so at values that an enumeration sums over.
    """
    xp = array_namespace(result.estimate)
    is_sum = result.log_weights is None and distribution.support.is_discrete
    if is_sum and not bool(xp.all(xp.isfinite(result.estimate))):
        raise ValueError(
            f"Expected the energy of {distribution} to be a number at all values, and finite at "
            f"some, got log Z = {_show(result.estimate)}."
        )
    sources = {"draws of the base": result.log_weights, "`draws`": result.reverse_log_weights}
    for source, log_weights in sources.items():
        if log_weights is not None:
            check_log_weights(distribution, log_weights, source)


def check_log_weights(distribution: Any, log_weights: Any, source: str) -> None:
    """Raise if log-weights are NaN or plus infinity on a path, or minus infinity on all paths.

    Their shape is ``(num_paths, *batch)``; ``source`` describes where the paths start.
    """
    xp = array_namespace(log_weights)
    num_paths = math.prod(log_weights.shape)
    num_bad = int(xp.sum(xp.isnan(log_weights) | (log_weights == math.inf)))
    if num_bad:
        raise ValueError(
            f"Expected the energy of {distribution} and its base to give numbers at {source}, got "
            f"NaN or minus infinity on {num_bad} of {num_paths} paths."
        )
    if not bool(xp.all(xp.any(log_weights > -math.inf, axis=0))):
        raise ValueError(
            f"Expected the energy of {distribution} to be finite at some of {source}, got "
            f"infinity on all of {log_weights.shape[0]} paths."
        )


def describe_doubts(distribution: Any, result: LogNormalizer) -> Iterator[str]:
    """Yield a warning for few effective samples and one for a wide bracket."""
    xp = array_namespace(result.estimate)
    size, width = float(xp.min(result.effective_sample_size)), result.upper - result.lower
    finite_width = xp.where(width < math.inf, width, xp.zeros_like(width))
    if size < FEW:
        yield (
            f"The effective sample size of log Z of {distribution} is {size:.1f} of "
            f"{result.log_weights.shape[0]}, too few to rely on the estimate "
            f"{_show(result.estimate)}, with a bracket from {_show(result.lower)} to "
            f"{_show(result.upper)}. Use more temperatures or samples, or a better sampler."
        )
    if bool(xp.any(finite_width > _WIDE)):
        advice = (
            "The grid is too coarse: use method 'annealed'"
            if result.log_weights is None
            else "Use more temperatures or samples, or a better sampler"
        )
        yield (
            f"log Z of {distribution} is only known to lie between {_show(result.lower)} and "
            f"{_show(result.upper)}, up to {float(xp.max(finite_width)):.2f} nats apart. {advice}."
        )


def _show(x: Any) -> str:
    if x.ndim == 0:
        return f"{float(x):.2f}"
    if x.shape[0] <= _MAX_LINES:
        shown = [_show(x[index, ...]) for index in range(x.shape[0])]
    else:
        first, last = ([_show(x[i, ...]) for i in ends] for ends in ((0, 1, 2), (-3, -2, -1)))
        shown = [*first, "...", *last]
    return "[" + ", ".join(shown) + "]"
