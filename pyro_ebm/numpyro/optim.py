"""Several steps of one player for each of another: optimizers that sit steps out."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from pyro_ebm._extras import require

__all__ = ["step_when"]


def step_when(optimizer: Callable[..., Any]) -> Callable[..., Any]:
    """Give an optimizer a condition on the count of steps, without which it does nothing.

    In a step that it sits out, the parameters and the optimizer's state (moments, counts, places
    in schedules) stay as they are to the last bit, and the gradient is dropped. Gradients are
    computed all the same.

    The count is a part of the optimizer's state, so that saved training goes on where it stopped.
    This is ``optax.conditionally_mask``, under the name and with the argument that Pyro's side
    has; its neighbour ``conditionally_transform`` would let plain gradients through instead.

    Args:
        optimizer: What makes a gradient transformation of optax, for example ``optax.adam``.

    Returns:
        The same with one more keyword argument, ``condition``: a function from the count of steps
        so far (0, 1, 2, ..., an array that is traced) to whether to move in this step, a boolean
        scalar; None, the default, moves in all.

    Raises:
        TypeError: If ``optimizer`` is not callable, or, when it is called, if it makes no gradient
            transformation or ``condition`` is not callable.

    Example:
        Five steps of the energy for each of the base:

        >>> rates = {
        ...     "energy": optax.adam(1e-4),
        ...     "base": step_when(optax.adam)(1e-4, condition=lambda count: count % 5 == 4),
        ... }  # doctest: +SKIP
        >>> labels = {"energy$params": "energy", "base$params": "base"}  # of what numpyro.param has
        >>> optimizer = optax.multi_transform(rates, labels)  # doctest: +SKIP
    """
    if not callable(optimizer):
        raise TypeError(
            "Expected `optimizer` to make a gradient transformation, such as optax.adam does, "
            f"got {type(optimizer).__name__}."
        )

    @wraps(optimizer)
    def constructor(
        *args: Any, condition: Callable[[Any], Any] | None = None, **kwargs: Any
    ) -> Any:
        with require("optax"):
            import optax
        if condition is not None and not callable(condition):
            raise TypeError(f"Expected `condition` to be callable, got {type(condition).__name__}.")
        made = optimizer(*args, **kwargs)
        if not isinstance(made, optax.GradientTransformation):
            raise TypeError(
                "Expected `optimizer` to make a gradient transformation, such as optax.adam does, "
                f"got one that makes {type(made).__name__}."
            )
        return made if condition is None else optax.conditionally_mask(made, condition)

    return constructor
