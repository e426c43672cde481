"""Modes that chains of Pyro's ``MCMC`` have missed."""

from functools import partial
from typing import Any

from pyro import poutine
from pyro.infer import MCMC

from pyro_ebm import missing_modes
from pyro_ebm.core.infer.check_modes import check_follows_itself, model_behind
from pyro_ebm.core.samplers.smc_draws import NUM_REFERENCE_DRAWS, SMCDraws
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.distributions.run_smc import run_smc
from pyro_ebm.pyro.infer.log_likelihood import is_random
from pyro_ebm.pyro.model.check import leaving_no_trace
from pyro_ebm.pyro.model.site_distribution import site_distribution
from pyro_ebm.pyro.model.sites import find_plain_energy
from pyro_ebm.pyro.samplers.smc import SMC


def check_modes(mcmc: MCMC, site: str, *, reference: Any = None) -> float:
    """Compare the draws of a run at a site with draws that have the right weights of modes.

    The test and arguments: :func:`pyro_ebm.missing_modes.check_modes`.

    Example:
        >>> import pyro, pyro.distributions as dist, pyro_ebm.pyro as ebm
        >>> def model():
        ...     pyro.sample("z", ebm.EnergyBased(lambda z: z**2, dist.Normal(0.0, 1.0)))
        >>> kernel = ebm.SamplerKernel(model, ebm.MALA())
        >>> mcmc = pyro.infer.MCMC(kernel, num_samples=200, disable_progbar=True)
        >>> mcmc.run()
        >>> check_modes(mcmc, "z") < 0.05
        True
    """
    samples = mcmc.get_samples(group_by_chain=True)
    draw = partial(_draw, mcmc, site)
    return missing_modes.check_modes(samples, site, reference, draw)


def _draw(mcmc: Any, site: str) -> tuple[EnergyBased, SMCDraws]:
    model = model_behind(mcmc.kernel)
    with leaving_no_trace(), poutine.trace() as met:
        model(*mcmc._args, **mcmc._kwargs)
    nodes: Any = met.trace.nodes
    sites = {name: node for name, node in nodes.items() if is_random(node)}
    plain = find_plain_energy(sites[site]["fn"]) if site in sites else None
    check_follows_itself(site, sites, plain)
    distribution = site_distribution(model, site)(*mcmc._args, **mcmc._kwargs)
    return distribution, run_smc(SMC(), distribution, num_samples=NUM_REFERENCE_DRAWS)
