"""Optimizer wrappers: for several players at several paces, and for several processes."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor, distributed
from torch.optim import Optimizer


def step_when(optimizer: type[Optimizer]) -> type[Optimizer]:
    """Give an optimizer a condition on the number of steps; it skips steps that do not meet it.

    In a skipped step the parameter and the optimizer's state (moments, counts, rates) do not
    change, to the last bit, and the gradient is dropped. Gradients are computed all the same. A
    learning-rate scheduler around it has a count of its own, which continues.

    Pyro makes one optimizer for each parameter, which counts the steps of that parameter; the
    count is a part of ``state_dict``: saved training continues from it. (With NumPyro, use
    ``optax.conditionally_mask``.)

    Args:
        optimizer: A class of ``torch.optim`` or the like, for example ``torch.optim.Adam``.

    Returns:
        A subclass with one more keyword argument, ``condition``: a function from the number of
        steps so far (0, 1, 2, ...) to a boolean; None, the default, skips none. It can be copied
        and, if the condition can, pickled.

    Raises:
        TypeError: If ``optimizer`` is no subclass of ``torch.optim.Optimizer``, or, from the
            constructor, if ``condition`` is not callable.

    Example:
        Five steps of the energy for each of the base:

        >>> import pyro, torch, pyro_ebm.pyro as ebm
        >>> def options(name):
        ...     if not name.startswith("base"):
        ...         return {"lr": 1e-4}
        ...     return {"lr": 1e-4, "condition": lambda count: count % 5 == 4}
        >>> optimizer = pyro.optim.PyroOptim(ebm.step_when(torch.optim.Adam), options)
    """
    if not (isinstance(optimizer, type) and issubclass(optimizer, Optimizer)):
        raise TypeError(
            "Expected `optimizer` to be a subclass of torch.optim.Optimizer, such as "
            f"torch.optim.Adam, got {optimizer!r}."
        )
    return optimizer if issubclass(optimizer, _StepsWhen) else _subclass(optimizer)


class _StepsWhen(Optimizer):
    """Mixin in front of the optimizer proper."""

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


# The same class each time: a copy is an instance of the class of the original.
@cache
def _subclass(optimizer: type[Optimizer]) -> type[Optimizer]:
    return type(f"{optimizer.__name__}When", (_StepsWhen, optimizer), {"plain": optimizer})


def _blank(optimizer: type[Optimizer]) -> Optimizer:
    cls = _subclass(optimizer)
    return cls.__new__(cls)


class AllReduce(PyroOptim):
    """Optimizer of Pyro that averages gradients over the processes of ``torch.distributed``.

    Each process hands its own rows to ``SVI.step``, under a seed of its own, and all take the same
    step. A parameter that is new starts at the value of process 0. Without other processes it is
    the optimizer itself. The wrapped optimizer keeps its state, and a scheduler its ``step``.

    Write ``plate("data", size, subsample_size=len(x))`` in model and guide, with the rows of all
    processes as ``size``. Gradients are averages then of unbiased estimates, as in
    ``DistributedDataParallel`` around the module form of ``EnergyELBO``.

    Args:
        optimizer: For example ``pyro.optim.Adam({"lr": 1e-3})``.

    Raises:
        TypeError: If ``optimizer`` is no optimizer of Pyro.
        ValueError: In a step, if a parameter has no name in Pyro's store, by which processes agree
            on an order.

    Example:
        >>> import pyro, pyro_ebm.pyro as ebm
        >>> optimizer = ebm.AllReduce(pyro.optim.Adam({"lr": 1e-3}))
    """

    def __init__(self, optimizer: PyroOptim) -> None:
        if not isinstance(optimizer, PyroOptim):
            raise TypeError(
                "Expected `optimizer` to be an optimizer of Pyro, such as pyro.optim.Adam({}), "
                f"got {type(optimizer).__name__}."
            )
        # Both hold the same dictionaries, so that `get_state` and `set_state` are those of either.
        vars(self).update(vars(optimizer))
        self._optimizer = optimizer

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        if num_processes() > 1:
            params = self._averaged(params)
        self._optimizer(params, *args, **kwargs)

    def _averaged(self, params: Iterable[Tensor]) -> list[Tensor]:
        """Average the gradients of parameters; return them by the order of their names."""
        param_name: Any = pyro.get_param_store().param_name
        by_name = {param_name(param): param for param in params}
        if None in by_name:
            raise ValueError(
                "Expected parameters in Pyro's store, got some of modules that keep their own "
                "(module_local_params): use DistributedDataParallel for these."
            )
        ordered = [by_name[name] for name in sorted(by_name)]
        works = []
        for param in ordered:
            if param not in self.optim_objs:
                works.append(distributed.broadcast(param.detach(), 0, async_op=True))
            if param.grad is None:
                param.grad = torch.zeros_like(param)
            # Divided first, as in DistributedDataParallel, whose bits it has.
            param.grad /= num_processes()
            works.append(distributed.all_reduce(param.grad, async_op=True))
        for work in works:
            work.wait()
        return ordered


def num_processes() -> int:
    """Return the number of processes that ``torch.distributed`` has connected, or 1."""
    is_connected = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if is_connected else 1
