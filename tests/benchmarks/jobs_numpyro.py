"""Jobs on JAX: by hand, this package alone and in ``SVI``; all are compiled once."""

import math
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

    def __init__(self, num_dims, width):
        self.net = MLP(num_dims, width, width, 1)

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


# --- losses by hand ---


def gradient(energy, x):
    return jax.grad(lambda x: energy(x).sum())(x)


def langevin(key, energy, x, num_steps):
    def move(x, key):
        noise = (2 * at.LANGEVIN_STEP) ** 0.5 * random.normal(key, x.shape)
        return x - at.LANGEVIN_STEP * gradient(energy, x) + noise, None

    return lax.scan(move, x, random.split(key, num_steps))[0]


def energy_discrepancy(key, energy, x, num_samples, *, with_base=False):
    keys, scale = random.split(key), math.sqrt(at.VARIANCE)
    y = x + scale * random.normal(keys[0], x.shape)
    copies = y + scale * random.normal(keys[1], (num_samples, *x.shape))
    rows = jnp.concatenate([x[None], copies])
    potential = energy(rows.reshape(-1, x.shape[-1])).reshape(rows.shape[:2])
    if with_base:
        potential = potential + (rows**2).sum(-1) / 2
    return (jax.nn.logsumexp(potential[0] - potential, 0) - math.log(num_samples)).mean()


def contrastive_divergence(key, energy, x):
    both = energy(jnp.concatenate([x, lax.stop_gradient(langevin(key, energy, x, 10))]))
    return both[: len(x)].mean() - both[len(x) :].mean()


def sliced_score_matching(key, energy, x):
    signs = random.rademacher(key, x.shape, x.dtype)
    slope, products = jax.jvp(lambda x: gradient(energy, x), (x,), (signs,))
    return ((slope**2).sum(-1) / 2 - (products * signs).sum(-1)).mean()


def denoising_score_matching(key, energy, x):
    noise = random.normal(key, x.shape)
    slope = gradient(energy, x + 0.1 * noise)
    return ((slope - noise / 0.1) ** 2).sum(-1).mean() / 2


def exact_score_matching(key, energy, x):
    slope_of, units = partial(gradient, energy), jnp.eye(x.shape[1])
    along = [jax.jvp(slope_of, (x,), (jnp.broadcast_to(unit, x.shape),)) for unit in units]
    trace = sum(product[:, i] for i, (_, product) in enumerate(along))
    return ((along[0][0] ** 2).sum(-1) / 2 - trace).mean()


def kale(key, energy, x):
    energies = energy(jnp.concatenate([x, random.normal(key, (1000, x.shape[1]))]))
    partition = jax.nn.logsumexp(-energies[len(x) :]) - math.log(1000)
    return energies[: len(x)].mean() + partition


def tasks(size):
    """Tasks: name, loss by hand, objective and base."""
    ula, base = ebm.Langevin(at.LANGEVIN_STEP), normal(size.num_dims)
    for m in (4, 16, 64) if size is SMALL else (4, 16):
        objective = ebm.EnergyDiscrepancy(variance=at.VARIANCE, num_samples=m)
        yield (
            f"energy discrepancy, {m}",
            partial(energy_discrepancy, num_samples=m),
            objective,
            None,
        )
    cd = ebm.ContrastiveDivergence(sampler=ula, num_steps=10)
    yield "CD-10", contrastive_divergence, cd, None
    if size is SMALL:
        yield "score matching, exact", exact_score_matching, ebm.ScoreMatching(), None
    yield "score matching, sliced", sliced_score_matching, ebm.SlicedScoreMatching(), None
    denoising = ebm.DenoisingScoreMatching(0.01)
    yield "score matching, denoising", denoising_score_matching, denoising, None
    yield "KALE", kale, ebm.KALE(num_samples=1000), base
    yield "noise-contrastive", None, ebm.NoiseContrastive(num_samples=size.batch), base


# --- training ---


def trainer(loss, params):
    """Steps by hand that go on from each other: gradients and one Adam."""

    @jax.jit
    def update(key, params, state):
        key, now = random.split(key)
        value, gradients = jax.value_and_grad(loss, argnums=1)(now, params)
        updates, state = ADAM.update(gradients, state, params)
        return key, optax.apply_updates(params, updates), state, value

    state = [KEY, params, ADAM.init(params)]

    def step():
        *state[:], value = jax.block_until_ready(update(*state))

    return with_memory(step, update, state)


def ours_alone(size, objective, x, base=None):
    def loss(key, energy):
        shape = None if base else x.shape[1:]
        prior = ebm.EnergyBased(energy, base, event_shape=shape)
        return objective.loss(key, prior, x).value.mean()

    return trainer(loss, Energy(size.num_dims, size.width))


def by_hand(size, loss, x):
    return trainer(lambda key, energy: loss(key, energy, x), Energy(size.num_dims, size.width))


def updates_of(svi, *args):
    update, state = jax.jit(svi.update), [svi.init(KEY, *args)]

    def step():
        state[0], _ = jax.block_until_ready(update(state[0], *args))

    return with_memory(step, update, (state[0], *args))


def in_svi(size, objective, x, base=None):
    network = Energy(size.num_dims, size.width)

    def model(x):
        energy = eqx_module("energy", network)
        with numpyro.plate("data", len(x)):
            shape = None if base else x.shape[1:]
            numpyro.sample("x", ebm.EnergyBased(energy, base, event_shape=shape), obs=x)

    # Without a base there is no log-normalizer to report.
    loss = ebm.EnergyELBO(objective, **({} if base else {"num_normalizer_samples": 0}))
    return updates_of(SVI(model, lambda x: None, ADAM, loss), x)


def loss_jobs(size):
    x = jnp.asarray(at.values(size.batch, size.num_dims))
    for name, loss, objective, base in tasks(size):
        columns = {} if loss is None else {BY_HAND: partial(by_hand, size, loss, x)}
        columns[OURS] = partial(ours_alone, size, objective, x, base)
        columns[IN_SVI] = partial(in_svi, size, objective, x, base)
        yield Job("a training step", name, size.name, columns, quick=size is SMALL)
    bits = jnp.asarray(at.bits(size.batch, size.num_dims))
    objective = ebm.EnergyDiscrepancy(num_samples=16, perturbation=ebm.Uniform(1.0))
    settings = size, objective, bits, dist.Bernoulli(logits=jnp.zeros(size.num_dims)).to_event(1)
    columns = {OURS: partial(ours_alone, *settings), IN_SVI: partial(in_svi, *settings)}
    yield Job("a training step", "energy discrepancy of bits, 16", size.name, columns, quick=False)


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
