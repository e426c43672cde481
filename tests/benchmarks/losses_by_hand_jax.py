"""Losses in bare JAX, as one would write them for one energy: the floor of each row."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import problems as at
from jax import lax, random


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
    return _discrepancy(energy, jnp.concatenate([x[None], copies]), with_base=with_base)


def energy_discrepancy_of_bits(key, energy, x, num_samples):
    """Every bit is drawn anew with probability 1 - 1/e, twice."""
    share, keys = 1 - math.exp(-1), random.split(key)

    def perturb(key, x, *shape):
        coins = random.uniform(key, (*shape, *x.shape))
        return jnp.where(coins < share / 2, 1 - x, x)

    copies = perturb(keys[1], perturb(keys[0], x), num_samples)
    return _discrepancy(energy, jnp.concatenate([x[None], copies]))


def _discrepancy(energy, rows, *, with_base=False):
    potential = energy(rows.reshape(-1, rows.shape[-1])).reshape(rows.shape[:2])
    if with_base:
        potential = potential + (rows**2).sum(-1) / 2
    return (jax.nn.logsumexp(potential[0] - potential, 0) - math.log(len(rows) - 1)).mean()


def contrastive_divergence(key, energy, x):
    both = energy(jnp.concatenate([x, lax.stop_gradient(langevin(key, energy, x, 10))]))
    return both[: len(x)].mean() - both[len(x) :].mean()


def persistent_contrastive_divergence(key, energy, x, stored):
    """Chains of a buffer, of which some are taken and put back."""
    keys = random.split(key)
    taken = random.permutation(keys[0], len(stored))[: len(x)]
    moved = lax.stop_gradient(langevin(keys[1], energy, stored[taken], 10))
    both = energy(jnp.concatenate([x, moved]))
    return both[: len(x)].mean() - both[len(x) :].mean(), stored.at[taken].set(moved)


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


def noise_contrastive(key, energy, x):
    energies = energy(jnp.concatenate([x, random.normal(key, x.shape)]))
    positive, negative = jnp.split(energies, 2)
    return jax.nn.softplus(positive).mean() + jax.nn.softplus(-negative).mean()


def f_ebm(key, networks, x, *, bound=20.0):
    """KL, on a standard normal base, with draws that start at the data."""
    energy, critic = networks

    def potential(x):
        return energy(x) + (x**2).sum(-1) / 2

    both = jnp.concatenate([x, lax.stop_gradient(langevin(key, potential, x, 10))])
    energies, critics = energy(both), critic(both)[..., 0]
    ratio = jnp.exp(lax.stop_gradient(energies + critics)[len(x) :].clip(-bound, bound))
    covariance = len(x) / (len(x) - 1) * (ratio - ratio.mean())
    potentials = jnp.split(energies + (both**2).sum(-1) / 2, 2)
    critics = jnp.split(critics, 2)
    of_energy = potentials[0] + (covariance - ratio) * potentials[1]
    return (of_energy - critics[0] + ratio * critics[1]).mean()


def bidirectional_bounds(key, networks, x):
    """The penalty's gradient goes through the energy alone; the Jacobian is square."""
    energy, generator = networks

    def log_det(z):
        units = [jnp.broadcast_to(unit, z.shape) for unit in jnp.eye(z.shape[1])]
        columns = [jax.jvp(generator, (z,), (unit,))[1] for unit in units]
        return jnp.linalg.slogdet(jnp.stack(columns, -1))[1]

    z = random.normal(key, x.shape)
    value, back = jax.vjp(generator, z)
    log_dets, back_of_log_det = jax.vjp(log_det, z)
    log_density_slope = back_of_log_det(jnp.ones(len(z)))[0] + z
    inside = lax.stop_gradient(value)
    potential = energy(inside)
    slope_of_energy = gradient(energy, inside)
    slope = lax.stop_gradient(log_density_slope) - lax.stop_gradient(back)(slope_of_energy)[0]
    generated = (lax.stop_gradient(slope_of_energy) * value).sum(-1) - log_dets
    return (energy(x) - potential + (slope**2).sum(-1) / 2 + generated).mean()


LOSSES = {
    **{f"energy discrepancy, {m}": partial(energy_discrepancy, num_samples=m) for m in (4, 16, 64)},
    "bits": energy_discrepancy_of_bits,
    "CD-10": contrastive_divergence,
    "score matching, exact": exact_score_matching,
    "score matching, sliced": sliced_score_matching,
    "score matching, denoising": denoising_score_matching,
    "KALE": kale,
    "noise-contrastive": noise_contrastive,
    "f-EBM": f_ebm,
    "bidirectional bounds": bidirectional_bounds,
}
