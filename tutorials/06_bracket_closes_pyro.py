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
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from _tutorial import plt, show, steps
from pyro.infer import SVI
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm

SEED, BATCH_SIZE = 0, 128
NUM_LOOKS, STEPS_BETWEEN = steps(20, fast=2), steps(40, fast=5)

gamma = np.random.default_rng(SEED).gamma(2.5, size=(5000, 1))
data = torch.as_tensor(np.log(gamma), dtype=torch.float32)

# %% [markdown]
# ## An energy and a generator
#
# The energy is convex for all values of its parameters; we need this for the upper bound below. The
# generator is increasing, so it makes every value in exactly one way. Otherwise the lower bound
# would not hold. It starts in the wrong place, and too wide.


# %%
class Energy(nn.Module):
    """The function a x^2 / 2 + b x^4 / 4 - c x with positive a and b."""

    def __init__(self):
        super().__init__()
        self.log_a, self.log_b = nn.Parameter(torch.tensor(-1.0)), nn.Parameter(torch.tensor(-2.0))
        self.c = nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        quartic = self.log_a.exp() * x**2 / 2 + self.log_b.exp() * x**4 / 4
        return (quartic - self.c * x).sum(-1)


class Generator(nn.Module):
    """A line with two bends."""

    def __init__(self):
        super().__init__()
        self.location = nn.Parameter(torch.tensor(-1.5))
        self.log_scale = nn.Parameter(torch.tensor(0.5))
        self.log_heights = nn.Parameter(torch.tensor([-2.0, -2.0]))

    def forward(self, z):
        bends = self.log_heights.exp() * torch.tanh(z - torch.tensor([-1.0, 1.0]))
        return self.location + self.log_scale.exp() * z + bends.sum(-1, keepdim=True)


energy, generator = Energy(), Generator()
latent = dist.Normal(torch.zeros(1), 1.0).to_event(1)


def model(x):
    pyro.module("energy", energy)
    base = dist.Normal(torch.zeros(1), 3.0).to_event(1)
    with pyro.plate("data", len(x), subsample_size=BATCH_SIZE) as batch:
        pyro.sample("x", ebm.EnergyBased(energy, base), obs=x[batch])


def guide(x):
    ebm.attach("x", generator=ebm.Pushforward(latent, generator))


# %% [markdown]
# ## The constant of the upper bound
#
# The log-Sobolev constant $\rho$ is at least the smallest curvature of $U(T(z)) - \log T'(z)$,
# which is minus the log-density of $z$ under the energy. Here a convex energy keeps it positive.
# For a network, $\rho$ and therefore the upper bound are rarely known. In one dimension we can
# search for the smallest curvature on a line.


# %%
def derivative(y, z):
    return torch.autograd.grad(y.sum(), z, create_graph=True)[0]


def least_curvature(density, generator):
    z = torch.linspace(-5.0, 5.0, 1001)[:, None].requires_grad_()
    x = generator(z)
    curve = density.potential(x) - derivative(x, z)[:, 0].log()
    return float(derivative(derivative(curve, z), z).detach().min())


def look(density, generator):
    """Return log Z by a grid, and the two bounds."""
    truth = ebm.log_normalizer(density, method="grid")
    rho = least_curvature(density, generator)
    bounds = ebm.generator_bounds(
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
pyro.clear_param_store()
pyro.set_rng_seed(SEED)
adam = Adam({"lr": 1e-2, "betas": (0.0, 0.9)})
svi = SVI(model, guide, adam, ebm.EnergyELBO(ebm.BidirectionalBounds()))
density = ebm.site_distribution(model, "x")(data)

looks = [look(density, generator)]
for _ in range(NUM_LOOKS):
    for _ in range(STEPS_BETWEEN):
        svi.step(data)
    looks.append(look(density, generator))

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
line = torch.linspace(-4.0, 3.0, 400)[:, None]
log_z = ebm.log_normalizer(density, method="grid")
density_on_line = density.normalized(log_z).log_prob(line).exp().detach()
draws = ebm.Pushforward(latent, generator).sample((20_000,)).detach()

figure, ax = plt.subplots(figsize=(7, 4))
ax.hist(data[:, 0].numpy(), 60, density=True, color="0.8", label="data")
ax.hist(draws[:, 0].numpy(), 60, density=True, histtype="step", lw=1.5, label="generator")
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
    return -torch.logaddexp(-((x + 4.0) ** 2) / 2, -((x - 4.0) ** 2) / 2)


both = ebm.EnergyBased(two_modes, event_shape=())
left = ebm.Pushforward(dist.Normal(torch.zeros(()), 1.0), lambda z: z - 4.0)
bounds = ebm.generator_bounds(both, left)
whole = ebm.log_normalizer(both, method="grid").estimate
print(f"penalty {float(bounds.penalty):.4f}; by the generator, {bounds}")
print(f"log Z by a grid: {float(whole):.3f}, which is {float(whole - bounds.estimate):.3f} more")

# %% [markdown]
# So before you trust tight bounds, compare draws with data, and with the result of `log_normalizer`
# where the dimension allows it.
