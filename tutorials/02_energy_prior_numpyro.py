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
# # An energy prior in a variational decoder
#
# A decoder usually has a standard normal prior on its latent variable. But the latent values of the
# data do not follow it: they form clusters with gaps between them. An energy-based prior can follow
# them. This tutorial trains a decoder of handwritten digits with each prior, and compares how well
# the two models predict new digits.
#
# There are only two latent dimensions, so that we can plot the priors. The scripts `digits_pyro.py`
# and `digits_numpyro.py` do the same with sixteen dimensions, NUTS and ArviZ.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from _tutorial import plane, plot_density, plt, printed_warnings, show, steps
from jax import random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI, Predictive, Trace_ELBO

import pyro_ebm.numpyro as ebm
from pyro_ebm.datasets import digits

SEED, NUM_LATENTS, NOISE, LIMIT = 0, 2, 0.3, 6.0
NUM_STEPS = steps(1500, fast=20)

data = digits()
images, held_out = jnp.asarray(data.train.images), jnp.asarray(data.test.images)

# %% [markdown]
# ## Two models and a guide
#
# The models differ in one line: the distribution at the site `z`. The guide is an encoder, as in
# any variational autoencoder.


# %%
def mlp(key, num_inputs, num_outputs):
    return eqx.filter_vmap(eqx.nn.MLP(num_inputs, num_outputs, 128, 2, jax.nn.silu, key=key))


def networks():
    """Return an encoder, a decoder and an energy, the same ones each time."""
    keys = random.split(random.key(SEED), 3)
    energy = mlp(keys[2], NUM_LATENTS, "scalar")
    return mlp(keys[0], 64, 2 * NUM_LATENTS), mlp(keys[1], NUM_LATENTS, 64), energy


base = dist.Normal(jnp.zeros(NUM_LATENTS), 1.0).to_event(1)


def normal_prior(energy):
    return base


def energy_prior(energy):
    return ebm.EnergyBased(eqx_module("energy", energy), base)


def make_pair(prior):
    """Return a model with this prior, and its guide."""
    encoder_net, decoder_net, energy_net = networks()

    def model(x, batch_size=None):
        decoder = eqx_module("decoder", decoder_net)
        with numpyro.plate("images", len(x), subsample_size=batch_size) as batch:
            z = numpyro.sample("z", prior(energy_net))
            numpyro.sample("x", dist.Normal(decoder(z), NOISE).to_event(1), obs=x[batch])

    def guide(x, batch_size=None):
        encoder = eqx_module("encoder", encoder_net)
        with numpyro.plate("images", len(x), subsample_size=batch_size) as batch:
            loc, log_scale = jnp.split(encoder(x[batch]), 2, -1)
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    return model, guide


# %% [markdown]
# The host's `render_model` draws the model, energy included: the site `z` is a node like any other.
# Here is the graph as text; with Graphviz installed, a notebook shows it as a picture.

# %%
model, guide = make_pair(energy_prior)
print(numpyro.render_model(model, (images,), render_distributions=True).source)

# %% [markdown]
# ## Training, and which one predicts better
#
# A stock ELBO trains the model with the normal prior. It would not train an energy, because it does
# not know $Z$. `EnergyELBO` is the same ELBO plus an objective that trains the energy. The data of
# that objective are the draws of the guide at the site `z`. The energy in turn enters the loss of
# decoder and encoder as the log-density of the prior.
#
# Then `log_marginal` estimates $\log p(x) = \log \int p(x, z)\, dz$ of each new image by importance
# sampling with the guide. It finds the energy at the site `z`, estimates its $\log Z$ and subtracts
# it, so that we compare two normalized densities. It warns of images for which few of the draws
# count. More draws would help, and so would `method="annealed"`, which needs no guide.


# %%
def train(model, guide, loss):
    rate = optax.cosine_decay_schedule(2e-3, NUM_STEPS)
    svi = SVI(model, guide, optax.adam(rate), loss)
    options = {"batch_size": 128, "progress_bar": False}
    return svi.run(random.key(SEED), NUM_STEPS, images, **options).params


objective = ebm.EnergyDiscrepancy(variance=0.1, num_samples=16)
settings = {
    "normal prior": (normal_prior, Trace_ELBO()),
    "energy prior": (energy_prior, ebm.EnergyELBO(objective, Trace_ELBO())),
}
log_p, codes, key = {}, {}, random.key(SEED)
for name, (prior, loss) in settings.items():
    model, guide = make_pair(prior)
    params = train(model, guide, loss)
    estimate = ebm.log_marginal(model, guide, num_samples=1000, batch_size=100, params=params)
    with printed_warnings():
        found = estimate(key, held_out)
    print(f"{name}: {found}")
    log_p[name] = np.asarray(found.estimate)
    codes[name] = Predictive(guide, params=params, num_samples=1)(key, held_out)["z"][0]

# %% [markdown]
# We take the difference image by image, so that what makes an image hard for both models cancels.

# %%
gain = log_p["energy prior"] - log_p["normal prior"]
error = gain.std() / np.sqrt(len(gain))
print(f"gain of the energy prior: {gain.mean():.2f} ± {error:.2f} nats an image")

# %% [markdown]
# ## What the priors look like
#
# `site_distribution` takes a prior out of its model. Here are the two densities, and the latent
# values of new images, each written as its digit. The normal prior has its mass in the middle,
# wherever the digits are, and holds the codes together. Under the energy prior kinds of digits move
# apart, and the mass goes with them.

# %%
grid = plane(LIMIT)
energy_based = ebm.site_distribution(model, "z", params=params)(images)
priors = {"normal prior": base, "energy prior": energy_based}
figure, axes = plt.subplots(1, 2, figsize=(10, 4.8))
for ax, (name, prior) in zip(axes, priors.items(), strict=True):
    log_prob = prior.log_prob(grid)
    plot_density(ax, jnp.exp(log_prob - log_prob.max()), LIMIT, name)
    for digit in range(10):
        of_digit = np.asarray(codes[name])[data.test.labels == digit]
        ax.plot(*of_digit.T, ls="", marker=f"${digit}$", color="C1", ms=5, mew=0.2)
show("02_priors")

# %% [markdown]
# The trained prior is a distribution: `run_chains`, `log_normalizer` and NUTS accept it, and it has
# `sample`. The next tutorial shows how to draw from an energy, and how to check the draws.
