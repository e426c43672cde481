"""Independent columns as a NumPyro distribution."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, Normal

from pyro_ebm import column_marginals as core
from pyro_ebm.numpyro.samplers.columns import ColumnConstraint


class ColumnMarginals(core.AbstractColumnMarginals, Distribution):
    """Product of columns, a pytree whose leaves are the parameters.

    The base class has the definition and the arguments.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pyro_ebm.numpyro import Column
        >>> data = jnp.array([[0.1, 2.0], [0.3, 0.0], [0.2, 1.0]])
        >>> base = ColumnMarginals.fit([Column.numeric(), Column.ordinal(3)], data)
        >>> base.sample(jax.random.key(0), (5,)).shape
        (5, 2)
    """

    arg_constraints = {}
    pytree_data_fields = ("loc", "scale", "log_probs")
    pytree_aux_fields = ("columns",)
    # By default NumPyro takes a distribution without constraints on arguments for one with it.
    has_rsample = False
    _normal = Normal

    def __init__(self, columns: Any, loc: Any, scale: Any, log_probs: Any) -> None:
        self.loc, self.scale, self.log_probs = (
            jnp.asarray(x, float) for x in (loc, scale, log_probs)
        )
        shapes = (x.shape for x in (self.loc, self.scale, self.log_probs))
        self.columns = core.check_parameters(columns, *shapes)
        self.log_probs = core.normalized(self.columns, self.log_probs)
        size = (len(self.columns),)
        Distribution.__init__(self, (), size, validate_args=False)

    @property
    def support(self) -> Any:
        return ColumnConstraint(self.columns)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        code_key, number_key = random.split(key)
        shape = (*sample_shape, *self.batch_shape)
        noise = random.gumbel(code_key, (*shape, *self.log_probs.shape), self.loc.dtype)
        codes = (self.log_probs + noise).argmax(-1).astype(self.loc.dtype)
        numbers = self.loc + self.scale * random.normal(number_key, codes.shape, codes.dtype)
        return jnp.where(self._is_numeric, numbers, codes)

    def log_prob(self, value: ArrayLike) -> Array:
        value = jnp.asarray(value)
        codes = jnp.where(self._is_numeric, 0, value).astype(int)[..., None]
        rows = jnp.broadcast_to(self.log_probs, (*value.shape, self.log_probs.shape[-1]))
        of_codes = jnp.take_along_axis(rows, codes, axis=-1)[..., 0]
        normal = Normal(self.loc, self.scale, validate_args=False)
        return jnp.where(self._is_numeric, normal.log_prob(value), of_codes).sum(-1)

    @property
    def _is_numeric(self) -> np.ndarray:
        return np.array([column.is_numeric for column in self.columns])
