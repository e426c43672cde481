# %% [markdown]
# # One energy, many devices: Pyro
#
# Each process of `torch.distributed` has its own rows, its own noise and its own persistent chains;
# an optimizer averages the gradients, so that all have the same parameters. Run it on two:
#
#     torchrun --nproc-per-node 2 tutorials/many_devices_pyro.py
#
# With plain `python`, or in a notebook, the same lines train on one.

# %%
import os

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI
from pyro.optim import Adam
from torch import distributed, nn

import pyro_ebm.pyro as ebm
from pyro_ebm.datasets import toy

rank, number = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
if number > 1:
    distributed.init_process_group("gloo")  # On GPUs "nccl", and a device for each rank.

# %% [markdown]
# ## Model and guide
#
# The plate has the size of all data, and the rows that it is handed: if it drew rows by itself, the
# processes would have to draw different ones.

# %%
data = torch.tensor(toy("8_gaussians").sample(4096), dtype=torch.float32)
pyro.set_rng_seed(0)  # The same everywhere: one start for the parameters.
energy = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 1), nn.Flatten(0))
base = dist.Normal(torch.zeros(2), 2.0).to_event(1)
prior = ebm.EnergyBased(energy, base)


def model(rows):
    pyro.module("energy", energy)
    with pyro.plate("data", len(data), subsample_size=len(rows)):
        pyro.sample("x", prior, obs=rows)


def guide(rows):
    ebm.attach("x", chains=ebm.PersistentChains(256 // number, (2,)))


# %% [markdown]
# ## Training
#
# `AllReduce` is all that is new. 256 rows and 256 chains make a step, whatever the number of
# processes. From here on each draws with a seed of its own.

# %%
optimizer = ebm.AllReduce(Adam({"lr": 1e-2}))
svi = SVI(model, guide, optimizer, ebm.EnergyELBO(ebm.ContrastiveDivergence()))
pyro.set_rng_seed(1 + rank)
mine = data[rank::number]
for step in range(100):
    rows = mine[torch.randint(len(mine), (256 // number,))]
    loss = svi.step(rows)
    if rank == 0 and step % 25 == 24:
        print(f"step {step + 1}: negative ELBO {loss / len(data):.3f} nats a row")

# %% [markdown]
# ## What is shared, and what is not
#
# Parameters agree to the last bit; chains do not. Results can be read on any one process, as
# evaluations wait for nobody.

# %%
weight = sum(float(w.detach().sum()) for w in energy.parameters())
chain = pyro.get_param_store()["x$chains"][0].tolist()
print(f"process {rank}: sum of weights {weight:.7f}, first chain {chain[0]:.3f} {chain[1]:.3f}")
if rank == 0:
    print(ebm.log_normalizer(prior, method="grid"))

# %%
if number > 1:
    distributed.destroy_process_group()
