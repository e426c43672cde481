"""Evidence of latent-variable models with energy-based sites."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_ebm.core.checks import check_choice, check_positive_integer
from pyro_ebm.core.evidence.annealing import log_weight_increment, tuned
from pyro_ebm.core.evidence.log_marginal import (
    LogMarginal,
    describe_doubts,
    inverse_temperatures,
    summarize_log_marginal,
)
from pyro_ebm.core.evidence.weights import LogNormalizer
from pyro_ebm.pyro.evidence.annealing import check_exact
from pyro_ebm.pyro.evidence.log_normalizer import log_normalizer
from pyro_ebm.pyro.model.densities import log_density, shared_plates
from pyro_ebm.pyro.model.posterior import Posterior
from pyro_ebm.pyro.model.sites import find_energy, map_energy
from pyro_ebm.pyro.samplers import MALA, Sampler

__all__ = ["log_marginal"]

# Chains of the first pass, which finds the step size that each temperature asks for.
_NUM_PILOTS = 8


@torch.no_grad()
def log_marginal(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    *args: Any,
    method: str = "importance",
    num_samples: int = 1000,
    num_temperatures: int = 100,
    sampler: Sampler | None = None,
    log_normalizers: Mapping[str, LogNormalizer | float] | None = None,
    batch_size: int | None = None,
    **kwargs: Any,
) -> LogMarginal:
    r"""Estimate :math:`\log p(x) = \log \int p(x, z)\,dz`, for each data point where it can be.

    Data points are the elements of the plates that contain all latents, and all observations
    that depend on them (with ``"importance"``: all that the guide samples, too); the results have
    the shape of these plates. Without such plates there is one result, for all data. Observed
    sites outside of them, which no latent enters, are left out; subsampling leaves the numbers of
    the data points that were drawn as they are.

    ``"importance"`` draws from the guide and weighs by :math:`p(x, z) / q(z)`. ``"annealed"``
    walks from draws :math:`z_0` of the priors to the posterior, through
    :math:`p_k \propto p_0(z)\,(e^{-E(z)}\,p(x \mid z))^{\beta_k}` with
    :math:`\beta_k = (k / K)^4` and one transition each, and weighs by
    :math:`\log w = \sum_k (\beta_k - \beta_{k-1}) (\log p(x \mid z_{k-1}) - E(z_{k-1}))`. For an
    energy-based prior it starts at the *base* :math:`p_0`, whose draws are exact (those of the
    prior itself are not), and tempers the energy along with the likelihood.

    So both estimate :math:`\log (Z\,p(x))`, and :math:`\log Z` of every energy-based site is
    subtracted, with its standard error added in quadrature. Priors without energies, and those
    with a known ``log_normalizer``, need none.

    Args:
        model: A Pyro model, vectorised over its plates.
        guide: Proposal of ``"importance"``, normalized; ``"annealed"`` does not use it: None.
        *args: Arguments of model and guide.
        method: ``"importance"`` or ``"annealed"``.
        num_samples: Independent weights for each data point.
        num_temperatures: :math:`K` of ``"annealed"``.
        sampler: Kernel of ``"annealed"`` that leaves a density invariant. With a
            ``target_acceptance``, a first pass of a few chains finds the step size of each
            temperature and data point, which the weighted chains keep to. Default:
            ``MALA(0.1)``, so tuned.
        log_normalizers: What is known of :math:`\log Z` by site: what :func:`log_normalizer`
            gave, or a number that is exact. Others are estimated by :func:`log_normalizer`.
        batch_size: Samples that are held in memory at once. Default: all.
        **kwargs: Arguments of model and guide.

    Returns:
        Estimates with their errors, shape ``(*plates,)`` each.

    Raises:
        ValueError: If an argument is out of range; if ``log_normalizers`` names a site that is
            not energy-based; if the guide is missing or has no density; if an energy-based prior
            has no base to start at; and as :class:`LangevinGuide` for the latents.

    References:
        | Annealed importance sampling (Neal, 2001)
    """
    check_choice("method", method, ("importance", "annealed"))
    check_positive_integer("num_samples", num_samples)
    check_positive_integer("num_temperatures", num_temperatures)
    posterior = Posterior(model, args, kwargs)
    size = num_samples if batch_size is None else check_positive_integer("batch_size", batch_size)
    sizes = [min(size, num_samples - start) for start in range(0, num_samples, size)]
    if method == "importance":
        log_weights, plate_dims = _weigh_draws(posterior, guide, args, kwargs, sizes)
    else:
        kernel = sampler if sampler is not None else MALA(0.1)
        check_exact(kernel)
        log_weights = _anneal(posterior, kernel, sizes, num_temperatures)
        plate_dims = posterior.plate_dims
    log_z, error = _log_normalizers(posterior, log_normalizers or {}, plate_dims)
    result = summarize_log_marginal(log_weights, log_z, error)
    for doubt in describe_doubts(result):
        warnings.warn(doubt, stacklevel=3)  # One frame is torch's, of the decorator.
    return result


def _weigh_draws(
    posterior: Posterior, guide: Any, args: tuple[Any, ...], kwargs: Any, sizes: list[int]
) -> tuple[Tensor, list[int]]:
    """Log-weights of draws of the guide, and the plates whose elements are independent in it.

    Elements of other plates have been summed over.
    """
    if guide is None:
        raise ValueError("Expected a guide for method='importance', got None.")
    packing, log_weights, plate_dims = posterior.packing, [], posterior.plate_dims
    for size in sizes:
        samples = pyro.plate("samples", size, dim=-len(packing.plate_shape) - 1)
        with posterior.hidden(), poutine.trace() as handler, samples:
            guide(*args, **kwargs)
        sites = _guide_sites(handler.trace)
        values = {site["name"]: site["value"] for site in sites}
        shared = {dim for _, dim in shared_plates(sites)}
        plate_dims = [dim for dim in posterior.plate_dims if dim in shared]
        log_joint = posterior.log_joint({name: values[name] for name in posterior.latents})
        log_weight = packing.sum_over_others(log_joint, plate_dims)
        for site in sites:
            log_q = scale_and_mask(log_density(site), mask=site["mask"])
            log_weight = log_weight - packing.sum_over_others(log_q, plate_dims)
        log_weights.append(log_weight)
    return torch.cat(log_weights), plate_dims


def _guide_sites(trace: Any) -> list[Any]:
    """Messages of what the guide samples, and of its factors.

    Raises:
        ValueError: If they have no density.
    """
    nodes = [node for node in trace.nodes.values() if node["type"] == "sample"]
    sites = [node for node in nodes if not site_is_subsample(node)]
    if all(isinstance(site["fn"], Delta) for site in sites if not site["is_observed"]):
        raise ValueError("Expected a guide with a density, got one with nothing but Delta sites.")
    return sites


def _anneal(
    posterior: Posterior, sampler: Sampler, sizes: list[int], num_temperatures: int
) -> Tensor:
    """Log-weights of annealed chains, shape ``(num_samples, *plates)``."""
    path = inverse_temperatures(num_temperatures)
    step_sizes = None
    if sampler.target_acceptance is not None:
        _, step_sizes = _walk(posterior, sampler, path, posterior.starts(_NUM_PILOTS))
    walks = [_walk(posterior, sampler, path, posterior.starts(n), step_sizes) for n in sizes]
    log_weights = torch.cat([log_weights for log_weights, _ in walks])
    return posterior.packing.sum_over_others(log_weights, posterior.plate_dims)


def _walk(
    posterior: Posterior,
    sampler: Sampler,
    path: list[float],
    position: Tensor,
    step_sizes: list[Tensor] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Log-weights of chains along a path, and their step sizes: as given, or tuned on the way."""
    state = sampler.init(_tempered(posterior, 0.0), position)
    log_weights = torch.zeros_like(state.potential)
    log_step_size = state.step_size.log() + log_weights[0]
    used = []
    for index, inverse_temperature in enumerate(path):
        potential, before = _tempered(posterior, inverse_temperature), state.potential
        state = sampler.init(potential, state.position)
        log_weights = log_weights + log_weight_increment(before, state.potential)
        used.append(log_step_size.exp() if step_sizes is None else step_sizes[index])
        state, info = sampler.step(potential, state._replace(step_size=used[-1]))
        if sampler.target_acceptance is not None:
            rate = info.acceptance_rate.mean(0)
            log_step_size = tuned(log_step_size, rate, sampler.target_acceptance)
    return log_weights, used


def _tempered(posterior: Posterior, inverse_temperature: float) -> Callable[[Tensor], Tensor]:
    def potential(position: Tensor) -> Tensor:
        prior, rest = posterior.log_densities(position)
        # Not zero times infinity: at first, what is impossible does not count.
        return -(prior + inverse_temperature * rest) if inverse_temperature > 0 else -prior

    return potential


def _log_normalizers(
    posterior: Posterior,
    given: Mapping[str, LogNormalizer | float],
    plate_dims: list[int],
) -> tuple[Tensor, Tensor]:
    """Sum over energy-based sites, and its standard error, for each data point."""
    energies = {name: find_energy(site["fn"]) for name, site in posterior.sites.items()}
    energies = {n: e for n, e in energies.items() if e is not None and e.log_normalizer is None}
    for name in given:
        if name not in energies:
            raise ValueError(
                "Expected log_normalizers for energy-based sites of the model "
                f"({sorted(energies)}), got {name!r}."
            )
    total = variance = posterior.start.new_zeros(())
    for name, energy in energies.items():
        known = given[name] if name in given else log_normalizer(energy)
        exact = not isinstance(known, LogNormalizer)
        numbers = (known, 0.0) if exact else (known.estimate, known.standard_error)
        site = posterior.sites[name]
        value, error = (
            posterior.packing.sum_over_others(_spread(posterior, site, number), plate_dims)
            for number in numbers
        )
        total, variance = total + value, variance + error.square()
    return total, variance.sqrt()


def _spread(posterior: Posterior, site: Any, number: Tensor | float) -> Tensor:
    """A number that a site has in each batch element, summed in each plate element."""
    number = torch.as_tensor(number).to(posterior.start)
    numbers = map_energy(site["fn"], site["value"], lambda fn, value: number)
    return posterior.per_element(site, numbers)
