"""Joint distributions of named parts, as pytrees."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, random
from numpyro.distributions import Distribution, constraints

from pyro_ebm.core.distributions import joint as core
from pyro_ebm.numpyro.distributions.flows import as_distribution
from pyro_ebm.numpyro.distributions.supports import support_of
from pyro_ebm.numpyro.samplers.target import Target


class Joint(core.AbstractJoint, Distribution):
    """Independent parts in one vector; an energy on it is a function of the parts.

    All else: :class:`~pyro_ebm.core.distributions.joint.AbstractJoint`, the base class.

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> from pyro_ebm.numpyro import EnergyBased
        >>> base = Joint(rate=dist.Exponential(1.0), y=dist.Normal(0.0, 9.0))
        >>> pairs = EnergyBased(lambda rate, y: rate * y**2, base)
        >>> pairs.conditional(rate=jnp.ones(4)).log_prob(jnp.zeros(4)).shape
        (4,)
    """

    arg_constraints = {}
    pytree_data_fields = ("_parts",)
    pytree_aux_fields = ("_names",)
    _target_class = Target

    def __init__(self, /, **parts: Any) -> None:
        parts = {name: as_distribution(part) for name, part in parts.items()}
        core.check_parts(parts, Distribution)
        shape = core.common_batch_shape(parts, jnp.broadcast_shapes)
        # A dictionary would lose its order as a pytree.
        self._names = tuple(parts)
        self._parts = tuple(
            part if part.batch_shape == shape else part.expand(shape) for part in parts.values()
        )
        Distribution.__init__(self, shape, (self._size,), validate_args=False)

    @property
    def parts(self) -> Mapping[str, Any]:
        """Distributions by name."""
        return dict(zip(self._names, self._parts, strict=True))

    def __repr__(self) -> str:
        return f"Joint({', '.join(f'{name}={type(p).__name__}' for name, p in self.parts.items())})"

    @property
    def support(self) -> Any:
        """All vectors of real numbers."""
        return constraints.real_vector

    def _support_of(self, part: Any) -> Any:
        return support_of(part)

    @property
    def has_rsample(self) -> bool:
        """Whether draws of all parts have gradients."""
        return all(part.has_rsample for part in self._parts)

    @classmethod
    def infer_shapes(cls, *args: Any, **kwargs: Any) -> Any:
        """Raise: shapes are those of the parts, not of arguments."""
        raise NotImplementedError

    def expand(self, batch_shape: Sequence[int]) -> "Joint":
        return Joint(**{name: p.expand(tuple(batch_shape)) for name, p in self.parts.items()})

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        keys = random.split(key, len(self._parts))
        draws = [p.sample(k, sample_shape) for p, k in zip(self._parts, keys, strict=True)]
        return self.join(**dict(zip(self._names, draws, strict=True)))

    def rsample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw as in ``sample``, with gradients."""
        return self.sample(key, sample_shape)
