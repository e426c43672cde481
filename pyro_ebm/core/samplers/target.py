"""Densities over unconstrained space, which samplers and objectives work on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from pyro_ebm.core.columns import Columns


@runtime_checkable
class HasPotential(Protocol):
    """The part of an energy-based distribution that samplers use."""

    base: Any
    energy: Any
    _validate_args: Any
    # Whether rows of the energy were found independent.
    _is_probed: bool

    def potential(self, value: Any) -> Any:
        """Minus the log-density up to a constant, with gradients in everything."""
        ...

    def _check_rows(self, value: Any) -> None:
        """Raise unless rows of the energy are independent."""
        ...

    def _reference(self, *rng_key: Any) -> Any:
        """Draw by sequential Monte Carlo, to look for modes that chains have missed."""
        ...


def check_rows_once(distribution: HasPotential, value: Any) -> None:
    """Raise unless rows of the energy are independent; once for a distribution."""
    if not distribution._is_probed:
        distribution._check_rows(value)
        distribution._is_probed = True


class AbstractTarget:
    r"""A density on a support, and its potential over unconstrained space.

    .. math:: U(u) = -\log p(b(u)) - \log \left| \det \frac{\partial b}{\partial u} \right|

    with the bijection :math:`b` from unconstrained *positions* :math:`u` to *values*.

    Args:
        support: Constraint on the values.
        negative_log_density: :math:`-\log p`, a function of values, up to a constant.
        distribution: Named in the error, if there is one.

    Attributes:
        bijection: :math:`b`.
        is_unconstrained: Whether the support is all of space, and :math:`b` the identity.

    Raises:
        ValueError: If the support is discrete, or has no known bijection to unconstrained space.
    """

    # Functions of the host: bijection to a support, whether a support is all of space, the columns
    # of a discrete support, with a function that makes numbers their values, and a constraint on
    # each element.
    biject_to: ClassVar[Any]
    is_real: ClassVar[Any]
    columns_of: ClassVar[Callable[[Any, Any], tuple[Columns, Any] | None]]
    independent: ClassVar[Callable[[Any, int], Any]]

    columns: Columns | None = None

    def __init__(
        self, support: Any, negative_log_density: Callable[[Any], Any], distribution: Any = None
    ) -> None:
        self.negative_log_density = negative_log_density
        self.is_unconstrained = self.is_real(support)
        try:
            self.bijection: Any = None if support.is_discrete else self.biject_to(support)
        except NotImplementedError:
            self.bijection = None
        if self.bijection is None:
            of = "" if distribution is None else f" of {distribution}"
            raise ValueError(
                "Expected a continuous support that maps to unconstrained space, got "
                f"{support}{of}."
            )

    @classmethod
    def of(cls, distribution: Any) -> Self:
        """Target of a distribution; gradients reach the parameters that its density has."""
        return cls(distribution.support, negative_log_density(distribution), distribution)

    @classmethod
    def of_any(cls, distribution: Any) -> "Self | ColumnTarget":
        """Target of a distribution that may have discrete columns."""
        support = distribution.support
        found = cls.columns_of(support, tuple(distribution.event_shape))
        if found is not None:
            return ColumnTarget(*found, negative_log_density(distribution))
        if support.is_discrete:
            raise ValueError(
                "Expected a continuous support, or codes 0, 1, ... up to a last one, got "
                f"{support} of {distribution}. MaximumLikelihood and NoiseContrastive need neither."
            )
        return cls.of(distribution)

    @classmethod
    def as_codes(cls, distribution: Any, value: Any) -> Any:
        """Make numbers the codes of a distribution's support; others are unchanged."""
        support = distribution.support
        found = support.is_discrete and cls.columns_of(support, tuple(distribution.event_shape))
        return found[1](value) if found else value

    def value(self, position: Any) -> Any:
        """Map unconstrained positions to values."""
        return self.bijection(position)

    def position(self, value: Any) -> Any:
        """Map values to unconstrained positions."""
        return self.bijection.inv(value)

    def interior(self, value: Any) -> Any:
        """Return a point of the support for each value, of the same shape."""
        raise NotImplementedError

    def log_volume(self, position: Any, value: Any = None) -> Any:
        """Log-determinant of the Jacobian of :meth:`value`."""
        value = self.value(position) if value is None else value
        return self.bijection.log_abs_det_jacobian(position, value)

    def potential(self, position: Any) -> Any:
        """Evaluate :math:`U`, shape ``(*sample, *batch)``."""
        if self.is_unconstrained:
            return self.negative_log_density(position)
        value = self.value(position)
        return self.negative_log_density(value) - self.log_volume(position, value)


@dataclass(frozen=True)
class ColumnTarget:
    """A density on columns, some of them discrete: positions are values.

    Attributes:
        columns: One for each coordinate of the flattened event.
        position: Makes numbers of any type values.
        potential: Minus the log-density, shape ``(*sample, *batch)``.
    """

    columns: Columns
    position: Callable[[Any], Any]
    potential: Callable[[Any], Any]
    is_unconstrained: ClassVar[bool] = True

    def value(self, position: Any) -> Any:
        """Return the argument."""
        return position


def negative_log_density(distribution: Any) -> Callable[[Any], Any]:
    """Return minus the log-density of a distribution, a function of values, up to a constant."""
    # An energy-based potential costs less than its log_prob, which holds parameters constant.
    if isinstance(distribution, HasPotential):
        return distribution.potential
    return lambda value: -distribution.log_prob(value)
