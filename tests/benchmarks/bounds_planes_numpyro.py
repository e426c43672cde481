"""Energies trained with bidirectional bounds in the plane, and without, with NumPyro and flowjax.

Run: ``python tests/benchmarks/bounds_planes_numpyro.py``
"""

from functools import cache
from typing import Any, NamedTuple

import bounds_planes as settings
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import StandardNormal, Transformed
from flowjax.experimental.numpyro import register_params
from flowjax.flows import coupling_flow
from jax import Array, lax, random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI
from numpyro.infer.svi import SVIState
from paramax import unwrap
from planes import batches
from planes_numpyro import Rows, density, mlp
from resumable import output_path, run_cells

import pyro_ebm.numpyro as ebm
from pyro_ebm.core.objectives.bidirectional_bounds import half_square
from pyro_ebm.numpyro.objectives.generator import Partner


class Players(NamedTuple):
    energy: Rows
    flow: Any


@cache
def untrained_flow() -> Transformed:
    """The same for all seeds: its functions would have each of them compiled anew."""
    return coupling_flow(
        random.key(0),
        base_dist=StandardNormal((2,)),
        transformer=RationalQuadraticSpline(knots=settings.KNOTS, interval=settings.INTERVAL),
        flow_layers=settings.NUM_LAYERS,
        nn_width=settings.FLOW_WIDTH,
        nn_activation=jax.nn.silu,
        invert=False,
    )


def players_of(seed: int) -> Players:
    return Players(mlp(random.key(seed)), untrained_flow())


def model(x: Array, players: Players) -> None:
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", density(eqx_module("energy", players.energy)), obs=x)


def guide(x: Array, players: Players) -> None:
    ebm.auxiliary("x", generator=register_params("flow", players.flow))


@cache
def inference(setting: settings.Setting, num_steps: int) -> SVI:
    """The same object for all seeds: its step is compiled once."""
    rate = optax.cosine_decay_schedule(setting.learning_rate, num_steps)
    return SVI(model, guide, optax.adam(rate, *settings.BETAS), settings.loss(ebm, setting))


@eqx.filter_jit
def advance(svi: SVI, state: SVIState, data: Array, players: Players) -> tuple[SVIState, Array]:
    """Losses of a step for each batch; one that is not finite leaves everything as it is."""
    return lax.scan(lambda state, x: svi.stable_update(state, x, players), state, data)


def is_finite(tree: Any) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


def trained(svi: SVI, state: SVIState, players: Players) -> Players:
    params = svi.get_params(state)
    energy = eqx.combine(params["energy$params"], players.energy)
    return Players(energy, unwrap(eqx.combine(params["flow"], players.flow)))


def sides(key: Array, model: ebm.EnergyBased, generator: Any, num_draws: int) -> dict[str, Any]:
    """Draws of a generator, and what it says of log Z."""
    partner = Partner.of(key, model, generator)
    compared = partner.compare(model, partner.draw(key, num_draws))
    return {
        "draws": compared.value,
        "at_draws": model.evaluate(compared.value),
        "log_ratios": compared.log_ratio,
        "half_squares": half_square(compared.slope),
    }


@eqx.filter_jit
def parts(key: Array, players: Players, test: Array) -> dict[str, Array]:
    model = density(players.energy)
    found = sides(key, model, players.flow, settings.NUM_DRAWS)
    return {**found, "at_test": model.evaluate(test), "log_base": model.base.log_prob(test)}


def look_at(players: Players, toy: str, test: np.ndarray) -> dict[str, float]:
    key = random.key(0)
    found = jax.tree.map(np.asarray, parts(key, players, jnp.asarray(test)))
    log_z = ebm.log_normalizer(key, density(players.energy), method="grid")
    return settings.look(toy, log_z=log_z, **found)


def train(toy: str, setting: settings.Setting, seed: int, num_steps: int) -> list[dict[str, float]]:
    """What was seen of a run up to its end or failure."""
    svi, players = inference(setting, num_steps), players_of(seed)
    test = settings.fresh_points(toy, seed)
    data = jnp.asarray(batches(toy, num_steps, seed))
    state = svi.init(random.key(seed), data[0], players)
    looks = [look_at(trained(svi, state, players), toy, test)]
    for block in jnp.split(data, settings.NUM_LOOKS):
        state, losses = advance(svi, state, block, players)
        if not is_finite((losses, svi.get_params(state))):
            break
        looks.append(look_at(trained(svi, state, players), toy, test))
    return looks


def run(toy: str, method: str, seed: int) -> dict[str, Any]:
    looks = train(toy, settings.SETTINGS[method], seed, settings.NUM_STEPS)
    return settings.summarize(toy, settings.fresh_points(toy, seed), looks)


if __name__ == "__main__":
    path = output_path("bounds_planes_numpyro")
    settings.print_tables(run_cells(settings.cells(), run, path, columns=settings.COLUMNS))
