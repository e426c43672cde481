"""Simulation-based calibration with Pyro."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor
from torch.distributions import Distribution

from pyro_ebm import calibration as core
from pyro_ebm._arrays import to_numpy
from pyro_ebm.core.distributions.checks import check_callable, check_distribution
from pyro_ebm.core.distributions.joint import part_names
from pyro_ebm.pyro.distributions.energy_based import EnergyBased


def simulation_based_calibration(
    prior: Any,
    simulator: Callable[[Tensor], Tensor],
    posterior: EnergyBased | Callable[[Tensor], Any],
    *,
    num_simulations: int = 200,
    num_draws: int = 99,
    batch_size: int | None = None,
) -> core.Calibration:
    """Rank parameters among draws of their posteriors, given data that were simulated from them.

    Explanation and numbers: :class:`~pyro_ebm.calibration.CalibrationSettings`.

    Args:
        prior: Distribution of the parameter.
        simulator: Function from parameters, shape ``(N, *event)``, to data, shape ``(N, *data)``.
        posterior: A learned likelihood, an energy on a ``Joint`` of parameter and data, drawn from
            by its sampler; or a function from data, shape ``(n, *data)``, to draws, shape
            ``(num_draws, n, *event)`` or ``Chains``. With a ``batch_size`` of 1, n is 1.
        num_simulations: Number of parameters.
        num_draws: Number of draws that each is ranked among.
        batch_size: Data sets in one call of the posterior.

    Example:
        >>> import torch, pyro.distributions as dist, pyro_ebm.pyro as ebm
        >>> def exact(x):  # x | theta ~ N(theta, 1)
        ...     return dist.Normal(x / 2, 0.5**0.5).sample((99,))
        >>> prior, simulator = dist.Normal(0.0, 1.0), lambda theta: theta + torch.randn(theta.shape)
        >>> ebm.simulation_based_calibration(prior, simulator, exact).ranks.shape
        (200,)
    """
    settings = core.CalibrationSettings(
        num_simulations=num_simulations, num_draws=num_draws, batch_size=batch_size
    )
    check_distribution("prior", prior, Distribution)
    check_callable("simulator", simulator)
    theta = prior.sample((num_simulations,))
    x = simulator(theta)
    core.check_simulated(x, num_simulations)

    def draw(rows: slice) -> np.ndarray:
        if isinstance(posterior, EnergyBased):
            draws = core.given_data(posterior, x[rows]).sample((num_draws,))
        else:
            draws = posterior(x[rows])
        return core.collect(draws, theta[rows].shape, num_draws)

    draws = np.concatenate([draw(rows) for rows in settings.batches()], axis=1)
    return core.rank(to_numpy(theta), draws, settings, part_names(prior))
