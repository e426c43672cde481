"""Check of conditionals of joint energies with Pyro."""

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pyro_ebm.core.distributions.checks import check_energy_based
from pyro_ebm.core.distributions.energy_based import conditioned, scaled_energy
from pyro_ebm.core.evidence import conditional as core
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.distributions.importance import draw_evenly
from pyro_ebm.pyro.distributions.joint import Joint
from pyro_ebm.pyro.samplers.target import real_array


def check_conditional(
    joint: EnergyBased,
    *,
    num_draws: int = 100,
    num_samples: int = 1000,
    num_observations: int = 1,
) -> Callable[..., core.ConditionalCheck]:
    """Check that log Z of a joint energy is constant; call the result with draws of a posterior.

    Explanation and arguments: :class:`~pyro_ebm.core.evidence.conditional.ConditionalSettings`.
    Draws have shape ``(num_draws, *groups, *event)``, as in ``mcmc.get_samples()``.

    Example:
        >>> import torch, pyro.distributions as dist, pyro_ebm.pyro as ebm
        >>> base = ebm.Joint(theta=dist.Normal(0.0, 1.0), x=dist.Normal(0.0, 2.0))
        >>> joint = ebm.EnergyBased(lambda theta, x: x**2, base)
        >>> bool(ebm.check_conditional(joint)(theta=torch.randn(50)).posterior.spread < 1e-5)
        True
    """
    check_energy_based(joint, EnergyBased)
    settings = core.ConditionalSettings(
        num_draws=num_draws, num_samples=num_samples, num_observations=num_observations
    )

    def check(**draws: Tensor) -> core.ConditionalCheck:
        given = {name: real_array(name, value) for name, value in draws.items()}

        def estimate(given: Mapping[str, Tensor]) -> core.Estimates:
            return _estimate(joint, given, num_samples)

        def prior() -> Mapping[str, Tensor]:
            return joint.base.split(joint.base.sample((num_draws,)))

        with torch.no_grad():
            result = core.check_spread(joint, given, settings, prior, estimate)
        for doubt in core.describe_doubts(result):
            warnings.warn(doubt, stacklevel=2)
        return result

    return check


def _estimate(joint: EnergyBased, given: Mapping[str, Tensor], num_samples: int) -> core.Estimates:
    base, _ = conditioned(joint, given, Joint)
    groups = core.number_of_group_dims(joint, given)
    values = draw_evenly(base, num_samples).reshape(num_samples, *(1,) * groups, *base.event_shape)
    results = []
    for index in range(len(next(iter(given.values())))):
        one = joint.conditional(**{name: value[index] for name, value in given.items()})
        results.append(core.estimate(-scaled_energy(one, values)))
    return core.Estimates(*map(torch.stack, zip(*results, strict=True)))
