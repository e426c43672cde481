r"""Marginal likelihoods of latent-variable models: settings, result, checks."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_choice, check_positive_integer
from pyro_ebm.core.distributions.known import error_of, numbers_of
from pyro_ebm.core.evidence.log_normalizer import FEW
from pyro_ebm.core.evidence.weights import summarize_log_weights
from pyro_ebm.core.samplers.settings import check_exact, check_sampler
from pyro_ebm.core.samplers.truncation import NUM_SHARE_DRAWS, is_inside, log_of_share

# Logs of numbers, by site, with their standard errors.
Constants = dict[str, tuple[Any, Any]]

# Chains of the pilot run.
NUM_PILOTS = 8
# So large that draws of a base are inside of a support after the tries that a start has.
_SHARE_OF_STARTS = 0.4


@dataclass(frozen=True, kw_only=True, eq=False)
class LogMarginalSettings:
    r"""Method and effort of an estimate of :math:`\log p(x) = \log \int p(x, z)\,dz`.

    There is one estimate for each *data point*: an element of the plates that contain all latents
    and all observations that depend on them (with ``"importance"``, also all sites of the guide).
    Without such plates there is one estimate, for all data. Observed sites outside these plates
    that depend on no latent are left out. Subsampling does not change the estimate of a data point
    that was drawn.

    *Importance sampling* draws from the guide, with weights :math:`p(x, z) / q(z)`.

    *Annealed importance sampling* moves chains from draws :math:`z_0` of the priors to the
    posterior through :math:`p_k \propto p_0(z)\,(e^{-E(z)}\,p(x \mid z))^{\beta_k}`,
    :math:`\beta_k = (k / K)^4`, with one transition of the kernel at each. The log-weight is
    :math:`\sum_k (\beta_k - \beta_{k-1}) (\log p(x \mid z_{k-1}) - E(z_{k-1}))`. Chains of an
    energy-based prior start at its *base* :math:`p_0`, whose draws are exact, and the path tempers
    its energy together with the likelihood. If the support is narrower than the base's, they start
    inside it, and the share of the base's mass there is estimated too. If the kernel has a
    ``target_accept_prob``, a pilot run of 8 chains finds a step size for each temperature and data
    point.

    Both estimate :math:`\log (Z\,p(x))`. The :math:`\log Z` of each energy-based site is
    subtracted, and its standard error is added in quadrature. Priors without energies, or with a
    known ``log_normalizer``, need none. If a density was ``normalized`` by a result, the error of
    that counts. In a plate, log Z and its error count once for each element: there, in one to three
    dimensions, give an exact one, ``log_normalizers={"a": log_normalizer(..., method="grid")}``.

    Args:
        method: ``"importance"``, which needs a normalized guide with a density, or
            ``"annealed"``, which needs none.
        num_samples: Number of independent weights for each data point.
        num_temperatures: :math:`K`.
        sampler: Kernel of ``"annealed"``; it must leave a density invariant. Default:
            ``MALA(0.1)``.
        log_normalizers: Known :math:`\log Z` by site: a result of ``log_normalizer``, or an exact
            number. All others are estimated by ``log_normalizer``, except those of conditionals.
        batch_size: Samples held in memory at once. Default: all.

    Raises:
        ValueError: If an argument is out of range, ``log_normalizers`` names a site that is not
            energy-based, the guide is missing or has no density, an energy-based prior has no
            base, a latent is discrete, or a site is a conditional of a joint distribution whose
            log-normalizer is unknown.

    Warns:
        UserWarning: If a data point has fewer than 10 effective samples.

    References:
        | Annealed importance sampling (Neal, 2001)
        | Marginal likelihood estimation via power posteriors (Friel and Pettitt, 2008)
    """

    method: str = "importance"
    num_samples: int = 1000
    num_temperatures: int = 100
    sampler: Any = None
    log_normalizers: Mapping[str, Any] | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_choice("method", self.method, ("importance", "annealed"))
        check_positive_integer("num_samples", self.num_samples)
        check_positive_integer("num_temperatures", self.num_temperatures)
        if self.batch_size is not None:
            check_positive_integer("batch_size", self.batch_size)
        if self.method == "annealed":
            check_exact(self.sampler)
        if self.sampler is not None:
            check_sampler(self.sampler)

    def check_guide(self, guide: Any) -> None:
        """Raise if the method needs a guide and there is none."""
        if self.method == "importance" and guide is None:
            raise ValueError("Expected a guide for method='importance', got None.")


@dataclass(frozen=True, eq=False)
class LogMarginal:
    r"""Estimates of :math:`\log p(x)`, one for each data point.

    Attributes:
        estimate: Log of the mean weight, minus the log-normalizers of the energy-based sites. But
            for their error, :math:`p(x)` is estimated without bias: :math:`\log p(x)` is low on
            average.
        standard_error: Of ``estimate``, the error of the log-normalizers included; reliable while
            ``effective_sample_size`` is large.
        effective_sample_size: Kish's :math:`(\sum w)^2 / \sum w^2`.
        log_normalizer_error: Standard error of the log-normalizers alone, which all data points
            share. The mean over ``N`` of them has the standard error
            :math:`\sqrt{\sum_n (s_n^2 - c_n^2) / N^2 + \bar c^2}` with the ``standard_error``
            :math:`s_n` and this part :math:`c_n` of it.
    """

    estimate: Any
    standard_error: Any
    effective_sample_size: Any
    log_normalizer_error: Any

    def __str__(self) -> str:
        names = ("estimate", "standard_error", "effective_sample_size", "log_normalizer_error")
        xp = array_namespace(self.estimate)
        estimate, error, size, common = (
            xp.broadcast_to(getattr(self, name), self.estimate.shape) for name in names
        )
        num_points = math.prod(self.estimate.shape)
        if bool(xp.any(xp.isinf(error))):
            error = math.inf
        else:
            own = float(xp.sum(error**2 - common**2)) / num_points**2
            error = math.sqrt(max(own, 0.0) + float(xp.mean(common)) ** 2)
        few = float(xp.min(size))
        points = f", mean of {num_points} data points" if self.estimate.shape else ""
        sizes = "" if math.isinf(few) else f", effective samples {few:.0f} or more"
        return f"log p(x) = {float(xp.mean(estimate)):.3f} ± {error:.3f}{points}{sizes}"


def summarize_log_marginal(
    log_weights: Any, log_normalizer: Any, log_normalizer_error: Any
) -> LogMarginal:
    r"""Return estimates from weights that leave out a normalizing constant.

    .. math::
        \log \hat p(x) = \log \frac1K \sum_k w_k - \log \hat Z, \qquad
        \mathrm{se}^2 = \frac1{\mathrm{ESS}} - \frac1K + \mathrm{se}^2_{\log Z}

    Log-weights have shape ``(K, *batch)``; :math:`\log \hat Z`, the sum over energy-based sites,
    and its standard error have shape ``(*batch,)``.
    """
    xp = array_namespace(log_weights)
    weights = summarize_log_weights(log_weights)
    common = log_normalizer_error + xp.zeros_like(weights.estimate)
    return LogMarginal(
        weights.estimate - log_normalizer,
        xp.sqrt(weights.standard_error**2 + common**2),
        weights.effective_sample_size,
        common,
    )


def find_constants(
    posterior: Any,
    settings: LogMarginalSettings,
    *,
    estimate: Callable[[int, Any], Any],
    sample: Callable[[int, Any], Any],
    convert: Callable[[Any], Any],
    is_known: Callable[[Any], bool],
) -> list[Constants]:
    """Find the logs that weights are divided by: log-normalizers, shares of bases in supports.

    Args:
        posterior: Posterior of the model.
        settings: Method, and known log-normalizers.
        estimate: Estimates the log-normalizer of an energy, which has a number.
        sample: Draws from a base, which has a number.
        convert: Makes an array of a number.
        is_known: Whether the host knows the numbers in an array.
    """
    energies = {n: e for n, e in posterior.energies.items() if e._is_unnormalized}
    given = settings.log_normalizers or {}
    check_log_normalizers(given, energies)
    _check_conditionals(posterior, energies, given)
    # What densities have subtracted already has an error alone.
    errors = {n: error_of(e.log_normalizer) for n, e in posterior.energies.items()}
    known = {n: (convert(0.0), convert(e)) for n, e in errors.items() if e is not None}
    constants: list[Constants] = [known, {}]
    for index, (name, energy) in enumerate(energies.items()):
        found = given[name] if name in given else estimate(index, energy)
        number, error = (*numbers_of(found), 0.0)[:2]
        constants[0][name] = convert(number), convert(error)
    for index, name in enumerate(posterior.latents if settings.method == "annealed" else ()):
        energy = posterior.energies.get(name)
        if energy is not None and energy._is_truncated:
            share = _share_inside(energy, sample(index, energy.base))
            if is_known(share):
                _check_start(name, share)
            log_share, error = log_of_share(share, NUM_SHARE_DRAWS)
            constants[1][name] = -log_share, error
    return constants


def sum_constants(
    posterior: Any, constants: list[Constants], plate_dims: list[int]
) -> tuple[Any, Any]:
    """Sum logs over sites for each data point; return the standard error too."""
    total = variance = 0.0
    # Log-normalizers are scaled by handlers as densities are, shares of draws are not.
    for by_site, is_scaled in zip(constants, (True, False), strict=True):
        for name, numbers in by_site.items():
            number, error = (
                posterior.per_data_point(name, x, plate_dims, is_scaled=is_scaled) for x in numbers
            )
            total, variance = total + number, variance + error**2
    return total, variance**0.5


def check_log_normalizers(given: Collection[str], energies: Collection[str]) -> None:
    """Raise if a log-normalizer is given for a site that is not an energy-based site."""
    for name in given:
        if name not in energies:
            raise ValueError(
                "Expected log_normalizers for energy-based sites of the model "
                f"({sorted(energies)}), got {name!r}."
            )


def _check_conditionals(posterior: Any, energies: Any, given: Collection[str]) -> None:
    """Raise if a site is a conditional that lacks the log-normalizer of its joint distribution."""
    for name, site in posterior.sites.items():
        is_estimated = name in energies and not energies[name]._lacks_constant
        if not is_estimated and name not in given and posterior._lacks_constant(site["fn"]):
            raise ValueError(
                f"Expected a log-normalizer for conditional {name!r}, got none: observe "
                "`joint.normalized(log_normalizer(joint)).conditional(...)` there, or give it by "
                "log_normalizers={...}."
            )


def check_density(sites: Collection[Any], is_point_mass: Callable[[Any], bool]) -> None:
    """Raise if a guide is a point mass at all of its sites."""
    if all(is_point_mass(site["fn"]) for site in sites if not site["is_observed"]):
        raise ValueError("Expected a guide with a density, got one with nothing but Delta sites.")


def check_no_points(constant: Iterable[str]) -> None:
    """Raise if latents have the same value in all draws of a guide."""
    for name in constant:
        raise ValueError(
            f"Expected a guide with a density, got the same value at site {name!r} in every draw: "
            "log p(x) needs a distribution with a spread there, no point mass."
        )


def _share_inside(energy: Any, draws: Any) -> Any:
    xp = array_namespace(draws)
    return xp.mean(xp.astype(is_inside(energy, draws), draws.dtype), axis=0)


def _check_start(site: str, share: Any) -> None:
    """Raise if chains would not start at a base inside of a narrower support of a prior."""
    smallest = float(array_namespace(share).min(share))
    if smallest < _SHARE_OF_STARTS:
        raise ValueError(
            f"Expected a support with a share of {_SHARE_OF_STARTS} of the base's mass or more for "
            f"method 'annealed', got {smallest:.3g} at site {site!r}: use method='importance', or "
            "a base nearer to the support."
        )


def describe_doubts(result: LogMarginal) -> Iterator[str]:
    """Yield warnings of data points with few effective samples, and of those without a number."""
    xp = array_namespace(result.effective_sample_size)
    sizes = xp.reshape(result.effective_sample_size, (-1,))
    num_bad = int(xp.sum(xp.astype(xp.isnan(result.estimate), xp.int32)))
    if num_bad:
        yield (
            f"log p(x) is NaN at {num_bad} of {sizes.shape[0]} data points: at some draws an "
            "energy or a density of the model or of the guide is NaN or infinite."
        )
    is_few = sizes < FEW
    num_few = int(xp.sum(xp.astype(is_few, xp.int32)))
    if num_few:
        smallest = float(xp.min(xp.where(is_few, sizes, xp.full_like(sizes, FEW))))
        yield (
            f"The effective sample size of log p(x) is below {FEW:.0f} at {num_few} of "
            f"{sizes.shape[0]} data points, down to {smallest:.1f}: their estimates "
            "are low, by more than the standard errors show. Use more samples or temperatures, or "
            "a better guide or kernel."
        )
