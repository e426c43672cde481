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
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from _tutorial import plane, plot_density, plt, printed_warnings, show, steps
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.optim import CosineAnnealingLR
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm.datasets import digits

SEED, NUM_LATENTS, NOISE, LIMIT = 0, 2, 0.3, 6.0
NUM_STEPS = steps(1500, fast=20)

data = digits()
images, held_out = torch.from_numpy(data.train.images), torch.from_numpy(data.test.images)

# %% [markdown]
# ## Two models and a guide
#
# The models differ in one line: the distribution at the site `z`. The guide is an encoder, as in
# any variational autoencoder.


# %%
def mlp(num_inputs, num_outputs):
    hidden = [nn.Linear(num_inputs, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU()]
    return nn.Sequential(*hidden, nn.Linear(128, num_outputs))


def networks():
    """Return an encoder, a decoder and an energy, the same ones each time."""
    pyro.set_rng_seed(SEED)
    energy = nn.Sequential(mlp(NUM_LATENTS, 1), nn.Flatten(0))
    return mlp(64, 2 * NUM_LATENTS), mlp(NUM_LATENTS, 64), energy


base = dist.Normal(torch.zeros(NUM_LATENTS), 1.0).to_event(1)


def normal_prior(energy):
    return base


def energy_prior(energy):
    pyro.module("energy", energy)
    return ebm.EnergyBased(energy, base)


def make_pair(prior):
    """Return a model with this prior, and its guide."""
    encoder, decoder, energy = networks()

    def model(x, batch_size=None):
        pyro.module("decoder", decoder)
        with pyro.plate("images", len(x), subsample_size=batch_size) as batch:
            z = pyro.sample("z", prior(energy))
            pyro.sample("x", dist.Normal(decoder(z), NOISE).to_event(1), obs=x[batch])

    def guide(x, batch_size=None):
        pyro.module("encoder", encoder)
        with pyro.plate("images", len(x), subsample_size=batch_size) as batch:
            loc, log_scale = encoder(x[batch]).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return model, guide


# %% [markdown]
# The host's `render_model` draws the model, energy included: the site `z` is a node like any other.
# Here is the graph as text; with Graphviz installed, a notebook shows it as a picture.

# %%
model, guide = make_pair(energy_prior)
print(pyro.render_model(model, (images,), render_distributions=True).source)

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
    pyro.clear_param_store()
    pyro.set_rng_seed(SEED)
    adam = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 2e-3}, "T_max": NUM_STEPS}
    optimizer = CosineAnnealingLR(adam)
    svi = SVI(model, guide, optimizer, loss)
    for _ in range(NUM_STEPS):
        svi.step(images, batch_size=128)
        optimizer.step()


objective = ebm.EnergyDiscrepancy(variance=0.1, num_samples=16)
settings = {
    "normal prior": (normal_prior, Trace_ELBO()),
    "energy prior": (energy_prior, ebm.EnergyELBO(objective, Trace_ELBO())),
}
log_p, codes = {}, {}
for name, (prior, loss) in settings.items():
    model, guide = make_pair(prior)
    train(model, guide, loss)
    with printed_warnings():
        found = ebm.log_marginal(model, guide, num_samples=1000, batch_size=100)(held_out)
    print(f"{name}: {found}")
    log_p[name] = found.estimate.numpy()
    codes[name] = Predictive(guide, num_samples=1)(held_out)["z"][0].detach()

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
grid = torch.as_tensor(plane(LIMIT))
priors = {"normal prior": base, "energy prior": ebm.site_distribution(model, "z")(images)}
figure, axes = plt.subplots(1, 2, figsize=(10, 4.8))
for ax, (name, prior) in zip(axes, priors.items(), strict=True):
    log_prob = prior.log_prob(grid).detach()
    plot_density(ax, (log_prob - log_prob.max()).exp(), LIMIT, name)
    for digit in range(10):
        of_digit = np.asarray(codes[name])[data.test.labels == digit]
        ax.plot(*of_digit.T, ls="", marker=f"${digit}$", color="C1", ms=5, mew=0.2)
show("02_priors")

# %% [markdown]
# The trained prior is a distribution: `run_chains`, `log_normalizer` and NUTS accept it, and it has
# `sample`. The next tutorial shows how to draw from an energy, and how to check the draws.
