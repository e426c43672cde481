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
# # The bracket closes
#
# Maximum likelihood needs $\log Z$. *Bidirectional bounds* enclose it between two numbers that can
# be computed, and train an energy with them, without MCMC.
#
# A generator $T$ maps a latent variable $z \sim \eta$ to a value $x = T(z)$. With the potential
# $U = E - \log p_0$ and the log-ratio
#
# $$f(z) = -U(T(z)) - \log \eta(z) + \log |T'(z)|,$$
#
# Jensen's inequality gives the lower bound, and a log-Sobolev inequality the upper one:
#
# $$\mathbb E[f] \;\le\; \log Z \;\le\; \mathbb E[f] + \frac{R}{\rho}, \qquad
# R = \tfrac12\, \mathbb E\, |f'(z)|^2 .$$
#
# If the generator draws from the model, $f$ is constant, and both bounds are equal. So the
# generator is trained to raise the lower bound, and the energy is trained with it, with $R$ as a
# penalty. This tutorial follows the two bounds through a training run, in one dimension, where we
# can compute the true $\log Z$.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from _tutorial import plt, show, steps
from jax import random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI

import pyro_ebm.numpyro as ebm

SEED, BATCH_SIZE = 0, 128
NUM_LOOKS, STEPS_BETWEEN = steps(20, fast=2), steps(40, fast=5)

gamma = np.random.default_rng(SEED).gamma(2.5, size=(5000, 1))
data = jnp.asarray(np.log(gamma))

# %% [markdown]
# ## An energy and a generator
#
# The energy is convex for all values of its parameters; we need this for the upper bound below. The
# generator is increasing, so it makes every value in exactly one way. Otherwise the lower bound
# would not hold. It starts in the wrong place, and too wide.


# %%
class Energy(eqx.Module):
    """The function a x^2 / 2 + b x^4 / 4 - c x with positive a and b."""

    log_a: jax.Array
    log_b: jax.Array
    c: jax.Array

    def __call__(self, x):
        quartic = jnp.exp(self.log_a) * x**2 / 2 + jnp.exp(self.log_b) * x**4 / 4
        return (quartic - self.c * x).sum(-1)


class Generator(eqx.Module):
    """A line with two bends."""

    location: jax.Array
    log_scale: jax.Array
    log_heights: jax.Array

    def __call__(self, z):
        bends = jnp.exp(self.log_heights) * jnp.tanh(z - jnp.array([-1.0, 1.0]))
        return self.location + jnp.exp(self.log_scale) * z + bends.sum(-1, keepdims=True)


energy_net = Energy(jnp.array(-1.0), jnp.array(-2.0), jnp.array(0.0))
generator_net = Generator(jnp.array(-1.5), jnp.array(0.5), jnp.array([-2.0, -2.0]))
latent = dist.Normal(jnp.zeros(1), 1.0).to_event(1)


def model(x):
    energy = eqx_module("energy", energy_net)
    base = dist.Normal(jnp.zeros(1), 3.0).to_event(1)
    with numpyro.plate("data", len(x), subsample_size=BATCH_SIZE) as batch:
        numpyro.sample("x", ebm.EnergyBased(energy, base), obs=x[batch])


def guide(x):
    generator = eqx_module("generator", generator_net)
    ebm.attach("x", generator=ebm.Pushforward(latent, generator))


# %% [markdown]
# ## The constant of the upper bound
#
# The log-Sobolev constant $\rho$ is at least the smallest curvature of $U(T(z)) - \log T'(z)$,
# which is minus the log-density of $z$ under the energy. Here a convex energy keeps it positive.
# For a network, $\rho$ and therefore the upper bound are rarely known. In one dimension we can
# search for the smallest curvature on a line.


# %%
@jax.jit
def least_curvature(density, generator):
    def curve(z):
        x, slope = jax.jvp(lambda z: generator(z[None, None])[0, 0], (z,), (1.0,))
        return density.potential(x[None, None])[0] - jnp.log(slope)

    return jax.vmap(jax.grad(jax.grad(curve)))(jnp.linspace(-5.0, 5.0, 1001)).min()


def look(density, generator):
    """Return log Z by a grid, and the two bounds."""
    truth = ebm.log_normalizer(random.key(SEED), density, method="grid")
    rho = float(least_curvature(density, generator))
    bounds = ebm.generator_bounds(
        random.key(SEED),
        density,
        ebm.Pushforward(latent, generator),
        num_samples=10_000,
        log_sobolev_constant=rho if rho > 0 else None,
    )
    return float(truth.estimate), float(bounds.lower), float(bounds.upper)


# %% [markdown]
# ## Training
#
# `BidirectionalBounds` trains energy and generator in one step of `SVI`; the generator is attached
# in the guide. Adam without a first moment, `betas=(0.0, 0.9)`, makes the two circle each other
# less. Every few steps we record the bounds. `generator_bounds` widens each by two standard errors.

# %%
adam = optax.adam(1e-2, b1=0.0, b2=0.9)
svi = SVI(model, guide, adam, ebm.EnergyELBO(ebm.BidirectionalBounds()))
state, update = svi.init(random.key(SEED), data), jax.jit(svi.update)


def trained():
    """Return the present density and the present generator."""
    params = svi.get_params(state)
    density = ebm.site_distribution(model, "x", params=params)(data)
    return density, params["generator$params"]


looks = [look(*trained())]
for _ in range(NUM_LOOKS):
    for _ in range(STEPS_BETWEEN):
        state, _ = update(state, data)
    looks.append(look(*trained()))
density, generator = trained()

# %% [markdown]
# ## The bracket
#
# $\log Z$ changes during training, because the energy does. It stays between the bounds, and they
# come together: the generator becomes a sampler of the model. (While the constant $\rho$ is not
# positive, there is no upper bound.)

# %%
count, (truth, lower, upper) = STEPS_BETWEEN * np.arange(NUM_LOOKS + 1), np.array(looks).T
for index in (0, NUM_LOOKS // 4, NUM_LOOKS):
    bracket = f"[{lower[index]:7.3f}, {upper[index]:7.3f}]"
    print(f"step {count[index]:4}: log Z = {truth[index]:7.3f}, between the bounds {bracket}")

figure, axes = plt.subplots(1, 2, figsize=(11, 4))
axes[0].fill_between(count, lower, upper, alpha=0.3, label="between the bounds")
axes[0].plot(count, truth, color="black", label="log Z, by a grid")
middle, margin = truth[-1], 1.0 + np.ptp(truth)
axes[0].set(xlabel="step", ylabel="nats", ylim=(middle - margin, middle + margin))
axes[1].plot(count, truth - lower, label="log Z - lower bound")
axes[1].plot(count, upper - truth, ls="--", label="upper bound - log Z")
axes[1].set(xlabel="step", ylabel="nats", yscale="log")
for ax in axes:
    ax.legend()
show("06_bracket")

# %% [markdown]
# ## Model, generator and data
#
# At the end, draws of the generator follow the density of the energy, and both follow the data, as
# closely as an energy with three parameters can.

# %%
line = jnp.linspace(-4.0, 3.0, 400)[:, None]
log_z = ebm.log_normalizer(random.key(SEED), density, method="grid")
density_on_line = jnp.exp(density.normalized(log_z).log_prob(line))
draws = ebm.Pushforward(latent, generator).sample(random.key(SEED), (20_000,))

figure, ax = plt.subplots(figsize=(7, 4))
ax.hist(data[:, 0], 60, density=True, color="0.8", label="data")
ax.hist(draws[:, 0], 60, density=True, histtype="step", lw=1.5, label="generator")
ax.plot(line[:, 0], density_on_line, color="C1", label="density of the energy")
ax.set(xlabel="$x$", ylabel="density", xlim=(-4.0, 3.0))
ax.legend()
show("06_densities")

# %% [markdown]
# ## What the bracket does not see
#
# The penalty $R$ alone is not a bound, and a small $R$ proves nothing. Take an energy with two
# modes and a generator that covers one of them. Then $f$ is almost constant where the generator
# draws, $R$ is nearly zero, all weights count, and yet half of the mass is missing, $\log 2$ nats
# of $\log Z$. (For two distant modes the constant $\rho$ is tiny, so the upper bound with $R /
# \rho$ would still hold, if one knew $\rho$.)


# %%
def two_modes(x):
    return -jnp.logaddexp(-((x + 4.0) ** 2) / 2, -((x - 4.0) ** 2) / 2)


both = ebm.EnergyBased(two_modes, event_shape=())
left = ebm.Pushforward(dist.Normal(0.0, 1.0), lambda z: z - 4.0)
bounds = ebm.generator_bounds(random.key(SEED), both, left)
whole = ebm.log_normalizer(random.key(SEED), both, method="grid").estimate
print(f"penalty {float(bounds.penalty):.4f}; by the generator, {bounds}")
print(f"log Z by a grid: {float(whole):.3f}, which is {float(whole - bounds.estimate):.3f} more")

# %% [markdown]
# So before you trust tight bounds, compare draws with data, and with the result of `log_normalizer`
# where the dimension allows it.
