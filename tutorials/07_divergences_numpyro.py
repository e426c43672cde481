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
# # Divergences: cover every mode, or seek one
#
# A flexible energy can fit the data with any objective. A model that is too simple cannot, and the
# divergence that it minimizes decides what it gives up.
#
# Here the data have two modes, the model is a normal distribution, and *f-EBM* ([Yu et al.,
# 2020](https://arxiv.org/abs/2003.03463)) fits it by four f-divergences,
#
# $$D_f(p \,\|\, q) = \mathbb E_q\big[f(p / q)\big],$$
#
# with data $p$ and model $q \propto e^{-E}$. The ratio $p / q$ is unknown, so a second network, the
# *critic* $H$, learns it: $H + E$ estimates $\log p / q$. The energy minimizes the divergence as
# estimated with the critic, and `SVI` trains both in the same step.

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
from numpyro.infer import SVI
from scipy.optimize import minimize

import pyro_ebm.numpyro as ebm

# %% [markdown]
# ## Data with two modes
#
# One value in five comes from the left mode. Training only sees draws; we use the true density at
# the end, to judge the result.

# %%
truth = dist.MixtureSameFamily(
    dist.Categorical(jnp.array([0.2, 0.8])),
    dist.Normal(jnp.array([-1.8, 1.0]), jnp.array([0.5, 0.7])),
)
data = truth.sample(random.key(0), (20_000,))

# %% [markdown]
# ## A normal distribution as an energy
#
# The energy of a normal distribution has two parameters, and its draws are exact, so errors of a
# sampler cannot blur the comparison. It starts as the standard normal, which lies right in the gap.


# %%
class NormalEnergy(eqx.Module):
    loc: jax.Array
    log_scale: jax.Array

    def __call__(self, x):
        return 0.5 * ((x - self.loc) / jnp.exp(self.log_scale)) ** 2

    def normal(self):
        return dist.Normal(self.loc, jnp.exp(self.log_scale))


class Critic(eqx.Module):
    net: eqx.nn.MLP

    def __call__(self, x):
        return jax.vmap(self.net)(x)


# %% [markdown]
# ## Energy and critic in one step
#
# The model contains the energy. The guide *attaches* what else training needs: the critic, and
# exact draws of the model as `chains` (without them, draws come from short chains). Log-ratios are
# clipped at $\pm 3$; otherwise a few values would dominate the gradient before the critic has
# learned anything.


# %%
def model(energy, critic, x):
    energy = eqx_module("energy", energy)
    with numpyro.plate("data", len(x), subsample_size=500) as batch:
        numpyro.sample("x", ebm.EnergyBased(energy, event_shape=()), obs=x[batch])


def guide(energy, critic, x):
    energy, critic = eqx_module("energy", energy), eqx_module("critic", critic)
    draws = energy.normal().sample(numpyro.prng_key(), (500,))
    ebm.attach("x", critic=critic, chains=draws)


def fit(f, num_steps):
    energy = NormalEnergy(jnp.zeros(()), jnp.zeros(()))
    critic = Critic(eqx.nn.MLP("scalar", "scalar", 32, 2, jnp.tanh, key=random.key(1)))
    objective = ebm.FDivergence(f, log_ratio_bound=3.0)
    # The model has no base to report a log-normalizer from.
    loss = ebm.EnergyELBO(objective, num_normalizer_samples=0)
    adam = optax.adam(optax.cosine_decay_schedule(0.01, num_steps), b1=0.5)
    svi = SVI(model, guide, adam, loss)
    run = svi.run(random.key(2), num_steps, energy, critic, data, progress_bar=False)
    energy = eqx.combine(run.params["energy$params"], energy)
    return energy, eqx.combine(run.params["critic$params"], critic)


# %% [markdown]
# ## Four divergences
#
# Choose a divergence by name, or pass any convex function of the ratio; autodiff finds its
# derivatives. Here we write squared Hellinger by hand. (There is also a whole family,
# `alpha_divergence(alpha)`, from reverse KL at 0 to KL at 1 and beyond.)

# %%
num_steps = steps(1000, fast=60)
fits = {
    "KL": fit("kl", num_steps),
    "Jensen-Shannon": fit("jensen_shannon", num_steps),
    "Hellinger": fit(lambda u: (u**0.5 - 1) ** 2, num_steps),
    "reverse KL": fit("reverse_kl", num_steps),
}

# %% [markdown]
# ## Which covers, which seeks
#
# With the true density we can compute each divergence by an integral, and its minimum is what
# training should have found. Two more columns judge the fits: how much of a model's mass lies in
# the gap between the modes, where data are rare, and how much lies in the left mode.


# %%
grid = jnp.linspace(-6.0, 6.0, 1201)
log_p = np.asarray(truth.log_prob(grid))
FUNCTIONS = {
    "KL": lambda u: u * np.log(u),
    "Jensen-Shannon": lambda u: u * np.log(u) - (u + 1) * np.log((u + 1) / 2),
    "Hellinger": lambda u: (u**0.5 - 1) ** 2,
    "reverse KL": lambda u: -np.log(u),
}


def exact_fit(f):
    def divergence(parameters):
        loc, scale = parameters[0], np.exp(parameters[1])
        log_q = -0.5 * ((np.asarray(grid) - loc) / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi))
        ratio = np.exp(np.clip(log_p - log_q, -60.0, 60.0))
        return np.sum(np.exp(log_q) * f(ratio))

    loc, log_scale = minimize(divergence, [0.0, 0.0], method="Nelder-Mead").x
    return loc, np.exp(log_scale)


print(f"{'':16} mean (exact)    sd (exact)    in the gap  on the left mode")
for name, (energy, _) in fits.items():
    normal, (loc, scale) = energy.normal(), exact_fit(FUNCTIONS[name])
    below = [float(normal.cdf(x)) for x in (-3.0, -1.2, -0.4)]
    found = float(normal.loc), float(normal.scale)
    print(
        f"{name:16} {found[0]:.2f} ({loc:.2f})   {found[1]:.2f} ({scale:.2f})"
        f"   {below[2] - below[1]:9.3f}  {below[1] - below[0]:16.3f}"
    )

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
left.fill_between(grid, np.exp(log_p), color="0.85", label="data")
styles = dict(zip(fits, ("-", "--", ":", "-."), strict=True))
for name, (energy, _) in fits.items():
    left.plot(grid, jnp.exp(energy.normal().log_prob(grid)), styles[name], label=name)
left.set(xlabel="x", ylabel="density", xlim=(-6, 6), title="data, and four normal fits")
left.legend(fontsize="small")
for name, color in (("KL", BLUE), ("reverse KL", VERMILLION)):
    energy, critic = fits[name]
    exact = log_p - energy.normal().log_prob(grid)
    right.plot(grid, exact, color=color, lw=3, alpha=0.4, label=f"exact, {name}")
    right.plot(grid, critic(grid) + energy(grid), "--", color=color, label="critic and energy")
right.axhline(0.0, color="0.5", lw=0.8)
right.set(xlabel="x", ylabel="log(p / q) (nats)", xlim=(-4, 4.5), ylim=(-3.5, 5))
right.set_title("log-ratio of data and model")
right.legend(fontsize="small")
show("divergences")

# %% [markdown]
# KL punishes a model for every value that it does not explain: it *covers* both modes, and fills
# the gap between them as a price. Reverse KL punishes draws where there are no data: it *seeks* the
# larger mode and gives the smaller one up. The other two lie between, here close to KL. The plot on
# the right shows why training needed no density: unless both densities are tiny, the critic knows
# the log-ratio.
#
# Which one should you choose? With a flexible energy and a good sampler it hardly matters, and
# objectives without a critic are simpler. KL is the safe choice for a density or a prior, where a
# missing mode cannot be repaired later. Towards reverse KL, draws become more plausible and less
# diverse. Jensen-Shannon has bounded weights.
