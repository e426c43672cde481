"""Modes that chains of NumPyro's ``MCMC`` have missed."""

from functools import partial
from typing import Any

from jax import Array
from numpyro.handlers import block, seed, substitute, trace
from numpyro.infer import MCMC

from pyro_ebm import missing_modes
from pyro_ebm.core.infer.check_modes import check_follows_itself, model_behind
from pyro_ebm.core.samplers.smc_draws import NUM_REFERENCE_DRAWS, SMCDraws
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.distributions.run_smc import run_smc
from pyro_ebm.numpyro.model.check import initial_value
from pyro_ebm.numpyro.model.site_distribution import site_distribution
from pyro_ebm.numpyro.model.sites import find_plain_energy
from pyro_ebm.numpyro.samplers.smc import SMC


def check_modes(rng_key: Array, mcmc: MCMC, site: str, *, reference: Any = None) -> float:
    """Compare the draws of ``MCMC`` at a site with draws by another way.

    The test: :func:`pyro_ebm.missing_modes.check_modes`. The key is for the reference by ``SMC``.

    Example:
        >>> import warnings, numpyro, numpyro.distributions as dist, pyro_ebm.numpyro as ebm
        >>> from jax import random
        >>> def model():
        ...     numpyro.sample("z", dist.Normal(0.0, 1.0))
        >>> kernel = ebm.SamplerKernel(model, ebm.MALA(0.5))
        >>> mcmc = MCMC(kernel, num_warmup=100, num_samples=500, progress_bar=False)
        >>> mcmc.run(random.key(0))
        >>> two_modes = random.normal(random.key(1), (100,)).at[::2].add(20.0)
        >>> with warnings.catch_warnings(action="ignore"):
        ...     check_modes(random.key(2), mcmc, "z", reference=two_modes)
        0.5
    """
    samples = mcmc.get_samples(group_by_chain=True)
    draw = partial(_draw, rng_key, mcmc, site)
    return missing_modes.check_modes(samples, site, reference, draw)


def _draw(rng_key: Array, mcmc: MCMC, site: str) -> tuple[EnergyBased, SMCDraws]:
    model = model_behind(mcmc.sampler)
    initial = substitute(substitute_fn=initial_value)
    with block(), trace() as met, initial, seed(rng_seed=0):
        model(*mcmc._args, **mcmc._kwargs)
    sites = {name: found for name, found in met.items() if found["type"] == "sample"}
    plain = find_plain_energy(sites[site]["fn"]) if site in sites else None
    check_follows_itself(site, sites, plain)
    distribution = site_distribution(model, site)(*mcmc._args, **mcmc._kwargs)
    return distribution, run_smc(rng_key, SMC(), distribution, num_samples=NUM_REFERENCE_DRAWS)
