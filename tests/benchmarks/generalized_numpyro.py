"""Generalized energy-based models in the plane, with NumPyro.

Run: ``python tests/benchmarks/generalized_numpyro.py``
"""

from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from generalized import (
    BASE_WIDTH,
    BATCH_SIZE,
    BETAS,
    CENTER,
    CHAIN_STEPS,
    CIRCLE_COLUMNS,
    CIRCLES,
    ENERGY_STEPS,
    NUM_DRAWS,
    POOL_SIZE,
    STEP_SIZE,
    TILT_COLUMNS,
    TILTS,
    WIDTH,
    Setting,
    batches,
    circle_cells,
    compare,
    kale,
    on_circle,
    print_tables,
    tilt_cells,
)
from jax import Array, lax, random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI
from resumable import output_path, run_cells

import pyro_ebm.numpyro as ebm


class Rows(eqx.Module):
    """A network of one point, applied to rows of points."""

    net: eqx.nn.MLP

    def __call__(self, x: Array) -> Array:
        return jax.vmap(self.net)(x)


class Circle(eqx.Module):
    """From angles to the unit circle about a center."""

    center: Array

    def __call__(self, angle: Array) -> Array:
        return self.center + jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def mlp(key: Array, inputs: int, width: int, outputs: int | str) -> Rows:
    return Rows(eqx.nn.MLP(inputs, outputs, width, 2, activation=jax.nn.silu, key=key))


def train(
    base: Callable, latent: dist.Distribution, name: str, setting: Setting, seed: int
) -> tuple[Rows, ebm.Pushforward]:
    """Energy and base, trained together on the circle or a toy."""
    energy_key, key = random.split(random.key(seed))
    energy = mlp(energy_key, 2, WIDTH, "scalar")

    def model(x: Array) -> None:
        source = ebm.Pushforward(latent, eqx_module("base", base))
        with numpyro.plate("data", len(x)):
            prior = ebm.EnergyBased(eqx_module("energy", energy), source)
            numpyro.sample("x", prior, obs=x)

    # A schedule inside of step_when counts the moves of the base alone.
    turns = {"energy": setting.num_steps, "base": setting.num_steps // ENERGY_STEPS}
    rates = {
        player: optax.cosine_decay_schedule(rate, turns[player])
        for player, rate in setting.rates.items()
    }
    players = {
        "energy": optax.adam(rates["energy"], *BETAS),
        "base": ebm.step_when(optax.adam)(rates["base"], *BETAS, condition=setting.base_moves),
    }
    optimizer = optax.multi_transform(players, {f"{player}$params": player for player in players})
    objective = ebm.KALE(num_base_samples=BATCH_SIZE, gradient_penalty=setting.gradient_penalty)
    loss = ebm.EnergyELBO(objective, num_normalizer_samples=0)
    svi = SVI(model, lambda x: None, optimizer, loss)
    data = jnp.asarray(batches(name, setting.num_steps, seed))
    state = svi.init(key, data[0])
    state, _ = jax.jit(lambda state, data: lax.scan(svi.update, state, data))(state, data)
    learned = svi.get_params(state)
    energy, base = (
        eqx.combine(learned[f"{player}$params"], net)
        for player, net in (("energy", energy), ("base", base))
    )
    return energy, ebm.Pushforward(latent, base)


def run_circle(seed: int, settings: Mapping[str, Setting] = CIRCLES) -> dict[str, float]:
    """Distance of the base from the data and their KALE, at the start and at the end."""
    data, figures = jnp.asarray(on_circle(POOL_SIZE, 10_000 + seed)), {}
    for time, setting in settings.items():
        angle, circle = dist.Uniform(-np.pi, np.pi), Circle(jnp.array(CENTER))
        energy, base = train(circle, angle, "circle", setting, seed)
        draws = base.sample(random.key(seed), (POOL_SIZE,))
        figures[f"distance, {time}"] = float(jnp.linalg.norm(base.generator.center))
        figures[f"kale, {time}"] = kale(np.asarray(energy(data)), np.asarray(energy(draws))).value
    return figures


def run_tilt(name: str, dimension: int, setting: Setting, seed: int) -> dict[str, float]:
    """How close base and model come to the data."""
    train_key, pool_key, chain_key = random.split(random.key(1000 + seed), 3)
    net, latent = mlp(train_key, dimension, BASE_WIDTH, 2), dist.Normal(jnp.zeros(dimension), 1.0)
    energy, base = train(net, latent.to_event(1), name, setting, seed)
    pool = base.sample(pool_key, (POOL_SIZE,))
    model = ebm.EnergyBased(energy, base, sampler=ebm.MALA(STEP_SIZE, CHAIN_STEPS))
    walked = model.sample(chain_key, (NUM_DRAWS,))
    return compare(
        name,
        seed,
        pool=np.asarray(pool),
        walked=np.asarray(walked),
        energy=lambda points: np.asarray(energy(jnp.asarray(points))),
    )


def run(name: str, dimension: int, stop: str, seed: int) -> dict[str, float]:
    return run_tilt(name, dimension, TILTS[stop], seed)


if __name__ == "__main__":
    path = output_path("generalized_numpyro")
    circles = run_cells(circle_cells(), run_circle, path, columns=CIRCLE_COLUMNS)
    print_tables(circles, run_cells(tilt_cells(), run, path, columns=TILT_COLUMNS))
