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
    """Save a pytree in one safetensors file: an ``SVIState``, for example.

    It has parameters, the optimizer's state, chains, stored positions and keys: a run goes on from
    it to the last bit. So do states of ``run_chains`` and of ``MCMC``. Keys, numbers, words and
    samplers are fine as leaves. More: :func:`pyro_ebm.checkpoints.write`.

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
    """Load a pytree, given one of the same structure, such as ``svi.init(rng_key, ...)``.

    Shapes alone, from ``jax.eval_shape``, are enough. Arrays get the sharding of those in ``like``.
    Nothing is ever unpickled. Errors: :func:`pyro_ebm.checkpoints.read` and ``match`` there.
    """
    run = dict(leaves(like, split, "state"))
    file = read(path, "numpyro", "np")
    new = match(path, file, run, _ADVICE)
    new = {name: placed(leaf, run[name]) for name, leaf in new.items()}
    return join(like, split, "state", new)
