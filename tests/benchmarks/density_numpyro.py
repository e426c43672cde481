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
from pyro_ebm.core.evidence.weights import summarize_log_weights
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


class Fitted(NamedTuple):
    """Parameters that are best on the rows for validation, at the start and at the end; scores."""

    best: Any
    initial: Any
    last: Any
    scores: Array


def select(key: Array, svi: SVI, flows: Flows, table: Table, rows: Array) -> Fitted:
    """Trains, and looks at the rows for validation once in every block of steps."""

    def step(state: Any, batch: Array) -> tuple[Any, None]:
        return svi.update(state, table.train[batch])[0], None

    def block(carry: Any, batches: Array) -> tuple[Any, Array]:
        state, lowest, best = carry
        state, _ = lax.scan(step, state, batches)
        params = svi.get_params(state)
        score = nll(flows, params, table.validation)
        best = jax.tree.map(partial(jnp.where, score < lowest), params, best)
        return (state, jnp.fmin(score, lowest), best), score

    state = svi.init(key, table.train[:BATCH_SIZE])
    initial = svi.get_params(state)
    (state, _, best), scores = lax.scan(block, (state, jnp.inf, initial), rows)
    return Fitted(best, initial, svi.get_params(state), scores)


def nll(flows: Flows, params: Any, x: Array) -> Array:
    return surprise(trained(flows.density, params["density"]), x).mean()


@partial(jax.jit, static_argnames=("method", "setting", "first"))
def fit(
    key: Array, table: Table, rows: tuple[Array, ...], method: str, setting: Setting, first: Setting
) -> dict[str, Array]:
    """Trains from scratch, everything in one compiled program; figures of :func:`run`.

    Args:
        key: Random key.
        table: The data.
        rows: Of each step; in front of them, those of a first stage, if there is one.
        method: One of the methods.
        setting: Of the method.
        first: Of the first stage.
    """
    flow_key, svi_key, draw_key = random.split(key, 3)
    start = flow(flow_key, table.train.shape[1])
    flows = Flows(density=start, base=start)
    if setting.staged:
        stage = select(random.fold_in(key, 1), inference("ML", first, flows), flows, table, rows[0])
        start = eqx.combine(stage.best["density"], start)
        flows = Flows(density=start, base=start)
    found = select(svi_key, inference(method, setting, flows), flows, table, rows[-1])
    figures = {
        "test": nll(flows, found.best, table.test),
        "validation": jnp.nanmin(found.scores),
        "train": nll(flows, found.best, table.train),
        "step": EVERY * (1 + jnp.nanargmin(found.scores)),
        "last": nll(flows, found.last, table.test),
        "initial": nll(flows, found.initial, table.test),
    }
    if method.startswith("KALE"):
        known = Flows(*(trained(flow, found.best[name]) for name, flow in flows._asdict().items()))
        log_weights = pair(known).importance_log_weights(draw_key, NUM_NORMALIZER_SAMPLES)
        normalizer = summarize_log_weights(log_weights)
        figures["estimated"] = normalizer.estimate
        figures["standard error"] = normalizer.standard_error
        if "log_normalizer" in found.best:
            figures["learned"] = found.best["log_normalizer"]
    return figures


def run(table: str, method: str, seed: int, **changes: Any) -> dict[str, float]:
    """Figures of one run, in nats; ``changes`` are made to the setting."""
    setting, first = replace(SETTINGS[table][method], **changes), SETTINGS[table]["ML"]
    data = Table(*(jnp.asarray(part, dtype=jnp.float32) for part in TABLES[table]()))
    stages = [first, setting] if setting.staged else [setting]
    rows = tuple(jnp.asarray(batches(len(data.train), one.num_steps, seed)) for one in stages)
    figures = fit(random.key(seed), data, rows, method, setting, first)
    return {name: float(figure) for name, figure in figures.items()}


if __name__ == "__main__":
    print_table(run_cells(cells(), run, output_path("density_numpyro"), columns=COLUMNS))
