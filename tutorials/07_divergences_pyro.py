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
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from _tutorial import BLUE, VERMILLION, plt, show, steps
from pyro.infer import SVI
from pyro.optim import CosineAnnealingLR
from scipy.optimize import minimize
from torch import nn

import pyro_ebm.pyro as ebm

# %% [markdown]
# ## Data with two modes
#
# One value in five comes from the left mode. Training only sees draws; we use the true density at
# the end, to judge the result.

# %%
pyro.set_rng_seed(0)
truth = dist.MixtureSameFamily(
    dist.Categorical(torch.tensor([0.2, 0.8])),
    dist.Normal(torch.tensor([-1.8, 1.0]), torch.tensor([0.5, 0.7])),
)
data = truth.sample((20_000,))

# %% [markdown]
# ## A normal distribution as an energy
#
# The energy of a normal distribution has two parameters, and its draws are exact, so errors of a
# sampler cannot blur the comparison. It starts as the standard normal, which lies right in the gap.


# %%
class NormalEnergy(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc, self.log_scale = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return 0.5 * ((x - self.loc) / self.log_scale.exp()) ** 2

    def normal(self):
        return dist.Normal(self.loc, self.log_scale.exp())


class Critic(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        layers = [nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()]
        self.net = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, x):
        return self.net(x[:, None])[:, 0]


# %% [markdown]
# ## Energy and critic in one step
#
# The model contains the energy. The guide *attaches* what else training needs: the critic, and
# exact draws of the model as `chains` (without them, draws come from short chains). Log-ratios are
# clipped at $\pm 3$; otherwise a few values would dominate the gradient before the critic has
# learned anything.


# %%
def model(energy, critic, x):
    pyro.module("energy", energy)
    with pyro.plate("data", len(x), subsample_size=500) as batch:
        pyro.sample("x", ebm.EnergyBased(energy, event_shape=()), obs=x[batch])


def guide(energy, critic, x):
    pyro.module("critic", critic)
    ebm.attach("x", critic=critic, chains=energy.normal().sample((500,)))


def fit(f, num_steps):
    pyro.clear_param_store()
    pyro.set_rng_seed(1)
    energy, critic = NormalEnergy(), Critic()
    objective = ebm.FDivergence(f, log_ratio_bound=3.0)
    # The model has no base to report a log-normalizer from.
    loss = ebm.EnergyELBO(objective, num_normalizer_samples=0)
    adam = {"lr": 0.01, "betas": (0.5, 0.999)}
    cosine = {"optimizer": torch.optim.Adam, "optim_args": adam, "T_max": num_steps}
    scheduler = CosineAnnealingLR(cosine)
    svi = SVI(model, guide, scheduler, loss)
    for _ in range(num_steps):
        svi.step(energy, critic, data)
        scheduler.step()
    return energy.requires_grad_(False), critic.requires_grad_(False)


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
grid = torch.linspace(-6.0, 6.0, 1201)
log_p = truth.log_prob(grid).numpy()
FUNCTIONS = {
    "KL": lambda u: u * np.log(u),
    "Jensen-Shannon": lambda u: u * np.log(u) - (u + 1) * np.log((u + 1) / 2),
    "Hellinger": lambda u: (u**0.5 - 1) ** 2,
    "reverse KL": lambda u: -np.log(u),
}


def exact_fit(f):
    def divergence(parameters):
        loc, scale = parameters[0], np.exp(parameters[1])
        log_q = -0.5 * ((grid.numpy() - loc) / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi))
        ratio = np.exp(np.clip(log_p - log_q, -60.0, 60.0))
        return np.sum(np.exp(log_q) * f(ratio))

    loc, log_scale = minimize(divergence, [0.0, 0.0], method="Nelder-Mead").x
    return loc, np.exp(log_scale)


print(f"{'':16} mean (exact)    sd (exact)    in the gap  on the left mode")
for name, (energy, _) in fits.items():
    normal, (loc, scale) = energy.normal(), exact_fit(FUNCTIONS[name])
    below = [float(normal.cdf(torch.tensor(x))) for x in (-3.0, -1.2, -0.4)]
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
    left.plot(grid, energy.normal().log_prob(grid).exp(), styles[name], label=name)
left.set(xlabel="x", ylabel="density", xlim=(-6, 6), title="data, and four normal fits")
left.legend(fontsize="small")
for name, color in (("KL", BLUE), ("reverse KL", VERMILLION)):
    energy, critic = fits[name]
    exact = log_p - energy.normal().log_prob(grid).numpy()
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
