"""Pyro, as the tests of samplers and distributions see it; `numpyro.py` has the same names."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pyro as ppl
import pyro.distributions as dist  # noqa: F401
import torch as xp
from pyro.infer import MCMC, NUTS
from torch.distributions.transforms import AffineTransform  # noqa: F401

import pyro_ebm.pyro as ebm
from helpers.hosts.pyro import Bowl, fit, latent_model, mean_field_guide, normal  # noqa: F401
from helpers.targets import TARGETS
from pyro_ebm.pyro.distributions import importance
from pyro_ebm.pyro.distributions.energy_based import without_plates  # noqa: F401
from pyro_ebm.pyro.samplers import run, target
from pyro_ebm.pyro.samplers.target import Target  # noqa: F401

constraints = xp.distributions.constraints
biject_to = xp.distributions.biject_to


def array(values):
    """Array of the default precision."""
    return xp.as_tensor(np.asarray(values), dtype=xp.get_default_dtype())


def whole(x):
    """Numbers as integers."""
    return x.long()


def seeded(function):
    """The function with a seed, and results in NumPy where they are arrays."""

    def call(*args, seed=0, **options):
        ppl.set_rng_seed(seed)
        result = function(*args, **options)
        return to_numpy(result) if isinstance(result, xp.Tensor) else result

    return call


def to_numpy(x):
    return xp.as_tensor(x).detach().numpy().copy()


run_chains = seeded(partial(ebm.run_chains, progress_bar=False))
run_chains_with_a_bar = seeded(ebm.run_chains)
short_run = seeded(run.short_run)
move_values = seeded(run.move_values)
initial_values = seeded(target.initial_values)
importance_log_weights = seeded(importance.importance_log_weights)
run_smc = seeded(ebm.run_smc)
sample = seeded(lambda distribution, shape=(): distribution.sample(shape))
log_normalizer = seeded(ebm.log_normalizer)
loss = seeded(lambda objective, *args: objective.loss(*args).value)


def rsample(distribution, shape):
    """Draws with gradients."""
    ppl.set_rng_seed(0)
    return distribution.rsample(shape)


def step(sampler, potential, state):
    return sampler.step(potential, state)


def walk(sampler, name, position, num_steps, *, scaled=False, cooling=1.0, seed=0):
    """Last state, potentials after each step, and mean acceptance, from NumPy positions."""
    ppl.set_rng_seed(seed)

    def potential(x):
        return cooling * TARGETS[name].potential(x)

    state = sampler.init(potential, xp.as_tensor(position, dtype=xp.float32))
    if scaled:
        state = state._replace(scale=xp.linspace(1.2, 0.8, position.shape[-1]))
    potentials, rates = [], []
    for _ in range(num_steps):
        state, info = sampler.step(potential, state)
        potentials.append(TARGETS[name].potential(state.position))
        rates.append(info.acceptance_rate.mean())
    return state, xp.stack(potentials).numpy(), xp.stack(rates).mean().item()


def gradients(function, *arguments):
    """Gradients of a scalar function, zero where it depends on nothing."""
    leaves = [xp.nn.Parameter(array(argument)) for argument in arguments]
    found = xp.autograd.grad(function(*leaves), leaves, allow_unused=True, materialize_grads=True)
    return [to_numpy(gradient) for gradient in found]


def untrained():
    """Context in which gradients in frozen parameters are taken."""
    return nullcontext()


def nuts(distribution, *, num_samples, num_warmup):
    """An MCMC run on one site ``z``."""
    kernel = NUTS(lambda: ppl.sample("z", distribution))
    mcmc = MCMC(kernel, num_samples, num_warmup, disable_progbar=True)
    mcmc.run()
    return mcmc


def nuts_on_model(model, *args):
    MCMC(NUTS(model), 2, 1, disable_progbar=True).run(*args)
