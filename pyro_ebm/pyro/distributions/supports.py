"""Supports of bases, where Pyro's say more, or less, than is true of their draws."""

from math import pi
from typing import Any

from pyro.distributions import (
    Independent,
    MaskedDistribution,
    MixtureSameFamily,
    SineBivariateVonMises,
    SineSkewed,
    TransformedDistribution,
    VonMises,
    constraints,
)
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch.distributions import ComposeTransform, biject_to
from torch.distributions import TransformedDistribution as TorchTransformed

from pyro_ebm.core.distributions.context import bounds_of
from pyro_ebm.core.distributions.images import AbstractImage, transformed_support
from pyro_ebm.pyro.samplers.target import Target

# Of period two pi, and normalized over one period, which draws are from: as in NumPyro.
_ANGLES = (VonMises, SineBivariateVonMises, SineSkewed)


class Image(AbstractImage, constraints.Constraint):
    """Constraint to the image of a support under a transform."""


@biject_to.register(Image)
def _biject_to_image(image: Image) -> ComposeTransform:
    return ComposeTransform(image.factors(biject_to))


def support_of(base: Any) -> Any:
    """Support of a distribution; those of zuko have none: all real numbers."""
    if isinstance(base, MaskedDistribution | ExpandedDistribution):
        return support_of(base.base_dist)
    if isinstance(base, Independent):
        return independent(support_of(base.base_dist), base.reinterpreted_batch_ndims)
    if isinstance(base, _ANGLES):
        return independent(constraints.interval(-pi, pi), len(base.event_shape))
    # Other classes say what their support is.
    if type(base) in (TransformedDistribution, TorchTransformed):
        found = transformed_support(support_of(base.base_dist), base.transforms, Target, Image)
        if isinstance(found, Image) and all(x.bijective for x in base.transforms):
            return found
    try:
        support = base.support
    except NotImplementedError:
        return real_space(len(base.event_shape))
    if isinstance(base, MixtureSameFamily):
        # Pyro has no bijection to a mixture's. Bounds may differ between components.
        component = support_of(base.component_distribution)
        differs = any(getattr(bound, "ndim", 0) for bound in bounds_of(component))
        return support if differs else component
    return support


def real_space(num_dims: int) -> Any:
    """Constraint to arrays of real numbers with a number of event dimensions."""
    return independent(constraints.real, num_dims)


def independent(support: Any, num_dims: int) -> Any:
    """Constraint to arrays of values with a number of further event dimensions."""
    return constraints.independent(support, num_dims) if num_dims else support
