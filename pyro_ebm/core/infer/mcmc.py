"""Settings of MCMC kernels around the samplers of this package."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

from pyro_ebm.core.model.issues import ModelIssue
from pyro_ebm.core.samplers.settings import check_sampler


class SamplerKernel:
    """A kernel for the host's ``MCMC`` that moves the latent variables of a model by a sampler.

    All latent variables form one vector in unconstrained space. Warm-up tunes step size and scales
    as the sampler's ``target_accept_prob`` and ``adapt_mass_matrix`` ask; then nothing changes.
    ``check_modes`` warns of a mode that chains have missed, after the run.

    Args:
        model: A model. Discrete latent variables are summed out, as in ``NUTS``.
        sampler: For example ``MALA()``. One without acceptance step, such as ``Langevin``, leaves
            the posterior biased.
        init_strategy: Initial values, one of the host's ``init_to_...``.

    Raises:
        TypeError: If ``sampler`` is no sampler.
        ValueError: If the model has no continuous latent variable.

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


def check_has_latents(values: Any) -> None:
    """Raise unless a model has a continuous latent variable."""
    if not values:
        raise ValueError("Expected a model with a continuous latent variable, got none.")
