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
# A decoder of a latent variable is trained with a standard normal prior, by habit. The codes of the
# data do not keep to it: they gather in clusters, with holes between. An energy-based prior can
# follow them. This page trains a decoder of handwritten digits with either prior, and compares how
# well new digits are predicted.
#
# There are only two latent dimensions, so that the priors can be seen. `digits_pyro.py` and
# `digits_numpyro.py`, beside this page, do the same with sixteen, NUTS and ArviZ.

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
# The models differ in one line: the distribution at the site `z`. The guide, an encoder, is that of
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
# `render_model` of the host draws the model with the energy in it: the site `z` is a node like any
# other. Here is the graph as text; in a notebook the object shows itself where Graphviz is
# installed.

# %%
model, guide = make_pair(energy_prior)
print(numpyro.render_model(model, (images,), render_distributions=True).source)

# %% [markdown]
# ## Training, and which one predicts better
#
# The normal prior is trained by a stock ELBO. That would leave an energy as it is, since it does
# not know $Z$. `EnergyELBO` is the same ELBO, with an objective beside it that trains the energy at
# its site; the data of that objective are draws of the guide, the codes of images. Decoder and
# encoder feel the energy too, as the log-density of the prior.
#
# Then `log_marginal` estimates $\log p(x) = \log \int p(x, z)\, dz$ of each new image by importance
# sampling with the guide. It finds the energy at the site `z`, estimates its $\log Z$ and subtracts
# it, so that two normalized densities are compared. It warns of images for which few of the draws
# count; more draws would help, or `method="annealed"`, which needs no guide.


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
# The difference is taken image by image: what makes an image hard for both models cancels.

# %%
gain = log_p["energy prior"] - log_p["normal prior"]
error = gain.std() / np.sqrt(len(gain))
print(f"gain of the energy prior: {gain.mean():.2f} ± {error:.2f} nats an image")

# %% [markdown]
# ## What the priors look like
#
# `site_distribution` takes a prior out of its model. Here are the two densities, and the codes of
# new images, each written as its digit. The normal prior has its mass in the middle, wherever the
# digits are, and holds the codes together. Under the energy prior kinds of digits move apart, and
# the mass goes with them.

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
# The trained prior is a distribution: `sample`, `run_chains`, `log_normalizer` and NUTS take it as
# it is. How to draw from an energy, and how to know that it went well, is next.
