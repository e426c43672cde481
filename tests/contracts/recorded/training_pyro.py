"""Objectives and steps of training with Pyro: losses, and gradients of all players."""

from functools import partial

import api_pyro as api
import pyro
import pyro.distributions as dist
import torch
from host_pyro import (
    Encoder,
    Gaussian,
    Number,
    Residual,
    Scalar,
    recorded,
    standard_normal,
)
from inputs import DATA, GAMES, MASK, SUBSAMPLE_SIZE, TRAINED
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO


def energy_prior(energy, base):
    """An energy-based distribution on a base of either kind."""
    if isinstance(base, Gaussian):
        return api.energy_based(energy, base())
    return api.energy_based(energy, api.pushforward(standard_normal(), base))


def learners_of(kind):
    """What a game needs beside energy and base, and how a guide declares it."""
    if kind is None:
        return {}, lambda: {}
    if kind == "critic":
        players = {"critic": Scalar(3)}
        return players, lambda: players
    if kind == "number":
        number = Number()
        return {"number": number}, lambda: {"log_normalizer": number.value}
    generator = Residual(4)
    if kind == "generator":
        source = api.pushforward(standard_normal(), generator)
        return {"generator": generator}, lambda: {"generator": source}
    encoder = Encoder(5)
    source = api.pushforward(standard_normal(), generator, noise_scale=0.4)
    learners = {"generator": source, "encoder": encoder}
    return {"generator": generator, "encoder": encoder}, lambda: learners


def register(players):
    for name, module in players.items():
        pyro.module(name, module)


def gradients(*players):
    parameters = [p for group in players for module in group.values() for p in module.parameters()]
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


def players_of(game):
    base = Gaussian() if game.base == "density" else Residual(2)
    return {"energy": Scalar(1), "base": base}


def play(game):
    """Losses of values, and gradients of their mean."""
    players = players_of(game)
    partners, learners = learners_of(game.learner)
    prior, x = energy_prior(**players), torch.tensor(DATA)
    losses = api.losses(game.objective(api), prior, x, **learners())
    losses.mean().backward()
    return [losses, *gradients(players, partners)]


def train(game):
    """What a step at an observed site reports, and its gradients."""
    players = players_of(game)
    partners, learners = learners_of(game.learner)

    def model(x):
        register(players)
        with pyro.plate("data", len(x)):
            pyro.sample("x", energy_prior(**players), obs=x)

    def guide(x):
        if game.learner is not None:
            register(partners)
            api.attach("x", **learners())

    elbo = api.energy_elbo(game.objective(api), Trace_ELBO(num_particles=1))
    loss = elbo.loss_and_grads(model, guide, torch.tensor(DATA))
    return [loss, *gradients(players, partners)]


for name, game in GAMES.items():
    recorded(partial(play, game), name)
for name in TRAINED:
    recorded(partial(train, GAMES[name]), f"{name}_step")


@recorded
def contrastive_divergence_persistent():
    """Losses, parameters and chains of two steps of SVI."""
    players = {"energy": Scalar(1), "base": Gaussian()}
    chains = api.persistent_chains(
        api.langevin(0.1), num_steps=3, num_chains=6, buffer_size=10, restart_probability=0.2
    )

    def model(x):
        register(players)
        with pyro.plate("data", len(x)):
            pyro.sample("x", energy_prior(**players), obs=x)

    def guide(x):
        api.attach("x", chains=chains)

    objective = api.contrastive_divergence(
        None, num_steps=None, start="base", num_samples=None, energy_penalty=0.1
    )
    loss = api.energy_elbo(objective, Trace_ELBO(num_particles=1))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss)
    losses = [svi.step(torch.tensor(DATA)) for _ in range(2)]
    parameters = [p for module in players.values() for p in module.parameters()]
    return [*losses, *parameters, api.values_of_chains("x")]


def latent_players():
    return {"energy": Scalar(1), "base": Gaussian(), "decoder": Residual(6)}


def observe(players, x):
    """A latent value for each point, and the point."""
    z = pyro.sample("z", energy_prior(players["energy"], players["base"]))
    pyro.sample("x", dist.Normal(players["decoder"](z), 0.5).to_event(1), obs=x)


def discrepancy_elbo(num_particles):
    objective = GAMES["energy_discrepancy"].objective(api)
    return api.energy_elbo(objective, Trace_ELBO(num_particles=num_particles))


@recorded
def latent_prior_subsampled_and_masked():
    players, partners = latent_players(), {"encoder": Encoder(5)}

    def rows(x):
        return pyro.plate("data", len(x), subsample_size=SUBSAMPLE_SIZE)

    def model(x):
        register(players)
        with rows(x) as index, poutine.mask(mask=torch.tensor(MASK)):
            observe(players, x[index])

    def guide(x):
        register(partners)
        with rows(x) as index, poutine.mask(mask=torch.tensor(MASK)):
            pyro.sample("z", partners["encoder"](x[index]))

    loss = discrepancy_elbo(2).loss_and_grads(model, guide, torch.tensor(DATA))
    return [loss, *gradients(players, partners)]


@recorded
def langevin_guide():
    """What it emits by itself, and a step where it starts from an amortised guide."""
    players, partners = latent_players(), {"encoder": Encoder(5)}

    def model(x):
        register(players)
        with pyro.plate("data", len(x)):
            observe(players, x)

    def init(x):
        register(partners)
        with pyro.plate("data", len(x)):
            pyro.sample("z", partners["encoder"](x))

    x = torch.tensor(DATA)
    alone = api.langevin_guide(model, api.langevin(0.02), num_steps=5)
    started = api.langevin_guide(model, api.langevin(0.03), num_steps=5, init=init)
    emitted = alone(x)["z"]
    loss = discrepancy_elbo(1).loss_and_grads(model, started, x)
    return [emitted, loss, *gradients(players, partners)]
