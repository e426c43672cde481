"""25 Gaussians by energy discrepancy, with Pyro.

Run: ``python tests/benchmarks/gaussians_25_pyro.py``
"""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from gaussians_25 import (
    BASE_SCALE,
    BATCH_SIZE,
    DECAY,
    DEPTH,
    LEARNING_RATE,
    NUM_NEGATIVES,
    NUM_STEPS,
    SEEDS,
    TOY,
    VARIANCE,
    WIDTH,
    mean_squared_error,
)
from pyro.infer import SVI
from pyro.optim import PyroLRScheduler
from resumable import output_path, run_cells
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

import pyro_ebm.pyro as ebm


def mlp() -> nn.Module:
    layers: list[nn.Module] = []
    sizes = [2] + DEPTH * [WIDTH]
    for before, after in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(before, after), nn.Softplus()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 1), nn.Flatten(0))


def density(energy: nn.Module) -> ebm.EnergyBased:
    return ebm.EnergyBased(energy, dist.Normal(torch.zeros(2), BASE_SCALE).to_event(1))


def train(seed: int, num_steps: int) -> nn.Module:
    """The moving average of the energies."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    energy = mlp()
    average = AveragedModel(energy, multi_avg_fn=get_ema_multi_avg_fn(DECAY))

    def model(x: torch.Tensor) -> None:
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", density(energy), obs=x)

    optimizer = PyroLRScheduler(
        torch.optim.lr_scheduler.CosineAnnealingLR,
        {
            "optimizer": torch.optim.Adam,
            "optim_args": {"lr": LEARNING_RATE},
            "T_max": num_steps,
        },
    )
    objective = ebm.EnergyDiscrepancy(variance=VARIANCE, num_negatives=NUM_NEGATIVES)
    svi = SVI(model, lambda x: None, optimizer, ebm.EnergyELBO(objective, num_normalizer_samples=0))
    data = torch.as_tensor(TOY.sample(num_steps * BATCH_SIZE, seed=seed), dtype=torch.float32)
    for batch in tqdm(data.split(BATCH_SIZE), desc=f"seed {seed}"):
        svi.step(batch)
        optimizer.step()
        average.update_parameters(energy)
    return average.module


def run(seed: int, num_steps: int) -> dict[str, float]:
    energy = train(seed, num_steps)

    @torch.no_grad()
    def log_density(points: np.ndarray) -> np.ndarray:
        value = torch.as_tensor(points, dtype=torch.float32)
        return density(energy).log_prob(value).double().numpy()

    return mean_squared_error(log_density, seed)


if __name__ == "__main__":
    torch.set_num_threads(1)
    cells = [{"seed": seed, "num_steps": NUM_STEPS} for seed in SEEDS]
    columns = ["mse", "standard error", "mean error", "boundary mass"]
    run_cells(cells, run, output_path("gaussians_25_pyro"), columns=columns)
