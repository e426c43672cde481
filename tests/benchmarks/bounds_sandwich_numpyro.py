"""Bounds of log Z along whole training runs, with NumPyro.

Run: ``python tests/benchmarks/bounds_sandwich_numpyro.py``
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import bounds_sandwich as settings
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from bounds_planes import bounds
from bounds_planes_numpyro import advance, is_finite, sides
from jax import Array, random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI
from planes_numpyro import Rows
from resumable import output_path, run_cells

import pyro_ebm.numpyro as ebm
from pyro_ebm.numpyro.objectives.generator import Partner


class Formula(eqx.Module):
    """A function of parameters and an array that both hosts share."""

    function: Callable[..., Array] = eqx.field(static=True)
    parameters: dict[str, Array]

    def __call__(self, value: Array) -> Array:
        return self.function(self.parameters, value)


class Players(NamedTuple):
    energy: Any
    generator: Any


def players_of(case: settings.Case, seed: int) -> Players:
    dimension = case.dimension

    def formula(function: Callable[..., Array], parameters: dict[str, np.ndarray]) -> Formula:
        return Formula(function, {name: jnp.asarray(x) for name, x in parameters.items()})

    if case.convex:
        energy = formula(settings.convex_energy, settings.energy_parameters(dimension))
    else:
        options = {"activation": jax.nn.silu, "key": random.key(seed)}
        energy = Rows(eqx.nn.MLP(dimension, "scalar", settings.WIDTH, 2, **options))
    return Players(energy, formula(settings.generate, settings.generator_parameters(dimension)))


def density(energy: Any, dimension: int) -> ebm.EnergyBased:
    return ebm.EnergyBased(energy, dist.Normal(jnp.zeros(dimension), 3.0).to_event(1))


def pushforward(generator: Any, dimension: int) -> ebm.Pushforward:
    return ebm.Pushforward(dist.Normal(jnp.zeros(dimension), 1.0).to_event(1), generator)


def model(x: Array, players: Players) -> None:
    with numpyro.plate("data", len(x)):
        energy = eqx_module("energy", players.energy)
        numpyro.sample("x", density(energy, x.shape[-1]), obs=x)


def guide(x: Array, players: Players) -> None:
    generator = eqx_module("generator", players.generator)
    ebm.auxiliary("x", generator=pushforward(generator, x.shape[-1]))


@eqx.filter_jit
def parts(key: Array, players: Players, dimension: int) -> dict[str, Array]:
    found = sides(
        key,
        density(players.energy, dimension),
        pushforward(players.generator, dimension),
        settings.NUM_DRAWS,
    )
    return {name: found[name] for name in ("log_ratios", "half_squares")}


@eqx.filter_jit
def slope(players: Players, z: Array) -> Array:
    dimension = z.shape[-1]
    model = density(players.energy, dimension)
    partner = Partner.of(random.key(0), model, pushforward(players.generator, dimension))
    return partner.compare(model, z).slope


def look_at(players: Players, case: settings.Case, index: int) -> dict[str, float]:
    key = random.key(index)
    found = jax.tree.map(np.asarray, parts(key, players, case.dimension))
    log_z = ebm.log_normalizer(key, density(players.energy, case.dimension), method="grid")
    return settings.look(
        case, log_z, bounds(**found), lambda z: np.asarray(slope(players, jnp.asarray(z)))
    )


def train(case: settings.Case, seed: int) -> list[dict[str, float]]:
    """What is seen from the start of a run to its end."""
    players = players_of(case, seed)
    rate = optax.cosine_decay_schedule(settings.LEARNING_RATE, case.num_steps)
    optimizer = optax.adam(rate, *settings.BETAS)
    svi = SVI(model, guide, optimizer, settings.loss(ebm, case))
    data = jnp.asarray(settings.batches(case, case.num_steps, seed))
    state = svi.init(random.key(seed), data[0], players)
    looks = [look_at(players, case, 0)]
    for index, block in enumerate(jnp.split(data, settings.NUM_LOOKS)):
        state, losses = advance(svi, state, block, players)
        if not is_finite(losses):
            raise ValueError(
                f"Expected finite losses, got NaN or infinity before look {index + 1}."
            )
        params = svi.get_params(state)
        trained = (
            eqx.combine(params[f"{name}$params"], net)
            for name, net in zip(players._fields, players, strict=True)
        )
        looks.append(look_at(Players(*trained), case, index + 1))
    return looks


def run(case: str, seed: int) -> dict[str, Any]:
    with jax.enable_x64(True):
        return settings.summarize(train(settings.CASES[case], seed))


if __name__ == "__main__":
    path = output_path("bounds_sandwich_numpyro")
    settings.print_tables(run_cells(settings.cells(), run, path, columns=settings.COLUMNS))
