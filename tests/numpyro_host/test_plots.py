import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from jax import random

import pyro_ebm.numpyro as ebm
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.plots import plot_energy_histogram, plot_energy_landscape


@pytest.fixture(autouse=True)
def no_display():
    mpl.use("Agg")
    yield
    plt.close("all")


def test_plots_read_arrays(prior):
    chains = ebm.run_chains(random.key(0), ebm.MALA(0.1), prior, num_samples=20, progress_bar=False)
    ax = plot_energy_landscape(prior.potential, chains, num_points=20)
    assert ax.lines[0].get_xydata() == pytest.approx(np.asarray(chains.samples).reshape(-1, 2))
    data = random.normal(random.key(1), (30, 2))
    ax = plot_energy_histogram(*(scaled_energy(prior, x) for x in (data, chains.samples)))
    assert len(ax.get_legend().get_texts()) == 3
