"""NumPyro, as the tests of samplers and distributions see it; `pyro.py` has the same names."""

from functools import partial

import jax
import jax.numpy as xp
import numpy as np
import numpyro as ppl
import numpyro.distributions as dist  # noqa: F401
import pytest
from jax import random
from numpyro.distributions import biject_to, constraints  # noqa: F401
from numpyro.distributions.transforms import AffineTransform  # noqa: F401
from numpyro.infer import MCMC, NUTS

import pyro_ebm.numpyro as ebm
from helpers.hosts.numpyro import Bowl, fit, latent_model, mean_field_guide, normal  # noqa: F401
from helpers.targets import TARGETS
from pyro_ebm.numpyro.distributions import importance
from pyro_ebm.numpyro.distributions.energy_based import without_plates  # noqa: F401
from pyro_ebm.numpyro.samplers import run, target
from pyro_ebm.numpyro.samplers.target import Target  # noqa: F401


def array(values):
    """Array of the default precision."""
    return xp.asarray(np.asarray(values, float))


def whole(x):
    """Numbers as integers."""
    return x.astype(int)


def seeded(function):
    """The function with a seed in place of its key."""
    return lambda *args, seed=0, **options: function(random.key(seed), *args, **options)


to_numpy = np.asarray
run_chains = seeded(partial(ebm.run_chains, progress_bar=False))
run_chains_with_a_bar = seeded(ebm.run_chains)
short_run = seeded(run.short_run)
move_values = seeded(run.move_values)
initial_values = seeded(target.initial_values)
importance_log_weights = seeded(importance.importance_log_weights)
run_smc = seeded(ebm.run_smc)
sample = seeded(lambda key, distribution, shape=(): distribution.sample(key, shape))
log_normalizer = seeded(ebm.log_normalizer)


@seeded
def loss(key, objective, distribution, x):
    return jax.jit(lambda x: objective.loss(key, distribution, x).value)(x)


def rsample(distribution, shape):
    """Draws with gradients."""
    return distribution.rsample(random.key(0), shape)


def step(sampler, potential, state):
    return jax.jit(lambda state: sampler.step(random.key(0), potential, state))(state)


def walk(sampler, name, position, num_steps, *, scaled=False, cooling=1.0, seed=0):
    """Last state, potentials after each step, and mean acceptance, from NumPy positions."""
    dims = position.shape[-1]
    scale = xp.linspace(1.2, 0.8, dims) if scaled else xp.ones(dims)
    # As an array, so that another step size compiles nothing.
    step_size, key = xp.array(sampler.step_size), random.key(seed)
    state, potentials, rate = _walk(
        key, sampler, name, position, num_steps, step_size, scale, cooling
    )
    return state, np.asarray(potentials), float(rate)


@partial(jax.jit, static_argnames=("sampler", "name", "num_steps"))
def _walk(key, sampler, name, position, num_steps, step_size, scale, cooling):
    def potential(x):
        return cooling * TARGETS[name].potential(x)

    def step(state, key):
        state, info = sampler.step(key, potential, state)
        return state, (TARGETS[name].potential(state.position), info.acceptance_rate.mean())

    state = sampler.init(potential, position)._replace(step_size=step_size, scale=scale)
    state, (potentials, rates) = jax.lax.scan(step, state, random.split(key, num_steps))
    return state, potentials, rates.mean()


def gradients(function, *arguments):
    """Gradients of a scalar function."""
    leaves = [array(argument) for argument in arguments]
    return jax.jit(jax.grad(function, argnums=tuple(range(len(leaves)))))(*leaves)


def untrained():
    """Context in which gradients in frozen parameters are taken."""
    return pytest.warns(UserWarning, match="Nothing trains the parameters")


def nuts(distribution, *, num_samples, num_warmup):
    """An MCMC run on one site ``z``."""
    kernel = NUTS(lambda: ppl.sample("z", distribution))
    mcmc = MCMC(kernel, num_samples=num_samples, num_warmup=num_warmup, progress_bar=False)
    mcmc.run(random.key(0))
    return mcmc


def nuts_on_model(model, *args):
    MCMC(NUTS(model), num_warmup=1, num_samples=2, progress_bar=False).run(random.key(0), *args)
