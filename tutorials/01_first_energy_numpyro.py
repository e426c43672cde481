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
# # A first energy
#
# In this tutorial a small network learns the density of two spirals from 5,000 points. You will see
# what the loss measures and how to choose its two settings.
#
# An energy-based model is a density
#
# $$p(x) = \frac{e^{-E(x)}\, p_0(x)}{Z},$$
#
# with a base distribution $p_0$ that you choose, such as a normal, and an energy $E$, here a neural
# network, that gives one number for each $x$. The energy is high where the base has too much mass,
# and low where it has too little. $E$ can be any function, which makes the model flexible. The
# price is $Z$, an integral without a closed form.
#
# (`_tutorial`, imported below, only helps with figures and shortens the runs in tests.)

# %%
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from _tutorial import plane, plot_density, plot_points, plt, show, steps
from jax import random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI

import pyro_ebm.numpyro as ebm
from pyro_ebm.datasets import toy

SEED, LIMIT, BATCH_SIZE, NUM_COPIES = 0, 4.5, 128, 4
NUM_STEPS = steps(1500, fast=20)

spirals = toy("two_spirals")
data = jnp.asarray(spirals.sample(5000, seed=1))
validation = jnp.asarray(spirals.sample(2000, seed=2))

# %% [markdown]
# ## The model
#
# `EnergyBased(energy, base)` is a distribution, and goes into a `sample` statement like any other.
# The energy gets values of shape `(N, 2)` and returns one number for each, shape `(N,)`. There is
# no latent variable, so the guide is empty.


# %%
def mlp(key):
    return eqx.filter_vmap(eqx.nn.MLP(2, "scalar", 64, 3, jax.nn.silu, key=key))


def make_model(energy):
    def model(x):
        net = eqx_module("energy", energy)
        base = dist.Normal(jnp.zeros(2), 3.0).to_event(1)
        with numpyro.plate("data", len(x), subsample_size=BATCH_SIZE) as batch:
            numpyro.sample("x", ebm.EnergyBased(net, base), obs=x[batch])

    return model


def guide(x):
    pass


# %% [markdown]
# ## The loss
#
# The likelihood contains $Z$, which changes with every weight of the network, and a stock ELBO
# ignores it. *Energy discrepancy* is a loss without $Z$. It adds noise to a data point $x$, then
# adds fresh noise to the result, $M$ times, to get copies $x_1, \dots, x_M$. The energy must then
# decide *which of the $M + 1$ points is the data point*. With $U = E - \log p_0$ the loss is
#
# $$\ell(x) = \log\Big(\frac1M + \frac1M \sum_{j=1}^M e^{U(x) - U(x_j)}\Big),$$
#
# which, up to the constant $\log M$, is the cross-entropy of a classifier with logits $-U$. If $U$
# is constant, the classifier can only guess, and the loss is $\log(1 + 1/M)$. The best classifier
# has $U = -\log p$, with $p$ the density of the data, up to a constant. So the energy learns the
# density by classifying. You choose two numbers.
#
# - `variance` is the variance of the noise, not its standard deviation. Noise is added twice, so
#   copies differ from the data by a standard deviation of $\sqrt{2 \cdot \text{variance}}$ in each
#   coordinate. If copies are too close, they look like data, and the energy learns little. If they
#   are too far, they are easy to tell apart, and the energy does not learn fine details.
# - `num_samples` is $M$. It does not change the minimum. More copies make a step slower and less
#   noisy.
#
# These are copies for three variances.

# %%
VARIANCES = (0.003, 0.1, 3.0)
noise = random.normal(random.key(SEED), (1000, 2))

figure, axes = plt.subplots(1, 3, figsize=(10, 3.7))
for ax, variance in zip(axes, VARIANCES, strict=True):
    title, copies = f"variance {variance}", data[:1000] + math.sqrt(2 * variance) * noise
    plot_points(ax, copies, LIMIT, title, color="C1", label="copies")
    plot_points(ax, data[:1000], LIMIT, title, color="C0", label="data")
axes[0].legend(loc="upper left", markerscale=4)
show("01_copies")

# %% [markdown]
# ## Training
#
# `EnergyELBO` turns an objective into a loss for `SVI`. The loss that `SVI` returns also contains a
# rough estimate of $\log Z$; we do not need it, and `num_normalizer_samples=0` leaves it out. The
# learning rate falls to zero along half a cosine. `MetricsRecorder` records the objective, and a
# few diagnostics, every 30 steps. After training, `site_distribution` takes the trained density
# out of the model.
#
# We train with each of the three variances, and once more with the middle one and a constant
# learning rate.


# %%
def train(variance, falling=True):
    """Return the trained density, and metrics of its training."""
    model = make_model(mlp(random.key(SEED)))
    rate = optax.cosine_decay_schedule(3e-3, NUM_STEPS) if falling else 3e-3
    objective = ebm.EnergyDiscrepancy(variance=variance, num_samples=NUM_COPIES)
    loss = ebm.EnergyELBO(objective, num_normalizer_samples=0)
    svi = SVI(model, guide, optax.adam(rate), loss)
    recorder = ebm.MetricsRecorder(svi, every=min(30, NUM_STEPS))
    state, update = svi.init(random.key(SEED), data), jax.jit(svi.update)
    for _ in range(NUM_STEPS):
        state, _ = update(state, data)
        recorder(state, data)
    params = svi.get_params(state)
    return ebm.site_distribution(model, "x", params=params)(data), recorder


runs = {f"variance {variance}": train(variance) for variance in VARIANCES}
runs["constant rate"] = train(VARIANCES[1], falling=False)

# %% [markdown]
# ## Reading the loss
#
# Left: the loss for each variance; the dashed line is the loss of guessing. With the smallest
# variance it hardly leaves that line: data and copies are too similar to learn much from. Do not
# conclude that the largest variance is the best because its loss is the lowest. Its classification
# is the easiest. **Losses only compare runs with the same settings.**
#
# Right: the energy gap, the mean potential $U$ of the copies minus that of the data. It must become
# positive and level off. If it keeps growing, the energy is running away.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8))
for variance in VARIANCES:
    _, recorder = runs[f"variance {variance}"]
    for ax, name in zip(axes, ("objective", "energy_gap"), strict=True):
        ax.plot(recorder.steps, recorder.metrics["x"][name], label=f"variance {variance}")
axes[0].axhline(math.log(1 + 1 / NUM_COPIES), color="black", ls="--", label="a guess")
axes[0].set(title="loss", xlabel="step", ylabel="nats")
axes[0].legend(loc=(0.6, 0.18), fontsize="small")
axes[1].set(title="energy gap", xlabel="step", ylabel="nats", yscale="symlog")
show("01_metrics")

# %% [markdown]
# ## Which run is the best?
#
# In two dimensions $Z$ can be computed on a grid. With it, `log_density` gives the log-density of
# held-out points, which does compare runs. (In more dimensions `log_normalizer` estimates $Z$ by
# annealing, with bounds; see the third tutorial.) The true density of this toy is known: its mean
# log-density is the best that any model can reach on average.

# %%
scores = {"truth": spirals.log_density(validation).mean()}
print(f"{'':18}{'loss':>8}{'log p(x), validation points':>30}")
for name, (density, recorder) in runs.items():
    log_z = ebm.log_normalizer(random.key(SEED), density, method="grid")
    scores[name] = float(ebm.log_density(density, validation, log_z).estimate.mean())
    print(f"{name:18}{float(recorder.metrics['x']['objective'][-1]):8.3f}{scores[name]:30.3f}")
print(f"{'truth':18}{'':8}{scores['truth']:30.3f}")

# %% [markdown]
# The smallest variance is far behind. The middle one is the best of the three, although its loss is
# not the lowest. With a constant rate the weights keep moving around the minimum, so the result
# depends on when you stop. A falling rate lets them settle.
#
# To start, choose a standard deviation, $\sqrt{\text{variance}}$, of the size of the details that
# you want to resolve, but larger than the noise of the data. If the data has separate modes, take a
# variance of 0.5 to 1 times their squared distance, or combine several, `variance=(0.1, 3.0)`. Then
# compare on validation points.
#
# ## The density

# %%
grid = plane(LIMIT)
figure, axes = plt.subplots(1, 4, figsize=(13, 3.6))
plot_points(axes[0], data, LIMIT, "data")
for ax, variance in zip(axes[1:], VARIANCES, strict=True):
    log_prob = runs[f"variance {variance}"][0].log_prob(grid)
    plot_density(ax, jnp.exp(log_prob - log_prob.max()), LIMIT, f"variance {variance}")
show("01_densities")

# %% [markdown]
# The smallest variance finds only pieces of the spirals. The largest finds the outer arms and blurs
# the center. The middle one resolves more than either.
#
# The trained density is a distribution of the host, with `log_prob` and `sample`. In the next
# tutorial an energy becomes the prior of a latent variable.
