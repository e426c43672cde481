"""Check of conditionals of joint energies with NumPyro."""

import warnings
from collections.abc import Callable, Mapping

import jax
from jax import Array, lax, random

from pyro_ebm.core.distributions.checks import check_energy_based
from pyro_ebm.core.distributions.energy_based import conditioned, scaled_energy
from pyro_ebm.core.evidence import conditional as core
from pyro_ebm.core.samplers.checks import real_array
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.distributions.importance import draw_evenly
from pyro_ebm.numpyro.distributions.joint import Joint
from pyro_ebm.numpyro.samplers.base import check_rng_key


def check_conditional(
    joint: EnergyBased,
    *,
    num_draws: int = 100,
    num_samples: int = 1000,
    num_observations: int = 1,
) -> Callable[..., core.ConditionalCheck]:
    """Check that conditionals of a joint energy have one log Z; call the result with key and draws.

    See :class:`~pyro_ebm.core.evidence.conditional.ConditionalSettings`. Draws of a posterior come
    from ``mcmc.get_samples()``, shape ``(num_draws, *groups, *event)``.

    Example:
        >>> import numpyro.distributions as dist, pyro_ebm.numpyro as ebm
        >>> from jax import random
        >>> base = ebm.Joint(rate=dist.Exponential(1.0), y=dist.Normal(0.0, 2.0))
        >>> pairs = ebm.EnergyBased(lambda rate, y: y**2, base)
        >>> check = ebm.check_conditional(pairs)
        >>> result = check(random.key(0), rate=random.exponential(random.key(1), (50,)))
        >>> round(result.largest_shift, 3)
        0.0
    """
    check_energy_based(joint, EnergyBased)
    settings = core.ConditionalSettings(
        num_draws=num_draws, num_samples=num_samples, num_observations=num_observations
    )

    def check(rng_key: Array, **draws: Array) -> core.ConditionalCheck:
        check_rng_key(rng_key)
        prior_key, base_key = random.split(rng_key)
        given = {name: real_array(name, value, jax.numpy.asarray) for name, value in draws.items()}

        def estimate(given: Mapping[str, Array]) -> core.Estimates:
            base, _ = conditioned(joint, given, Joint)
            values = draw_evenly(base_key, base, num_samples)
            shape = (1,) * core.number_of_group_dims(joint, given)
            return _estimate(joint, given, values.reshape((num_samples, *shape, *base.event_shape)))

        def prior() -> Mapping[str, Array]:
            return joint.base.split(joint.base.sample(prior_key, (num_draws,)))

        result = core.check_spread(joint, given, settings, prior, estimate)
        for doubt in core.describe_doubts(result):
            warnings.warn(doubt, stacklevel=2)
        return result

    return check


@jax.jit
def _estimate(joint: EnergyBased, given: Mapping[str, Array], values: Array) -> core.Estimates:
    def one(given: Mapping[str, Array]) -> core.Estimates:
        return core.estimate(-scaled_energy(joint.conditional(**given), values))

    return lax.map(one, given)
