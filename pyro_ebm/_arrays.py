"""Conversion of either host's arrays to NumPy, without importing the host."""

from typing import Any

import numpy as np


def to_numpy(array: Any) -> np.ndarray:
    """Return an array as a NumPy array, without gradients."""
    if is_from(array, "torch"):
        array = array.detach().cpu()
        # NumPy has no such numbers.
        array = array.float() if str(getattr(array, "dtype", None)) == "torch.bfloat16" else array
    array = np.asarray(array)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def is_from(value: Any, package: str) -> bool:
    """Whether a value is an instance of a class of the package."""
    return any(base.__module__.split(".")[0] == package for base in type(value).__mro__)
