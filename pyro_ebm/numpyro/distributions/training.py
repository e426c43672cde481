"""Whether anything trains the parameters that a score holds constant."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import jax
from jax import Array
from jax.custom_derivatives import SymbolicZero

__all__ = ["trained_by_objective", "warn_if_untrained"]

_trained_by_objective: ContextVar[bool] = ContextVar("trained_by_objective", default=False)


@contextmanager
def trained_by_objective() -> Iterator[None]:
    """Say that an objective trains the energies meanwhile, so that ``log_prob`` need not warn."""
    token = _trained_by_objective.set(True)
    try:
        yield
    finally:
        _trained_by_objective.reset(token)


def warn_if_untrained(potential: Array, held: list[Array]) -> Array:
    """The potential; warns if a derivative is asked for in what ``log_prob`` holds constant."""
    return potential if _trained_by_objective.get() else _watch(potential, held)


@jax.custom_jvp
def _watch(potential: Array, held: list[Array]) -> Array:
    """The potential itself; warns when something asks for a derivative in what was held."""
    del held
    return potential


@partial(_watch.defjvp, symbolic_zeros=True)
def _watch_jvp(primals: Any, tangents: Any) -> Any:
    if not all(isinstance(tangent, SymbolicZero) for tangent in tangents[1]):
        warnings.warn(
            "Nothing trains the parameters of an EnergyBased distribution: its log_prob holds "
            "those of the energy and its base constant, yet a gradient in them was asked for. To "
            "train them, use EnergyELBO(objective, elbo) as the loss, with an objective for this "
            "site; if they are meant to stay as they are, say so with jax.lax.stop_gradient. If "
            "the energy or its base depends on a latent variable, inference is wrong: the "
            "log-normalizer depends on it too (the model is doubly intractable).",
            stacklevel=2,
        )
    return primals[0], tangents[0]
