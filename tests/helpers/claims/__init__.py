"""Claims of the tutorials: sentences that state a number or a behaviour of their full runs.

Each module has those of the tutorial of its name. Run one in full and print what its sentences
rest on, from `tests`: ``python -m helpers.claims ../tutorials/01_first_energy_pyro.py``
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from math import inf
from pathlib import Path
from types import SimpleNamespace


@dataclass(frozen=True)
class Claim:
    """A sentence, and the range of a number that it rests on.

    Attributes:
        words: Of the sentence; they occur in the text of the page.
        value: Function of the variables of a run, as attributes, with its output as ``printed``.
        low: Least value.
        high: Largest value.
    """

    words: str
    value: Callable[[SimpleNamespace], float]
    low: float = -inf
    high: float = inf

    def check(self, run: SimpleNamespace) -> tuple[bool, str]:
        """Return whether it holds, and the sentence with its number."""
        value = float(self.value(run))
        text = f"{self.words}: {value:.4g} in [{self.low:g}, {self.high:g}]"
        return self.low <= value <= self.high, text


def of_tutorial(path: Path) -> list[Claim]:
    _, *words, _ = path.stem.split("_")
    return import_module(f"helpers.claims.{'_'.join(words)}").CLAIMS


def prose(path: Path) -> str:
    """Text of the pages of a tutorial, in one line."""
    return " ".join(_cells(path, "markdown"))


def code(path: Path) -> str:
    return "\n".join(_cells(path, ""))


def _cells(path: Path, kind: str) -> Iterator[str]:
    for cell in path.read_text().split("\n# %%")[1:]:
        is_text = cell.startswith(" [markdown]")
        if is_text and kind:
            yield re.sub(r"\s+", " ", re.sub(r"^# ?", "", cell, flags=re.MULTILINE))
        elif not (is_text or kind):
            yield cell
