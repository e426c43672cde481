"""Objectives and steps of training with NumPyro: losses, and gradients of all players."""

from functools import partial

import api_numpyro as api
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from host_numpyro import (
    Encoder,
    Gaussian,
    Number,
    Residual,
    Scalar,
    recorded,
    standard_normal,
)
from inputs import DATA, GAMES, MASK, SUBSAMPLE_SIZE, TRAINED
from jax import random
from numpyro import handlers
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI, Trace_ELBO


def energy_prior(energy, base):
    """An energy-based distribution on a base of either kind."""
    if isinstance(base, Gaussian):
        return api.energy_based(energy, base())
    return api.energy_based(energy, api.pushforward(standard_normal(), base))


def partners_of(kind):
    """What a game needs beside energy and base."""
    makers = {
        None: {},
        "critic": {"critic": partial(Scalar, 3)},
        "number": {"number": Number},
        "generator": {"generator": partial(Residual, 4)},
        "encoder": {"generator": partial(Residual, 4), "encoder": partial(Encoder, 5)},
    }
    return {name: make() for name, make in makers[kind].items()}


def learners(critic=None, number=None, generator=None, encoder=None):
    """How a guide declares it."""
    if critic is not None:
        return {"critic": critic}
    if number is not None:
        return {"log_normalizer": number.value}
    if generator is None:
        return {}
    if encoder is None:
        return {"generator": api.pushforward(standard_normal(), generator)}
    source = api.pushforward(standard_normal(), generator, noise_scale=0.4)
    return {"generator": source, "encoder": encoder}


def register(players):
    return {name: eqx_module(name, module) for name, module in players.items()}


def players_of(game):
    base = Gaussian() if game.base == "density" else Residual(2)
    return {"energy": Scalar(1), "base": base}


def gradients(found, names):
    return [leaf for name in names for leaf in jax.tree.leaves(found[name])]


def step(rng_key, elbo, model, guide, players):
    """What a step reports, and the gradients of all players."""
    params = {f"{name}$params": module for name, module in players.items()}

    def loss(params):
        return elbo.loss(rng_key, params, model, guide, jnp.asarray(DATA))

    reported, found = jax.jit(jax.value_and_grad(loss))(params)
    return [reported, *gradients(found, params)]


def play(game, rng_key):
    """Losses of values, and gradients of their mean."""
    players, partners = players_of(game), partners_of(game.learner)
    objective = game.objective(api)

    def mean_loss(modules):
        prior = energy_prior(*(modules[name] for name in players))
        declared = learners(**{name: modules[name] for name in partners})
        losses = api.losses(rng_key, objective, prior, jnp.asarray(DATA), **declared)
        return losses.mean(), losses

    both = {**players, **partners}
    found, losses = jax.jit(jax.grad(mean_loss, has_aux=True))(both)
    return [losses, *gradients(found, both)]


def train(game, rng_key):
    """What a step at an observed site reports, and its gradients."""
    players, partners = players_of(game), partners_of(game.learner)

    def model(x):
        prior = energy_prior(**register(players))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", prior, obs=x)

    def guide(x):
        if partners:
            api.attach("x", **learners(**register(partners)))

    elbo = api.energy_elbo(game.objective(api), Trace_ELBO(num_particles=1))
    return step(rng_key, elbo, model, guide, {**players, **partners})


for name, game in GAMES.items():
    recorded(partial(play, game), name)
for name in TRAINED:
    recorded(partial(train, GAMES[name]), f"{name}_step")


@recorded
def contrastive_divergence_persistent(rng_key):
    """Losses, parameters and chains of two steps of SVI."""
    players = {"energy": Scalar(1), "base": Gaussian()}
    chains = api.persistent_chains(
        api.langevin(0.1), num_steps=3, num_chains=6, buffer_size=10, restart_probability=0.2
    )

    def model(x):
        prior = energy_prior(**register(players))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", prior, obs=x)

    def guide(x):
        api.attach("x", chains=chains)

    objective = api.contrastive_divergence(
        None, num_steps=None, start="base", num_samples=None, energy_penalty=0.1
    )
    loss = api.energy_elbo(objective, Trace_ELBO(num_particles=1))
    svi, x = SVI(model, guide, optax.adam(0.01), loss), jnp.asarray(DATA)
    update, losses, state = jax.jit(svi.update), [], svi.init(rng_key, x)
    for _ in range(2):
        state, value = update(state, x)
        losses.append(value)
    params = svi.get_params(state)
    parameters = [leaf for name in players for leaf in jax.tree.leaves(params[f"{name}$params"])]
    return [*losses, *parameters, api.values_of_chains(state, "x")]


def latent_players():
    return {"energy": Scalar(1), "base": Gaussian(), "decoder": Residual(6)}


def observe(energy, base, decoder, x):
    """A latent value for each point, and the point."""
    z = numpyro.sample("z", energy_prior(energy, base))
    numpyro.sample("x", dist.Normal(decoder(z), 0.5).to_event(1), obs=x)


def discrepancy_elbo(num_particles):
    objective = GAMES["energy_discrepancy"].objective(api)
    return api.energy_elbo(objective, Trace_ELBO(num_particles=num_particles))


@recorded
def latent_prior_subsampled_and_masked(rng_key):
    players, partners = latent_players(), {"encoder": Encoder(5)}

    def rows(x):
        return numpyro.plate("data", len(x), subsample_size=SUBSAMPLE_SIZE)

    def model(x):
        met = register(players)
        with rows(x) as index, handlers.mask(mask=jnp.asarray(MASK)):
            observe(**met, x=x[index])

    def guide(x):
        met = register(partners)
        with rows(x) as index, handlers.mask(mask=jnp.asarray(MASK)):
            numpyro.sample("z", met["encoder"](x[index]))

    return step(rng_key, discrepancy_elbo(2), model, guide, {**players, **partners})


@recorded
def langevin_guide(rng_key):
    """What it emits by itself, and a step where it starts from an amortised guide."""
    players, partners = latent_players(), {"encoder": Encoder(5)}

    def model(x):
        met = register(players)
        with numpyro.plate("data", len(x)):
            observe(**met, x=x)

    def init(x):
        met = register(partners)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", met["encoder"](x))

    alone = api.langevin_guide(model, api.langevin(0.02), num_steps=5)
    started = api.langevin_guide(model, api.langevin(0.03), num_steps=5, init=init)
    draw_key, step_key = random.split(rng_key)
    emitted = jax.jit(handlers.seed(alone, draw_key))(jnp.asarray(DATA))["z"]
    both = {**players, **partners}
    return [emitted, *step(step_key, discrepancy_elbo(1), model, started, both)]
