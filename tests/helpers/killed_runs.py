"""Training that is killed at random moments and goes on from its last checkpoint.

Run, from `tests`: ``python -m helpers.killed_runs pyro 50``; names of runs may follow.
"""

import json
import multiprocessing
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path

from safetensors import safe_open

from helpers.stateful_runs import RUNS, X

# Imports of a first step.
LATE_IMPORTS = {
    "pyro": ["torch._dynamo"],
    "numpyro": ["equinox", "numpyro.contrib.module", "optax"],
}


def train(host_name, name, path, num_steps=None):
    """Train to the end, or until killed, with a checkpoint after each step, from the last one."""
    host = import_module(f"helpers.infer.{host_name}")
    host.start_again()
    run = RUNS[name](host)
    start = run.load(path, X) if path.exists() else 0
    for step in count(start) if num_steps is None else range(start, num_steps):
        run.step(X)
        run.save(path, step + 1)


@dataclass(frozen=True)
class Report:
    """Outcome of a run that was killed.

    Attributes:
        num_kills: Processes that were killed.
        num_left: Temporary files of those that were writing.
        is_same: Whether the last checkpoint has the bytes of a run that was not killed.
    """

    num_kills: int
    num_left: int
    is_same: bool


def compare(host_name: str, name: str, folder: Path, *, num_kills: int, seed: int = 0) -> Report:
    """Kill a run, at random moments and as it writes, and compare its end with that of another."""
    draw = random.Random(seed)
    # Its server imports once, and forks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"pyro_ebm.{host_name}", "arviz", *LATE_IMPORTS[host_name]])
    whole, killed = folder / "whole", folder / "killed"

    def started(path: Path, *num_steps: int) -> BaseProcess:
        # A daemon, for without a number of steps it has no end.
        process = context.Process(
            target=train, args=(host_name, name, path, *num_steps), daemon=True
        )
        process.start()
        return process

    num_killed = 0
    for index in range(num_kills):
        process, goal = started(killed), step_of(killed) + draw.randint(1, 3)
        while process.exitcode is None and step_of(killed) < goal:
            time.sleep(0.001)
        if index % 2:
            time.sleep(draw.uniform(0, 0.03))
        else:
            before = temporary_files(killed)
            while process.exitcode is None and temporary_files(killed) <= before:
                pass
        process.kill()
        process.join()
        num_killed += process.exitcode == -9
    num_left, num_steps = len(temporary_files(killed)), step_of(killed) + 2
    for path in (killed, whole):
        started(path, num_steps).join()
    is_same = step_of(whole) == num_steps and whole.read_bytes() == killed.read_bytes()
    return Report(num_killed, num_left, is_same)


def temporary_files(path: Path) -> set[Path]:
    return set(path.parent.glob(f".{path.name}.*.tmp"))


def step_of(path: Path) -> int:
    """Step of a checkpoint, which can be read at any moment."""
    if not path.exists():
        return 0
    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["pyro_ebm"])["values"]["state['step']"]


if __name__ == "__main__":
    host_name, num_kills, *names = sys.argv[1:]
    for name in names or RUNS:
        with tempfile.TemporaryDirectory() as temporary:
            report = compare(host_name, name, Path(temporary), num_kills=int(num_kills))
        print(f"{name}: {report}", flush=True)
