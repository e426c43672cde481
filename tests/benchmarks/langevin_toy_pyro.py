"""Does LangevinGuide recover the known best prior, in every layout and with Pyro's ELBOs?

Run: ``python tests/benchmarks/langevin_toy_pyro.py``
"""

import langevin_toy as settings
import pyro
import torch
from helpers.linear_gaussian import NUM_NEGATIVES, VARIANCE
from helpers.linear_gaussian_pyro import ELBOS, Toy
from pyro.infer import SVI
from pyro.optim import Adam
from resumable import output_path, run_cells

import pyro_ebm.pyro as ebm


def run(elbo: str, layout: str, sampler: str, seed: int) -> dict[str, float]:
    """Precision of the fitted prior, mean of the last steps, and what it should be."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    toy = Toy(layout)
    kind, options = settings.SAMPLERS[sampler]
    kernel = getattr(ebm, kind)(**options)
    guide = ebm.LangevinGuide(toy.model, kernel, init=toy.guide if sampler == "warm" else None)
    objective = ebm.EnergyDiscrepancy(variance=VARIANCE, num_negatives=NUM_NEGATIVES)
    loss = ebm.EnergyELBO(objective, ELBOS[elbo]())
    svi = SVI(toy.model, guide, Adam({"lr": settings.LEARNING_RATE}), loss=loss)
    precisions = []
    for _ in range(settings.NUM_STEPS):
        svi.step()
        precisions.append(1 / 16 + toy.energy.a.detach().exp().item())
    average = sum(precisions[-settings.NUM_AVERAGED :]) / settings.NUM_AVERAGED
    return {"precision": average, "truth": settings.fitted_precision(sampler)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    elbos = ["Trace", "Trace x4 vectorized", "TraceMeanField", "TraceGraph", "TraceEnum"]
    columns = ["precision", "truth"]
    run_cells(settings.cells(elbos), run, output_path("langevin_toy_pyro"), columns=columns)
