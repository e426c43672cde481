"""Errors on one of several processes that train together."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pyro.infer.util import is_validation_enabled
from torch import distributed

from pyro_ebm.pyro.optim import num_processes


@contextmanager
def failing_together() -> Iterator[None]:
    """Raise on every process what is raised on one, which the others would wait for.

    Only where Pyro validates and gradients are computed: evaluations may run on one process.
    """
    error = None
    try:
        yield
    except Exception as raised:
        error = raised
    is_shared = num_processes() > 1 and torch.is_grad_enabled() and is_validation_enabled()
    if is_shared and _is_true_anywhere(error is not None):
        errors = [None] * num_processes()
        distributed.all_gather_object(errors, None if error is None else _first_line(error))
        found = "; ".join(f"rank {rank}, {text}" for rank, text in enumerate(errors) if text)
        if error is None:
            raise RuntimeError(f"Expected a step on all processes, got an error on {found}")
    if error is not None:
        raise error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _is_true_anywhere(flag: bool) -> bool:  # noqa: FBT001
    # NCCL reduces no numbers of the CPU.
    on_cpu = "cpu:" in distributed.get_backend_config()
    device = torch.device("cpu") if on_cpu else torch.accelerator.current_accelerator()
    flags = torch.tensor(float(flag), device=device)
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return bool(flags)
