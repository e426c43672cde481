"""Arrays of either host as NumPy arrays, without importing the host."""

from typing import Any

import numpy as np


def to_numpy(array: Any) -> np.ndarray:
    """The same numbers in memory that NumPy reads, without gradients."""
    if is_from(array, "torch"):
        array = array.detach().cpu()
    return np.asarray(array)


def is_from(value: Any, package: str) -> bool:
    """Whether a class of the package made the value, without importing the package."""
    return any(base.__module__.split(".")[0] == package for base in type(value).__mro__)
