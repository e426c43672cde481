"""25 Gaussians by energy discrepancy, with NumPyro.

Run: ``python tests/benchmarks/gaussians_25_numpyro.py``
"""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
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
from jax import Array, lax, random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI
from resumable import output_path, run_cells
from tqdm.auto import tqdm

import pyro_ebm.numpyro as ebm


class Rows(eqx.Module):
    """A network of one point, applied to rows of points."""

    net: eqx.nn.MLP

    def __call__(self, x: Array) -> Array:
        return jax.vmap(self.net)(x)


def density(energy: Callable[[Array], Array]) -> ebm.EnergyBased:
    return ebm.EnergyBased(energy, dist.Normal(jnp.zeros(2), BASE_SCALE).to_event(1))


def train(seed: int, num_steps: int) -> Rows:
    """The moving average of the energies."""
    net = eqx.nn.MLP(2, "scalar", WIDTH, DEPTH, activation=jax.nn.softplus, key=random.key(seed))
    energy = Rows(net)

    def model(x: Array) -> None:
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", density(eqx_module("energy", energy)), obs=x)

    objective = ebm.EnergyDiscrepancy(variance=VARIANCE, num_negatives=NUM_NEGATIVES)
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, num_steps))
    svi = SVI(model, lambda x: None, optimizer, ebm.EnergyELBO(objective, num_normalizer_samples=0))

    def step(carry, batch):
        state, average = carry
        state, _ = svi.update(state, batch)
        average = optax.incremental_update(svi.get_params(state), average, 1 - DECAY)
        return (state, average), None

    data = jnp.asarray(TOY.sample(num_steps * BATCH_SIZE, seed=seed), dtype=jnp.float32)
    blocks = data.reshape((-1, min(num_steps, 1000), BATCH_SIZE, 2))
    state = svi.init(random.key(seed), blocks[0, 0])
    carry = state, svi.get_params(state)
    run_block = jax.jit(partial(lax.scan, step))
    for block in tqdm(blocks, desc=f"seed {seed}", unit="thousand steps"):
        carry, _ = jax.block_until_ready(run_block(carry, block))
    (arrays,) = carry[1].values()
    return eqx.combine(arrays, energy)


def run(seed: int, num_steps: int) -> dict[str, float]:
    energy = train(seed, num_steps)

    def log_density(points: np.ndarray) -> np.ndarray:
        return np.asarray(density(energy).log_prob(jnp.asarray(points)), dtype=np.float64)

    return mean_squared_error(log_density, seed)


if __name__ == "__main__":
    cells = [{"seed": seed, "num_steps": NUM_STEPS} for seed in SEEDS]
    columns = ["mse", "standard error", "mean error", "boundary mass"]
    run_cells(cells, run, output_path("gaussians_25_numpyro"), columns=columns)
