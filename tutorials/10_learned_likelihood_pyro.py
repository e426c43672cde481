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
# # A likelihood learned from a simulator
#
# A simulator makes data from parameters. Its likelihood is a sum over everything that may happen on
# the way, which usually cannot be computed. An energy can learn it from pairs of parameters and
# data. It is then a likelihood like any other: in a plate, in a hierarchy, under `NUTS`.
#
# Since it is an approximation, two checks follow: one of whether it is a likelihood, and one of its
# posteriors.

# %%
import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from _tutorial import BLUE, GREEN, VERMILLION, plt, printed_warnings, show, steps
from pyro.infer import MCMC, NUTS, SVI
from pyro.optim import CosineAnnealingLR
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm import plots

# %% [markdown]
# ## Epidemics in small towns
#
# In a town of 2,000, twenty are infected at first. A case infects $R$ others on average while the
# town is susceptible, and is infectious for five days on average; three cases in ten are reported.
# The data are reported cases in the first and in the second fortnight, as square roots, which evens
# out their noise. The parameter is standard normal: $\theta$, with $R = 2 e^{0.2\, \theta}$.


# %%
rng = np.random.default_rng(0)


def simulate(theta):
    rate = 0.2 * 2.0 * np.exp(0.2 * np.asarray(theta))  # infections per case and day
    infected = np.full(len(rate), 20)
    susceptible, reported = 2000 - infected, []
    for _ in range(28):
        new = rng.binomial(susceptible, 1 - np.exp(-rate * infected / 2000))
        recovered = rng.binomial(infected, 1 - np.exp(-0.2))
        susceptible, infected = susceptible - new, infected + new - recovered
        reported.append(rng.binomial(new, 0.3))
    fortnights = np.reshape(reported, (2, 14, -1)).sum(1)
    return np.sqrt(fortnights.T).astype(np.float32)


theta = rng.normal(size=20_000).astype(np.float32)
x = simulate(theta)

# %% [markdown]
# ## An energy of pairs
#
# A `Joint` base combines the *prior* of the parameter and a normal distribution of the data,
# independent of each other. The energy gets the two parts by position, and learns how they depend
# on each other. The parameters of the pairs are drawn from that prior. This is what makes log Z the
# same for every $\theta$, and the energy a likelihood.


# %%
prior = dist.Normal(0.0, 1.0)
loc, scale = torch.tensor(x.mean(0)), torch.tensor(x.std(0))
base = ebm.Joint(theta=prior, x=dist.Normal(loc, scale).to_event(1))


class Energy(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        layers = [nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]
        self.net = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, theta, x):
        standardized = (x - loc) / scale
        return self.net(torch.cat([theta[:, None], standardized], dim=-1))[:, 0]


def model(energy, pairs):
    pyro.module("energy", energy)
    joint = ebm.EnergyBased(energy, base)
    with pyro.plate("data", len(pairs), subsample_size=200) as batch:
        pyro.sample("pair", joint, obs=pairs[batch])


# %% [markdown]
# `NoiseContrastive` separates real pairs from draws of the base by logistic regression. It also
# learns the log-normalizer, a number that the guide attaches.


# %%
def guide(energy, pairs):
    ebm.attach("pair", log_normalizer=pyro.param("log_z", torch.zeros(())))


pyro.set_rng_seed(0)
pairs = base.join(theta=torch.tensor(theta), x=torch.tensor(x))
energy, num_steps = Energy(), steps(3000, fast=700)
adam = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 5e-3}, "T_max": num_steps}
scheduler = CosineAnnealingLR(adam)
svi = SVI(model, guide, scheduler, ebm.EnergyELBO(ebm.NoiseContrastive(num_samples=1024)))
for _ in range(num_steps):
    svi.step(energy, pairs)
    scheduler.step()
energy.requires_grad_(False).eval()
joint = ebm.EnergyBased(energy, base, sampler=ebm.Grid(num_intervals=256))

# %% [markdown]
# ## Looking at it
#
# `joint.conditional(theta=...)` is the distribution of the data given a parameter, up to a
# constant. Its contours should lie where the simulator puts its data.

# %%
lines = np.linspace(0, 22, 80), np.linspace(4, 21, 80)
grid = torch.tensor(np.stack(np.meshgrid(*lines), axis=-1)).float()
plt.figure(figsize=(6.5, 4))
for at, color in ((-1.5, BLUE), (0.0, VERMILLION), (1.5, GREEN)):
    points = simulate(np.full(300, at))
    label = f"R = {2 * np.exp(0.2 * at):.1f}, simulated"
    plt.plot(*points.T, "o", ms=3, mew=0, alpha=0.4, color=color, label=label)
    likelihood = joint.conditional(theta=torch.tensor(at))
    log_density = np.asarray(likelihood.log_prob(grid))
    below = log_density - log_density.max()
    # Half a squared distance of 1 and 2 standard deviations, were it normal.
    plt.contour(*lines, below, levels=[-2.0, -0.5], colors=color, linestyles="-")
plt.xlabel("root of cases, days 1 to 14")
plt.ylabel("root of cases, days 15 to 28")
plt.legend()
show("learned_likelihood")

# %% [markdown]
# ## One R for four towns
#
# Four towns report. They share the parameter, and each has its own epidemic: a plate, as for any
# likelihood.


# %%
def towns(x):
    theta = pyro.sample("theta", prior)
    with pyro.plate("towns", len(x)):
        pyro.sample("x", joint.conditional(theta=theta), obs=x)


TRUTH = 0.8
observed = torch.tensor(simulate(np.full(4, TRUTH)))
pyro.set_rng_seed(1)
mcmc = MCMC(
    NUTS(towns),
    num_samples=steps(500, fast=60),
    warmup_steps=steps(200, fast=40),
    disable_progbar=True,
)
mcmc.run(observed)
draws = mcmc.get_samples()["theta"]
print(az.summary(ebm.to_arviz(mcmc), kind="stats"))
print(f"truth: {TRUTH}")

# %% [markdown]
# ## Is it a likelihood?
#
# `conditional` assumes that log Z does not depend on $\theta$. `check_conditional` tests this at
# draws of the posterior: how much does log Z vary, and how far would that move posterior means? It
# warns above 0.1 standard deviations, and raises an error above 0.5. With four towns log Z counts
# four times. Use draws of the posterior, not of the prior: for extreme parameters few draws of the
# base count, and the spread may be *unknown*. We use 16,000 draws of the base, so that their error
# hardly matters.

# %%
check = ebm.check_conditional(
    joint, num_observations=len(observed), num_samples=steps(16_000, fast=1000)
)
with printed_warnings():
    found = check(theta=draws)
print(found)

# %% [markdown]
# ## Are the posteriors right?
#
# Draw a parameter from the prior, simulate data from it, and rank it among draws of its posterior.
# If posteriors are right, the ranks are uniform. `simulation_based_calibration` does this for many
# simulations at once. The sampler of `joint` draws from the posteriors, here on a grid, since the
# parameter is one number.


# %%
def simulator(theta):
    return torch.tensor(simulate(theta))


calibration = ebm.simulation_based_calibration(
    prior, simulator, joint, num_simulations=steps(200, fast=20), batch_size=20
)
print(f"p-value of uniform ranks: {calibration.p_values.item():.2f}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
left.hist(2 * np.exp(0.2 * np.asarray(draws)), bins=25, density=True, color=BLUE, alpha=0.5)
left.axvline(2 * np.exp(0.2 * TRUTH), color="black", ls=":", label="truth")
left.set(xlabel="R", ylabel="density", title="posterior from four towns")
left.legend()
plots.plot_ranks(calibration, ax=right)
right.set_title("calibration, one town each")
show("calibration")

# %% [markdown]
# If posteriors are right, the ranks lie within the band, with a p-value that is not small. If not,
# use more pairs, more steps, or a base that is closer to the data. The same likelihood also works
# in a hierarchy, where each group has its own parameter: `tests/evidence/experiments/hierarchy.py`
# has 48 groups, and compares with exact posteriors.

# %% [markdown]
# ## Draws and evidence in one run
#
# Given the data, minus the log-likelihood is an energy on the prior, and its density is the
# posterior. `run_smc` draws from it, also if it has several modes. Its log Z is the *evidence*
# $\log p(x)$, by which you can compare two simulators of the same data. For this the likelihood has
# to be normalized, by the log Z of the pairs. The draws agree with those of `NUTS`.


# %%
likelihood = joint.normalized(ebm.log_normalizer(joint))


def minus_log_likelihood(theta):
    return -likelihood.conditional(theta=theta[:, None]).log_prob(observed).sum(-1)


posterior = ebm.EnergyBased(minus_log_likelihood, prior)
by_smc = ebm.run_smc(ebm.SMC(), posterior, num_samples=steps(2000, fast=200))
for name, found_draws in {"NUTS": draws, "SMC": by_smc.samples}.items():
    print(f"{name}: theta = {found_draws.mean():.2f} ± {found_draws.std():.2f}")
print(f"log p(x) = {by_smc.log_normalizer:.2f}")
