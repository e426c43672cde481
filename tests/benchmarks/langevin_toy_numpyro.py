"""Does LangevinGuide recover the known best prior, in every layout and with NumPyro's ELBOs?

Run: ``python tests/benchmarks/langevin_toy_numpyro.py``
"""

import jax
import jax.numpy as jnp
import langevin_toy as settings
import optax
from helpers.linear_gaussian import NUM_NEGATIVES, VARIANCE
from helpers.linear_gaussian_numpyro import ELBOS, Toy
from jax import lax, random
from numpyro.infer import SVI
from resumable import output_path, run_cells

import pyro_ebm.numpyro as ebm


def run(elbo: str, layout: str, sampler: str, seed: int) -> dict[str, float]:
    """Precision of the fitted prior, mean of the last steps, and what it should be."""
    toy = Toy(layout)
    kind, options = settings.SAMPLERS[sampler]
    kernel = getattr(ebm, kind)(**options)
    guide = ebm.LangevinGuide(toy.model, kernel, init=toy.guide if sampler == "warm" else None)
    objective = ebm.EnergyDiscrepancy(variance=VARIANCE, num_negatives=NUM_NEGATIVES)
    loss = ebm.EnergyELBO(objective, ELBOS[elbo]())
    svi = SVI(toy.model, guide, optax.adam(settings.LEARNING_RATE), loss=loss)

    def step(state, _):
        state, _ = svi.update(state)
        return state, svi.get_params(state)["a"]

    @jax.jit
    def train(key):
        return lax.scan(step, svi.init(key), length=settings.NUM_STEPS)[1]

    path = train(random.key(seed))
    average = jnp.mean(1 / 16 + jnp.exp(path[-settings.NUM_AVERAGED :]))
    return {"precision": float(average), "truth": settings.fitted_precision(sampler)}


if __name__ == "__main__":
    elbos = ["Trace", "Trace x4 vectorized", "TraceMeanField", "TraceGraph"]
    columns = ["precision", "truth"]
    run_cells(settings.cells(elbos), run, output_path("langevin_toy_numpyro"), columns=columns)
