"""Checkpoints of training and of chains with Pyro."""

import warnings
from contextlib import suppress
from typing import Any

import pyro
import torch
from safetensors.torch import save

from pyro_ebm import __version__
from pyro_ebm._state_trees import Lazy, Leaves, expanded, join
from pyro_ebm.checkpoints import FilePath, match, read, write
from pyro_ebm.pyro.infer.state_nodes import Run, leaves_of, split

_ADVICE = (
    "Is it of another model? A run has its parameters, chains and buffers after its first step: "
    "load then. To use a trained energy elsewhere, save its state_dict() by safetensors.torch, or "
    "make its parameters by pyro.module, under the same name, before you load."
)


def save_checkpoint(path: FilePath, state: Any) -> None:
    """Save all that a run needs to go on to the last bit, in one safetensors file.

    The parameter store, with persistent chains and stored positions, and the states of all random
    number generators (torch on each device, NumPy, Python) are saved in any case. File names,
    kills and errors: :func:`pyro_ebm.checkpoints.write`.

    Args:
        path: Name of the file.
        state: All else. An ``SVI`` stands for its optimizer and, where they are modules, its model
            and guide; modules inside of a model's function that have buffers (spectral norm, batch
            norm) come beside it. Or optimizers, schedulers, modules, the module form of an
            ``EnergyELBO``, tensors, a ``ChainState``, samplers, numbers, words; in dictionaries,
            lists and tuples.

    Raises:
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
    saved = {name: _saved(leaf) for name, leaf in expanded(leaves_of(state)).items()}
    write(path, "pyro", versions, saved, save)


def load_checkpoint(path: FilePath, like: Any) -> Any:
    """Load a file of :func:`save_checkpoint` into a run of the same model; return its state.

    Take one step of training first: it makes the parameters, chains, buffers and moments that are
    then overwritten, in place. Nothing changes unless everything fits, and nothing is ever
    unpickled; errors: :func:`pyro_ebm.checkpoints.read` and :func:`pyro_ebm.checkpoints.match`.

    Args:
        path: Name of the file.
        like: The structure that was saved, with the objects of this run, which are returned in it.
            Tensors go to the devices of those here.

    Warns:
        UserWarning: If CUDA devices differ; their random number generators stay as they are.
    """
    root, run = Run(like), leaves_of(like)
    file = read(path, "pyro", "pt")
    # Mapped from the disk until then.
    file = {name: leaf.clone() if torch.is_tensor(leaf) else leaf for name, leaf in file.items()}
    _align_devices(file, run)
    new = match(path, file, run, _ADVICE)
    before = {name: _copied(leaf) for name, leaf in run.items()}
    new = {
        name: leaf.to(run[name].device) if torch.is_tensor(leaf) else leaf
        for name, leaf in new.items()
    }
    try:
        return join(root, split, "", new)
    except Exception as error:
        # Up to where it failed, in the same order.
        with suppress(Exception):
            join(root, split, "", before)
        raise ValueError(f"Expected a state that fits this run in {path}, got: {error}") from error


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
