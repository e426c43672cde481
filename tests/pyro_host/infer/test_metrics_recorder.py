import pyro
import torch
from helpers.hosts.pyro import Bowl, observed_model
from helpers.infer.metrics_recorder import *  # noqa: F403
from helpers.infer.metrics_recorder import Energies, X
from pyro.nn import PyroModule
from torch import nn

import pyro_ebm.pyro as ebm


class Model(PyroModule):
    def __init__(self):
        super().__init__()
        self.energy = Bowl()

    def forward(self, x):
        observed_model(self.energy)(x)


def test_the_module_form():
    module = ebm.EnergyELBO(Energies())(Model(), PyroModule())
    recorder = ebm.MetricsRecorder(module, every=1)
    module.guide.forward = lambda x: None
    recorder(torch.tensor(X, dtype=torch.float32))
    assert recorder.metrics["x"]["largest"] == module.model.energy.weight * (X**2).sum(-1).max()


def losses_of_a_run(every):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(2, 4))
    energy = nn.Sequential(layer, nn.SiLU(), nn.Linear(4, 1), nn.Flatten(0))
    loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=0.1))
    svi = pyro.infer.SVI(observed_model(energy), lambda x: None, pyro.optim.Adam({"lr": 0.1}), loss)
    recorder, x = ebm.MetricsRecorder(svi, every=every), torch.tensor(X, dtype=torch.float32)
    losses = []
    for _ in range(3):
        losses.append(svi.step(x))
        recorder(x)
    return losses


def test_a_run_goes_on_as_without_readings():
    """With the same random numbers, and the same buffers of spectral norm."""
    assert losses_of_a_run(every=1) == losses_of_a_run(every=4)
