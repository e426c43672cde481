"""Table of the times that ``make benchmark`` measured, from ``results/benchmark.json``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import harness

FILE = Path(__file__).parent / "results" / "benchmark.json"
HEAD = """## Speed

Times by `make benchmark`, as ratios to the first column that a row has: the job by hand in bare
torch or JAX, or another library's; `time` is that of this column, in milliseconds. Medians of CPU
time in turns, one thread, freed memory kept by the process. {about}
"""
COLUMNS = {
    harness.BY_HAND: "by hand",
    harness.COMPILED_BY_HAND: "by hand, compiled",
    harness.OURS: "pyro_ebm",
    harness.COMPILED: "compiled",
    harness.RUN_CHAINS: "`run_chains`",
    harness.IN_SVI: "in `SVI`",
    harness.FUSED: "fused Adam",
    harness.EBMKIT: "ebmkit",
    harness.TORCHEBM: "torchebm",
    harness.BLACKJAX: "blackjax",
}


def section() -> Iterator[str]:
    """Write the table, a line for each job."""
    results = json.loads(FILE.read_text())
    about, versions = results["about"], results["versions"]
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    yield HEAD.format(about=f"{about['rounds']} rounds; {libraries}.")
    yield "| host | job | network | time | " + " | ".join(COLUMNS.values()) + " |"
    yield "|---|---|---|--:|" + "--:|" * len(COLUMNS)
    for row in results["rows"]:
        yield _line(row)
    yield "\nGrowth, in milliseconds of CPU time and MiB of peak memory at each size:\n"
    yield "| host | job | grows by | who | time and memory |"
    yield "|---|---|---|---|---|"
    for it in results["growth"]:
        points = "; ".join(
            f"{p['size']}: {p['cpu_ms']:.3g} ms, {p['peak_mib']:.3g}" for p in it["points"]
        )
        yield f"| {it['host']} | {it['task']} | {it['axis']} | {it['column']} | {points} |"


def _line(row: dict[str, Any]) -> str:
    ratios = harness.ratios(row)
    floor = next(name for name in harness.FLOORS if name in ratios)
    cells = [row["host"], row["task"], row["network"], f"{row['columns'][floor]['cpu_ms']:.1f}"]
    cells += [f"{ratios[name]:.2f}" if name in ratios else "" for name in COLUMNS]
    return "| " + " | ".join(cells) + " |"
