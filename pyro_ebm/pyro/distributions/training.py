"""Whether anything trains the parameters that a score holds constant."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["trained_by_objective", "warn_if_untrained"]

# Parameters that a user has been told about: once is enough.
_warned_of = WeakIdKeyDictionary()
_trained_by_objective: ContextVar[bool] = ContextVar("trained_by_objective", default=False)


@contextmanager
def trained_by_objective() -> Iterator[None]:
    """Say that an objective trains the energies meanwhile, so that ``log_prob`` need not warn."""
    token = _trained_by_objective.set(True)
    try:
        yield
    finally:
        _trained_by_objective.reset(token)


def warn_if_untrained(distribution: Any, held: list[Tensor]) -> None:
    """Warn, once for a parameter, that a stock ELBO asks for what ``log_prob`` holds constant."""
    if _trained_by_objective.get() or not torch.is_grad_enabled():
        return
    new = [parameter for parameter in held if parameter not in _warned_of]
    if not new:
        return
    # SVI traces nothing but parameters while it takes a step; MCMC and Predictive do not.
    if any(isinstance(frame, TraceMessenger) and frame.param_only for frame in _PYRO_STACK):
        _warned_of.update(dict.fromkeys(new, True))
        warnings.warn(
            f"Nothing trains the parameters of {distribution}: a stock ELBO holds those of the "
            "energy and its base constant. To train them, use EnergyELBO(objective, elbo) as the "
            "loss; if they are meant to stay as they are, say so with requires_grad_(False).",
            stacklevel=3,
        )
