"""Draw the README's picture: one energy under a plain log-density, and under an objective.

Run it as ``python tutorials/runaway.py``; it writes ``runaway.png`` beside itself.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm import datasets, plots
from pyro_ebm._colors import BLUE, VERMILLION

NUM_STEPS, LIMITS = 500, ((-4.5, 4.5), (-3.0, 3.5))
BASE = dist.Normal(torch.zeros(2), 2.0).to_event(1)


def make_energy():
    layers = nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)
    return nn.Sequential(*layers, nn.Flatten(0))


def train(energy, site, loss, x):
    """Train; return by how much the data's mean energy lies above the base's after each step."""
    pyro.clear_param_store()
    of_base = BASE.sample((1000,))

    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            site(energy, x)

    svi = SVI(model, lambda x: None, Adam({"lr": 3e-3}), loss)
    path = []
    for _ in range(NUM_STEPS):
        svi.step(x)
        path.append((energy(x).mean() - energy(of_base).mean()).item())
    return path


def plain(energy, x):
    pyro.factor("x", -energy(x))


def density(energy):
    return ebm.EnergyBased(energy, BASE)


def energy_based(energy, x):
    pyro.sample("x", density(energy), obs=x)


def main():
    pyro.set_rng_seed(0)
    x = torch.tensor(datasets.toy("two_moons").sample(1000)).float()
    energies = make_energy(), make_energy()
    runaway = train(energies[0], plain, Trace_ELBO(), x)
    trained = train(
        energies[1], energy_based, ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=0.1)), x
    )
    _, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    axes[0].plot(runaway, color=VERMILLION, label="factor(-energy), Trace_ELBO")
    axes[0].plot(trained, color=BLUE, label="EnergyBased, EnergyELBO")
    axes[0].set(yscale="symlog", xlabel="step", ylabel="energy of data - of base (nats)")
    axes[0].legend()
    plots.plot_energy_landscape(energies[0], x, limits=LIMITS, energy_range=3e5, ax=axes[1])
    axes[1].set_title("factor(-energy): ever steeper, no shape")
    plots.plot_energy_landscape(density(energies[1]).potential, x, limits=LIMITS, ax=axes[2])
    axes[2].set_title("EnergyBased: the density of the data")
    plt.savefig(Path(__file__).with_suffix(".png"), dpi=80)


if __name__ == "__main__":
    main()
