"""Other seeds for all tests of a process: ``make seeds``.

A test that fails with some has too thin a margin: give it one that holds by design. Inputs of
recorded numbers are drawn by ``Generator(PCG64(seed))``, which is not shifted.
"""

import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

SEEDED = {
    "numpy.random": ["default_rng"],
    "torch": ["manual_seed"],
    "pyro": ["set_rng_seed"],
    "jax.random": ["key", "PRNGKey"],
}


def shift_seeds(shift: int) -> None:
    """Add a number to the seeds of NumPy, and of the host that is imported already."""
    import_module("numpy.random")
    for module in SEEDED.keys() & sys.modules.keys():
        for name in SEEDED[module]:
            function = getattr(sys.modules[module], name)
            setattr(sys.modules[module], name, _shifted(function, shift))


def _shifted(function: Callable[..., Any], shift: int) -> Callable[..., Any]:
    @wraps(function)
    def call(seed: Any = None, *args: Any, **options: Any) -> Any:
        is_number = hasattr(seed, "__add__") and not isinstance(seed, list | tuple | str)
        return function(seed + shift if is_number else seed, *args, **options)

    return call
