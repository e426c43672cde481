"""Normalizing flows of flowjax as bases."""

import sys
from collections.abc import Callable
from typing import Any

from jax import Array
from jax.tree_util import Partial
from numpyro.distributions import (
    Distribution,
    ExpandedDistribution,
    Independent,
    TransformedDistribution,
    constraints,
)
from numpyro.distributions.transforms import ComposeTransform

from pyro_ebm.core.distributions.checks import no_latent_space
from pyro_ebm.numpyro.distributions.bound_energy import StaticPytree


def as_distribution(base: Any) -> Any:
    """Wrap a flow of flowjax as a distribution; any other base is unchanged.

    Raises:
        ValueError: If it is a conditional flow.
    """
    if "flowjax" not in sys.modules:
        return base
    from flowjax.distributions import AbstractDistribution

    flow = _unwrapped(base)
    return _Flow(flow) if isinstance(flow, AbstractDistribution) else base


def latent_and_generator(base: Any) -> tuple[Any, Callable[[Array], Array]]:
    if isinstance(base, _Flow) and hasattr(base.flow, "merge_transforms"):
        flow = base.flow.merge_transforms()
        return _Flow(flow.base_dist), Partial(_transform, flow.bijection)
    if isinstance(base, TransformedDistribution):
        return base.base_dist, ComposeTransform(base.transforms)
    if isinstance(base, ExpandedDistribution):
        latent, generator = latent_and_generator(base.base_dist)
        return latent.expand(base.batch_shape), generator
    if isinstance(base, Independent):
        latent, generator = latent_and_generator(base.base_dist)
        return latent.to_event(base.reinterpreted_batch_ndims), generator
    raise no_latent_space(base)


class _Flow(Distribution):
    """A distribution of flowjax; unlike its own adaptor, one that passes through ``jit``."""

    arg_constraints = {}
    pytree_data_fields = ("_flow",)
    has_rsample = True

    def __init__(self, flow: Any) -> None:
        _check_unconditional(flow)
        self._flow = StaticPytree.pack(flow)
        super().__init__((), flow.shape, validate_args=False)

    @property
    def flow(self) -> Any:
        return self._flow.content

    @property
    def support(self) -> Any:
        return constraints.independent(constraints.real, len(self.event_shape))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        return self.flow.sample(key, tuple(sample_shape))

    def log_prob(self, value: Array) -> Array:
        return self.flow.log_prob(value)


def _unwrapped(base: Any) -> Any:
    """Undo ``distribution_to_numpyro`` of flowjax; any other base is unchanged."""
    if not isinstance(base, Distribution) or not type(base).__module__.startswith("flowjax."):
        return base
    if not isinstance(base, TransformedDistribution):
        return base.dist
    from flowjax.distributions import Transformed

    (transform,) = base.transforms
    _check_unconditional(transform.bijection)
    return Transformed(base.base_dist.dist, transform.bijection)


def _check_unconditional(part: Any) -> None:
    if part.cond_shape is not None:
        raise ValueError(f"Expected an unconditional flow, got a condition of {part.cond_shape}.")


def _transform(bijection: Any, latent: Array) -> Array:
    return bijection._vectorize.transform(latent)
