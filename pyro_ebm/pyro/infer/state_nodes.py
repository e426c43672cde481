"""States of runs with Pyro: the parameter store, generators, optimizers, schedulers and modules."""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import SVI
from pyro.optim import PyroOptim
from pyro.params.param_store import ParamStoreDict
from torch import nn
from torch.optim import Optimizer

from pyro_ebm._state_trees import Fixed, Lazy, Leaves, Node, container, leaves
from pyro_ebm.pyro.distributions.closures import modules_in


class Run:
    """All that is saved: what Pyro and torch keep for the process, and a user's state."""

    def __init__(self, state: Any) -> None:
        self.state = state


class _Generators:
    """The global random number generators."""


def leaves_of(state: Any) -> Leaves:
    found = dict(leaves(Run(state), split, ""))
    known = {id(leaf) for leaf in found.values()}
    for name, module in _modules_of(state):
        if module.training and not known.issuperset(map(id, _buffers(module))):
            raise ValueError(
                f"Expected `state` to have the module {name!r} of the model, whose buffers change "
                f'in training: for example {{"svi": svi, {name!r}: {name}}}.'
            )
    return found


def split(node: Any) -> Node | None:
    """Inner nodes; those with a state of their own are changed in place, and returned."""
    for kind, split_it in _SPLITS.items():
        if isinstance(node, kind):
            return split_it(node)
    if hasattr(node, "state_dict") and hasattr(node, "load_state_dict"):
        return _stateful(node, node.state_dict(), node.load_state_dict)
    return container(node)


def _stateful(node: Any, state: Mapping[str, Any], load: Callable[[dict[str, Any]], Any]) -> Node:
    def join(new: list[Any]) -> Any:
        load(dict(zip(state, new, strict=True)))
        return node

    return Node({f"[{name!r}]": value for name, value in state.items()}, join)


def _run(run: Run) -> Node:
    children = {"params": pyro.get_param_store(), "rng": _Generators(), "state": run.state}
    return Node(children, lambda new: new[-1])


def _store(store: ParamStoreDict) -> Node:
    params = dict(store.named_parameters())
    texts = {f"[{name!r}].constraint": Fixed(repr(store._constraints[name])) for name in params}

    @torch.no_grad()
    def join(new: list[Any]) -> ParamStoreDict:
        for param, value in zip(params.values(), new, strict=False):
            param.copy_(value)
        return store

    return Node({f"[{name!r}]": param for name, param in params.items()} | texts, join)


def _generators(node: _Generators) -> Node:
    version, numbers, normal = random.getstate()
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    children = {
        ".torch": torch.get_rng_state(),
        ".numpy": np.random.get_state(legacy=False),
        # The second normal number of a pair, if there is one.
        ".python": [version, torch.tensor(numbers), math.nan if normal is None else normal],
    }

    def join(new: list[Any]) -> _Generators:
        default, legacy, (version, numbers, normal), *others = new
        torch.set_rng_state(default)
        np.random.set_state(legacy)
        normal = None if math.isnan(normal) else normal
        random.setstate((version, tuple(numbers.tolist()), normal))
        for device, state in zip(cuda, others, strict=True):
            torch.cuda.set_rng_state(state, device)
        return node

    return Node(children | {f".cuda[{i}]": torch.cuda.get_rng_state(i) for i in cuda}, join)


def _svi(svi: SVI) -> Node:
    modules = {".model": svi.model, ".guide": svi.guide}
    modules = {name: part for name, part in modules.items() if isinstance(part, nn.Module)}
    return Node({".optim": svi.optim, **modules}, lambda _: svi)


def _pyro_optim(optim: PyroOptim) -> Node:
    children: dict[str, Any] = {}
    for param, inner in optim.optim_objs.items():
        name = pyro.get_param_store().param_name(param)
        if name is None:
            raise ValueError(
                "Expected the parameters of the optimizer in Pyro's store, got one of shape "
                f"{tuple(param.shape)} that is no longer there: use a new optimizer after "
                "`pyro.clear_param_store()`."
            )
        children[f"[{name!r}]"] = inner
        # A scheduler does not have the state of its optimizer.
        if hasattr(inner, "optimizer"):
            children[f"[{name!r}].optimizer"] = inner.optimizer
    return Node(children, lambda _: optim)


def _optimizer(optimizer: Optimizer) -> Node:
    state = optimizer.state_dict()
    params = [param for group in optimizer.param_groups for param in group["params"]]
    indices = [group.pop("params") for group in state["param_groups"]]
    moments = {
        f".state[{i}]": Lazy(state["state"].get(i, {}), param) for i, param in enumerate(params)
    }

    def join(new: list[Any]) -> Optimizer:
        groups, *moments = new
        groups = [{**g, "params": at} for g, at in zip(groups, indices, strict=True)]
        found = {i: moment for i, moment in enumerate(moments) if moment}
        optimizer.load_state_dict({"state": found, "param_groups": groups})
        return optimizer

    return Node({".param_groups": state["param_groups"], **moments}, join)


def _module(module: nn.Module) -> Node:
    stored = {id(param) for _, param in pyro.get_param_store().named_parameters()}
    state = module.state_dict(keep_vars=True)
    own = {name: value for name, value in state.items() if id(value) not in stored}
    return _stateful(module, own, lambda new: module.load_state_dict({**state, **new}))


def _buffers(module: nn.Module) -> list[Any]:
    state = module.state_dict(keep_vars=True).values()
    return [x for x in state if torch.is_tensor(x) and not isinstance(x, nn.Parameter)]


def _array(array: np.ndarray) -> Node:
    return Node({"": torch.from_numpy(array.copy())}, lambda new: new[0].numpy())


def _number(number: np.generic) -> Node:
    return Node({"": torch.from_numpy(np.array(number))}, lambda new: new[0].numpy()[()])


def _generator(generator: torch.Generator) -> Node:
    return Node({".rng": generator.get_state()}, lambda new: generator.set_state(new[0]))


_SPLITS: dict[type, Callable[[Any], Node]] = {
    Run: _run,
    _Generators: _generators,
    ParamStoreDict: _store,
    SVI: _svi,
    PyroOptim: _pyro_optim,
    Optimizer: _optimizer,
    nn.Module: _module,
    np.ndarray: _array,
    np.generic: _number,
    torch.Generator: _generator,
}


def _modules_of(state: Any) -> Iterator[tuple[str, nn.Module]]:
    """Yield modules that the functions of an ``SVI`` refer to, by variable."""
    if isinstance(state, SVI):
        seen: set[int] = set()
        for function in (state.model, state.guide):
            yield from modules_in(function, seen)
    elif (inner := container(state)) is not None:
        for child in inner.children.values():
            yield from _modules_of(child)
