"""Time this package beside bare frameworks and other libraries: ``make benchmark``.

Writes ``benchmark.json`` and ``benchmark.png`` into ``OUTPUT`` (``benchmark_output``), and prints a
table of ratios. In the environment: ``QUICK=1`` for smaller runs, ``DEVICE=cuda``, ``ROUNDS``,
``HOSTS=pyro``, ``TASKS="CD|ULA"`` for the tasks of such names.
"""

import json
import os
import platform
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import harness
import picture

HOSTS = (os.environ.get("HOSTS") or "pyro numpyro").split()
OUTPUT = Path(os.environ.get("OUTPUT") or "benchmark_output")

# One thread. And freed memory is kept: else each step's page faults depend on the heap's layout.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "16000000000",
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "67108864",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": harness.DEVICE,
}


def run_host(host):
    """Do all jobs of a host; print the results as JSON."""
    jobs = import_module(f"samplers_{host}")
    module = import_module(f"jobs_{host}")
    results = harness.run_host(
        host, jobs.all_jobs(), jobs.growths(), module.synchronize, module.peak
    )
    versions = {package: version(package) for package in (*module.PACKAGES, "pyro-ebm")}
    print(json.dumps({**results, "versions": versions}))


def about():
    return {
        "device": harness.DEVICE,
        "processor": platform.processor() or platform.machine(),
        "num_cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "threads": 1,
        "rounds": harness.ROUNDS,
        "quick": harness.QUICK,
        "python": platform.python_version(),
    }


def main():
    results = {"about": about(), "versions": {}, "rows": [], "growth": []}
    for host in HOSTS:
        command = [sys.executable, __file__, host]
        run = subprocess.run(
            command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, check=True
        )
        found = json.loads(run.stdout.splitlines()[-1])
        results["versions"].update(found["versions"])
        for part in ("rows", "growth"):
            results[part] += found[part]
    if not results["rows"]:
        raise SystemExit(f"Expected TASKS to match a task, got {harness.TASKS.pattern!r}.")
    results["about"]["load_average_at_the_end"] = os.getloadavg()[0]
    print(harness.table(results))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    harness.save(results, OUTPUT / "benchmark.json")
    picture.draw(results, OUTPUT / "benchmark.png")


if __name__ == "__main__":
    run_host(sys.argv[1]) if len(sys.argv) > 1 else main()
