import matplotlib as mpl
import matplotlib.pyplot as plt
import pyro.distributions as dist
import pytest
import torch

import pyro_ebm.pyro as ebm
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.plots import plot_energy_histogram, plot_energy_landscape


@pytest.fixture(autouse=True)
def no_display():
    mpl.use("Agg")
    yield
    plt.close("all")


def test_plots_read_tensors(float64):
    weight = torch.tensor(0.25, requires_grad=True)
    prior = ebm.EnergyBased(
        lambda x: (weight * x**4).sum(-1), dist.Normal(torch.zeros(2), 1.0).to_event(1)
    )
    chains = ebm.run_chains(ebm.MALA(0.1), prior, num_samples=20, progress_bar=False)
    ax = plot_energy_landscape(prior.potential, chains, num_points=20)
    assert ax.lines[0].get_xydata() == pytest.approx(chains.samples.reshape(-1, 2).numpy())
    energies = (scaled_energy(prior, x) for x in (torch.randn(30, 2), chains.samples))
    ax = plot_energy_histogram(*energies)
    assert len(ax.get_legend().get_texts()) == 3
