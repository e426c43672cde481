"""Pointwise log-likelihoods of a Pyro model, for ArviZ."""

from functools import wraps
from typing import Any

import torch
from pyro import poutine
from pyro.infer import MCMC
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_ebm import diagnostics
from pyro_ebm.core.infer.log_likelihood import check_no_subsampling, model_of, pointwise_sites
from pyro_ebm.core.model.sites import Site
from pyro_ebm.pyro.model.sites import lacks_constant, log_density
from pyro_ebm.pyro.samplers.columns import columns_of


@wraps(diagnostics.to_arviz)
def to_arviz(draws: Any, *, log_likelihood: Any = None, **options: Any) -> Any:
    if log_likelihood is True and isinstance(draws, MCMC):
        log_likelihood = _log_likelihood(draws)
    return diagnostics.to_arviz(draws, log_likelihood=log_likelihood, **options)


@torch.no_grad()
def _log_likelihood(mcmc: Any) -> dict[str, Tensor]:
    """Log-likelihoods by observed site, shape ``(chain * draw, *batch)``."""
    model, samples = model_of(mcmc.kernel), mcmc.get_samples()
    densities: dict[str, list[Tensor]] = {}
    # One by one: a model need not be vectorized over draws.
    for index in range(len(next(iter(samples.values())))):
        draw = {name: values[index] for name, values in samples.items()}
        with poutine.block(), poutine.trace() as met, _Draw(draw):
            model(*mcmc._args, **mcmc._kwargs)
        nodes: Any = met.trace.nodes
        sites = {name: site for name, site in nodes.items() if is_random(site)}
        if not densities:
            check_no_subsampling(
                (frame.name, frame.full_size or frame.size, frame.size)
                for site in sites.values()
                for frame in site["cond_indep_stack"]
            )
            names = pointwise_sites(sites.values(), samples, lacks_constant)
            densities = {name: [] for name in names}
        for name, values in densities.items():
            values.append(_masked_density(sites[name]))
    return {name: torch.stack(values) for name, values in densities.items()}


class _Draw(ConditionMessenger):
    """Handler that gives a model a draw; codes in their own type, not as real numbers."""

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        if msg["name"] not in self.data:
            return
        columns = columns_of(msg["fn"].support, tuple(msg["fn"].event_shape))
        if columns is not None:
            msg["value"] = columns[1](msg["value"])


def is_random(site: Any) -> bool:
    """Whether a site is random or observed, a factor too, and no subsample of a plate."""
    if site["type"] != "sample" or site_is_subsample(site):
        return False
    # The second is what reparametrizations leave of a site.
    is_function = "_deterministic" in site["infer"] or getattr(site["fn"], "_mask", None) is False
    return not is_function


def _masked_density(site: Site) -> Tensor:
    density, mask = log_density(site), site["mask"]
    return density if mask is None else torch.where(torch.as_tensor(mask), density, 0.0)
