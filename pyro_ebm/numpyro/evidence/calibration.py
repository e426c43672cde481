"""Simulation-based calibration with NumPyro."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax import Array, random
from numpyro.distributions import Distribution

from pyro_ebm import calibration as core
from pyro_ebm._arrays import to_numpy
from pyro_ebm.core.distributions.checks import check_callable, check_distribution
from pyro_ebm.core.distributions.joint import part_names
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.samplers.base import check_rng_key


def simulation_based_calibration(
    rng_key: Array,
    prior: Any,
    simulator: Callable[[Array, Array], Array],
    posterior: EnergyBased | Callable[[Array, Array], Any],
    *,
    num_simulations: int = 200,
    num_draws: int = 99,
    batch_size: int | None = None,
) -> core.Calibration:
    """Rank parameters among posterior draws, given simulated data.

    Explanation and numbers: :class:`~pyro_ebm.calibration.CalibrationSettings`.

    Args:
        rng_key: Random key.
        prior: Distribution of the parameter.
        simulator: Function of a random key and parameters, shape ``(N, *event)``; gives data,
            shape ``(N, *data)``.
        posterior: An energy on a ``Joint`` of parameter and data, drawn from by its sampler; or a
            function of a random key and data, shape ``(n, *data)``; gives draws, shape
            ``(num_draws, n, *event)``, or ``Chains``.
        num_simulations: Number of parameters.
        num_draws: Number of draws that each is ranked among.
        batch_size: Data sets in one call of the posterior.

    Example:
        >>> import numpyro.distributions as dist, pyro_ebm.numpyro as ebm
        >>> from jax import random
        >>> def simulator(key, theta):
        ...     return theta + random.normal(key, theta.shape)
        >>> def exact(key, x):
        ...     return dist.Normal(x / 2, 0.5**0.5).sample(key, (99,))
        >>> prior = dist.Normal(0.0, 1.0)
        >>> ebm.simulation_based_calibration(random.key(0), prior, simulator, exact).ranks.shape
        (200,)
    """
    check_rng_key(rng_key)
    settings = core.CalibrationSettings(
        num_simulations=num_simulations, num_draws=num_draws, batch_size=batch_size
    )
    check_distribution("prior", prior, Distribution)
    check_callable("simulator", simulator)
    prior_key, data_key, rng_key = random.split(rng_key, 3)
    theta = prior.sample(prior_key, (num_simulations,))
    x = simulator(data_key, theta)
    core.check_simulated(x, num_simulations)

    def draw(rows: slice) -> np.ndarray:
        key = random.fold_in(rng_key, rows.start)
        if isinstance(posterior, EnergyBased):
            draws = core.given_data(posterior, x[rows]).sample(key, (num_draws,))
        else:
            draws = posterior(key, x[rows])
        return core.collect(draws, theta[rows].shape, num_draws)

    draws = np.concatenate([draw(rows) for rows in settings.batches()], axis=1)
    return core.rank(to_numpy(theta), draws, settings, part_names(prior))
