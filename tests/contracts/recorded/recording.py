"""How numbers are recorded: as lists of floats by configuration, in one JSON file a host.

Nothing here knows of a host or of the library.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

# A recorded number may differ by this, times its magnitude where that is above one.
TOLERANCE = 1e-10
# Of an array with more elements checksums are recorded.
_MAX_ELEMENTS = 6

Configurations = Mapping[str, Callable[[], list[float]]]


def figures(arrays: Iterable[Any]) -> list[float]:
    """All elements of small arrays; of others the sum, the norm, a weighted sum, the two ends.

    The weights are all different, so that an order of elements that changes is seen.
    """
    found: list[float] = []
    for array in arrays:
        flat = np.asarray(array, dtype=np.float64).ravel()
        if flat.size <= _MAX_ELEMENTS:
            found += flat.tolist()
            continue
        weighted = np.cos(np.arange(flat.size)) * flat
        checksums = flat.sum(), np.sqrt((flat**2).sum()), weighted.sum(), flat[0], flat[-1]
        found += [float(number) for number in checksums]
    return found


def differences(expected: list[float], found: list[float]) -> list[str]:
    """What differs, in words; empty where all numbers agree."""
    if len(expected) != len(found):
        return [f"expected {len(expected)} numbers, got {len(found)}"]
    return [
        f"number {index}: expected {one!r}, got {other!r}"
        for index, (one, other) in enumerate(zip(expected, found, strict=True))
        if not _agree(one, other)
    ]


def main(configurations: Configurations, packages: Iterable[str], path: Path) -> None:
    """Compare with the recorded numbers, or print new ones, or write them."""
    parser = argparse.ArgumentParser(description="Without options: compare with the JSON file.")
    parser.add_argument("--print", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--write", metavar="COMMIT", help="write the JSON file, of this commit")
    options = parser.parse_args()
    found = {name: configuration() for name, configuration in configurations.items()}
    record = {
        "commit": options.write,
        "versions": {package: version(package) for package in packages},
        "numbers": found,
    }
    if options.print:
        print(json.dumps(record, indent=1))
    elif options.write:
        path.write_text(json.dumps(record, indent=1) + "\n")
    else:
        _compare(json.loads(path.read_text())["numbers"], found)


def _agree(one: float, other: float) -> bool:
    if not (math.isfinite(one) and math.isfinite(other)):
        return one == other or (math.isnan(one) and math.isnan(other))
    return abs(one - other) <= TOLERANCE * max(1.0, abs(one))


def _compare(expected: dict[str, list[float]], found: dict[str, list[float]]) -> None:
    if expected.keys() != found.keys():
        raise SystemExit(f"Only in one of the two: {sorted(expected.keys() ^ found.keys())}")
    wrong = {name: differences(expected[name], found[name]) for name in expected}
    for name, lines in wrong.items():
        print(f"{name}: {'; '.join(lines) or 'the same'}")
    if any(wrong.values()):
        raise SystemExit(1)
