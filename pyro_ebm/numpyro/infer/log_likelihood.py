"""Pointwise log-likelihoods of a NumPyro model, for ArviZ."""

from functools import wraps
from typing import Any

import jax
from jax import Array
from numpyro import infer
from numpyro.handlers import block, seed, substitute, trace
from numpyro.infer import MCMC

from pyro_ebm import diagnostics
from pyro_ebm.core.infer.log_likelihood import check_no_subsampling, model_of, pointwise_sites
from pyro_ebm.numpyro.model.sites import lacks_constant


@wraps(diagnostics.to_arviz)
def to_arviz(draws: Any, *, log_likelihood: Any = None, **options: Any) -> Any:
    if log_likelihood is True and isinstance(draws, MCMC):
        log_likelihood = _log_likelihood(draws)
    return diagnostics.to_arviz(draws, log_likelihood=log_likelihood, **options)


def _log_likelihood(mcmc: MCMC) -> dict[str, Array]:
    """Log-likelihoods by observed site, shape ``(chain, draw, *batch)``."""
    # Of a model whose parameters start at random draws.
    model = seed(model_of(mcmc.sampler), rng_seed=0)
    samples = mcmc.get_samples(group_by_chain=True)
    first = jax.tree.map(lambda values: values[0, 0], samples)
    with block(), trace() as met, substitute(data=first):
        model(*mcmc._args, **mcmc._kwargs)
    check_no_subsampling(
        (site["name"], *site["args"]) for site in met.values() if site["type"] == "plate"
    )
    sites = [site for site in met.values() if site["type"] == "sample"]
    names = pointwise_sites(sites, samples, lacks_constant)
    densities = infer.log_likelihood(model, samples, *mcmc._args, batch_ndims=2, **mcmc._kwargs)
    return {name: densities[name] for name in names}
