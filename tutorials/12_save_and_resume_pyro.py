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

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from _tutorial import BLUE, VERMILLION, plt, show, steps
from pyro.infer import SVI
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm import plots
from pyro_ebm.datasets import toy

# %% [markdown]
# ## A run with chains
#
# The energy is trained on two moons by persistent contrastive divergence: 100 chains move a few
# steps in each training step, and continue from there in the next.


# %%
data = torch.tensor(toy("two_moons").sample(2000, seed=0)).float()
base = dist.Normal(torch.zeros(2), 2.0).to_event(1)
folder = Path(tempfile.mkdtemp())


class Run:
    def __init__(self, seed, width=64):
        pyro.clear_param_store()
        pyro.set_rng_seed(seed)
        layers = [nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]
        self.net = nn.Sequential(*layers, nn.Linear(width, 1), nn.Flatten(0))
        loss = ebm.EnergyELBO(ebm.ContrastiveDivergence())
        self.svi = SVI(self.model, self.guide, Adam({"lr": 2e-3}), loss)

    def model(self, x):
        pyro.module("energy", self.net)
        with pyro.plate("data", len(x), subsample_size=100) as batch:
            pyro.sample("x", ebm.EnergyBased(self.net, base), obs=x[batch])

    def guide(self, x):
        ebm.attach("x", chains=ebm.PersistentChains(100, (2,), num_steps=5))

    def train(self, num_steps):
        return [self.svi.step(data) / len(data) for _ in range(num_steps)]


# %% [markdown]
# ## Without an accident

# %%
half = steps(400, fast=20)
whole = Run(seed=0)
losses = whole.train(2 * half)

# %% [markdown]
# ## With one
#
# The second run saves itself halfway, and is killed a few steps after. The parameter store, with
# the chains, and the states of all random number generators are saved in any case; an `SVI` stands
# for its optimizer. The file is replaced at once: a process that is killed while it writes leaves
# the old one.

# %%
path = folder / "run.safetensors"
run = Run(seed=0)
run.train(half)
ebm.save_checkpoint(path, {"svi": run.svi, "step": half})
run.train(5)  # lost
del run
print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")

# %% [markdown]
# A new process sets up the same run, with other random numbers to show that they do not matter, and
# takes a step: it makes the parameters, moments and chains that the file then overwrites. The
# structure comes from this run and the numbers from the file, so that nothing is ever unpickled:
# loading a file from elsewhere cannot run its code, and a file of another model is an error that
# names the first thing that does not fit.

# %%
resumed = Run(seed=1)
resumed.train(1)
state = ebm.load_checkpoint(path, {"svi": resumed.svi, "step": 0})
start = state["step"]
resumed_losses = resumed.train(2 * half - start)
print(f"resumed at step {start}")
print(f"largest difference of losses: {np.abs(np.subtract(losses[start:], resumed_losses)).max()}")
pairs = zip(whole.net.parameters(), resumed.net.parameters(), strict=True)
print(f"largest difference of weights: {max((a - b).abs().max().item() for a, b in pairs)}")

# %% [markdown]
# In the figure the resumed run coincides with the uninterrupted one: from the checkpoint on the
# difference is zero, not small. The right panel shows the chains at the end of training.

# %%
moons = ebm.EnergyBased(resumed.net.requires_grad_(False), base)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
left.plot(losses, color=BLUE, lw=3, alpha=0.5, label="whole run")
left.plot(np.arange(start, 2 * half), resumed_losses, color=VERMILLION, lw=1, label="resumed run")
left.axvline(start, color="0.5", ls=":", label="checkpoint")
left.set(xlabel="step", ylabel="reported loss (nats a point)", xlim=(start - 40, start + 40))
left.legend(fontsize="small")
plots.plot_energy_landscape(
    moons.potential, pyro.param("x$chains"), limits=((-4, 4), (-3, 3)), ax=right
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
chains = ebm.run_chains(sampler, moons, num_warmup=steps(300, fast=20), **few)
ebm.save_checkpoint(folder / "chains.safetensors", chains.state)
like = ebm.run_chains(sampler, moons, **few).state
state = ebm.load_checkpoint(folder / "chains.safetensors", like)
more = ebm.run_chains(sampler, moons, init=state, num_samples=20, progress_bar=False)
print(f"acceptance without another warm-up: {float(more.statistics['acceptance_rate'].mean()):.2f}")

# %% [markdown]
# Processes that train together, with chains of their own, save one file each.
# `many_devices_pyro.py` trains one energy on many devices.
