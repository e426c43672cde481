"""Settings of MCMC kernels around the samplers of this package."""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pyro_ebm.core.columns import Column, Columns
from pyro_ebm.core.model.issues import ModelIssue
from pyro_ebm.core.samplers.gibbs import with_columns
from pyro_ebm.core.samplers.gibbs_with_gradients import GibbsWithGradients
from pyro_ebm.core.samplers.settings import check_sampler


class SamplerKernel:
    """A kernel for the host's ``MCMC`` that moves the latent variables of a model by a sampler.

    All latent variables form one vector, numbers in unconstrained space. Warm-up tunes step size
    and scales as the sampler's ``target_accept_prob`` and ``adapt_mass_matrix`` ask; then nothing
    changes. ``check_modes`` warns of a mode that chains have missed, after the run.

    Args:
        model: A model. Discrete latent variables are summed out, as in ``NUTS``; ``Gibbs()`` draws
            them, those of energies on codes too.
        sampler: For example ``MALA()``. One without acceptance step, such as ``Langevin``, leaves
            the posterior biased.
        init_strategy: Initial values, one of the host's ``init_to_...``.

    Raises:
        TypeError: If ``sampler`` is no sampler.
        ValueError: If the model has no continuous latent variable, or with ``Gibbs()`` no discrete
            one.

    Warns:
        UserWarning: At the start of a run, if an energy makes its target wrong (see
            ``check_model``).
    """

    def __init__(
        self, model: Callable[..., Any], sampler: Any, *, init_strategy: Callable[..., Any]
    ) -> None:
        self.model = model
        self.sampler = check_sampler(sampler)
        self.init_strategy = init_strategy


def warn_of_issues(issues: Iterable[ModelIssue]) -> None:
    """Warn of the issues of a model that bias MCMC."""
    for issue in issues:
        if issue.biases_mcmc:
            warnings.warn(issue.message, stacklevel=3)


class Codes(NamedTuple):
    """Discrete latent variable of a site.

    Attributes:
        value: Where chains start.
        columns: One for each coordinate.
        of_numbers: Makes real numbers its values.
    """

    value: Any
    columns: Columns
    of_numbers: Callable[[Any], Any]


def find_codes(
    sites: Mapping[str, Any], sampler: Any, columns_of: Callable[..., Any]
) -> dict[str, Codes]:
    """Find the discrete latents that a sampler moves, among the messages of a model.

    ``columns_of`` is the host's function of a support and an event shape.
    """
    if isinstance(getattr(sampler, "kernel", sampler), GibbsWithGradients):
        raise ValueError(
            f"Expected Gibbs() for the latent variables of a model, got {sampler}: a model has its "
            "codes as whole numbers, without derivatives."
        )
    latents = {name: site for name, site in sites.items() if not site["is_observed"]}
    codes = {}
    for name, site in latents.items():
        fn = site["fn"]
        if not fn.support.is_discrete:
            continue
        found = columns_of(fn.support, tuple(fn.event_shape))
        if found is None:
            raise ValueError(f"Expected codes at site {name!r}, got values in {fn.support}.")
        codes[name] = Codes(site["value"], found[0] * math.prod(fn.batch_shape), found[1])
    if not codes:
        raise ValueError(
            f"Expected a model with a discrete latent variable for {sampler}, got none: use MALA "
            "or HMC."
        )
    return codes


def kernel_on(
    sampler: Any, shapes: Mapping[str, tuple[int, ...]], codes: Mapping[str, Codes]
) -> Any:
    """Return a kernel for all latents, of these shapes, in the order of their names."""
    if not codes:
        return sampler
    columns: Columns = ()
    for name in sorted({**shapes, **codes}):
        if name in codes:
            columns += codes[name].columns
        else:
            columns += (Column.numeric(),) * math.prod(shapes[name])
    return with_columns(sampler, columns)


def check_has_latents(values: Any) -> None:
    """Raise unless a model has a continuous latent variable."""
    if not values:
        raise ValueError("Expected a model with a continuous latent variable, got none.")
