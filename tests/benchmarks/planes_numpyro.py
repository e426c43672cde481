"""Nine objectives on three toys in the plane, with NumPyro.

Run: ``python tests/benchmarks/planes_numpyro.py``
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import Array, lax, random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI
from planes import (
    BASE_SCALE,
    BUDGET,
    DEPTH,
    SETTINGS,
    WIDTH,
    Setting,
    batches,
    cells,
    chains,
    print_tables,
    score,
)
from resumable import output_path, run_cells

import pyro_ebm.numpyro as ebm


class Rows(eqx.Module):
    """A network of one point, applied to rows of points."""

    net: eqx.nn.MLP

    def __call__(self, x: Array) -> Array:
        return jax.vmap(self.net)(x)


def mlp(key: Array) -> Rows:
    return Rows(eqx.nn.MLP(2, "scalar", WIDTH, DEPTH, activation=jax.nn.silu, key=key))


def density(energy: Callable[[Array], Array]) -> ebm.EnergyBased:
    return ebm.EnergyBased(energy, dist.Normal(jnp.zeros(2), BASE_SCALE).to_event(1))


def inference(setting: Setting, seed: int, num_steps: int) -> tuple[SVI, Rows]:
    """What trains, and the energy as it starts."""
    energy, critic = (mlp(key) for key in random.split(random.key(seed)))

    def model(x: Array) -> None:
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", density(eqx_module("energy", energy)), obs=x)

    def guide(x: Array) -> None:
        if setting.critic:
            ebm.auxiliary("x", critic=eqx_module("critic", critic))
        if setting.chains:
            ebm.auxiliary("x", chains=chains(ebm))

    optimizer = optax.adam(optax.cosine_decay_schedule(setting.learning_rate, num_steps))
    loss = ebm.EnergyELBO(setting.objective(ebm), num_normalizer_samples=0)
    return SVI(model, guide, optimizer, loss), energy


def train(toy: str, objective: str, seed: int, budget: int) -> Rows:
    setting = SETTINGS[objective]
    num_steps = setting.num_steps(budget)
    svi, energy = inference(setting, seed, num_steps)
    data = jnp.asarray(batches(toy, num_steps, seed))
    state = svi.init(random.key(seed), data[0])
    state, _ = jax.jit(lambda state, data: lax.scan(svi.update, state, data))(state, data)
    return eqx.combine(svi.get_params(state)["energy$params"], energy)


def log_density(energy: Rows) -> Callable[[np.ndarray], np.ndarray]:
    """Of points as NumPy has them, up to a constant."""

    def of_points(points: np.ndarray) -> np.ndarray:
        return np.asarray(density(energy).log_prob(jnp.asarray(points)), dtype=np.float64)

    return of_points


def run(toy: str, objective: str, seed: int) -> dict[str, float]:
    return score(log_density(train(toy, objective, seed, BUDGET)), toy, seed)


if __name__ == "__main__":
    columns = ["log-likelihood", "difference", "boundary mass"]
    print_tables(run_cells(cells(), run, output_path("planes_numpyro"), columns=columns))
