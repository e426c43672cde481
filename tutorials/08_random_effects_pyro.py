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
# # Random effects whose law is not normal
#
# A hierarchical model gives each group its own effect, and all effects a common distribution. This
# is nearly always normal, for want of a better choice: effects are never observed, only the rows of
# their groups. If there are two kinds of groups, a normal distribution has to be wide enough for
# both, and describes neither.
#
# Here an energy is that distribution, which we call the *law* of the effects. It learns its shape
# from one set of groups. Then the host's `NUTS` analyses new groups under it, and ArviZ compares it
# with the normal law.

# %%
import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from _tutorial import BLUE, VERMILLION, plt, printed_warnings, show, steps
from pyro.infer import MCMC, NUTS, SVI
from pyro.optim import CosineAnnealingLR
from torch import nn
from torch.distributions import constraints

import pyro_ebm.pyro as ebm

# %% [markdown]
# ## Sensors from two factories
#
# A sensor measures a line, plus an offset of its own, plus noise. Two thirds of the offsets lie
# near -1.5, one third near 2, and it is not recorded which sensor came from where. We learn the law
# from 150 sensors, and then calibrate 30 others, with twenty rows each.

# %%
SLOPE, NOISE, NUM_ROWS = 0.8, 2.5, 20


def draw_sensors(num_sensors, seed):
    rng = np.random.default_rng(seed)
    offset = np.where(rng.random(num_sensors) < 2 / 3, -1.5, 2.0)
    offset = offset + 0.3 * rng.normal(size=num_sensors)
    sensor = np.repeat(np.arange(num_sensors), NUM_ROWS)
    x = rng.normal(size=len(sensor))
    y = offset[sensor] + SLOPE * x + NOISE * rng.normal(size=len(sensor))
    return offset, (torch.tensor(x).float(), torch.tensor(sensor), torch.tensor(y).float())


_, known = draw_sensors(150, seed=0)
truth, new = draw_sensors(30, seed=1)

# %% [markdown]
# ## Two laws, one model
#
# Each law is a module that returns a distribution: a normal one with two parameters, or an energy
# on a wide normal base.


# %%
class NormalLaw(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc, self.log_scale = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self):
        return dist.Normal(self.loc, self.log_scale.exp())


class EnergyLaw(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        layers = [nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]
        self.net = nn.Sequential(*layers, nn.Linear(width, 1))

    def energy(self, offset):
        return self.net(offset[:, None])[:, 0]

    def forward(self):
        return ebm.EnergyBased(self.energy, dist.Normal(0.0, 2.0))


def model(law, x, sensor, y):
    pyro.module("law", law)
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    noise = pyro.sample("noise", dist.LogNormal(0.0, 1.0))
    with pyro.plate("sensors", len(y) // NUM_ROWS):
        offset = pyro.sample("offset", law())
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(offset[sensor] + slope * x, noise), obs=y)


# %% [markdown]
# ## Learning the law
#
# The guide has a normal posterior for each effect, and point estimates of slope and noise. With the
# normal law `EnergyELBO` *is* the stock ELBO, to the last bit. With the energy it also trains the
# energy. An effect is a single number, so `MaximumLikelihood` is cheap: it estimates the normalizer
# from draws of the base.


# %%
def guide(law, x, sensor, y):
    num_sensors = len(y) // NUM_ROWS
    loc = pyro.param("loc", torch.zeros(num_sensors))
    scale = pyro.param("scale", torch.full((num_sensors,), 0.5), constraints.positive)
    slope = pyro.param("slope_at", torch.zeros(()))
    noise = pyro.param("noise_at", torch.ones(()), constraints.positive)
    pyro.sample("slope", dist.Delta(slope))
    pyro.sample("noise", dist.Delta(noise))
    with pyro.plate("sensors", num_sensors):
        pyro.sample("offset", dist.Normal(loc, scale))


def learn(law, num_steps):
    pyro.clear_param_store()
    adam = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.03}, "T_max": num_steps}
    scheduler = CosineAnnealingLR(adam)
    loss = ebm.EnergyELBO(ebm.MaximumLikelihood(num_samples=1000))
    svi = SVI(model, guide, scheduler, loss)
    for _ in range(num_steps):
        svi.step(law, *known)
        scheduler.step()
    return law.requires_grad_(False).eval()


pyro.set_rng_seed(0)
num_steps = steps(800, fast=50)
laws = {"normal": learn(NormalLaw(), num_steps), "energy": learn(EnergyLaw(), num_steps)}

# %% [markdown]
# `log_normalizer` integrates a one-dimensional density on a grid, and `normalized` divides by the
# result, so that we can compare it with others. Both laws are learned from noisy rows only. The
# energy finds the two factories nonetheless; the normal law has its peak where there are hardly
# any sensors.

# %%
log_z = ebm.log_normalizer(laws["energy"](), method="grid")
print(f"energy: {log_z}")
grid = torch.linspace(-4.0, 4.0, 401)
true_law = dist.MixtureSameFamily(
    dist.Categorical(torch.tensor([2 / 3, 1 / 3])), dist.Normal(torch.tensor([-1.5, 2.0]), 0.3)
)
log_densities = {
    "truth": true_law.log_prob(grid),
    "normal": laws["normal"]().log_prob(grid),
    "energy": laws["energy"]().normalized(log_z).log_prob(grid),
}
plt.figure(figsize=(6, 3.4))
styles = {"truth": ("0.5", "-"), "normal": (VERMILLION, "--"), "energy": (BLUE, "-")}
for name, log_density in log_densities.items():
    color, line = styles[name]
    plt.plot(grid, np.exp(np.asarray(log_density)), line, color=color, label=name)
plt.gca().set(xlabel="offset of a sensor", ylabel="density", title="law of the offsets")
plt.legend()
show("law_of_offsets")

# %% [markdown]
# ## New sensors
#
# Now slope, noise and the new offsets are unknown, and the laws are fixed. The log Z of the energy
# depends on none of the unknowns, so `NUTS` works without changes. `to_arviz` evaluates the
# log-likelihood of every row in the model, and `az.compare` ranks the laws by how well they predict
# a row that is left out: `elpd_loo` in nats over all rows, `dse` the standard error of the
# difference to the best.


# %%
def calibrate(law):
    pyro.set_rng_seed(1)
    mcmc = MCMC(
        NUTS(model, max_tree_depth=4),
        num_samples=steps(600, fast=60),
        warmup_steps=steps(150, fast=30),
        disable_progbar=True,
    )
    mcmc.run(law, *new)
    return ebm.to_arviz(mcmc, log_likelihood=True, dims={"offset": ["sensor"]})


posteriors = {name: calibrate(law) for name, law in laws.items()}
with printed_warnings():  # Where a row that is left out changes too much.
    comparison = az.compare(posteriors, ic="loo")
print(comparison[["rank", "elpd_loo", "elpd_diff", "dse"]].round(1))
draws = {name: az.extract(data)["offset"].values for name, data in posteriors.items()}
for name, offset in draws.items():
    error = np.sqrt(np.mean((offset.mean(1) - truth) ** 2))
    print(f"{name}: posterior means of offsets are off by {error:.2f} (root mean square)")

# %%
order = np.argsort(truth)
plt.figure(figsize=(9, 3.8))
plt.plot(truth[order], "_", color="black", ms=9, label="truth")
for name, marker, shift in (("normal", "s", -0.18), ("energy", "o", 0.18)):
    low, middle, high = np.quantile(draws[name], [0.05, 0.5, 0.95], axis=1)[:, order]
    color, place = styles[name][0], np.arange(len(order)) + shift
    plt.vlines(place, low, high, color=color, alpha=0.5)
    plt.plot(place, middle, marker, color=color, ms=4, label=f"{name}: median, 90% interval")
plt.gca().set(xlabel="sensor, sorted by its true offset", ylabel="offset")
plt.legend(fontsize="small")
show("offsets_of_new_sensors")

# %% [markdown]
# Under the normal law (squares), which allows everything in between, estimates scatter with their
# rows. Under the energy (dots) they are drawn towards their factory, and intervals are shorter,
# with good reason: the errors above are smaller too. The law was learned from other sensors than
# those used for the comparison. This matters: `az.loo` would be too optimistic about a law that was
# fitted to the rows it leaves out.
#
# The posterior also shows which factory a sensor came from. If the rows do not decide it, the
# answer is a probability.

# %%
from_second = (draws["energy"] > 0.25).mean(1)
settled = np.maximum(from_second, 1 - from_second) > 0.9
right = (from_second > 0.5) == (truth > 0.25)
print(f"settled to 90%: {settled.sum()} of {len(truth)} sensors, {right[settled].sum()} rightly")

# %% [markdown]
# A mixture of two normals would work as well, if you knew that there are two factories. The energy
# did not need to know.
