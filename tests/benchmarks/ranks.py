"""Throughput of two ranks, each on a core of its own, beside one: ``python ranks.py``.

Energy discrepancy of 1,024 rows a rank by an all-reducing Adam. Each round runs one rank alone and
then two; their rows a second are compared.
"""

import os
import statistics
import sys
import tempfile
import time

import problems as at
import pyro
import torch
from harness import ROUNDS
from jobs_pyro import Energy
from torch import distributed, multiprocessing

import pyro_ebm.pyro as ebm

NUM_STEPS, NUM_WARMUP, SIZE = 40, 5, at.Size(16, 256, 1024)


def steps(rank, num_ranks, folder):
    """Write the seconds that a step takes."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    store = distributed.FileStore(f"{folder}/store", num_ranks)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=num_ranks)
    x = torch.tensor(at.values(SIZE.batch, SIZE.num_dims))
    energy = Energy(*SIZE.layers)

    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(energy, event_shape=x.shape[1:]), obs=x)

    objective = ebm.EnergyDiscrepancy(variance=at.VARIANCE, num_samples=16)
    adam = ebm.AllReduce(pyro.optim.Adam({"lr": at.LEARNING_RATE}))
    loss = ebm.EnergyELBO(objective, num_normalizer_samples=0)
    svi = pyro.infer.SVI(model, lambda x: None, adam, loss)
    for index in range(NUM_WARMUP + NUM_STEPS):
        if index == NUM_WARMUP:
            start = time.perf_counter()
        svi.step(x)
    seconds = (time.perf_counter() - start) / NUM_STEPS
    distributed.destroy_process_group()
    with open(f"{folder}/{rank}", "w") as file:
        file.write(str(seconds))


def time_ranks(num_ranks):
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(steps, (num_ranks, folder), num_ranks)
        return max(float(open(f"{folder}/{rank}").read()) for rank in range(num_ranks))


if __name__ == "__main__":
    pairs = [(time_ranks(1), time_ranks(2)) for _ in range(ROUNDS)]
    alone, together = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
    gains = sorted(2 * one / two for one, two in pairs)
    sys.stdout.write(
        f"A step takes {alone:.1f} ms alone, {together:.1f} ms beside another: throughput "
        f"{statistics.median(gains):.2f} times one rank's ({gains[0]:.2f} to {gains[-1]:.2f}).\n"
    )
