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
# # Which objective?
#
# All objectives aim at the same density, and none of them needs the exact $Z$. They differ in what
# they draw, in what a step costs, and in what they cannot see. This tutorial trains the same small
# network with each of them on the same data: two clusters that are ten standard deviations apart,
# with a quarter of the mass in the left one.

# %%
from time import perf_counter

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from _tutorial import FAST, plt, show, steps
from pyro.infer import SVI
from pyro.optim import CosineAnnealingLR
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm.datasets import bimodal

SEED, BATCH_SIZE = 0, 128
NUM_STEPS = steps(500, fast=5)

truth = bimodal(0.25)
data = torch.as_tensor(truth.sample(2000, seed=1), dtype=torch.float32)
held_out = torch.as_tensor(truth.sample(2000, seed=2), dtype=torch.float32)

# %% [markdown]
# ## One model, several guides
#
# The model is the same for all of them. Some objectives learn more than the energy, or keep
# something from step to step: a number, chains, a critic, a generator. You *attach* these in the
# guide.


# %%
def mlp():
    return nn.Sequential(
        nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1)
    )


def networks():
    """Return an energy, a critic and a generator, the same ones each time."""
    pyro.clear_param_store()
    pyro.set_rng_seed(SEED)
    flat = nn.Flatten(0)
    return nn.Sequential(mlp(), flat), nn.Sequential(mlp(), flat), mlp()


def make_model(energy):
    def model(x):
        pyro.module("energy", energy)
        base = dist.Normal(torch.zeros(1), 6.0).to_event(1)
        with pyro.plate("data", len(x), subsample_size=BATCH_SIZE) as batch:
            pyro.sample("x", ebm.EnergyBased(energy, base), obs=x[batch])

    return model


def make_guides(critic, generator):
    chains = ebm.PersistentChains(BATCH_SIZE, (1,), buffer_size=1024, restart_probability=0.05)
    latent = dist.Normal(torch.zeros(1), 1.0).to_event(1)
    source = ebm.Pushforward(latent, generator)
    return {
        "": lambda x: None,
        "number": lambda x: ebm.attach("x", log_normalizer=pyro.param("A", torch.tensor(0.0))),
        "chains": lambda x: ebm.attach("x", chains=chains),
        "critic": lambda x: ebm.attach("x", critic=critic, chains=chains),
        "generator": lambda x: ebm.attach("x", generator=source),
    }


# %% [markdown]
# ## The objectives
#
# Here is each objective with the guide that it needs.

# %%
objectives = {
    "ED, little noise": (ebm.EnergyDiscrepancy(variance=0.25), ""),
    "ED, much noise": (ebm.EnergyDiscrepancy(variance=50.0), ""),
    "maximum likelihood": (ebm.MaximumLikelihood(num_samples=128), ""),
    "KALE": (ebm.KALE(num_samples=128), ""),
    "noise-contrastive": (ebm.NoiseContrastive(num_samples=128), "number"),
    "score matching": (ebm.ScoreMatching(), ""),
    "denoising": (ebm.DenoisingScoreMatching(variance=0.1), ""),
    "CD from the data": (ebm.ContrastiveDivergence(num_steps=10), ""),
    "CD, chains": (ebm.ContrastiveDivergence(), "chains"),
    "CD, chains, penalty": (ebm.ContrastiveDivergence(energy_penalty=0.1), "chains"),
    "pseudo-spherical": (ebm.PseudoSpherical(0.5, energy_penalty=0.1), "chains"),
    "f-EBM": (
        ebm.FDivergence("jensen_shannon", energy_penalty=0.1, critic_penalty=0.1),
        "critic",
    ),
    "bounds": (ebm.BidirectionalBounds(penalty_weight=0.1), "generator"),
}
if FAST:
    objectives = {name: objectives[name] for name in ("ED, much noise", "KALE", "f-EBM")}

# %% [markdown]
# ## Training, likelihood, time
#
# Every objective gets the same number of steps and the same learning rate, which falls to zero.
# This favors objectives with expensive steps: a cheap one could have taken more steps in the same
# time. Seconds depend on the machine, and with JAX on compilation too, so compare only their orders
# of magnitude. Afterwards we compute $Z$ on a grid, the log-density of held-out points, and the
# mass of the left cluster, which should be a quarter.


# %%
def train(objective, kind):
    """Return the trained density, and the seconds that its training took."""
    energy, critic, generator = networks()
    model, guide = make_model(energy), make_guides(critic, generator)[kind]
    adam = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 1e-2}, "T_max": NUM_STEPS}
    optimizer = CosineAnnealingLR(adam)
    svi = SVI(model, guide, optimizer, ebm.EnergyELBO(objective))
    start = perf_counter()
    for _ in range(NUM_STEPS):
        svi.step(data)
        optimizer.step()
    seconds = perf_counter() - start
    return ebm.site_distribution(model, "x")(data), seconds


line = torch.linspace(-11.0, 11.0, 441)[:, None]
curves = {}
print(f"{'':20}{'log p(x)':>10}{'left mass':>11}{'seconds':>9}")
for name, (objective, kind) in objectives.items():
    density, seconds = train(objective, kind)
    log_z = ebm.log_normalizer(density, method="grid")
    score = float(ebm.log_density(density, held_out, log_z).estimate.mean())
    curves[name] = density.normalized(log_z).log_prob(line).exp().detach().numpy()
    left = curves[name][:220].sum() / curves[name].sum()
    print(f"{name:20}{score:10.3f}{left:11.3f}{seconds:9.1f}")
print(f"{'truth':20}{truth.log_density(held_out).mean():10.3f}{0.25:11.3f}")

# %%
figure, axes = plt.subplots(3, 5, figsize=(14, 7), sharex=True, sharey=True)
for ax in axes.flat[len(curves) :]:
    ax.remove()
for ax, (name, curve) in zip(axes.flat, curves.items(), strict=False):
    ax.fill_between(line[:, 0], np.exp(truth.log_density(line)), color="0.85", label="truth")
    ax.plot(line[:, 0], curve, color="C1", label="learned")
    ax.set(title=name, ylim=(0, 0.45))
axes[0, 0].legend()
show("04_densities")

# %% [markdown]
# ## What to see
#
# *Those that compare only nearby points do not know the weights.* Score matching, denoising, energy
# discrepancy with little noise and contrastive divergence from the data look at the shape of each
# cluster, and get it right. Their losses hardly depend on how much mass the left cluster has. It
# results from the initialization and the smoothness of the network. With noise as wide as the
# distance between the clusters, energy discrepancy sees both at once.
#
# *Those that draw from the base do.* Maximum likelihood, KALE and noise-contrastive estimation
# weight draws of a base that covers the data. This is easy in one dimension. In many dimensions,
# hardly any draw comes near the data.
#
# *Those that draw from the model are as good as their draws.* If chains seldom cross between the
# clusters, the energy learns whatever weights the chains happen to have. Compare contrastive
# divergence without and with a penalty on energies, which keeps them near zero and the barrier low.
# The same holds for pseudo-spherical divergence and for f-EBM, which also has a critic to train.
#
# *A generator draws without chains*, at the price of a second network. The bounds are only right if
# the generator covers both clusters.
#
# So start with energy discrepancy, with noise that reaches from one mode to the next. If you have a
# good base, try KALE or noise-contrastive estimation. Use chains if draws of the model are what you
# want in the end. In any case compare **held-out log-density**, and plot draws next to the data:
# none of the losses shows a wrong weight.
