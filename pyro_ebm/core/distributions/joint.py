"""Joint distributions of named parts, and the conditionals of an energy between them."""

from collections.abc import Mapping
from math import prod
from typing import Any, ClassVar

from array_api_compat import array_namespace

from pyro_ebm.core.distributions.checks import check_distribution, check_value_shape
from pyro_ebm.core.numerics import expand_left
from pyro_ebm.core.samplers.truncation import is_inside

Shape = tuple[int, ...]


class AbstractJoint:
    r"""The distribution of independent, named parts, as one vector over all real numbers.

    .. math:: p_0(u) = \prod_k p_k(b_k(u_k)) \left| \det \frac{\partial b_k}{\partial u_k} \right|,
        \qquad u = (u_1, \dots, u_K)

    with the bijection :math:`b_k` from unconstrained space to the support of a part, the identity
    for parts over all real numbers. As the base of an ``EnergyBased`` distribution it makes an
    energy of several arguments, called with each part in its own shape and support, in this order:

    ``joint = EnergyBased(energy, Joint(theta=prior, x=base))`` calls ``energy(theta, x)``.

    Every objective trains it on pairs, ``joint.base.join(theta=theta, x=x)``. Where the pairs come
    from the prior and a simulator, the optimum is the simulator's likelihood up to one constant
    (*not* one for each :math:`\theta`), and ``joint.conditional(theta=theta)`` stands for it in
    any model, with :math:`\theta` as a latent variable.

    Args:
        **parts: Distributions with continuous supports and any event shapes; their batch shapes
            are broadcast.

    Raises:
        TypeError: If a part is no distribution.
        ValueError: If there are fewer than two parts, batch shapes do not broadcast, or a support
            has no bijection to unconstrained space.

    References:
        | Maximum likelihood learning of unnormalized models for simulation-based inference
          (Glaser, Arbel, Hromadka, Doucet and Gretton, 2022), https://arxiv.org/abs/2210.14756
    """

    # The host's class of targets.
    _target_class: ClassVar[Any]

    parts: Mapping[str, Any]
    event_shape: Any

    def join(self, **values: Any) -> Any:
        """Join values of all parts to one vector each, in unconstrained space.

        Args:
            **values: Values of the parts, shapes ``(*batch, *event_shape)`` of each; batch shapes
                are broadcast.

        Raises:
            ValueError: If a part is missing or unknown, or has another event shape.
        """
        if values.keys() != self.parts.keys():
            raise ValueError(f"Expected values of {[*self.parts]}, got those of {[*values]}.")
        xp, pieces = array_namespace(*values.values()), []
        for name, part in self.parts.items():
            self._batch_shape_of(name, values[name])
            target = self._target(part)
            position, event_shape = target.position(values[name]), _position_shape(target, part)
            batch_shape = position.shape[: position.ndim - len(event_shape)]
            pieces.append(xp.reshape(position, (*batch_shape, prod(event_shape))))
        shape = xp.broadcast_shapes(*(piece.shape[:-1] for piece in pieces))
        return xp.concat([xp.broadcast_to(x, (*shape, x.shape[-1])) for x in pieces], axis=-1)

    def split(self, value: Any) -> dict[str, Any]:
        """Split vectors, shape ``(*batch, *event_shape)``, into the values of the parts."""
        return {
            name: target.value(position) if not target.is_unconstrained else position
            for name, target, position in self._positions(value)
        }

    def log_prob(self, value: Any) -> Any:
        """Sum of the parts' log-densities over unconstrained space."""
        return -sum(target.potential(position) for _, target, position in self._positions(value))

    def _part_not_joined(self, value: Any) -> str | None:
        """Return a part that vectors seem to have as it is, not in unconstrained space, or None.

        By likelihood: more than 20 nats, for all vectors, speak for values of the part.
        """
        for name, target, position in self._positions(value):
            part, xp = self.parts[name], array_namespace(position)
            if target.is_unconstrained or position.shape != target.value(position).shape:
                continue
            if xp.all(is_inside(part, position)):
                as_it_is = target.negative_log_density(position)
                if xp.sum(target.potential(position) - as_it_is) > 20:
                    return name
        return None

    @property
    def _size(self) -> int:
        return sum(prod(_position_shape(self._target(p), p)) for p in self.parts.values())

    def _positions(self, value: Any) -> list[tuple[str, Any, Any]]:
        """Name, target and position of each part."""
        xp, batch_shape = array_namespace(value), check_value_shape(value.shape, self.event_shape)
        found, start = [], 0
        for name, part in self.parts.items():
            target = self._target(part)
            shape = _position_shape(target, part)
            stop = start + prod(shape)
            position = xp.reshape(value[..., start:stop], (*batch_shape, *shape))
            found.append((name, target, position))
            start = stop
        return found

    def _support_of(self, part: Any) -> Any:
        return part.support

    def _target(self, part: Any) -> Any:
        return self._target_class(self._support_of(part), lambda value: -part.log_prob(value), part)

    def _batch_shape_of(self, name: str, value: Any) -> Shape:
        return check_value_shape(value.shape, self.parts[name].event_shape, f" for {name!r}")


def _position_shape(target: Any, part: Any) -> Shape:
    """Shape of one value of a part in unconstrained space."""
    shape = (*part.batch_shape, *part.event_shape)
    return tuple(target.bijection.inverse_shape(shape)[len(part.batch_shape) :])


def check_parts(parts: Mapping[str, Any], kind: type) -> None:
    """Raise unless there are several parts, distributions of the host."""
    if len(parts) < 2:
        raise ValueError(f"Expected a Joint of at least two parts, got {[*parts]}.")
    for name, part in parts.items():
        check_distribution(name, part, kind)


def common_batch_shape(parts: Mapping[str, Any], broadcast_shapes: Any) -> Any:
    """Broadcast the batch shapes of parts; raise if they do not."""
    shapes = {name: tuple(part.batch_shape) for name, part in parts.items()}
    try:
        return broadcast_shapes(*shapes.values())
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"Expected batch shapes that broadcast, got {shapes}.") from error


def part_names(base: Any) -> tuple[str, ...]:
    """Names of the parts of a base; none unless it is a Joint."""
    return tuple(base.parts) if isinstance(base, AbstractJoint) else ()


def check_given(distribution: Any, given: Mapping[str, Any]) -> None:
    """Raise unless some parts of a distribution are given and some are left."""
    names = part_names(distribution.base)
    if not names:
        remedy = "EnergyBased(energy, Joint(theta=prior, x=base))"
        if hasattr(distribution.base, "marginal"):
            remedy = "EnergyBased(energy_of_others, base.marginal(others), context=given)"
        raise ValueError(
            "Expected an energy on a Joint to condition, got base="
            f"{distribution.base}: write {remedy}."
        )
    if unknown := given.keys() - set(names):
        raise ValueError(f"Expected parts out of {[*names]}, got {sorted(unknown)}.")
    if not 0 < len(given) < len(names):
        raise ValueError(
            f"Expected some of the parts {[*names]} to be given and some to be left, got "
            f"{[*given]}."
        )
    if distribution.context is not None or distribution._is_truncated:
        what = "`support`" if distribution.context is None else "`context`"
        raise ValueError(f"Expected a joint distribution without {what}, got one.")


def context_of(distribution: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a conditional: values of the given parts as context, aligned."""
    shapes = {n: distribution.base._batch_shape_of(n, value) for n, value in given.items()}
    ndim = max(map(len, shapes.values()))
    context = {
        name: expand_left(value, value.ndim + ndim - len(shapes[name]))
        for name, value in given.items()
    }
    return {"context": context, "context_batch_ndims": ndim}


def conditional_energy(energy: Any, names: tuple[str, ...], *rows: Any) -> Any:
    """Call the energy of a joint distribution with free parts and a dictionary of given ones."""
    *free, given = rows
    left = (name for name in names if name not in given)
    values = dict(zip(left, free, strict=True)) | given
    return energy(*(values[name] for name in names))
