"""Training on four devices of one process: losses, weights and chains of each run, as JSON.

It runs by itself, ``python -m helpers.infer.meshes``, as JAX takes its devices at the start.
"""

import json
import os
from functools import partial

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    )

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from jax import lax, random
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from numpyro.infer import SVI
from numpyro.infer.svi import SVIState

import pyro_ebm.numpyro as ebm
from helpers.hosts.numpyro import Bowl, attaching, prior, register

NUM_STEPS = 3
X = np.linspace(-2, 2, 64, dtype=np.float32).reshape(32, 2)
CHAINS = ebm.PersistentChains(8, (2,), sampler=ebm.Langevin(0.1), num_steps=2, buffer_size=12)
RATE = 1e-3


def loss_of(x):
    """The loss with an objective at one site; the other has persistent chains."""
    return ebm.EnergyELBO({"x": x, "y": ebm.ContrastiveDivergence()}, num_normalizer_samples=0)


def model(x):
    """One energy without, and one with draws of the model, on the same rows."""
    one, two = register("one", Bowl()), register("two", Bowl())
    with numpyro.plate("data", len(X), subsample_size=len(x)):
        numpyro.sample("x", prior(one), obs=x)
        numpyro.sample("y", prior(two), obs=x)


guide = attaching("y", chains=CHAINS)


def mesh_of(number, kind=AxisType.Auto):
    devices = jax.devices()[:number]
    return jax.make_mesh((number,), ("data",), axis_types=(kind,), devices=devices)


def train(svi, state, step, x):
    """Run some steps; what comes out, as numbers."""
    losses = []
    for _ in range(NUM_STEPS):
        # Devices of one process that run ahead wait for each other, and for ever.
        state, loss = jax.block_until_ready(step(state, x))
        losses.append(loss.item())
    params = svi.get_params(state)
    weights = [params[f"{name}$params"].weight.item() for name in ("one", "two")]
    chains = state.mutable_state["y$chains"].tolist()
    return {"losses": losses, "weights": weights, "chains": chains}


def on_arrays(x):
    """Train as on one device, on rows of any sharding."""
    svi = SVI(model, guide, optax.sgd(RATE), loss_of(ebm.EnergyDiscrepancy(variance=1.0)))
    return train(svi, svi.init(random.key(0), X), jax.jit(svi.update), x)


def on_mesh(number, kind):
    return on_arrays(jax.device_put(X, NamedSharding(mesh_of(number, kind), P("data"))))


def by_shard_map(number):
    """Train with draws and chains of each device's own, and means of gradients."""
    mesh, axis = mesh_of(number), "data"
    mean = optax.stateless(lambda gradients, _: lax.pmean(gradients, axis))
    optimizer = optax.chain(mean, optax.sgd(RATE))
    svi = SVI(model, guide, optimizer, loss_of(ebm.ScoreMatching()))
    # Parameters and keys are the same everywhere; chains are those of one device after another.
    state_spec = SVIState(P(), P(axis), P())
    share = partial(jax.shard_map, mesh=mesh, check_vma=False)

    @jax.jit
    @partial(share, in_specs=(P(), P(axis)), out_specs=state_spec)
    def init(key, x):
        return svi.init(key, x)

    @jax.jit
    @partial(share, in_specs=(state_spec, P(axis)), out_specs=(state_spec, P()))
    def step(state, x):
        key, next_key = random.split(state.rng_key)
        own_key = random.fold_in(key, lax.axis_index(axis))
        state, loss = svi.update(state._replace(rng_key=own_key), x)
        return state._replace(rng_key=next_key), lax.pmean(loss, axis)

    return train(svi, init(random.key(0), X), step, X)


def all_runs():
    runs = {"one": on_arrays(jnp.asarray(X))}
    for kind in (AxisType.Auto, AxisType.Explicit):
        for number in (2, 4):
            runs[f"{kind.name} {number}"] = on_mesh(number, kind)
    return runs | {"shard_map": by_shard_map(4)}


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    print(json.dumps(all_runs()))
