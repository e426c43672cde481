"""Supports of transformed distributions, which hosts take to be all that a transform reaches."""

from typing import Any


class AbstractImage:
    """Image of a support under a transform; a constraint of the host."""

    def __init__(self, base_constraint: Any, transform: Any) -> None:
        self.base_constraint, self.transform = base_constraint, transform

    def __repr__(self) -> str:
        return f"Image({self.base_constraint}, {type(self.transform).__name__})"

    @property
    def is_discrete(self) -> bool:
        """Property of the support: isolated values."""
        return self.base_constraint.is_discrete

    @property
    def event_dim(self) -> int:
        """Number of dimensions of one value."""
        own = self.base_constraint.event_dim - self.transform.domain.event_dim
        return self.transform.codomain.event_dim + own

    def check(self, value: Any) -> Any:
        """Find values in the image."""
        return self.base_constraint.check(self.transform.inv(value))

    def factors(self, biject_to: Any) -> list[Any]:
        """Return the transforms of which a bijection from unconstrained space is made."""
        return [biject_to(self.base_constraint), self.transform]


def transformed_support(support: Any, transforms: Any, target_class: Any, image: Any) -> Any:
    """Return the support of transformed values; ``image`` makes that of one transform.

    A transform of all real numbers, such as an affine one, does not know what it is applied to.
    """
    for transform in transforms:
        more = transform.domain.event_dim - support.event_dim
        support = target_class.independent(support, more) if more > 0 else support
        if target_class.is_real(transform.domain) and not target_class.is_real(support):
            support = image(support, transform)
        else:
            support = target_class.independent(transform.codomain, max(0, -more))
    return support
