"""Checkpoints of training and of chains with Pyro."""

import functools
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import FunctionType
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import SVI
from pyro.optim import PyroOptim
from pyro.params.param_store import ParamStoreDict
from safetensors.torch import save
from torch import nn
from torch.optim import Optimizer

from pyro_ebm import __version__, checkpoints
from pyro_ebm.checkpoints import FilePath, Fixed, Lazy, Leaves, Node, container
from pyro_ebm.core.distributions.closures import is_empty, names_of

_ADVICE = (
    "Is it of another model? A run has its parameters, chains and buffers after its first step: "
    "load then."
)


def save_checkpoint(path: FilePath, state: Any) -> None:
    """Save all that a run needs to go on to the last bit, in one safetensors file.

    The parameter store, with persistent chains and stored positions, and the states of all random
    number generators (torch on each device, NumPy, Python) are saved in any case. The file is
    replaced at once: if the process is killed, the old one is there.

    Args:
        path: Name of the file. Processes that train together need one each, such as
            ``f"run_{rank}.safetensors"``: their chains and random numbers differ.
        state: What else to save. An ``SVI`` stands for its optimizer and, where they are modules,
            its model and guide; modules inside of a model's function that have buffers (spectral
            norm, batch norm) come beside it. Or optimizers, schedulers, the module form of an
            ``EnergyELBO``, tensors, a ``ChainState``, samplers, numbers, words; in dictionaries,
            lists and tuples.

    Raises:
        TypeError: If ``state`` has something else.
        ValueError: If an optimizer has parameters that are no longer in the store, or a module of
            the model, in training mode and with buffers, is not in ``state``.

    Example:
        >>> import pathlib, pyro, tempfile, torch, pyro_ebm.pyro as ebm
        >>> from pyro.infer import SVI, Trace_ELBO
        >>> def model():
        ...     pyro.sample("x", pyro.distributions.Normal(pyro.param("a", torch.ones(())), 1.0))
        >>> svi = SVI(model, model, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.safetensors"
        >>> loss = svi.step()
        >>> ebm.save_checkpoint(path, {"svi": svi, "step": 1})
        >>> ebm.load_checkpoint(path, {"svi": svi, "step": 0})["step"]
        1
    """
    versions = {"pyro_ebm": __version__, "torch": torch.__version__, "pyro": pyro.__version__}
    saved = {name: _saved(leaf) for name, leaf in checkpoints.expanded(_leaves(state)).items()}
    checkpoints.write(path, "pyro", versions, saved, save)


def load_checkpoint(path: FilePath, like: Any) -> Any:
    """Load a file of :func:`save_checkpoint` into a run of the same model.

    Take one step of training first: it makes the parameters, chains, buffers and moments that are
    then overwritten, in place. Everything is compared before anything changes; nothing is ever
    unpickled. Arrays go to the devices of those in ``like``.

    Args:
        path: Name of the file.
        like: The same structure that was saved, with the objects of this run.

    Returns:
        ``like`` with the tensors, numbers and words of the file; optimizers and modules are those
        of ``like``.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is no checkpoint (a pickle, for example), or one of the other host, of
            another version of the layout or of another model: with other names, shapes, types of
            numbers or constraints.

    Warns:
        UserWarning: If CUDA devices differ; their random number generators stay as they are.
    """
    root, run = _Root(like), _leaves(like)
    file = checkpoints.read(path, "pyro", "pt")
    # Mapped from the disk until then.
    file = {name: leaf.clone() if torch.is_tensor(leaf) else leaf for name, leaf in file.items()}
    _align_devices(file, run)
    new = checkpoints.match(path, file, run, _ADVICE)
    before = {name: _copied(leaf) for name, leaf in run.items()}
    new = {
        name: leaf.to(run[name].device) if torch.is_tensor(leaf) else leaf
        for name, leaf in new.items()
    }
    try:
        return checkpoints.join(root, _split, "", new)
    except Exception as error:
        # Up to where it failed, in the same order.
        with suppress(Exception):
            checkpoints.join(root, _split, "", before)
        raise ValueError(f"Expected a state that fits this run in {path}, got: {error}") from error


# --- what a run consists of ---


class _Root:
    """All that is saved: what Pyro and torch keep for the process, and a user's state."""

    def __init__(self, state: Any) -> None:
        self.state = state


class _Generators:
    """The global random number generators."""


def _leaves(state: Any) -> Leaves:
    found = dict(checkpoints.leaves(_Root(state), _split, ""))
    known = {id(leaf) for leaf in found.values()}
    for name, module in _modules_of(state):
        if module.training and any(id(buffer) not in known for buffer in module.buffers()):
            raise ValueError(
                f"Expected `state` to have the module {name!r} of the model, whose buffers change "
                f'in training: for example {{"svi": svi, {name!r}: {name}}}.'
            )
    return found


def _split(node: Any) -> Node | None:
    """Inner nodes; those with a state of their own are changed in place, and returned."""
    for kind, split in _SPLITS.items():
        if isinstance(node, kind):
            return split(node)
    if hasattr(node, "state_dict") and hasattr(node, "load_state_dict"):
        return _stateful(node, node.state_dict(), node.load_state_dict)
    return container(node)


def _stateful(node: Any, state: Mapping[str, Any], load: Callable[[dict[str, Any]], Any]) -> Node:
    def join(new: list[Any]) -> Any:
        load(dict(zip(state, new, strict=True)))
        return node

    return Node({f"[{name!r}]": value for name, value in state.items()}, join)


def _root(root: _Root) -> Node:
    children = {"params": pyro.get_param_store(), "rng": _Generators(), "state": root.state}
    return Node(children, lambda new: new[-1])


def _store(store: ParamStoreDict) -> Node:
    state = store.get_state()
    params, constraints = state["params"], state["constraints"]
    texts = {f"[{name!r}].constraint": Fixed(repr(constraints[name])) for name in params}

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


def _numpy(array: np.ndarray) -> Node:
    return Node({"": torch.from_numpy(array.copy())}, lambda new: new[0].numpy())


def _generator(generator: torch.Generator) -> Node:
    return Node({".rng": generator.get_state()}, lambda new: generator.set_state(new[0]))


_SPLITS: dict[type, Callable[[Any], Node]] = {
    _Root: _root,
    _Generators: _generators,
    ParamStoreDict: _store,
    SVI: _svi,
    PyroOptim: _pyro_optim,
    Optimizer: _optimizer,
    nn.Module: _module,
    np.ndarray: _numpy,
    torch.Generator: _generator,
}


def _saved(leaf: Any) -> Any:
    return leaf.detach().to("cpu", copy=True).contiguous() if torch.is_tensor(leaf) else leaf


def _copied(leaf: Any) -> Any:
    if isinstance(leaf, Lazy):
        return {name: _saved(value) for name, value in leaf.present.items()}
    return _saved(leaf)


def _align_devices(file: Leaves, run: Leaves) -> None:
    """Leave out the generators of devices that only the file, or only the run, has."""
    strange = {name for name in file.keys() ^ run.keys() if name.startswith("rng.cuda")}
    if strange:
        warnings.warn(
            f"Expected the same CUDA devices as in the checkpoint, got others: {sorted(strange)} "
            "stay as they are, and draws there will differ.",
            stacklevel=3,
        )
    for name in strange:
        if file.pop(name, None) is None:
            file[name] = run[name]


def _modules_of(state: Any) -> Iterator[tuple[str, nn.Module]]:
    """Yield modules that the functions of an ``SVI`` refer to, by variable."""
    if isinstance(state, SVI):
        seen: set[int] = set()
        for function in (state.model, state.guide):
            yield from _referred(function, seen)
    elif (inner := container(state)) is not None:
        for child in inner.children.values():
            yield from _modules_of(child)


def _referred(function: Any, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(function, functools.partial):
        function = function.func
    if not isinstance(function, FunctionType) or id(function) in seen:
        return
    seen.add(id(function))
    code, names = function.__code__, names_of(function.__code__, "LOAD_GLOBAL")
    variables = {name: value for name, value in function.__globals__.items() if name in names}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        variables[name] = None if is_empty(cell) else cell.cell_contents
    for name, value in variables.items():
        if isinstance(value, nn.Module):
            yield name, value
        else:
            yield from _referred(value, seen)
