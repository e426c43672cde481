"""Real tables on which density estimators are compared, prepared as in the published tables.

The files are the user's own copies, in the folder that the environment variable `PYRO_EBM_DATA`
names. Preparation follows the authors of Generalized Energy Based Models (Arbel et al., 2021),
https://arxiv.org/abs/2003.05033, to the last random number, so that figures compare: rows are
shuffled, columns permuted, everything is whitened, and the last rows are kept for testing.
Whitening looks at all rows, those for testing too: a leak, kept because the published figures
have it.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import RandomState

Array = np.ndarray


class Table(NamedTuple):
    """Whitened rows in three parts that share none, float64 of shape `(n, dimension)`.

    Attributes:
        train: To fit parameters on.
        validation: To choose settings and checkpoints on.
        test: To report numbers on, once.
    """

    train: Array
    validation: Array
    test: Array


@dataclass(frozen=True)
class _Source:
    """A file of the UCI Machine Learning Repository."""

    file: str
    title: str
    doi: str
    shape: tuple[int, int]

    def read(self) -> Array:
        """Read the numbers below one header line, between commas, semicolons or spaces."""
        folder = os.environ.get("PYRO_EBM_DATA")
        if folder is None or not (path := Path(folder) / self.file).is_file():
            got = "the variable is unset" if folder is None else f"{folder!r} has no such file"
            raise FileNotFoundError(
                f"Expected {self.file} in the folder that the environment variable PYRO_EBM_DATA "
                f"names, but {got}. It is in the data set {self.title!r} of the UCI Machine "
                f"Learning Repository, https://doi.org/{self.doi}."
            )
        _, *lines = path.read_text().splitlines()
        table = np.loadtxt([re.sub("[,;]", " ", line) for line in lines])
        if table.shape != self.shape:
            raise ValueError(f"Expected {path} to be a table of {self.shape}, got {table.shape}.")
        return table


_RED_WINE = _Source("winequality-red.csv", "Wine Quality", "10.24432/C56S3T", (1599, 12))
_PARKINSONS = _Source(
    "parkinsons_updrs.data", "Parkinsons Telemonitoring", "10.24432/C5ZS3N", (5875, 22)
)


def red_wine(seed: int = 1) -> Table:
    """Load eleven measurements of 1599 red wines.

    They are recorded in round numbers: uniform noise as wide as the median gap between two values
    of a column, to either side, makes them continuous.

    Args:
        seed: Seed of the noise, the split and the order of the columns; published figures have 1.

    Returns:
        1296, 144 and 159 rows of dimension 11.

    Raises:
        FileNotFoundError: If `PYRO_EBM_DATA` is unset or the file is not there.
        ValueError: If the file has another shape.

    References:
        Wine Quality (Cortez et al., 2009), https://doi.org/10.24432/C56S3T
    """
    rng = RandomState(seed)
    x = _RED_WINE.read()[:, :-1]
    rng.shuffle(x)
    for column in x.T:
        gaps: Array = np.diff(np.unique(column))
        column += (2 * rng.random_sample(len(x)) - 1) * np.median(gaps)
    return _split(_whiten(x[:, rng.permutation(x.shape[1])]))


def parkinsons(seed: int = 1) -> Table:
    """Load fifteen measurements of 5875 voice recordings of people with Parkinson's disease.

    Subject, age and sex are left out, and columns that all but repeat another.

    Args:
        seed: Seed of the split and the order of the columns; published figures have 1.

    Returns:
        4760, 528 and 587 rows of dimension 15.

    Raises:
        FileNotFoundError: If `PYRO_EBM_DATA` is unset or the file is not there.
        ValueError: If the file has another shape.

    References:
        Parkinsons Telemonitoring (Tsanas and Little, 2009), https://doi.org/10.24432/C5ZS3N
    """
    rng = RandomState(seed)
    x = _without_repetitions(_PARKINSONS.read()[:, 3:])
    rng.shuffle(x)
    return _split(_whiten(x[:, rng.permutation(x.shape[1])]))


def _without_repetitions(x: Array, limit: float = 0.98) -> Array:
    """Drop, one after another, the first column whose correlation with another is too high."""
    # The authors compare magnitudes on the first pass only.
    correlation = np.abs(np.corrcoef(x.T))
    while (repeated := np.sum(correlation > limit, axis=0) > 1).any():
        x = np.delete(x, np.argmax(repeated), axis=1)
        correlation = np.corrcoef(x.T)
    return x


def _whiten(x: Array) -> Array:
    """Give rows mean zero and covariance one, along the principal axes."""
    x = x - x.mean(axis=0)
    _, scales, axes = np.linalg.svd(x, full_matrices=False)
    return x @ (axes.T / scales) * np.sqrt(len(x))


def _split(x: Array) -> Table:
    """Keep the last tenth for testing; of the rest, the last tenth for validation."""
    num_test = len(x) // 10
    num_validation = (len(x) - num_test) // 10
    return Table(*np.split(x, [-num_test - num_validation, -num_test]))
