"""Supports of bases, where NumPyro's say more than is true of their draws."""

from typing import Any

from jax import Array
from numpyro.distributions import (
    Independent,
    MaskedDistribution,
    TransformedDistribution,
    biject_to,
    constraints,
)
from numpyro.distributions.distribution import ExpandedDistribution
from numpyro.distributions.transforms import ComposeTransform

from pyro_ebm.core.distributions.images import AbstractImage, transformed_support
from pyro_ebm.numpyro.samplers.target import Target


class Image(AbstractImage, constraints.Constraint):
    """Constraint to the image of a support under a transform."""

    def __call__(self, value: Array) -> Array:
        return AbstractImage.check(self, value)

    def tree_flatten(self) -> Any:
        """Take both parts as children."""
        return tuple(vars(self).values()), (tuple(vars(self)), {})

    def feasible_like(self, prototype: Array) -> Array:
        """Return values of the image, shape of ``prototype``."""
        position = self.transform.inv(prototype)
        return self.transform(self.base_constraint.feasible_like(position))


@biject_to.register(Image)
def _biject_to_image(image: Image) -> ComposeTransform:
    return ComposeTransform(image.factors(biject_to))


def support_of(base: Any) -> Any:
    """Support of a distribution."""
    if isinstance(base, MaskedDistribution | ExpandedDistribution):
        return support_of(base.base_dist)
    if isinstance(base, Independent):
        support = support_of(base.base_dist)
        return constraints.independent(support, base.reinterpreted_batch_ndims)
    # Other classes say what their support is.
    if type(base) is TransformedDistribution:
        found = transformed_support(support_of(base.base_dist), base.transforms, Target, Image)
        if isinstance(found, Image):
            return found
    return base.support
