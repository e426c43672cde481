"""Adapter of the tests to NumPyro; `pyro.py` has the same names."""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import lax, random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI

import pyro_ebm.numpyro as ebm
from helpers.hosts.training import Fit
from pyro_ebm.core.samplers.dynamics import TransitionInfo

# --- energies ---


class Bowl(eqx.Module):
    """E(x) = weight |x|^2 on any event shape."""

    weight: jax.Array = eqx.field(default=0.5, converter=jnp.asarray)

    def __call__(self, x):
        return self.weight * (x.reshape(len(x), -1) ** 2).sum(-1)


class Polynomial(eqx.Module):
    """E(x) = sum of coefficients[k] x^k, on numbers."""

    coefficients: jax.Array

    def __init__(self, *coefficients):
        self.coefficients = jnp.asarray(coefficients)

    def __call__(self, x):
        return jnp.stack([x**k for k in range(len(self.coefficients))], -1) @ self.coefficients


class MLP(eqx.Module):
    """Smooth energy with seeded weights; flattens events of ``num_coordinates`` numbers."""

    net: Callable

    def __init__(self, num_coordinates=2, num_hidden=16, seed=0):
        self.net = mlp(num_coordinates, num_hidden, 1, seed=seed)

    def __call__(self, x):
        return self.net(x.reshape(len(x), -1)).squeeze(-1)


class Network(eqx.Module):
    """Linear layers on rows with SiLU between them."""

    layers: list[eqx.nn.Linear]

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = jax.nn.silu(x @ layer.weight.T + layer.bias)
        return x @ self.layers[-1].weight.T + self.layers[-1].bias


def mlp(*sizes, seed=0):
    """Network on rows, with SiLU between layers of these sizes."""
    keys = random.split(random.key(seed), len(sizes) - 1)
    pairs = zip(sizes[:-1], sizes[1:], keys, strict=True)
    return Network([eqx.nn.Linear(before, after, key=key) for before, after, key in pairs])


# --- distributions, models, guides ---


def normal(shape=(2,), loc=0.0, scale=1.0):
    return dist.Normal(jnp.full(shape, loc), scale).to_event(len(shape))


def prior(energy, loc=0.0, scale=2.0, shape=(2,)):
    return ebm.EnergyBased(energy, normal(shape, loc, scale))


class Implicit(dist.Distribution):
    """Noise, moved and scaled, whose density is not known."""

    has_rsample = True
    is_implicit = True
    support = dist.constraints.real

    def __init__(self, loc=0.0, scale=1.0, noise=random.normal):
        super().__init__(validate_args=False)
        self.loc, self.scale, self.noise = loc, scale, noise

    def sample(self, key, sample_shape=()):
        return self.loc + self.scale * self.noise(key, sample_shape)


def latent_model(energy, make_prior=prior):
    """Model(x): z ~ make_prior(energy), x ~ N(z, 1), in a plate."""

    def model(x):
        registered = register("energy", energy)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", make_prior(registered))
            numpyro.sample("x", dist.Normal(z, 1.0).to_event(x.ndim - 1), obs=x)

    return model


def observed_model(energy, make_prior=prior):
    """Model(x): x ~ make_prior(energy), in a plate."""

    def model(x):
        registered = register("energy", energy)
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", make_prior(registered), obs=x)

    return model


def mean_field_guide(x):
    shift = numpyro.param("shift", jnp.zeros(x.shape[1:]))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(x + shift, 0.5).to_event(x.ndim - 1))


def empty_guide(*args, **kwargs):
    del args, kwargs


def attaching(site, guide=empty_guide, **learners):
    """The guide with learners attached to a site; modules are registered as ``site_name``."""

    def with_learners(*args, **kwargs):
        registered = {name: register(f"{site}_{name}", part) for name, part in learners.items()}
        ebm.attach(site, **registered)
        return guide(*args, **kwargs)

    return with_learners


def register(name, energy):
    """Registers the parameters of a module; gives back what to call."""
    return eqx_module(name, energy) if isinstance(energy, eqx.Module) else energy


# --- training ---


def fit(model, guide, loss, *args, num_steps=1, learning_rate=0.05, optimizer=None, **kwargs):
    """Trains with Adam, or with another optimizer, in one compiled loop."""
    svi = SVI(model, guide, optimizer or optax.adam(learning_rate), loss)

    def step(state, _):
        state, value = svi.update(state, *args, **kwargs)
        return state, (value, svi.get_params(state))

    @jax.jit
    def train():
        return lax.scan(step, svi.init(random.key(0), *args, **kwargs), length=num_steps)

    state, (losses, path) = train()
    return Fit(np.asarray(losses), flatten(path), state)


def flatten(params):
    """Leaves by name: ``energy.weight`` for a leaf of the parameter ``energy$params``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    names = [path[0].key + jax.tree_util.keystr(path[1:]) for path, _ in leaves]
    return {
        name.replace("$params", ""): np.asarray(leaf)
        for name, (_, leaf) in zip(names, leaves, strict=True)
    }


# --- stand-ins with exact answers ---


@dataclass(frozen=True)
class Walk:
    """Sampler without noise: a step of a fixed length, or, with None, to the potential there."""

    stride: float | None = 1.0
    target_accept_prob: float | None = None
    adapt_mass_matrix: bool = False

    def init(self, potential, position):
        return ebm.MALA(1.0).init(potential, position)

    def step(self, rng_key, potential, state):
        del rng_key
        position = state.potential if self.stride is None else state.position + self.stride
        sure = jnp.ones_like(state.potential)
        return state._replace(position=position), TransitionInfo(sure, sure < 0)
