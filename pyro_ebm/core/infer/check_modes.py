"""Sites whose draws by MCMC follow an energy-based distribution."""

from collections.abc import Mapping
from typing import Any

from pyro_ebm.core.infer.log_likelihood import model_of
from pyro_ebm.core.model.sites import Site


def model_behind(kernel: Any) -> Any:
    """Return the model behind a kernel of MCMC, for a reference by SMC."""
    return model_of(kernel, "a reference by SMC", "`reference`")


def check_follows_itself(site: str, sites: Mapping[str, Site], plain: Any) -> None:
    """Raise unless the draws of a site follow its own distribution, whose batch is independent.

    Args:
        site: Name of the site.
        sites: Messages of all sample sites of a run of the model.
        plain: The energy-based distribution at the site, if there is no mask and no transform.
    """
    observed = [name for name, one in sites.items() if one["is_observed"]]
    if observed:
        reason = f"a model that observes {observed}: its draws follow a posterior"
    elif site not in sites:
        reason = "no random variable of the model"
    elif plain is None or not _is_plain(sites[site]):
        reason = "a site with a mask, a scale or a transform, or without an energy"
    else:
        return
    raise ValueError(
        f"Expected the draws of site {site!r} to follow its own distribution, got {reason}. Give "
        "`reference`, draws with the right weights of modes."
    )


def _is_plain(site: Site) -> bool:
    return site["scale"] in (None, 1.0) and site.get("mask") is None
