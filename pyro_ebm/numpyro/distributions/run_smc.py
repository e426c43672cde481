"""Sequential Monte Carlo on an energy-based distribution, with its record."""

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.util import not_jax_tracer

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.distributions.checks import check_energy_based
from pyro_ebm.core.samplers.smc_draws import SMCDraws, check_smc, describe_doubts, times_share
from pyro_ebm.core.samplers.truncation import NUM_SHARE_DRAWS, check_share, is_inside
from pyro_ebm.numpyro.distributions.draws import draw_values
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased, without_plates
from pyro_ebm.numpyro.distributions.pushforward import Pushforward
from pyro_ebm.numpyro.samplers.base import check_rng_key
from pyro_ebm.numpyro.samplers.smc import SMC


def run_smc(
    rng_key: Array, sampler: SMC, distribution: EnergyBased, *, num_samples: int = 1000
) -> SMCDraws:
    """Draw from an energy-based distribution by sequential Monte Carlo, with a record.

    The method: :class:`pyro_ebm.core.samplers.settings.SMC`; the record, and what it warns of:
    :class:`pyro_ebm.core.samplers.smc_draws.SMCDraws`. Inside ``jit`` there are no warnings.

    Example:
        >>> import numpyro.distributions as dist
        >>> from jax import random
        >>> from pyro_ebm.numpyro import EnergyBased
        >>> double_well = EnergyBased(lambda x: 4.0 * (x**2 - 1) ** 2, dist.Normal(0.0, 2.0))
        >>> draws = run_smc(random.key(0), SMC(), double_well, num_samples=500)
        >>> bool(0.3 < (draws.samples > 0).mean() < 0.7)
        True
    """
    check_rng_key(rng_key)
    check_smc(sampler)
    check_energy_based(distribution, EnergyBased)
    check_positive_integer("num_samples", num_samples)
    draws = _run(rng_key, sampler, without_plates(lax.stop_gradient(distribution)), num_samples)
    if not_jax_tracer(draws.log_normalizer):
        if distribution._is_truncated:
            check_share(distribution, draws.log_normalizer != -jnp.inf, NUM_SHARE_DRAWS)
        for doubt in describe_doubts(distribution, draws):
            warnings.warn(doubt, stacklevel=2)
    return draws


@partial(jax.jit, static_argnames=("sampler", "num_samples"))
def _run(rng_key: Array, sampler: SMC, model: EnergyBased, num_samples: int) -> SMCDraws:
    share_key, draw_key = random.split(rng_key)
    draws: Any = draw_values(draw_key, model, sampler, num_samples, 0)
    # The latent of a generator has infinite energies outside, which count by themselves.
    if model._is_truncated and not isinstance(model.base, Pushforward):
        inside = is_inside(model, model.base.sample(share_key, (NUM_SHARE_DRAWS,)))
        draws = times_share(draws, inside.mean(0))
    return draws
