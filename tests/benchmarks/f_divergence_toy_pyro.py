"""A Gaussian fitted to two Gaussians by f-divergences, with Pyro.

Run: ``python tests/benchmarks/f_divergence_toy_pyro.py``
"""

import f_divergence_toy as settings
import pyro
import torch
from pyro.infer import SVI
from pyro.optim import PyroLRScheduler
from resumable import output_path, run_cells
from torch import Tensor, nn

import pyro_ebm.pyro as ebm


class Gaussian(nn.Module):
    """Energy ((x - mu) / sigma)^2 / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.tensor(0.0))
        self.sigma = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * ((x - self.mu) / self.sigma).square()


class Critic(nn.Sequential):
    """MLP from ``(N,)`` to ``(N,)``."""

    def __init__(self) -> None:
        width = settings.WIDTH
        hidden = [nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()]
        super().__init__(nn.Unflatten(0, (-1, 1)), *hidden, nn.Linear(width, 1), nn.Flatten(0))


def fit(objective: ebm.FDivergence, num_steps: int, seed: int) -> tuple[Gaussian, Critic]:
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    energy, critic = Gaussian(), Critic()

    def model(x: Tensor) -> None:
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(energy, event_shape=()), obs=x)

    def guide(x: Tensor) -> None:
        draws = energy.mu + energy.sigma * torch.randn(len(x))
        ebm.auxiliary("x", critic=critic, chains=draws)

    adam = {"lr": settings.LEARNING_RATE, "betas": settings.BETAS}
    optimizer = PyroLRScheduler(
        torch.optim.lr_scheduler.CosineAnnealingLR,
        {"optimizer": torch.optim.Adam, "optim_args": adam, "T_max": num_steps},
    )
    svi = SVI(model, guide, optimizer, ebm.EnergyELBO(objective, num_normalizer_samples=0))
    for batch in torch.as_tensor(settings.batches(num_steps, seed)):
        svi.step(batch)
        optimizer.step()
    return energy, critic


def run(divergence: str, num_steps: int, seed: int) -> dict[str, float]:
    objective = ebm.FDivergence(**settings.options(divergence))
    energy, _ = fit(objective, num_steps, seed)
    return settings.compared(divergence, energy.mu.item(), abs(energy.sigma.item()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    path = output_path("f_divergence_toy_pyro")
    run_cells(settings.cells(), run, path, columns=settings.COLUMNS)
