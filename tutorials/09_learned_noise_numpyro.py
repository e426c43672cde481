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
# # Noise whose shape is learned
#
# Regressions assume normal noise, or another named distribution. If noise has a shape of its own,
# and you can measure it separately, an energy learns it. The energy describes the *residuals*, so
# its log Z does not depend on the parameters of the regression, and the host's `NUTS` finds their
# posterior as ever.
#
# Here the shape also changes with a covariate, which the energy gets as its *context*.

# %%
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
from numpyro.infer import MCMC, NUTS, SVI

import pyro_ebm.numpyro as ebm

# %% [markdown]
# ## A range finder that hears echoes
#
# A range finder sends a pulse and waits. Mostly it hears the pulse itself, and the error is about
# 0.15 m. Sometimes it hears an echo that took a detour of 1 m. The more clutter around, the more
# echoes. On a test bench, where distances are known, we record clutter (0 to 1) and error of 2,000
# readings.

# %%
SCALE, DETOUR, DETOUR_SCALE = 0.15, 1.0, 0.25  # metres
rng = np.random.default_rng(0)


def share_of_echoes(clutter):
    return 0.1 + 0.7 * clutter


def draw_errors(clutter):
    is_echo = rng.random(len(clutter)) < share_of_echoes(clutter)
    scale = np.where(is_echo, DETOUR_SCALE, SCALE)
    return np.where(is_echo, DETOUR, 0.0) + scale * rng.normal(size=len(clutter))


clutter = rng.random(2000)
errors = draw_errors(clutter)
bench = jnp.array(errors), jnp.array(clutter)

# %% [markdown]
# ## An energy with a context
#
# `energy(r, c)` gets the errors and the clutter of each. Each value of the clutter has its own
# density, with its own log Z. This is how a context differs from another dimension of the data. The
# base is a wide normal.


# %%
class Energy(eqx.Module):
    net: eqx.nn.MLP

    def __call__(self, r, c):
        return jax.vmap(self.net)(jnp.stack([r, c], axis=-1))


def noise(energy, c):
    return ebm.EnergyBased(energy, dist.Normal(0.5, 1.0), context=c)


def bench_model(energy, r, c):
    energy = eqx_module("energy", energy)
    with numpyro.plate("readings", len(r), subsample_size=256) as batch:
        numpyro.sample("error", noise(energy, c[batch]), obs=r[batch])


# %% [markdown]
# Energy discrepancy compares an error with noisy copies of it under the *same* clutter. The guide
# is empty, since nothing is latent on the bench.


# %%
def guide(*args):
    pass


energy = Energy(eqx.nn.MLP(2, "scalar", 32, 2, jax.nn.silu, key=random.key(0)))
num_steps = steps(1200, fast=60)
adam = optax.adam(optax.cosine_decay_schedule(0.01, num_steps))
objective = ebm.EnergyDiscrepancy(variance=0.25, num_samples=8)
svi = SVI(bench_model, guide, adam, ebm.EnergyELBO(objective))
run = svi.run(random.key(1), num_steps, energy, *bench, progress_bar=False)
energy = eqx.combine(run.params["energy$params"], energy)
print(f"negative log-likelihood, about {run.losses[-1] / len(errors):.2f} nats a reading")

# %% [markdown]
# Three contexts give three log Z, from one call, and three normalized densities.

# %%
contexts = jnp.array([0.1, 0.5, 0.9])
log_z = ebm.log_normalizer(random.key(2), noise(energy, contexts), method="grid")
grid = jnp.linspace(-1.0, 2.2, 321)[:, None]
density = jnp.exp(noise(energy, contexts).normalized(log_z).log_prob(grid))


def normal_density(x, loc, scale):
    return np.exp(-0.5 * ((x - loc) / scale) ** 2) / (scale * np.sqrt(2 * np.pi))


figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True)
for ax, c, learned in zip(axes, np.asarray(contexts), density.T, strict=True):
    near = np.abs(clutter - c) < 0.1
    ax.hist(errors[near], bins=40, range=(-1, 2.2), density=True, color="0.85", label="bench")
    x, share = np.asarray(grid)[:, 0], share_of_echoes(c)
    truth = (1 - share) * normal_density(x, 0.0, SCALE)
    truth = truth + share * normal_density(x, DETOUR, DETOUR_SCALE)
    ax.plot(x, truth, color=VERMILLION, ls="--", label="truth")
    ax.plot(x, learned, color=BLUE, label="energy")
    ax.set(title=f"clutter {c:.1f}", xlabel="error (m)")
axes[0].set_ylabel("density (1/m)")
axes[0].legend()
show("learned_noise")

# %% [markdown]
# ## A regression with this noise
#
# In the field, a wall recedes at an unknown speed from an unknown start. Clutter grows with time,
# and is known. We observe the residual, `y - start - speed * t`, under the learned noise, with the
# parameters of the energy fixed. For comparison we use normal noise, with the mean (a line in
# clutter) and standard deviation that fit the bench best.


# %%
START, SPEED, NUM_READINGS = 2.0, 1.5, 24  # m, m/s
time = np.linspace(0.0, 2.0, NUM_READINGS)
field_clutter = time / 2
readings = START + SPEED * time + draw_errors(field_clutter)
t, c, y = map(jnp.array, (time, field_clutter, readings))
slope, intercept = np.polyfit(clutter, errors, deg=1)
spread = np.std(errors - intercept - slope * clutter)
laws = {
    "normal noise": dist.Normal(intercept + slope * c, float(spread)),
    "learned noise": noise(energy, c),
}


def field_model(law, t, y):
    start = numpyro.sample("start", dist.Normal(0.0, 5.0))
    speed = numpyro.sample("speed", dist.Normal(0.0, 5.0))
    with numpyro.plate("readings", len(y)):
        numpyro.sample("error", law, obs=y - start - speed * t)


def posterior(law):
    draws, warmup = steps(500, fast=30), steps(300, fast=30)
    mcmc = MCMC(NUTS(field_model), num_warmup=warmup, num_samples=draws, progress_bar=False)
    mcmc.run(random.key(3), law, t, y)
    return {name: np.asarray(x) for name, x in mcmc.get_samples().items()}


draws = {name: posterior(law) for name, law in laws.items()}
for name, draw in draws.items():
    for key, true in (("start", START), ("speed", SPEED)):
        print(f"{name}: {key} {draw[key].mean():.3f} ± {draw[key].std():.3f}, truth {true}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
left.plot(time, readings - SPEED * time, "o", color="0.4", ms=4, label="readings")
for (name, draw), color in zip(draws.items(), (VERMILLION, BLUE), strict=True):
    lines = draw["start"] + np.outer(time, draw["speed"] - SPEED)
    band = np.quantile(lines, [0.05, 0.95], axis=1)
    left.fill_between(time, *band, color=color, alpha=0.3, label=f"wall, {name} (90%)")
    right.hist(draw["speed"], bins=30, density=True, histtype="step", color=color, label=name)
left.axhline(START, color="black", ls=":", label="wall, truth")
left.set(xlabel="time (s)", ylabel="distance minus 1.5 m/s (m)")
left.legend(fontsize="small")
right.axvline(SPEED, color="black", ls=":", label="truth")
right.set(xlabel="speed (m/s)", ylabel="posterior density (s/m)")
right.legend(fontsize="small")
show("receding_wall")

# %% [markdown]
# Normal noise uses every reading in the same way, echoes included. The learned noise knows that a
# reading is either good to 0.15 m or about a whole meter too far, and can tell which: its posterior
# is much narrower, as the lines above show.
#
# There are two limits. First, the *context* has to be known. If it depended on a latent variable,
# here on the distance itself, log Z would depend on it too, which is refused; tutorial 10 shows a
# way out. Second, noise that changes with a covariate cannot be distinguished from a regression on
# this covariate, unless it was measured separately, as on the bench here.
