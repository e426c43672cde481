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
# # Draws, log Z, and what a bad chain looks like
#
# An energy is easy to evaluate and hard to sample. This tutorial draws from one, shows which
# diagnostics reveal each kind of bad chain and which do not, and computes bounds on $\log Z$.
#
# To know the truth we write down an energy instead of training one: three narrow modes that hold
# 50, 30 and 20 percent of the mass, with $\log Z = 3$. A trained energy is used in the same way.

# %%
import arviz as az
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from _tutorial import plt, printed_warnings, show, steps
from jax import random
from jax.scipy.special import logsumexp

import pyro_ebm.numpyro as ebm
from pyro_ebm import plots

SEED, SCALE, LIMITS = 0, 0.2, ((-3.5, 3.5), (-3.5, 3.5))
NUM_DRAWS = steps(1000, fast=100)
WEIGHTS = jnp.array([0.5, 0.3, 0.2])
CENTERS = 2.5 * jnp.array([[-0.87, -0.5], [0.87, -0.5], [0.0, 1.0]])

base = dist.Normal(jnp.zeros(2), 2.0).to_event(1)


def energy(x):
    squares = jnp.sum((x[:, None] - CENTERS) ** 2, -1)
    modes = jnp.log(WEIGHTS) - squares / (2 * SCALE**2) - np.log(2 * np.pi * SCALE**2)
    return base.log_prob(x) - logsumexp(modes, -1) - 3.0


density = ebm.EnergyBased(energy, base)


def shares(draws):
    """Shares of the draws that lie nearest to each of the three centers."""
    squares = np.sum((np.asarray(draws).reshape(-1, 1, 2) - np.asarray(CENTERS)) ** 2, -1)
    return np.round(np.bincount(squares.argmin(-1), minlength=3) / len(squares), 2)


# %% [markdown]
# ## Draws
#
# `sample` draws by sequential Monte Carlo (SMC): a population of points moves from the base to the
# density through intermediate densities, and is resampled on the way. You need not choose a step
# size, and modes get their weights.

# %%
draws = density.sample(random.key(SEED), (4 * NUM_DRAWS,))
print("shares of draws:", shares(draws), "  truth:", np.asarray(WEIGHTS))

plots.plot_energy_landscape(density.potential, draws, limits=LIMITS).set_title("draws by SMC")
show("03_draws")

# %% [markdown]
# ## Chains
#
# Use Markov chains for posteriors, for long runs, and for runs that you want to continue later.
# `run_chains` runs many at once, and `to_arviz` converts them for ArviZ. Here are four runs of four
# chains.
#
# - *slow*: the step size is far too small, and nothing tunes it.
# - *scattered*: warm-up tunes the step size, but each chain stays in the mode where it started.
# - *one mode*: the same, but all chains start in the same mode, the smallest.
# - *exchange*: replica exchange. Each chain has copies at higher temperatures, where the barriers
#   between modes are low. These copies cross the barriers and swap places with the cold chain.


# %%
def run(sampler, starts):
    """Run chains that start near some of the centers."""
    start_key, run_key = random.split(random.key(SEED))
    with printed_warnings():
        return ebm.run_chains(
            run_key,
            sampler,
            density,
            num_samples=NUM_DRAWS,
            num_warmup=NUM_DRAWS // 2,
            init=CENTERS[jnp.array(starts)] + SCALE * random.normal(start_key, (4, 2)),
            progress_bar=False,
        )


exchange = ebm.ReplicaExchange(ebm.MALA(), temperatures=(64.0, 16.0, 4.0, 1.0))
settings = {
    "slow": (ebm.MALA(1e-5, target_accept_prob=None), [0, 1, 2, 2]),
    "scattered": (ebm.MALA(), [0, 1, 2, 2]),
    "one mode": (ebm.MALA(), [2, 2, 2, 2]),
    "exchange": (exchange, [0, 1, 2, 2]),
}
runs = {}
for name, (sampler, starts) in settings.items():
    print(f"Running {name}")
    runs[name] = run(sampler, starts)

# %% [markdown]
# Read two numbers first. *R-hat* compares the spread of each chain with that of all chains
# together. It is 1 if they agree; a value above 1.01 needs an explanation. The *effective sample
# size* (ESS) is the number of independent draws that would be as accurate.

# %%
print(f"{'':12}{'R-hat':>8}{'ESS':>8}{'accepted':>10}   shares of the modes")
for name, chains in runs.items():
    found = az.summary(chains.to_arviz(), kind="diagnostics")
    accepted = float(chains.statistics["acceptance_rate"].mean())
    numbers = f"{found['r_hat'].max():8.2f}{found['ess_bulk'].min():8.0f}{accepted:10.2f}"
    print(f"{name:12}{numbers}   {shares(chains.samples)}")
swaps = runs["exchange"].statistics["swap_rate"].reshape(-1, 3).mean(0)
print(
    "swap rates of replica exchange, the hottest pair first:", [round(float(r), 2) for r in swaps]
)

# %% [markdown]
# - *slow* accepts nearly every step and gets nowhere: an acceptance rate near 1 is a bad sign.
#   R-hat and ESS show it at once.
# - *scattered* mixes well within modes, and R-hat is far above 1: each chain has seen another part.
# - *one mode* is the dangerous one. **Its R-hat and ESS are excellent, and it has missed most of
#   the mass.** Chains that agree say nothing about places that none of them has visited. Therefore
#   `run_chains` compares a long run with draws by SMC, and warned above. With `check=data` it
#   compares with your data instead.
# - *exchange* has an R-hat near 1 and the right weights, from the same starts as *scattered*. Swap
#   rates near 0 would mean that temperatures are missing in between.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 4))
for ax, name in zip(axes, ("scattered", "exchange"), strict=True):
    last = runs[name].samples[:, -200:]
    plots.plot_energy_landscape(density.potential, last, paths=True, limits=LIMITS, ax=ax)
    ax.set_title(f"{name}: the last 200 draws of each chain")
show("03_paths")

# %% [markdown]
# *Rank plots* show the same at a glance, one for each coordinate. All draws are ranked together,
# and each chain gets a histogram of its ranks. If chains agree, the histograms are flat. Those of
# *one mode* are as flat as those of *exchange*.

# %%
figure, axes = plt.subplots(1, 4, figsize=(13, 3.4))
for ax, (name, chains) in zip(axes, runs.items(), strict=True):
    az.plot_rank(chains.to_arviz(), coords={"x_dim_0": [0]}, ax=ax)
    ax.set_title(name)
    ax.set_xlabel("rank of $x_1$", fontsize="medium")
    ax.set_ylabel("chain", fontsize="medium")
show("03_ranks")

# %% [markdown]
# ## log Z
#
# `log_normalizer` estimates $\log Z$ with a standard error, between a lower and an upper bound.
#
# - *importance* weights draws of the base. Few of them hit narrow modes, and nothing bounds
#   $\log Z$ from above.
# - *annealed* moves points from the base to the density and back again: forward paths give the
#   lower bound, reverse paths the upper one. The more temperatures, the closer they are. With only
#   five of them, as in *hasty*, it warns.
# - *grid* integrates numerically, in one to three dimensions.

# %%
settings = {
    "importance": {"method": "importance"},
    "hasty": {"num_temperatures": 5, "num_moves": 5},
    "patient": {"num_temperatures": steps(200, fast=20)},
    "grid": {"method": "grid"},
}
results = {}
for name, options in settings.items():
    with printed_warnings():
        results[name] = ebm.log_normalizer(random.key(SEED), density, **options)
    print(f"{name:11}", results[name])

# %% [markdown]
# The log-weights show why. If annealing is slow enough, those of forward and reverse paths overlap,
# and their histograms cross at $\log Z$. The faster it is, the further apart they are, and the
# fewer of the paths count.

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 4))
for ax, name in zip(axes, ("hasty", "patient"), strict=True):
    plots.plot_log_weights(results[name], ax=ax)
    ax.set_title(f"{name}\n{ax.get_title()}", fontsize="medium")
show("03_log_weights")

# %% [markdown]
# Once $\log Z$ is known, so is the density: `density.normalized(log_z).log_prob(x)`, or
# `log_density(density, x, log_z)`, whose standard error includes that of $\log Z$.
