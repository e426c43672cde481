"""The energy-based distribution at a site, by itself."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from numpyro.handlers import block, seed, substitute, trace

from pyro_ebm.core.model.issues import check_site
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased, without_plates
from pyro_ebm.numpyro.model.check import ModelSites, initial_value
from pyro_ebm.numpyro.model.parameters import run_trained
from pyro_ebm.numpyro.model.sites import find_dependencies, find_energy


def site_distribution(
    model: Callable[..., Any], site: str, *, params: Mapping[str, Any] | None = None
) -> Callable[..., EnergyBased]:
    """Make a function that gives the energy-based distribution at a site of a model.

    It takes the model's arguments. The distribution comes without plates, masks and transforms, and
    with the parameters ``params`` from ``svi.get_params(state)``.

    Example:
        >>> import numpyro, numpyro.distributions as dist, pyro_ebm.numpyro as ebm
        >>> def model():
        ...     weight = numpyro.param("weight", 1.0)
        ...     with numpyro.plate("data", 10):
        ...         energy = lambda z: weight * z**2
        ...         numpyro.sample("z", ebm.EnergyBased(energy, dist.Normal(0.0, 1.0)))
        >>> prior = ebm.site_distribution(model, "z", params={"weight": 3.0})()
        >>> float(prior.energy(2.0)), prior.batch_shape
        (12.0, ())
    """

    def find(*args: Any, **kwargs: Any) -> EnergyBased:
        trained = partial(run_trained, model, params, *args, **kwargs)
        sites, initial = ModelSites(), substitute(substitute_fn=initial_value)
        with block(), trace() as met, sites, initial, seed(rng_seed=0):
            trained()
        check_site(site, sites.energies, ())
        behind = find_dependencies([site], sites.inputs, trained)[site].potential
        check_site(site, sites.energies, behind & sites.latents.keys())
        return without_plates(cast(EnergyBased, find_energy(met[site]["fn"])))

    return find
