"""Several steps of one player for each of another: optimizers that sit steps out."""

from collections.abc import Callable
from functools import cache
from typing import Any

from torch.optim import Optimizer

__all__ = ["step_when"]


def step_when(optimizer: type[Optimizer]) -> type[Optimizer]:
    """Give an optimizer a condition on the count of steps, without which it does nothing.

    In a step that it sits out, the parameter and the optimizer's state (moments, counts, rates)
    stay as they are to the last bit, and the gradient is dropped. Gradients are computed all the
    same. A learning-rate scheduler around it has a count of its own, which goes on.

    Pyro makes one optimizer for each parameter, which counts the steps of that parameter; the
    count is a part of ``state_dict``, so that saved training goes on where it stopped.

    Args:
        optimizer: A class of ``torch.optim`` or the like, for example ``torch.optim.Adam``.

    Returns:
        A subclass with one more keyword argument, ``condition``: a function from the count of
        steps so far (0, 1, 2, ...) to whether to move in this step; None, the default, moves in
        all. It can be copied and, if the condition can, pickled.

    Raises:
        TypeError: If ``optimizer`` is no subclass of ``torch.optim.Optimizer``, or, from the
            constructor, if ``condition`` is not callable.

    Example:
        Five steps of the energy for each of the base:

        >>> def options(name):
        ...     if not name.startswith("base"):
        ...         return {"lr": 1e-4}
        ...     return {"lr": 1e-4, "condition": lambda count: count % 5 == 4}
        >>> optimizer = PyroOptim(step_when(torch.optim.Adam), options)  # doctest: +SKIP
    """
    if not (isinstance(optimizer, type) and issubclass(optimizer, Optimizer)):
        raise TypeError(
            "Expected `optimizer` to be a subclass of torch.optim.Optimizer, such as "
            f"torch.optim.Adam, got {optimizer!r}."
        )
    return optimizer if issubclass(optimizer, _StepsWhen) else _subclass(optimizer)


class _StepsWhen(Optimizer):
    """Comes before the optimizer proper in the order of inheritance."""

    plain: type[Optimizer]

    def __init__(
        self, *args: Any, condition: Callable[[int], Any] | None = None, **kwargs: Any
    ) -> None:
        if condition is not None and not callable(condition):
            raise TypeError(f"Expected `condition` to be callable, got {type(condition).__name__}.")
        super().__init__(*args, **kwargs)
        self.condition = condition

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        # Groups are what state_dict, load_state_dict and copies all carry along.
        group = self.param_groups[0]
        count = group.get("step_count", 0)
        group["step_count"] = count + 1
        if self.condition is None or self.condition(count):
            return super().step(closure)
        return None if closure is None else closure()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "condition": self.condition}

    def __reduce__(self) -> tuple[Any, ...]:
        return _blank, (self.plain,), self.__getstate__()


# The same class each time, so that a copy is an instance of the class of the original.
@cache
def _subclass(optimizer: type[Optimizer]) -> type[Optimizer]:
    return type(f"{optimizer.__name__}When", (_StepsWhen, optimizer), {"plain": optimizer})


def _blank(optimizer: type[Optimizer]) -> Optimizer:
    cls = _subclass(optimizer)
    return cls.__new__(cls)
