"""Timing of jobs in turns, peak memory, and a table of ratios.

A job is one task at one size, which several libraries do: its columns. Column names are the same on
both hosts, and the ratios are those of CPU time to the first column that a job has of ``FLOORS``.
"""

import ctypes
import gc
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Run = Callable[[], Any]

BY_HAND, OURS, IN_SVI = "by hand", "pyro_ebm", "pyro_ebm in SVI"
COMPILED, COMPILED_BY_HAND = "pyro_ebm, compiled", "by hand, compiled"
RUN_CHAINS, FUSED = "run_chains", "in SVI, fused Adam"
EBMKIT, TORCHEBM, BLACKJAX = "ebmkit", "torchebm", "blackjax"
FLOORS = BY_HAND, EBMKIT, BLACKJAX, OURS, RUN_CHAINS

QUICK = bool(int(os.environ.get("QUICK") or 0))
DEVICE = os.environ.get("DEVICE") or "cpu"
ROUNDS = int(os.environ.get("ROUNDS") or (3 if QUICK else 9))
# Regular expression that names of tasks match.
TASKS = re.compile(os.environ.get("TASKS") or "")
# No job is timed for longer, if it was timed in three rounds.
SECONDS = float(os.environ.get("SECONDS_PER_JOB") or (4 if QUICK else 60))


@dataclass(frozen=True)
class Job:
    """A task that several libraries do.

    Attributes:
        group: Heading of the table.
        task: Name of the task.
        network: Widths of the energy's layers.
        columns: By name, functions that set a library up and return what is timed.
        quick: Whether it is a part of the quick run.
    """

    group: str
    task: str
    network: str
    columns: dict[str, Callable[[], Run]] = field(hash=False)
    quick: bool = True


@dataclass(frozen=True)
class Growth:
    """A task at several sizes.

    Attributes:
        task: Name of the task.
        axis: What grows.
        column: Who does it.
        sizes: Sizes in ascending order.
        make: Sets the task up at one of them, and returns what is timed.
    """

    task: str
    axis: str
    column: str
    sizes: tuple[int, ...]
    make: Callable[[int], Run]


def time_job(job: Job, synchronize: Run) -> dict[str, Any]:
    """Time the columns of a job in turns: medians in milliseconds, and the first call apart."""
    runs, first = {}, {}
    for name, make in job.columns.items():
        start = time.perf_counter()
        runs[name] = make()
        runs[name]()
        synchronize()
        first[name] = 1e3 * (time.perf_counter() - start)
    times = _times_in_turns(runs, synchronize)
    columns = {
        name: {
            "cpu_ms": 1e3 * statistics.median(cpu for cpu, _ in times[name]),
            "wall_ms": 1e3 * statistics.median(wall for _, wall in times[name]),
            "first_call_ms": first[name],
            "rounds": len(times[name]),
        }
        for name in runs
    }
    return {"group": job.group, "task": job.task, "network": job.network, "columns": columns}


def _times_in_turns(runs: dict[str, Run], synchronize: Run) -> dict[str, list[Any]]:
    """CPU and wall time of each call, after a round to warm up."""
    gc.collect()
    gc.freeze()  # Or whoever allocates most pays for going through all that was imported.
    times: dict[str, list[Any]] = {name: [] for name in runs}
    begin = time.perf_counter()
    for index in range(-1, ROUNDS):
        for name in _rotated(list(runs), index):
            measured = _time(runs[name], synchronize)
            if index >= 0:
                times[name].append(measured)
        if index >= 2 and time.perf_counter() - begin > SECONDS:
            break
    return times


def _rotated(names: list[str], index: int) -> list[str]:
    shift = index % len(names)
    return names[shift:] + names[:shift]


def _time(run: Run, synchronize: Run) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    synchronize()
    return time.process_time() - cpu, time.perf_counter() - wall


def measure_growth(growth: Growth, synchronize: Run, peak: Callable[[Run], float]) -> Any:
    """Median CPU and wall time at each size, and peak memory over what was held before."""
    points = []
    for size in growth.sizes:
        run = growth.make(size)
        run()
        synchronize()
        used = peak(run)
        times = [_time(run, synchronize) for _ in range(3)]
        cpu, wall = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
        points.append({"size": size, "cpu_ms": cpu, "wall_ms": wall, "peak_mib": used})
    return {
        "task": growth.task,
        "axis": growth.axis,
        "column": growth.column,
        "points": points,
    }


def peak_of_process(run: Run) -> float:
    """Return by how many MiB the process grew at most during a run (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def run_host(
    host: str, jobs: Iterable[Job], growths: Iterable[Growth], synchronize: Run, peak: Any
) -> dict[str, Any]:
    """Do all jobs of a host; rows are printed as they come."""
    rows = []
    for job in jobs:
        if (QUICK and not job.quick) or not TASKS.search(job.task):
            continue
        rows.append({"host": host, **time_job(job, synchronize)})
        print(describe(rows[-1]), file=sys.stderr, flush=True)
    grown = [
        {"host": host, **measure_growth(it, synchronize, peak)}
        for it in growths
        if TASKS.search(it.task)
    ]
    return {"rows": rows, "growth": grown}


def ratios(row: dict[str, Any], clock: str = "cpu_ms") -> dict[str, float]:
    """Return each column's time over that of the floor."""
    columns = row["columns"]
    floor = next(name for name in FLOORS if name in columns)
    return {name: it[clock] / columns[floor][clock] for name, it in columns.items()}


def clock_of(about: dict[str, Any]) -> str:
    """Return the time that ratios are of: on an accelerator, a processor's says little."""
    return "cpu_ms" if about["device"] == "cpu" else "wall_ms"


def describe(row: dict[str, Any]) -> str:
    """Describe a row in a line."""
    clock = "cpu_ms" if DEVICE == "cpu" else "wall_ms"
    columns = ", ".join(
        f"{name} {row['columns'][name][clock]:.1f} ms ({ratio:.2f})"
        for name, ratio in ratios(row, clock).items()
    )
    return f"{row['host']:8s} {row['task']}, {row['network']}: {columns}"


def table(results: dict[str, Any]) -> str:
    """Make a table of ratios, a block for each host and group."""
    clock, lines, names, last = clock_of(results["about"]), [], [], None
    for row in results["rows"]:
        heading = row["host"], row["group"]
        if heading != last:
            alike = [r for r in results["rows"] if (r["host"], r["group"]) == heading]
            names = list(dict.fromkeys(name for r in alike for name in r["columns"]))
            lines += ["", f"{heading[0]}: {heading[1]}, ratios to the first column that a row has"]
            lines.append(f"{'':44s}{'ms':>9s}" + "".join(f"{name:>20s}" for name in names))
            last = heading
        found = ratios(row, clock)
        floor = row["columns"][next(name for name in FLOORS if name in found)][clock]
        cells = (f"{found[name]:.2f}" if name in found else "" for name in names)
        label = f"{row['task']}, {row['network']}"
        lines.append(f"{label:44s}{floor:9.1f}" + "".join(f"{cell:>20s}" for cell in cells))
    return "\n".join(lines)


def save(results: dict[str, Any], path: Path) -> None:
    """Write results as JSON, numbers to four digits."""
    text = json.dumps(results, default=str)
    rounded = json.loads(text, parse_float=lambda number: float(f"{float(number):.4g}"))
    path.write_text(json.dumps(rounded, indent=1) + "\n")
