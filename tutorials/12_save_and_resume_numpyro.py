# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Save a run, and resume it
#
# A long run may be killed before it ends. To resume it exactly, you need more than the weights: the
# moments of the optimizer, the state of the random numbers, and the chains that follow an energy
# through training. Without them the chains start again at draws of the base, far from the trained
# energy, and the run is a different one.
#
# `save_checkpoint` writes all of this to one file. A run that `load_checkpoint` resumes goes on to
# the last bit as if nothing had happened. Here we kill a run and check this.

# %%
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from _tutorial import BLUE, VERMILLION, plt, show, steps
from jax import random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI

import pyro_ebm.numpyro as ebm
from pyro_ebm import plots
from pyro_ebm.datasets import toy

# %% [markdown]
# ## A run with chains
#
# The energy is trained on two moons by persistent contrastive divergence: 100 chains move a few
# steps in each training step, and continue from there in the next.


# %%
data = jnp.array(toy("two_moons").sample(2000, seed=0))
base = dist.Normal(jnp.zeros(2), 2.0).to_event(1)
folder = Path(tempfile.mkdtemp())


class Energy(eqx.Module):
    net: eqx.nn.MLP

    def __call__(self, x):
        return jax.vmap(self.net)(x)


energy = Energy(eqx.nn.MLP(2, "scalar", 64, 2, jax.nn.silu, key=random.key(0)))


def model(x):
    net = eqx_module("energy", energy)
    with numpyro.plate("data", len(x), subsample_size=100) as batch:
        numpyro.sample("x", ebm.EnergyBased(net, base), obs=x[batch])


def guide(x):
    ebm.attach("x", chains=ebm.PersistentChains(100, (2,), num_steps=5))


svi = SVI(model, guide, optax.adam(2e-3), ebm.EnergyELBO(ebm.ContrastiveDivergence()))
update = jax.jit(svi.update)


def train(state, num_steps):
    losses = []
    for _ in range(num_steps):
        state, loss = update(state, data)
        losses.append(float(loss) / len(data))
    return state, losses


# %% [markdown]
# ## Without an accident

# %%
half = steps(400, fast=20)
whole, losses = train(svi.init(random.key(0), data), 2 * half)

# %% [markdown]
# ## With one
#
# The second run saves itself halfway, and is killed a few steps after. An `SVIState` has all that a
# run consists of: parameters, the optimizer's moments, the random key, and the chains. The file is
# replaced at once: a process that is killed while it writes leaves the old one.

# %%
path = folder / "run.safetensors"
state, _ = train(svi.init(random.key(0), data), half)
ebm.save_checkpoint(path, {"state": state, "step": half})
state, _ = train(state, 5)  # lost
del state
print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")

# %% [markdown]
# A new process sets up the same run, with another key to show that it does not matter. The
# structure comes from this run and the numbers from the file, so that nothing is ever unpickled:
# loading a file from elsewhere cannot run its code, and a file of another model is an error that
# names the first thing that does not fit.

# %%
like = {"state": svi.init(random.key(1), data), "step": 0}
loaded = ebm.load_checkpoint(path, like)
start = loaded["step"]
resumed, resumed_losses = train(loaded["state"], 2 * half - start)
print(f"resumed at step {start}")
print(f"largest difference of losses: {np.abs(np.subtract(losses[start:], resumed_losses)).max()}")
params, others = (jax.tree.leaves(svi.get_params(run)) for run in (whole, resumed))
difference = max(float(abs(a - b).max()) for a, b in zip(params, others, strict=True))
print(f"largest difference of weights: {difference}")

# %% [markdown]
# In the figure the resumed run coincides with the uninterrupted one: from the checkpoint on the
# difference is zero, not small. The right panel shows the chains at the end of training.

# %%
net = eqx.combine(svi.get_params(resumed)["energy$params"], energy)
moons = ebm.EnergyBased(net, base)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
left.plot(losses, color=BLUE, lw=3, alpha=0.5, label="whole run")
left.plot(np.arange(start, 2 * half), resumed_losses, color=VERMILLION, lw=1, label="resumed run")
left.axvline(start, color="0.5", ls=":", label="checkpoint")
left.set(xlabel="step", ylabel="reported loss (nats a point)", xlim=(start - 40, start + 40))
left.legend(fontsize="small")
plots.plot_energy_landscape(
    moons.potential, resumed.mutable_state["x$chains"], limits=((-4, 4), (-3, 3)), ax=right
)
right.set_title("energy, and its persistent chains")
show("resumed_run")

# %% [markdown]
# ## Chains of their own
#
# What `run_chains` returns has a `state`, with positions, step sizes and scales. It goes into a
# file like the rest, and the next run starts from it, without another warm-up.

# %%
sampler = ebm.MALA()
few = {"num_samples": 1, "num_chains": 200, "progress_bar": False}
chains = ebm.run_chains(random.key(2), sampler, moons, num_warmup=steps(300, fast=20), **few)
ebm.save_checkpoint(folder / "chains.safetensors", chains.state)
like = ebm.run_chains(random.key(3), sampler, moons, **few).state
state = ebm.load_checkpoint(folder / "chains.safetensors", like)
more = ebm.run_chains(random.key(4), sampler, moons, init=state, num_samples=20, progress_bar=False)
print(f"acceptance without another warm-up: {float(more.statistics['acceptance_rate'].mean()):.2f}")

# %% [markdown]
# Processes that train together, with chains of their own, save one file each.
# `many_devices_numpyro.py` trains one energy on many devices.
