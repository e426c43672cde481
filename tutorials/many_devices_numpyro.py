# %% [markdown]
# # One energy, many devices: NumPyro
#
# The rows of an array lie on the devices of a mesh; JAX divides the work, and the numbers are
# those of one device. Here the devices are two parts of the processor, by a flag that has to be set
# before JAX is imported:
#
#     python tutorials/many_devices_numpyro.py
#
# On GPUs and TPUs leave out the flag: `jax.devices()` has what is there.

# %%
import os

two_devices = " --xla_force_host_platform_device_count=2"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + two_devices

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from jax.sharding import NamedSharding, PartitionSpec
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI

import pyro_ebm.numpyro as ebm
from pyro_ebm.datasets import toy

mesh = jax.make_mesh((len(jax.devices()),), ("data",))
by_rows = NamedSharding(mesh, PartitionSpec("data"))

# %% [markdown]
# ## Model and guide
#
# The plate has the size of all data, and the rows that it is handed. Nothing here knows of devices.

# %%
data = jnp.asarray(toy("8_gaussians").sample(4096), dtype=jnp.float32)
keys = jax.random.split(jax.random.key(0), 4)


class Energy(eqx.Module):
    net: eqx.nn.MLP

    def __call__(self, x):
        return jax.vmap(self.net)(x)


energy = Energy(eqx.nn.MLP(2, "scalar", 64, 1, jax.nn.silu, key=keys[0]))


def model(rows):
    base = dist.Normal(jnp.zeros(2), 2.0).to_event(1)
    prior = ebm.EnergyBased(eqx_module("energy", energy), base)
    with numpyro.plate("data", len(data), subsample_size=len(rows)):
        numpyro.sample("x", prior, obs=rows)


def guide(rows):
    ebm.attach("x", chains=ebm.PersistentChains(256, (2,)))


# %% [markdown]
# ## Training
#
# `device_put` with a sharding is all that is new. Parameters and chains have no rows, and are kept
# whole on each device.

# %%
svi = SVI(model, guide, optax.adam(1e-2), ebm.EnergyELBO(ebm.ContrastiveDivergence()))
state, update = svi.init(keys[1], data[:256]), jax.jit(svi.update)
for step, key in enumerate(jax.random.split(keys[2], 100)):
    rows = jax.device_put(data[jax.random.randint(key, (256,), 0, len(data))], by_rows)
    # Parts of one processor that run ahead of each other come to a halt; devices need no such wait.
    state, loss = jax.block_until_ready(update(state, rows))
    if step % 25 == 24:
        print(f"step {step + 1}: negative ELBO {loss / len(data):.3f} nats a row")

# %% [markdown]
# ## What is shared, and what is not
#
# Rows are in parts; chains and parameters are the same on all devices.

# %%
chains = state.mutable_state["x$chains"]
print(f"rows: {rows.sharding.spec}, chains: {chains.sharding.spec}, on {len(mesh.devices)} devices")
prior = ebm.site_distribution(model, "x", params=svi.get_params(state))(data)
print(ebm.log_normalizer(keys[3], prior, method="grid"))
