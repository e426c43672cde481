"""Sequential Monte Carlo on an energy-based distribution, with its record."""

import math
import warnings
from typing import Any

import torch

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.distributions.checks import check_energy_based
from pyro_ebm.core.samplers.smc_draws import SMCDraws, check_smc, describe_doubts, times_share
from pyro_ebm.core.samplers.truncation import NUM_SHARE_DRAWS, check_share, is_inside
from pyro_ebm.pyro.distributions.draws import draw_values
from pyro_ebm.pyro.distributions.energy_based import EnergyBased, without_plates
from pyro_ebm.pyro.distributions.pushforward import Pushforward
from pyro_ebm.pyro.samplers.smc import SMC


@torch.no_grad()
def run_smc(sampler: SMC, distribution: EnergyBased, *, num_samples: int = 1000) -> SMCDraws:
    """Draw from an energy-based distribution by sequential Monte Carlo, with a record.

    The method: :class:`pyro_ebm.core.samplers.settings.SMC`; the record, and what it warns of:
    :class:`pyro_ebm.core.samplers.smc_draws.SMCDraws`.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_ebm.pyro import EnergyBased
        >>> double_well = EnergyBased(lambda x: 4 * (x**2 - 1) ** 2, dist.Normal(0.0, 2.0))
        >>> draws = run_smc(SMC(), double_well, num_samples=500)
        >>> bool(0.3 < (draws.samples > 0).float().mean() < 0.7)
        True
    """
    check_smc(sampler)
    check_energy_based(distribution, EnergyBased)
    check_positive_integer("num_samples", num_samples)
    model = without_plates(distribution)
    draws: Any = draw_values(model, sampler, num_samples, 0)
    # The latent of a generator has infinite energies outside, which count by themselves.
    if model._is_truncated and not isinstance(model.base, Pushforward):
        inside = is_inside(model, model.base.sample((NUM_SHARE_DRAWS,)))
        draws = times_share(draws, inside.to(draws.samples).mean(0))
    if model._is_truncated:
        check_share(distribution, draws.log_normalizer != -math.inf, NUM_SHARE_DRAWS)
    for doubt in describe_doubts(distribution, draws):
        warnings.warn(doubt, stacklevel=3)  # Above the decorator.
    return draws
