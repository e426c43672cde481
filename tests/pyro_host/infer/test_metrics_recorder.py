import torch
from helpers.hosts.pyro import Bowl, observed_model
from helpers.infer.metrics_recorder import *  # noqa: F403
from helpers.infer.metrics_recorder import Energies, X
from pyro.nn import PyroModule

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
