"""Marginal likelihoods of latent-variable models with energy-based sites."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_ebm.core.evidence import log_marginal as core
from pyro_ebm.core.evidence.annealing import (
    Schedule,
    TemperedPosterior,
    power_inverse_temperatures,
    schedule_of_pilot,
)
from pyro_ebm.core.evidence.log_normalizer import LogNormalizer
from pyro_ebm.core.model.sites import shared_plates
from pyro_ebm.core.samplers.truncation import NUM_SHARE_DRAWS
from pyro_ebm.pyro.evidence.annealing import anneal, pilot_run
from pyro_ebm.pyro.evidence.log_normalizer import log_normalizer
from pyro_ebm.pyro.model.check import check_model
from pyro_ebm.pyro.model.posterior import Posterior
from pyro_ebm.pyro.model.sites import log_density, unwrap, without_observations
from pyro_ebm.pyro.samplers.base import Sampler
from pyro_ebm.pyro.samplers.mala import MALA


def log_marginal(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None = None,
    *,
    method: str = "importance",
    num_samples: int = 1000,
    num_temperatures: int = 100,
    sampler: Sampler | None = None,
    log_normalizers: Mapping[str, LogNormalizer | float] | None = None,
    batch_size: int | None = None,
) -> Callable[..., core.LogMarginal]:
    r"""Estimate :math:`\log p(x)` of a model; call the result with the arguments of the model.

    Methods and arguments: :class:`~pyro_ebm.core.evidence.log_marginal.LogMarginalSettings`. The
    model must be vectorized over its plates, and runs on all draws at once: index the effects of
    groups by ``a[..., g]``, not by ``a[g]``.

    Example:
        >>> import torch, pyro, pyro.distributions as dist, pyro_ebm.pyro as ebm
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> print(ebm.log_marginal(model, guide, num_samples=100)(torch.zeros(3)))
        log p(x) = -1.266 ± 0.000, mean of 3 data points, effective samples 100 or more
    """
    settings = core.LogMarginalSettings(
        method=method,
        num_samples=num_samples,
        num_temperatures=num_temperatures,
        sampler=sampler if sampler is not None else MALA(0.1),
        log_normalizers=log_normalizers,
        batch_size=batch_size,
    )
    settings.check_guide(guide)

    def estimate(*args: Any, **kwargs: Any) -> core.LogMarginal:
        for issue in check_model(model)(*args, **kwargs):
            if issue.kind == "doubly_intractable":
                raise ValueError(issue.message)
        with torch.no_grad():
            posterior = Posterior(model, args, kwargs)
            if guide is None or method == "annealed":
                weighed = _weigh_chains(posterior, settings)
            else:
                weighed = _weigh_draws(posterior, settings, guide, *args, **kwargs)
            log_weights, plate_dims = weighed
            constants = _constants(posterior, settings)
            log_z, error = core.sum_constants(posterior, constants, plate_dims)
            result = core.summarize_log_marginal(log_weights, log_z, error)
        for doubt in core.describe_doubts(result):
            warnings.warn(doubt, stacklevel=2)
        return result

    return estimate


def _batches(settings: core.LogMarginalSettings) -> list[int]:
    num_samples, size = settings.num_samples, settings.batch_size or settings.num_samples
    return [min(size, num_samples - start) for start in range(0, num_samples, size)]


def _weigh_draws(
    posterior: Posterior,
    settings: core.LogMarginalSettings,
    guide: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> tuple[Tensor, list[int]]:
    """Return log-weights of draws of the guide, and the plates whose elements are independent.

    Elements of other plates have been summed over.
    """
    layout, log_weights, plate_dims = posterior.layout, [], posterior.plate_dims
    guide = partial(without_observations(guide), *args, **kwargs)
    _check_guide(posterior, _draw(posterior, guide, 2))
    for size in _batches(settings):
        sites = _draw(posterior, guide, size)
        values = {site["name"]: site["value"] for site in sites}
        shared = {dim for _, dim in shared_plates(sites)}
        plate_dims = [dim for dim in posterior.plate_dims if dim in shared]
        log_joint = posterior.log_joint({name: values[name] for name in posterior.latents})
        log_weight = layout.sum_over_others(log_joint, plate_dims)
        for site in sites:
            log_q = scale_and_mask(log_density(site), mask=site["mask"])
            log_weight = log_weight - layout.sum_over_others(log_q, plate_dims)
        log_weights.append(log_weight)
    return torch.cat(log_weights), plate_dims


def _draw(posterior: Posterior, guide: Callable[[], Any], size: int) -> list[Any]:
    """Return messages of what the guide samples, and of its factors."""
    samples = pyro.plate("samples", size, dim=-len(posterior.layout.plate_shape) - 1)
    with posterior.hidden(), poutine.trace() as handler, samples:
        guide()
    met: Any = handler.trace
    nodes = [node for node in met.nodes.values() if node["type"] == "sample"]
    return [node for node in nodes if not site_is_subsample(node)]


def _check_guide(posterior: Posterior, sites: list[Any]) -> None:
    """Raise if two draws of a guide show point masses."""
    core.check_density(sites, lambda fn: isinstance(unwrap(fn), Delta))
    values = {site["name"]: site["value"] for site in sites}
    posterior.check_shapes({name: values[name][0].shape for name in posterior.latents})
    core.check_no_points(n for n in posterior.latents if bool((values[n][0] == values[n][1]).all()))


def _weigh_chains(
    posterior: Posterior, settings: core.LogMarginalSettings
) -> tuple[Tensor, list[int]]:
    """Return log-weights of annealed chains, and the plates of the data points."""
    sampler, path = settings.sampler, TemperedPosterior(posterior)
    temperatures = power_inverse_temperatures(settings.num_temperatures)
    schedule = Schedule(posterior.start.new_tensor(temperatures), None)
    if sampler.target_accept_prob is not None:
        pilots = posterior.starts(core.NUM_PILOTS)
        _, log_step_sizes, _ = pilot_run(sampler, path, schedule.inverse_temperatures, pilots)
        schedule = schedule_of_pilot(schedule.inverse_temperatures, log_step_sizes)
    runs = [anneal(sampler, path, schedule, posterior.starts(size)) for size in _batches(settings)]
    log_weights = torch.cat([run.log_weights for run in runs])
    layout, plate_dims = posterior.layout, posterior.plate_dims
    return layout.sum_over_others(log_weights, plate_dims), plate_dims


def _constants(posterior: Posterior, settings: core.LogMarginalSettings) -> list[core.Constants]:
    return core.find_constants(
        posterior,
        settings,
        estimate=lambda _, energy: log_normalizer(energy),
        sample=lambda _, base: base.sample((NUM_SHARE_DRAWS,)),
        convert=lambda number: torch.as_tensor(number).to(posterior.start),
        is_known=torch.is_tensor,
    )
