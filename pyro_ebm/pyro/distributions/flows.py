"""Normalizing flows of zuko as bases."""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions import Independent
from torch import Tensor
from torch.distributions import ComposeTransform, Distribution, Transform, TransformedDistribution

from pyro_ebm.core.distributions.checks import no_latent_space


def as_distribution(base: Any) -> Any:
    """Unwrap a flow of zuko; any other base is unchanged."""
    # The wrapped distribution can be sampled outside of a model too.
    return base.dist if isinstance(base, ZukoToPyro) else base


def tolerant_log_prob(log_prob: Callable[[Tensor], Tensor], value: Tensor, base: Any) -> Tensor:
    """Log-density of a base, NaN at rows that are not finite where the host's validation is off.

    A base that was expanded keeps its own validation: torch sets it on the instance.
    """
    try:
        return log_prob(value)
    except ValueError:
        num_dims = len(base.event_shape)
        rows = value.reshape((*value.shape[: value.ndim - num_dims], -1))
        usable = rows.isfinite().all(-1)
        if Distribution._validate_args or usable.all():
            raise
        unknown = math.nan * rows.sum(-1)
        if not usable.any():
            return unknown
        where = usable.reshape((*usable.shape, *(1,) * num_dims))
        return torch.where(usable, log_prob(torch.where(where, value, value[usable][0])), unknown)


def latent_and_generator(base: Any) -> tuple[Any, Callable[[Tensor], Tensor]]:
    """Split a flow or transformed distribution into its latent distribution and its generator."""
    if isinstance(base, TransformedDistribution):
        return base.base_dist, cast(Any, ComposeTransform(base.transforms))
    transform = getattr(base, "transform", None)
    if isinstance(transform, Transform):
        # A NormalizingFlow of zuko, whose transform goes from values to the latent.
        return base.base, cast(Any, transform.inv)
    if isinstance(base, torch.distributions.Independent):
        latent, generator = latent_and_generator(base.base_dist)
        return Independent(latent, base.reinterpreted_batch_ndims), generator
    raise no_latent_space(base)
