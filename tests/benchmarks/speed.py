"""What the speed scripts share: one energy, interleaved timings, a table of ratios.

The energy is a perceptron 2-128-128-1 plus ``|x|^2 / 8``, and 1,024 chains start at the same
points, whoever moves them.
"""

import os
import statistics
import time

import numpy as np

NUM_CHAINS, NUM_DIMS, WIDTH = 1024, 2, 128
NUM_STEPS, STEP_SIZE = 100, 0.01
NUM_TRANSITIONS, NUM_LEAPFROG, LEAPFROG_STEP = 10, 10, 0.1
ROUNDS = int(os.environ.get("ROUNDS", "15"))
NUM_WARM_UP_CALLS = 3


def layers():
    """Weights and biases, the same for both hosts."""
    rng = np.random.default_rng(0)
    sizes = [(WIDTH, NUM_DIMS), (WIDTH, WIDTH), (1, WIDTH)]
    return [
        (
            (rng.uniform(-1, 1, (rows, columns)) / np.sqrt(columns)).astype(np.float32),
            (rng.uniform(-1, 1, rows) / np.sqrt(columns)).astype(np.float32),
        )
        for rows, columns in sizes
    ]


def starts():
    return np.random.default_rng(1).normal(size=(NUM_CHAINS, NUM_DIMS)).astype(np.float32)


def compare(task, cases, reference):
    """Median CPU time of each case, called in turns, and its ratio to that of ``reference``.

    CPU time of all threads hardly depends on what else the machine does.
    """
    for run in cases.values():
        for _ in range(NUM_WARM_UP_CALLS):
            run()
    times = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, run in cases.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    medians = {name: statistics.median(of_case) for name, of_case in times.items()}
    print(f"\n{task}  (median of {ROUNDS}, CPU, one thread)")
    for name, median in medians.items():
        ratio = median / medians[reference]
        print(f"  {name:28s} {1e3 * median:8.1f} ms   {ratio:5.2f} x {reference}", flush=True)
