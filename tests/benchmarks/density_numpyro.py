"""Flows on two real tables by four methods, with NumPyro and flowjax.

Run: ``PYRO_EBM_DATA=... python tests/benchmarks/density_numpyro.py``
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import optax
from density import (
    BATCH_SIZE,
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
from flowjax.distributions import Normal, Transformed
from flowjax.experimental.numpyro import distribution_to_numpyro, register_params
from flowjax.flows import coupling_flow
from jax import Array, lax, random
from jax.tree_util import Partial
from numpyro.infer import SVI, Trace_ELBO
from paramax import non_trainable, unwrap
from resumable import output_path, run_cells

import pyro_ebm.numpyro as ebm
from pyro_ebm.core.evidence import summarize_log_weights
from pyro_ebm.datasets import Table


class Flows(NamedTuple):
    """d, which is reported, and g, which the methods KALE draw from."""

    density: Transformed
    base: Transformed


def flow(key: Array, num_dims: int) -> Transformed:
    return coupling_flow(
        key,
        base_dist=non_trainable(Normal(jnp.zeros(num_dims))),
        flow_layers=NUM_LAYERS,
        nn_width=WIDTH,
        nn_depth=DEPTH,
        nn_activation=jnp.tanh,
    )


def surprise(density: Transformed, x: Array) -> Array:
    return -density.log_prob(x)


def pair_energy(density: Transformed, base: Transformed, x: Array) -> Array:
    return base.log_prob(x) - density.log_prob(x) + OFFSET


def held(flow: Transformed) -> Transformed:
    """The same flow with constants for parameters."""
    return unwrap(non_trainable(flow))


def pair(flows: Flows, **options: Any) -> ebm.EnergyBased:
    """The density d, written as an energy that tilts g."""
    energy = Partial(pair_energy, flows.density, held(flows.base))
    return ebm.EnergyBased(energy, distribution_to_numpyro(flows.base), **options)


def inference(method: str, setting: Setting, flows: Flows) -> SVI:
    def model(x: Array) -> None:
        density = register_params("density", flows.density)
        if method == "ML":
            distribution = distribution_to_numpyro(density)
        elif method == "CD":
            distribution = ebm.EnergyBased(Partial(surprise, density), event_shape=density.shape)
        else:
            distribution = pair(Flows(density, register_params("base", flows.base)))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", distribution, obs=x)

    def guide(x: Array) -> None:
        if method == "KALE-F":
            ebm.auxiliary("x", log_normalizer=numpyro.param("log_normalizer", jnp.zeros(())))

    def optimizer(player: str) -> optax.GradientTransformation:
        learning_rate, decay = rate(setting, player)
        schedule = optax.cosine_decay_schedule(learning_rate, setting.num_steps)
        return optax.adamw(schedule, weight_decay=decay)

    players = {name: optimizer(name) for name in ("density", "base", "log_normalizer")}
    optimizers = optax.multi_transform(players, lambda params: {name: name for name in params})
    stock = Trace_ELBO() if method == "ML" else loss(ebm, method, setting)
    return SVI(model, guide, optimizers, stock)


def trained(flow: Transformed, params: Any) -> Transformed:
    return unwrap(eqx.combine(params, flow))


@partial(jax.jit, static_argnames=("method", "setting"))
def fit(key: Array, table: Table, rows: Array, method: str, setting: Setting) -> dict[str, Array]:
    """Trains from scratch, everything in one compiled program; figures of :func:`run`."""
    flow_key, svi_key, draw_key = random.split(key, 3)
    start = flow(flow_key, table.train.shape[1])
    flows = Flows(density=start, base=start)
    svi = inference(method, setting, flows)

    def nll(params: Any, x: Array) -> Array:
        return surprise(trained(flows.density, params["density"]), x).mean()

    def step(state: Any, batch: Array) -> tuple[Any, None]:
        return svi.update(state, table.train[batch])[0], None

    def block(carry: Any, batches: Array) -> tuple[Any, Array]:
        state, best, best_params = carry
        state, _ = lax.scan(step, state, batches)
        params = svi.get_params(state)
        score = nll(params, table.validation)
        kept = partial(jnp.where, score < best)
        best_params = jax.tree.map(kept, params, best_params)
        return (state, jnp.fmin(score, best), best_params), score

    state = svi.init(svi_key, table.train[:BATCH_SIZE])
    initial = svi.get_params(state)
    (state, validation, params), scores = lax.scan(block, (state, jnp.inf, initial), rows)
    figures = {
        "test": nll(params, table.test),
        "validation": validation,
        "train": nll(params, table.train),
        "step": EVERY * (1 + jnp.nanargmin(scores)),
        "last": nll(svi.get_params(state), table.test),
        "initial": nll(initial, table.test),
    }
    if method.startswith("KALE"):
        known = Flows(*(trained(flow, params[name]) for name, flow in flows._asdict().items()))
        log_weights = pair(known).importance_log_weights(draw_key, NUM_NORMALIZER_SAMPLES)
        normalizer = summarize_log_weights(log_weights)
        figures["estimated"] = normalizer.estimate
        figures["standard error"] = normalizer.standard_error
        if "log_normalizer" in params:
            figures["learned"] = params["log_normalizer"]
    return figures


def run(table: str, method: str, seed: int, **changes: Any) -> dict[str, float]:
    """Figures of one run, in nats; ``changes`` are made to the setting."""
    setting = replace(SETTINGS[table][method], **changes)
    data = Table(*(jnp.asarray(part, dtype=jnp.float32) for part in TABLES[table]()))
    rows = jnp.asarray(batches(len(data.train), setting.num_steps, seed))
    figures = fit(random.key(seed), data, rows, method, setting)
    return {name: float(figure) for name, figure in figures.items()}


if __name__ == "__main__":
    print_table(run_cells(cells(), run, output_path("density_numpyro"), columns=COLUMNS))
