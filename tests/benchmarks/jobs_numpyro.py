"""Jobs on JAX: by hand, this package alone and in ``SVI``; all are compiled once."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
import problems as at
from harness import BY_HAND, DEVICE, IN_SVI, OURS, Job
from jax import lax, random
from losses_by_hand_jax import LOSSES, energy_discrepancy, persistent_contrastive_divergence
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI, Trace_ELBO
from problems import SMALL

import pyro_ebm.numpyro as ebm

PACKAGES = "jax", "numpyro", "optax", "blackjax"
KEY, ADAM = random.key(0), optax.adam(at.LEARNING_RATE)


def synchronize():
    """Do nothing: each run waits for its results."""


def peak(run):
    if DEVICE == "cpu":
        return run.memory()
    device = jax.devices()[0]
    before = device.memory_stats()["bytes_in_use"]
    run()
    return (device.memory_stats()["peak_bytes_in_use"] - before) / 2**20


class MLP(eqx.Module):
    layers: list

    def __init__(self, *sizes):
        self.layers = [(jnp.asarray(w), jnp.asarray(b)) for w, b in at.layers(*sizes)]

    def __call__(self, x):
        for weight, bias in self.layers[:-1]:
            x = jax.nn.silu(x @ weight.T + bias)
        weight, bias = self.layers[-1]
        return x @ weight.T + bias


class Energy(eqx.Module):
    """Perceptron plus ``|x|^2 / 8``."""

    net: MLP

    def __init__(self, num_dims, width, num_hidden=2):
        self.net = MLP(num_dims, *num_hidden * [width], 1)

    def __call__(self, x):
        return self.net(x)[..., 0] + (x**2).sum(-1) / 8.0


def normal(num_dims, scale=1.0):
    return dist.Normal(jnp.zeros(num_dims), scale).to_event(1)


def waits(function, *args):
    return with_memory(lambda: jax.block_until_ready(function(*args)), function, args)


def with_memory(run, jitted, args):
    """Let a run know what its compiled code needs: the process keeps what XLA frees."""

    def memory():
        found = jitted.lower(*args).compile().memory_analysis()
        return (found.temp_size_in_bytes + found.output_size_in_bytes) / 2**20

    run.memory = memory
    return run


def tasks(size):
    """Tasks: name, objective, base and the network that is attached, if any, with its role."""
    ula, base, d = ebm.Langevin(at.LANGEVIN_STEP), normal(size.num_dims), size.num_dims
    for m in (4, 16, 64) if size is SMALL else (4, 16):
        objective = ebm.EnergyDiscrepancy(variance=at.VARIANCE, num_samples=m)
        yield f"energy discrepancy, {m}", objective, None, {}
    cd = ebm.ContrastiveDivergence(sampler=ula, num_steps=10)
    yield "CD-10", cd, None, {}
    options = {"sampler": ula, "num_steps": 10}
    stored = ebm.PersistentChains(size.batch, (d,), buffer_size=8 * size.batch, **options)
    yield "PCD-10", cd, None, {"chains": stored}
    critic = {"critic": MLP(d, 128, 1)}
    yield "f-EBM", ebm.FDivergence("kl", num_samples=size.batch, **options), base, critic
    if size is SMALL:
        yield "bidirectional bounds", ebm.BidirectionalBounds(), None, {"generator": MLP(d, 128, d)}
        yield "score matching, exact", ebm.ScoreMatching(), None, {}
    yield "score matching, sliced", ebm.SlicedScoreMatching(), None, {}
    yield "score matching, denoising", ebm.DenoisingScoreMatching(0.01), None, {}
    yield "KALE", ebm.KALE(num_samples=1000), base, {}
    yield "noise-contrastive", ebm.NoiseContrastive(num_samples=size.batch), base, {}


def attached(role, network, num_dims):
    """What an objective takes: a critic with values ``(N,)``, a generator of a normal latent."""
    if role == "generator":
        return ebm.Pushforward(normal(num_dims), network)
    return (lambda x: network(x)[..., 0]) if role == "critic" else network


# --- training ---


def trainer(loss, params):
    """Steps by hand that go on from each other: gradients and one Adam."""

    @jax.jit
    def update(key, params, state):
        key, now = random.split(key)
        value, gradients = jax.value_and_grad(loss, argnums=1)(now, params)
        updates, state = ADAM.update(gradients, state, params)
        return key, optax.apply_updates(params, updates), state, value

    return going_on(update, [KEY, params, ADAM.init(params)])


def going_on(update, state):
    def step():
        *state[:], _ = jax.block_until_ready(update(*state))

    return with_memory(step, update, state)


def ours_alone(size, objective, x, base=None, **parts):
    def loss(key, networks):
        energy, others = networks
        shape = None if base else x.shape[1:]
        prior = ebm.EnergyBased(energy, base, event_shape=shape)
        given = {role: attached(role, net, size.num_dims) for role, net in others.items()}
        return objective.loss(key, prior, x, **given).value.mean()

    return trainer(loss, (Energy(*size.layers), parts))


def by_hand(size, loss, x, **parts):
    networks = Energy(*size.layers), *parts.values()
    one = len(networks) == 1
    return trainer(lambda key, networks: loss(key, networks[0] if one else networks, x), networks)


def persistent_by_hand(size, x):
    @jax.jit
    def update(key, params, state, stored):
        key, now = random.split(key)
        loss = jax.value_and_grad(persistent_contrastive_divergence, argnums=1, has_aux=True)
        (value, stored), gradients = loss(now, params, x, stored)
        updates, state = ADAM.update(gradients, state, params)
        return key, optax.apply_updates(params, updates), state, stored, value

    params = Energy(*size.layers)
    stored = random.normal(KEY, (8 * size.batch, size.num_dims))
    return going_on(update, [KEY, params, ADAM.init(params), stored])


def updates_of(svi, *args):
    update, state = jax.jit(svi.update), [svi.init(KEY, *args)]

    def step():
        state[0], _ = jax.block_until_ready(update(state[0], *args))

    return with_memory(step, update, (state[0], *args))


def in_svi(size, objective, x, base=None, **parts):
    network = Energy(*size.layers)

    def model(x):
        energy = eqx_module("energy", network)
        with numpyro.plate("data", len(x)):
            shape = None if base else x.shape[1:]
            numpyro.sample("x", ebm.EnergyBased(energy, base, event_shape=shape), obs=x)

    def guide(x):
        for role, part in parts.items():
            net = part if role == "chains" else eqx_module(role, part)
            ebm.attach("x", **{role: attached(role, net, size.num_dims)})

    # Without a base there is no log-normalizer to report.
    loss = ebm.EnergyELBO(objective, **({} if base else {"num_normalizer_samples": 0}))
    return updates_of(SVI(model, guide, ADAM, loss), x)


def loss_jobs(size):
    x = jnp.asarray(at.values(size.batch, size.num_dims))
    for name, objective, base, parts in tasks(size):
        if "chains" in parts:  # Ours live in the state of ``SVI``.
            columns = {BY_HAND: partial(persistent_by_hand, size, x)}
        else:
            columns = {
                BY_HAND: partial(by_hand, size, LOSSES[name], x, **parts),
                OURS: partial(ours_alone, size, objective, x, base, **parts),
            }
        columns[IN_SVI] = partial(in_svi, size, objective, x, base, **parts)
        yield Job("a training step", name, size.name, columns, quick=size is SMALL)
    yield bits_job(size)


def bits_job(size, num_samples=16):
    bits = jnp.asarray(at.bits(size.batch, size.num_dims))
    objective = ebm.EnergyDiscrepancy(num_samples=num_samples, perturbation=ebm.Uniform(1.0))
    settings = size, objective, bits, dist.Bernoulli(logits=jnp.zeros(size.num_dims)).to_event(1)
    columns = {
        BY_HAND: partial(by_hand, size, partial(LOSSES["bits"], num_samples=num_samples), bits),
        OURS: partial(ours_alone, *settings),
        IN_SVI: partial(in_svi, *settings),
    }
    name = f"energy discrepancy of bits, {num_samples}"
    return Job("a training step", name, size.name, columns, quick=False)


# --- a variational decoder of images, as in the tutorial ---


def digits_job():
    x = jnp.asarray(at.images())
    columns = {
        BY_HAND: lambda: trainer(partial(_digits_by_hand, x), _digit_networks()),
        "NumPyro, normal prior": lambda: digits_in_svi(x, is_normal=True),
        IN_SVI: lambda: digits_in_svi(x),
    }
    return Job("a training step", "SVI.update of a variational decoder", "16-128-128-1", columns)


def _digit_networks():
    latent, pixels = at.NUM_LATENTS, at.NUM_PIXELS
    return MLP(pixels, 256, 256, 2 * latent), MLP(latent, 256, 256, pixels), Energy(latent, 128)


def _digits_by_hand(x, key, networks):
    (encoder, decoder, energy), keys = networks, random.split(key)
    mean, log_scale = jnp.split(encoder(x), 2, -1)
    noise = random.normal(keys[0], mean.shape)
    z = mean + jnp.exp(log_scale) * noise
    log_q = -(noise**2 / 2 + log_scale).sum(-1)
    log_p = -((x - decoder(z)) ** 2 / (2 * 0.15**2)).sum(-1) - (z**2).sum(-1) / 2
    frozen = lax.stop_gradient(energy)(z)
    prior = energy_discrepancy(keys[1], energy, lax.stop_gradient(z), 16, with_base=True)
    return (log_q - log_p + frozen).sum() + len(x) * prior


def digits_in_svi(x, *, is_normal=False, num_particles=1):
    networks = _digit_networks()

    def model(x):
        decoder, base = eqx_module("decoder", networks[1]), normal(at.NUM_LATENTS)
        prior = base
        if not is_normal:
            prior = ebm.EnergyBased(eqx_module("energy", networks[2]), base)
        with numpyro.plate("images", len(x)):
            z = numpyro.sample("z", prior)
            numpyro.sample("x", dist.Normal(decoder(z), 0.15).to_event(1), obs=x)

    def guide(x):
        mean, log_scale = jnp.split(eqx_module("encoder", networks[0])(x), 2, -1)
        with numpyro.plate("images", len(x)):
            numpyro.sample("z", dist.Normal(mean, jnp.exp(log_scale)).to_event(1))

    objective = ebm.EnergyDiscrepancy(variance=at.VARIANCE, num_samples=16)
    elbo = Trace_ELBO(num_particles)
    loss = elbo if is_normal else ebm.EnergyELBO(objective, elbo)
    return updates_of(SVI(model, guide, ADAM, loss), x)
