"""Checkpoints of training and of chains with NumPyro."""

from typing import Any

import jax
import numpy as np
import numpyro
from safetensors.numpy import save

from pyro_ebm import __version__
from pyro_ebm._state_trees import is_array, join, leaves
from pyro_ebm.checkpoints import FilePath, match, read, write
from pyro_ebm.numpyro.infer.state_nodes import placed, split

_ADVICE = "Is it of another model?"


def save_checkpoint(path: FilePath, state: Any) -> None:
    """Save a pytree in one safetensors file.

    An ``SVIState`` has all that a run needs to go on to the last bit: parameters, the optimizer's
    state, persistent chains and stored positions, random keys. The file is replaced at once: if
    the process is killed, the old one is there.

    Args:
        path: Name of the file. Processes that train together need one each, such as
            ``f"run_{jax.process_index()}.safetensors"``, as far as their states differ.
        state: A pytree of arrays, typed random keys, numbers, words and samplers: an ``SVIState``,
            the ``state`` of :class:`~pyro_ebm.diagnostics.Chains` or of ``MCMC``.

    Raises:
        TypeError: If ``state`` has something else, a function for example, or numbers that the
            format does not have.

    Example:
        >>> import pathlib, tempfile, jax, jax.numpy as jnp, pyro_ebm.numpyro as ebm
        >>> state = {"key": jax.random.key(0), "a": jnp.ones(3), "step": 1}
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.safetensors"
        >>> ebm.save_checkpoint(path, state)
        >>> like = {"key": jax.random.key(1), "a": jnp.zeros(3), "step": 0}
        >>> ebm.load_checkpoint(path, like)["step"]
        1
    """
    versions = {module.__name__: module.__version__ for module in (jax, numpyro)}
    saved = {
        name: np.asarray(leaf, order="C") if is_array(leaf) else leaf
        for name, leaf in leaves(state, split, "state")
    }
    write(path, "numpyro", {"pyro_ebm": __version__} | versions, saved, save)


def load_checkpoint(path: FilePath, like: Any) -> Any:
    """Load a file of :func:`save_checkpoint`, given a state of the same structure.

    Args:
        path: Name of the file.
        like: A state of this run, such as ``svi.init(rng_key, ...)``; or shapes alone, from
            ``jax.eval_shape``. Arrays get the sharding of those in ``like``.

    Returns:
        ``like`` with the arrays, keys, numbers and words of the file.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is no checkpoint (a pickle, for example: nothing is ever unpickled), or
            one of the other host, of another version of the layout or of another model: with other
            names, shapes, types of numbers or kinds of keys.
    """
    run = dict(leaves(like, split, "state"))
    file = read(path, "numpyro", "np")
    new = match(path, file, run, _ADVICE)
    new = {name: placed(leaf, run[name]) for name, leaf in new.items()}
    return join(like, split, "state", new)
