"""Adapter of the tests to Pyro; `numpyro.py` has the same names."""

from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm
from helpers.hosts.training import Fit
from pyro_ebm.core.samplers.dynamics import TransitionInfo

# --- energies ---


class Bowl(nn.Module):
    """E(x) = weight |x|^2 on any event shape."""

    def __init__(self, weight=0.5):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return self.weight * x.reshape(len(x), -1).square().sum(-1)


class Polynomial(nn.Module):
    """E(x) = sum of coefficients[k] x^k, on numbers."""

    def __init__(self, *coefficients):
        super().__init__()
        self.coefficients = nn.Parameter(torch.tensor(coefficients))

    def forward(self, x):
        return torch.stack([x**k for k in range(len(self.coefficients))], -1) @ self.coefficients


class MLP(nn.Module):
    """Smooth energy with seeded weights; flattens events of ``num_coordinates`` numbers."""

    def __init__(self, num_coordinates=2, num_hidden=16, seed=0):
        super().__init__()
        self.net = mlp(num_coordinates, num_hidden, 1, seed=seed)

    def forward(self, x):
        return self.net(x.reshape(len(x), -1)).squeeze(-1)


def mlp(*sizes, seed=0):
    """Network on rows, with SiLU between layers of these sizes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(*pair) for pair in zip(sizes[:-1], sizes[1:], strict=True)]
    hidden = [part for layer in layers[:-1] for part in (layer, nn.SiLU())]
    return nn.Sequential(*hidden, layers[-1])


# --- distributions, models, guides ---


def normal(shape=(2,), loc=0.0, scale=1.0):
    return dist.Normal(torch.full(shape, loc), scale).to_event(len(shape))


def prior(energy, loc=0.0, scale=2.0, shape=(2,)):
    return ebm.EnergyBased(energy, normal(shape, loc, scale))


class Implicit(dist.TorchDistribution):
    """Noise, moved and scaled, whose density is not known."""

    arg_constraints = {}
    has_rsample = True
    is_implicit = True
    support = dist.constraints.real

    def __init__(self, loc=0.0, scale=1.0, noise=torch.randn):
        super().__init__(validate_args=False)
        self.loc, self.scale, self.noise = loc, scale, noise

    def rsample(self, sample_shape=()):
        return self.loc + self.scale * self.noise(sample_shape)


def latent_model(energy, make_prior=prior):
    """Model(x): z ~ make_prior(energy), x ~ N(z, 1), in a plate."""

    def model(x):
        register("energy", energy)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", make_prior(energy))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(x.ndim - 1), obs=x)

    return model


def observed_model(energy, make_prior=prior):
    """Model(x): x ~ make_prior(energy), in a plate."""

    def model(x):
        register("energy", energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", make_prior(energy), obs=x)

    return model


def mean_field_guide(x):
    shift = pyro.param("shift", torch.zeros(x.shape[1:]))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x + shift, 0.5).to_event(x.ndim - 1))


def empty_guide(*args, **kwargs):
    del args, kwargs


def attaching(site, guide=empty_guide, **learners):
    """The guide with learners attached to a site."""

    def with_learners(*args, **kwargs):
        ebm.attach(site, **learners)
        return guide(*args, **kwargs)

    return with_learners


def register(name, energy):
    """Registers the parameters of a module; gives back what to call."""
    if isinstance(energy, nn.Module):
        return pyro.module(name, energy, update_module_params=True)
    return energy


# --- training ---


def fit(model, guide, loss, *args, num_steps=1, learning_rate=0.05, optimizer=None, **kwargs):
    """Trains with Adam, or with another optimizer."""
    svi = SVI(model, guide, optimizer or Adam({"lr": learning_rate}), loss)
    losses, path = [], []
    for _ in range(num_steps):
        losses.append(svi.step(*args, **kwargs))
        path.append(parameters())
    return Fit(np.array(losses), {name: np.stack([at[name] for at in path]) for name in path[-1]})


def parameters():
    """Present values in the parameter store."""
    items = pyro.get_param_store().items()
    return {name.replace("$$$", "."): value.detach().clone().numpy() for name, value in items}


# --- stand-ins with exact answers ---


@dataclass(frozen=True)
class Walk:
    """Sampler without noise: a step of a fixed length, or, with None, to the potential there."""

    stride: float | None = 1.0
    target_accept_prob: float | None = None
    adapt_mass_matrix: bool = False

    def init(self, potential, position):
        return ebm.MALA(1.0).init(potential, position)

    def step(self, potential, state):
        position = state.potential if self.stride is None else state.position + self.stride
        sure = torch.ones_like(state.potential)
        return state._replace(position=position), TransitionInfo(sure, sure < 0)
