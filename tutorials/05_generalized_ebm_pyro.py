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
# # A base that learns
#
# So far the base was a wide normal, and the energy did all of the work. In a *generalized*
# energy-based model the base learns too: **the base determines where values can lie, and the energy
# how likely they are there.** Here the base is a generator, $x = g(z)$ of a latent variable $z$. It
# can be sampled, and needs no density.
#
# A generator alone has a well-known flaw. It is continuous, so it cannot split its latent space,
# and fills the gap between two parts of the data with values that are not data. The energy removes
# them.

# %%
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from _tutorial import plot_points, plt, show, steps
from pyro.infer import SVI
from pyro.optim import PyroLRScheduler
from scipy.spatial import cKDTree
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm.datasets import toy

SEED, LIMIT, BATCH_SIZE = 0, 4.0, 256
NUM_STEPS, BASE_STEPS = steps(2000, fast=20), steps(300, fast=10)

moons = toy("two_moons")
data = torch.as_tensor(moons.sample(10_000, seed=1), dtype=torch.float32)
held_out = torch.as_tensor(moons.sample(2000, seed=2), dtype=torch.float32)

# %% [markdown]
# ## The model
#
# A `Pushforward` is the distribution of a generator's output, given a latent distribution. It takes
# the place of the base. This one starts as a wide normal, so that its draws cover the data from the
# beginning.


# %%
def mlp(width, num_outputs):
    hidden = [nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]
    return nn.Sequential(*hidden, nn.Linear(width, num_outputs))


class Generator(nn.Module):
    """Three times the latent value, plus a network."""

    def __init__(self):
        super().__init__()
        self.net = mlp(32, 2)

    def forward(self, z):
        return 3.0 * z + self.net(z)


pyro.clear_param_store()
pyro.set_rng_seed(SEED)
energy, generator = nn.Sequential(mlp(64, 1), nn.Flatten(0)), Generator()


def model(x):
    pyro.module("generator", generator)
    pyro.module("energy", energy)
    base = ebm.Pushforward(dist.Normal(torch.zeros(2), 1.0).to_event(1), generator)
    with pyro.plate("data", len(x), subsample_size=BATCH_SIZE) as batch:
        pyro.sample("x", ebm.EnergyBased(energy, base), obs=x[batch])


def guide(x):
    pass


# %% [markdown]
# ## Training
#
# `KALE` trains both from draws $y_m$ of the base, without MCMC. The energy maximizes the likelihood
# of data *relative to the base*,
#
# $$L = -\mathbb E_{\text{data}}[E] - \log \tfrac1M \textstyle\sum_m e^{-E(y_m)},$$
#
# which is the number of nats that the energy gains over the base. The base minimizes the same
# number, like a generator against a critic: it moves to where the energy has nothing left to gain.
# The gradient penalty keeps the energy smooth, so that the weights $e^{-E(y_m)}$ are spread over
# many draws.
#
# The two take turns. The base moves in every fifth step and stops early, so that something is left
# for the energy to learn. Then the energy is trained alone.


# %%
def base_moves(count):
    return count % 5 == 4 and count < BASE_STEPS


def options(name):
    if name.startswith("generator"):
        return {"lr": 1e-2, "betas": (0.5, 0.9), "condition": base_moves}
    return {"lr": 5e-3, "betas": (0.5, 0.9)}


adam = {"optimizer": ebm.step_when(torch.optim.Adam), "optim_args": options, "T_max": NUM_STEPS}
optimizer = PyroLRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR, adam)
objective = ebm.KALE(num_samples=BATCH_SIZE, gradient_penalty=0.003)
loss = ebm.EnergyELBO(objective, num_normalizer_samples=0)
svi = SVI(model, guide, optimizer, loss)
recorder = ebm.MetricsRecorder(svi, every=10)
for _ in range(NUM_STEPS):
    svi.step(data)
    recorder(data)
    optimizer.step()

# %% [markdown]
# Watch two metrics. The effective sample size is the number of draws of the base, out of 256, that
# carry weight: a handful would mean that the base misses the data. The energy gap is the mean
# energy of draws of the base minus that of the data. Once the base has stopped, the energy finds
# what separates the two.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
for ax, name in zip(axes, ("effective_sample_size", "energy_gap"), strict=True):
    ax.plot(recorder.steps, recorder.metrics["x"][name])
    ax.axvline(BASE_STEPS, color="0.6", ls="--", label="the base stops")
    ax.set(xlabel="step", ylabel=name.replace("_", " "))
axes[1].legend()
show("05_metrics")

# %% [markdown]
# ## Base and model
#
# The distribution at the site contains both: its `base` draws from the generator, and its own
# `sample` draws from the model. The latter works in the latent space, where there is a density;
# `density.latent` is the model there, for `NUTS`, `run_chains` and ArviZ.

# %%
density = ebm.site_distribution(model, "x")(data)
pyro.set_rng_seed(SEED)
draws = {"base": density.base.sample((2000,)).detach(), "model": density.sample((2000,))}

near = cKDTree(np.asarray(data))


def share_near(points):
    """Share of points that are at most 0.1 away from one of the 10,000 data points."""
    return np.mean(near.query(np.asarray(points))[0] < 0.1)


figure, axes = plt.subplots(1, 3, figsize=(10, 3.7))
for ax, (name, points) in zip(axes, ({"data": held_out} | draws).items(), strict=True):
    plot_points(ax, points, LIMIT, name)
    print(f"{name:6} {share_near(points):6.1%} of the points are near data")
show("05_draws")

# %% [markdown]
# Draws of the base fill the space between the moons. Most of those of the model lie on them: the
# energy has removed the rest. Held-out data show what is possible.
#
# We can also measure the gain in nats, on held-out points. Since the base has no density,
# `log_prob` is relative to the base, and so is the gain: zero would be the base itself.

# %%
log_z = ebm.log_normalizer(density, method="importance", num_samples=20_000)
gain = ebm.log_density(density, held_out, log_z).estimate
print(log_z)
error = float(gain.std()) / len(gain) ** 0.5
print(f"gain over the base: {float(gain.mean()):.2f} ± {error:.2f} nats a point")

# %% [markdown]
# A base with a density, such as a normalizing flow, is used in the same way. The likelihood is then
# an absolute one, and by default `KALE` trains the base by it (`base_loss="full"`).
