"""Normalizing flows of zuko as bases."""

from collections.abc import Callable
from typing import Any, cast

from pyro.contrib.zuko import ZukoToPyro
from torch import Tensor
from torch.distributions import ComposeTransform, Transform, TransformedDistribution


def as_distribution(base: Any) -> Any:
    """A flow as a distribution; anything else as it is."""
    # What ZukoToPyro wraps can be sampled outside of a model too.
    return base.dist if isinstance(base, ZukoToPyro) else base


def latent_and_generator(base: Any) -> tuple[Any, Callable[[Tensor], Tensor]]:
    """The latent distribution of a flow or transformed distribution, and its way to values.

    Raises:
        ValueError: If it is nothing of the kind.
    """
    if isinstance(base, TransformedDistribution):
        return base.base_dist, cast(Any, ComposeTransform(base.transforms))
    transform = getattr(base, "transform", None)
    if isinstance(transform, Transform):
        # A NormalizingFlow of zuko, whose transform goes from values to the latent.
        return base.base, cast(Any, transform.inv)
    raise ValueError(
        "Expected a base with a latent space (a Pushforward, a TransformedDistribution or a flow), "
        f"got {base}."
    )
