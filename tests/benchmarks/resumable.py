"""Long evidence runs that go on where they stopped: one JSON line for each finished cell."""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Cell = dict[str, Any]


def run_cells(
    cells: Iterable[Cell], run: Callable[..., dict[str, float]], path: Path, *, columns: list[str]
) -> list[Cell]:
    """Run every cell that ``path`` does not hold yet, and print a table of all of them.

    Args:
        cells: Keyword arguments of ``run``; they identify a cell.
        run: Gives the figures of one cell.
        path: File of JSON lines, appended to after each cell.
        columns: Names of the figures that the table shows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines() if path.exists() else []
    done = [json.loads(line) for line in lines]
    rows = []
    for cell in cells:
        row = next((row for row in done if row["cell"] == cell), None)
        if row is None:
            start = time.perf_counter()
            row = {"cell": cell, **run(**cell), "seconds": time.perf_counter() - start}
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        rows.append(row)
        label = ", ".join(f"{value}" for value in cell.values())
        figures = "  ".join(f"{name} {row[name]:.4f}" for name in [*columns, "seconds"])
        print(f"{label:60s} {figures}", flush=True)
    return rows


def output_path(name: str) -> Path:
    """Where a script keeps its results: ``--output``, by default a file of its own name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=Path("benchmark_output") / f"{name}.jsonl")
    return parser.parse_args().output
