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
# # Tables and bits
#
# Most data are tables that mix numbers and categories. An energy can use them as they are. You
# describe the columns once, and noise, samplers and plots then treat each column by its kind. One
# energy is then a density of whole rows, a generator, and a classifier of any column.

# %%
import arviz as az
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from _tutorial import BLUE, VERMILLION, plt, show, steps
from jax import random
from jax.nn import one_hot
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI

import pyro_ebm.numpyro as ebm
from pyro_ebm import plots

# %% [markdown]
# ## A year of bicycle hire
#
# Each row is a day: its month, its temperature, the weather, and how many bicycles were hired, from
# 0 (hardly any) to 4. Months are cyclic, the weather has no order, and hire is ordered. A row is
# one vector. Categories in it are *codes*, whole numbers from 0.


# %%
columns = [
    ebm.Column.cyclic(12, "month"),
    ebm.Column.numeric("temperature"),
    ebm.Column.nominal(3, "weather"),  # sun, clouds, rain
    ebm.Column.ordinal(5, "hire"),
]
SPREAD = 3.0  # degrees Celsius within a month
rng = np.random.default_rng(0)


def mean_temperature(month):
    return 11.0 - 9.0 * np.cos(2 * np.pi * (month + 0.5) / 12)


def weather_probabilities(month):
    sun = 0.4 - 0.25 * np.cos(2 * np.pi * (month + 0.5) / 12)
    return np.stack([sun, np.full_like(sun, 0.3), 0.7 - sun], axis=-1)


def draw_days(number):
    month = rng.integers(12, size=number)
    temperature = mean_temperature(month) + SPREAD * rng.normal(size=number)
    below = weather_probabilities(month).cumsum(-1) < rng.random((number, 1))
    weather = below[:, :2].sum(-1)
    appeal = temperature / 6 - 1.2 * weather + 0.7 * rng.normal(size=number)
    hire = np.clip(np.round(appeal + 1), 0, 4)
    return np.stack([month, temperature, weather, hire], axis=-1).astype(np.float32)


table = draw_days(4000)

# %% [markdown]
# ## Base, energy, noise
#
# The base has independent columns with the right marginals, so the energy only has to learn how the
# columns depend on each other. The network gets standardized numbers and one-hot codes. Energy
# discrepancy compares a row with noisy copies of it, and the noise suits the column: a step along
# the circle, normal noise (given by its *variance*, in squared degrees), any other weather, a step
# up or down.


# %%
rows = jnp.array(table)
base = ebm.ColumnMarginals.fit(columns, table)
loc, scale = rows[:, 1].mean(), rows[:, 1].std()


class Energy(eqx.Module):
    net: eqx.nn.MLP

    def __call__(self, x):
        codes = [one_hot(x[:, c].astype(int), columns[c].size) for c in (0, 2, 3)]
        number = (x[:, 1:2] - loc) / scale
        return jax.vmap(self.net)(jnp.concatenate([number, *codes], axis=-1))


noise = ebm.Product(
    [ebm.Cyclic(1.0), ebm.GaussianPerturbation(9.0), ebm.Uniform(1.0), ebm.Ordinal(1.0)]
)


def guide(*args):
    pass


def train(energy, base, x, perturbation, num_steps):
    def model(x):
        net = eqx_module("energy", energy)
        with numpyro.plate("data", len(x), subsample_size=128) as batch:
            numpyro.sample("x", ebm.EnergyBased(net, base), obs=x[batch])

    adam = optax.adam(optax.cosine_decay_schedule(5e-3, num_steps))
    objective = ebm.EnergyDiscrepancy(perturbation=perturbation, num_samples=16)
    svi = SVI(model, guide, adam, ebm.EnergyELBO(objective, num_normalizer_samples=0))
    run = svi.run(random.key(1), num_steps, x, progress_bar=False)
    return ebm.EnergyBased(eqx.combine(run.params["energy$params"], energy), base)


net = eqx.nn.MLP(21, "scalar", 32, 2, jax.nn.silu, key=random.key(0))
days = train(Energy(net), base, rows, noise, steps(800, fast=50))

# %% [markdown]
# ## Draws
#
# `Gibbs` redraws each column of codes in turn from its exact conditional probabilities, and moves
# the numbers by another kernel. Month and temperature depend strongly on each other, so a chain
# moves through the year in small steps; one draw in ten is kept. `to_arviz(columns=...)` makes a
# variable of each column. In the figure, data are above the diagonal and draws below it: mirrored
# panels should look alike.

# %%
chains = ebm.run_chains(
    random.key(2),
    ebm.Gibbs(),
    days,
    num_chains=steps(20, fast=4),
    num_warmup=steps(200, fast=10),
    thinning=steps(10, fast=1),
    num_samples=steps(100, fast=10),
    progress_bar=False,
)
data = chains.to_arviz(columns={"x": columns})
print(az.summary(data, kind="diagnostics")[["ess_bulk", "r_hat"]])
plots.plot_table(columns, draws=chains.samples, data=table)
show("table")

# %% [markdown]
# ## Any column, given the others
#
# `code_probabilities` evaluates the probability of every code of one column given the others. It is
# exact, since log Z cancels. Here is the month of a day of which all other columns are known,
# beside the answer of the law that made the data.


# %%
def exact_probabilities(day):
    month = np.arange(12)
    density = np.exp(-0.5 * ((day[1] - mean_temperature(month)) / SPREAD) ** 2)
    density = density * weather_probabilities(month)[:, int(day[2])]
    return density / density.sum()


some_days = np.array([[0, 24, 0, 4], [0, 11, 1, 2], [0, 1, 2, 0]], np.float32)
names = ["24 °C, sun, most hired", "11 °C, clouds", "1 °C, rain, hardly any"]
learned = np.asarray(ebm.code_probabilities(days, jnp.array(some_days), column=0))
figure, axes = plt.subplots(1, 3, figsize=(10, 3), sharey=True)
for ax, day, name, probabilities in zip(axes, some_days, names, learned, strict=True):
    ax.bar(np.arange(1, 13), probabilities, color=BLUE, alpha=0.5, label="energy")
    ax.plot(np.arange(1, 13), exact_probabilities(day), "o", color=VERMILLION, label="exact")
    ax.set(xlabel="month", xticks=[1, 4, 7, 10], title=name)
axes[0].set_ylabel("probability")
axes[0].legend(fontsize="small")
show("month_of_a_day")

# %% [markdown]
# ## Bits
#
# For bits, use the host's `Bernoulli` as the base. The data are the fourteen pictures of 3 x 3
# pixels whose rows, or whose columns, are each all dark or all light. `Uniform` noise flips bits.
# Here it must flip several at once, to get from one picture to another.


# %%
lines = (np.arange(8)[:, None] >> np.arange(3)) & 1
pictures = [pattern[:, None] + np.zeros((1, 3)) for pattern in lines]
pictures = np.unique([p.ravel() for p in pictures] + [p.T.ravel() for p in pictures], axis=0)
bits = jnp.array(pictures[rng.integers(14, size=4000)])
fair = dist.Bernoulli(jnp.full(9, 0.5)).to_event(1)


class BitEnergy(eqx.Module):
    net: eqx.nn.MLP

    def __call__(self, x):
        return jax.vmap(self.net)(x)


net = eqx.nn.MLP(9, "scalar", 32, 2, jax.nn.silu, key=random.key(3))
stripes = train(BitEnergy(net), fair, bits, ebm.Uniform(1.0), steps(600, fast=50))

# %% [markdown]
# Nine bits have 512 values, few enough to sum over: `method="enumeration"` gives the exact log Z.
# The fourteen pictures should have all the mass, in equal parts. `sample` moves draws from the base
# to the model in steps, and so finds all pictures. Chains of single-bit moves would not get from
# one picture to the next.

# %%
log_z = ebm.log_normalizer(random.key(4), stripes, method="enumeration")
exact = stripes.normalized(log_z)
masses = np.exp(np.asarray(exact.log_prob(jnp.array(pictures))))
print(f"mass on the fourteen pictures: {masses.sum():.3f}")
print(f"of one of them: {masses.min():.3f} to {masses.max():.3f}; a fourteenth is {1 / 14:.3f}")
draws = np.asarray(stripes.sample(random.key(5), (20,))).reshape(20, 3, 3)
figure, axes = plt.subplots(2, 10, figsize=(10, 2.2))
for ax, draw in zip(axes.flat, draws, strict=True):
    ax.imshow(draw, cmap="gray_r", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
figure.suptitle("twenty draws")
show("bits")

# %% [markdown]
# `Masking` and `MaskOne` are other kinds of noise on codes (`MaskOne(exact=True)` is
# pseudo-likelihood). For hundreds of columns, sample with `GibbsWithGradients`, which proposes
# changes by the gradient.
