"""Flows on two real tables by four methods, with Pyro and zuko.

Run: ``PYRO_EBM_DATA=... python tests/benchmarks/density_pyro.py``
"""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pyro
import torch
from density import (
    COLUMNS,
    DEPTH,
    EVERY,
    NUM_LAYERS,
    NUM_NORMALIZER_SAMPLES,
    OFFSET,
    SETTINGS,
    TABLES,
    WIDTH,
    Setting,
    batches,
    cells,
    loss,
    print_table,
    rate,
)
from pyro.contrib.zuko import ZukoToPyro
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import PyroLRScheduler
from resumable import output_path, run_cells
from torch import Tensor, nn
from zuko.flows import RealNVP

import pyro_ebm.pyro as ebm
from pyro_ebm.core.evidence.weights import summarize_log_weights


class Flows(nn.Module):
    """d, which is reported, and g, which the methods KALE draw from."""

    def __init__(self, num_dims: int) -> None:
        super().__init__()
        self.base = flow(num_dims)
        self.density = deepcopy(self.base)
        # g with constants for parameters: the energy does not train it.
        self.held = deepcopy(self.base).requires_grad_(False)

    def surprise(self, x: Tensor) -> Tensor:
        return -self.density().log_prob(x)

    def pair(self, **options: Any) -> ebm.EnergyBased:
        """The density d, written as an energy that tilts g."""
        self.held.load_state_dict(self.base.state_dict())

        def energy(x: Tensor) -> Tensor:
            return self.held().log_prob(x) + self.surprise(x) + OFFSET

        return ebm.EnergyBased(energy, self.base(), **options)


def flow(num_dims: int) -> RealNVP:
    options = {"hidden_features": DEPTH * [WIDTH], "activation": nn.Tanh}
    return RealNVP(num_dims, transforms=NUM_LAYERS, **options)


def inference(method: str, setting: Setting, flows: Flows) -> tuple[SVI, PyroLRScheduler]:
    def model(x: Tensor) -> None:
        pyro.module("density", flows.density)
        if method == "ML":
            distribution = ZukoToPyro(flows.density())
        elif method == "CD":
            distribution = ebm.EnergyBased(flows.surprise, event_shape=x.shape[1:])
        else:
            pyro.module("base", flows.base)
            distribution = flows.pair()
        with pyro.plate("data", len(x)):
            pyro.sample("x", distribution, obs=x)

    def guide(x: Tensor) -> None:
        if method == "KALE-F":
            ebm.auxiliary("x", log_normalizer=pyro.param("log_normalizer", torch.tensor(0.0)))

    def adam(name: str) -> dict[str, float]:
        learning_rate, decay = rate(setting, name.split(".")[0])
        return {"lr": learning_rate, "weight_decay": decay}

    arguments = {"optimizer": torch.optim.AdamW, "optim_args": adam, "T_max": setting.num_steps}
    optimizer = PyroLRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR, arguments)
    stock = Trace_ELBO() if method == "ML" else loss(ebm, method, setting)
    return SVI(model, guide, optimizer, stock), optimizer


@torch.no_grad()
def nll(flows: Flows, x: Tensor) -> float:
    return flows.surprise(x).mean().item()


def fit(flows: Flows, table: Any, rows: Any, method: str, setting: Setting) -> dict[str, float]:
    """Trains, and leaves the parameters that were best on the rows for validation."""
    svi, optimizer = inference(method, setting, flows)
    figures = {"initial": nll(flows, table.test), "validation": float("inf")}
    best = deepcopy(flows.state_dict())
    for number, block in enumerate(torch.as_tensor(rows), start=1):
        try:
            for batch in block:
                svi.step(table.train[batch])
                optimizer.step()
        except ValueError:  # Energies have run away; what was best before counts.
            break
        score = nll(flows, table.validation)
        if score < figures["validation"]:
            best = deepcopy(flows.state_dict())
            figures |= {"validation": score, "step": EVERY * number}
            if method == "KALE-F":
                figures["learned"] = pyro.param("log_normalizer").item()
    figures["last"] = nll(flows, table.test)
    flows.load_state_dict(best)
    return figures


def run(table: str, method: str, seed: int, **changes: Any) -> dict[str, float]:
    """Figures of one run, in nats; ``changes`` are made to the setting."""
    figures: dict[str, float] = {}
    pyro.set_rng_seed(seed)
    setting, data = replace(SETTINGS[table][method], **changes), TABLES[table]()
    data = data._make(torch.as_tensor(part, dtype=torch.float32) for part in data)
    flows = Flows(data.train.shape[1])
    stages = {method: setting}
    if setting.staged:
        stages = {"ML": SETTINGS[table]["ML"], **stages}
    for name, stage in stages.items():
        pyro.clear_param_store()
        flows.base.load_state_dict(flows.density.state_dict())
        rows = batches(len(data.train), stage.num_steps, seed)
        figures = fit(flows, data, rows, name, stage)
    figures |= {"test": nll(flows, data.test), "train": nll(flows, data.train)}
    if method.startswith("KALE"):
        log_weights = flows.pair().importance_log_weights(NUM_NORMALIZER_SAMPLES)
        normalizer = summarize_log_weights(log_weights)
        figures["estimated"] = normalizer.estimate.item()
        figures["standard error"] = normalizer.standard_error.item()
    return figures


if __name__ == "__main__":
    torch.set_num_threads(1)
    print_table(run_cells(cells(), run, output_path("density_pyro"), columns=COLUMNS))
