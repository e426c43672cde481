"""The energy-based distribution at a site, by itself."""

from collections.abc import Callable
from typing import Any

from pyro_ebm.core.model.issues import check_site
from pyro_ebm.pyro.distributions.bound_energy import kept_buffers
from pyro_ebm.pyro.distributions.energy_based import EnergyBased, without_plates
from pyro_ebm.pyro.model.check import ModelSites, leaving_no_trace


def site_distribution(model: Callable[..., Any], site: str) -> Callable[..., EnergyBased]:
    """Make a function that gives the energy-based distribution at a site of a model.

    It takes the model's arguments. The distribution comes without plates, masks and transforms.

    Example:
        >>> import pyro, pyro.distributions as dist, pyro_ebm.pyro as ebm
        >>> def model():
        ...     with pyro.plate("data", 10):
        ...         energy = lambda z: 3.0 * z**2
        ...         pyro.sample("z", ebm.EnergyBased(energy, dist.Normal(0.0, 1.0)))
        >>> prior = ebm.site_distribution(model, "z")()
        >>> prior.energy(2.0), prior.batch_shape
        (12.0, torch.Size([]))
    """

    def find(*args: Any, **kwargs: Any) -> EnergyBased:
        with leaving_no_trace(), ModelSites() as sites, kept_buffers(model):
            model(*args, **kwargs)
        check_site(site, sites.leaves, sites.behind.get(site, ()))
        return without_plates(sites.leaves[site][0])

    return find
