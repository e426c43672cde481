"""NumPyro, as the tests of models and inference see it; `pyro.py` has the same names."""

from contextlib import nullcontext
from functools import partial
from typing import Any

import arviz as az
import jax
import jax.numpy as xp
import numpy as np
import numpyro as ppl  # noqa: F401
import numpyro.distributions as dist  # noqa: F401
import optax
import pytest
from jax import lax, random
from jax.tree_util import Partial as bind  # noqa: N813, F401
from numpyro import infer
from numpyro.distributions import biject_to  # noqa: F401
from numpyro.handlers import mask, replay, scale, seed, substitute, trace  # noqa: F401

import pyro_ebm.numpyro as ebm  # noqa: F401
from helpers.hosts.numpyro import (  # noqa: F401
    MLP,
    Bowl,
    Walk,
    attaching,
    empty_guide,
    fit,
    flatten,
    latent_model,
    mean_field_guide,
    mlp,
    normal,
    observed_model,
    prior,
    register,
)
from helpers.samplers.numpyro import run_chains  # noqa: F401
from pyro_ebm.numpyro.model import posterior as room

KEY = random.key(0)
# Names in messages: of parameters in a closure, and of the way to freeze parameters.
HIDDEN, FREEZING, HOST = "energy.weight", "jax.device_get(energy)", "NumPyro"

# To train a toy to its end with, and to go through a few steps with.
ELBOS = {
    "Trace": infer.Trace_ELBO,
    "Trace x4 vectorized": partial(infer.Trace_ELBO, 4),
    "TraceMeanField": infer.TraceMeanField_ELBO,
    "TraceGraph": infer.TraceGraph_ELBO,
    "Renyi x2": partial(infer.RenyiELBO, alpha=0.5, num_particles=2),
    "Renyi x4 vectorized": partial(infer.RenyiELBO, alpha=0.5, num_particles=4),
}
STOCK = {
    "Trace": infer.Trace_ELBO,
    "Trace x3": partial(infer.Trace_ELBO, 3),
    "Trace x3 in turn": partial(infer.Trace_ELBO, 3, vectorize_particles=False),
    "TraceMeanField x2": partial(infer.TraceMeanField_ELBO, 2),
    "TraceGraph x2": partial(infer.TraceGraph_ELBO, 2),
    "Renyi x2": infer.RenyiELBO,
}
# Those that need no density of the guide.
WITHOUT_WEIGHTS = ["TraceMeanField", "TraceGraph"]


def array(values):
    """Array of the default precision; booleans stay booleans."""
    values = np.asarray(values)
    return xp.asarray(values if values.dtype == bool else values.astype(float))


to_numpy = np.asarray
jit = jax.jit
frozen, held = jax.device_get, lax.stop_gradient
with_weight = Bowl

# --- posteriors and guides ---


def posterior(model, *args, **kwargs):
    return room.Posterior(KEY, model, args, kwargs)


def starts(posterior, num_chains):
    return posterior.starts(random.key(1), num_chains)


def run_guide(guide, *args, key=KEY):
    return trace(seed(guide, key)).get_trace(*args)


def traces(guide, model, *args):
    """Messages of a guide, and of the model replayed, by name."""
    guide_trace = run_guide(guide, *args)
    return guide_trace, trace(replay(seed(model, 1), guide_trace)).get_trace(*args)


def draws(guide, *args):
    """Values that a guide emits, under jit."""

    @jax.jit
    def values():
        sites = run_guide(guide, *args).items()
        return {name: site["value"] for name, site in sites if site["type"] == "sample"}

    return values()


def predict(model, guide, *args, params, num_samples):
    predictive = infer.Predictive(model, guide=guide, params=params, num_samples=num_samples)
    return predictive(KEY, *args)


def prior_draws(model, **options):
    return infer.Predictive(model, **options)(KEY)


def guide_draws(guide, fitted, *args, num_samples):
    """Draws of site ``z`` of a fitted autoguide."""
    del args
    return np.asarray(guide.sample_posterior(KEY, fitted.params, sample_shape=(num_samples,))["z"])


def laplace(guide, fitted, *args):
    """Posterior of a fitted ``AutoLaplaceApproximation``."""
    del args
    return jax.jit(guide.get_posterior)(fitted.params)


# --- training ---


def start_again():
    """Nothing to do: a run has its own parameters and key."""


def global_state():
    """Nothing: a run has its own."""


def sgd(learning_rate):
    return optax.sgd(learning_rate)


def adam_with_a_schedule(learning_rate, factor):
    """Adam, with a rate that falls by a factor after each step."""
    return optax.adam(optax.exponential_decay(learning_rate, 1, factor))


def loss_and_gradients(loss, model, guide, *args):
    """Loss of fresh parameters, and gradients by name."""
    svi = infer.SVI(model, guide, optax.sgd(0.0), loss)
    function = jax.value_and_grad(
        lambda params: loss.loss(random.key(3), params, model, guide, *args)
    )
    value, gradients = jax.jit(lambda: function(svi.get_params(svi.init(KEY, *args))))()
    return float(value), flatten(gradients)


def draws_of_loss(guide, *args):
    """Values and log-densities at site ``z`` of the guide in :func:`loss_and_gradients`."""
    key = random.split(random.key(3))[1]

    @jax.jit
    def evaluate():
        site = run_guide(guide, *args, key=key)["z"]
        return site["value"], site["fn"].log_prob(site["value"])

    value, log_prob = map(np.asarray, evaluate())
    return value, [log_prob]


# Whether metrics are read outside of `jit`.
METRICS_ARE_KNOWN = False


class Training:
    """A training run, step by step."""

    def __init__(self, model, guide, loss, optimizer=None):
        self.model, self.guide, self.loss = model, guide, loss
        self.svi = infer.SVI(model, guide, optimizer or optax.adam(0.05), loss)
        self.state: Any = None
        self.update, self.evaluated = jax.jit(self.svi.update), jax.jit(self.svi.evaluate)
        self.read = jax.jit(lambda *given: loss.metrics(*given[:2], model, guide, *given[2:]))

    def init(self, *args):
        if self.state is None:
            self.state = jax.jit(self.svi.init)(KEY, *args)

    @property
    def is_compiled_once(self):
        return self.update._cache_size() == 1

    def fill(self, chains, values, *args):
        self.init(*map(array, args))
        self.state = self.state._replace(mutable_state={chains: array(values)})

    def step(self, *args):
        args = [array(value) for value in args]
        self.init(*args)
        state, loss = self.update(self.state, *args)
        # A scan needs this of its carry.
        assert jax.tree.map(xp.shape, state) == jax.tree.map(xp.shape, self.state)
        assert jax.tree.map(xp.result_type, state) == jax.tree.map(xp.result_type, self.state)
        self.state = state
        return float(loss)

    def evaluate(self, *args):
        return float(self.evaluated(self.state, *map(array, args)))

    def metrics(self, *args, seed=0):
        args = [array(value) for value in args]
        self.init(*args)
        params = self.svi.get_params(self.state) | (self.state.mutable_state or {})
        return self.read(random.key(seed), params, *args)

    def record(self, recorder, *args):
        recorder(self.state, *map(array, args))

    def first_step(self, *args):
        """Evaluate the loss outside of ``jit``, where numbers are known."""
        self.loss.loss(KEY, {}, self.model, self.guide, *map(array, args))

    def param(self, name):
        return flatten(self.svi.get_params(self.state))[name]

    def chains(self, name):
        (values,) = jax.tree.leaves(self.state.mutable_state[name])
        return np.asarray(values)

    def save(self, path, step=0):
        ebm.save_checkpoint(path, {"svi": self.state, "step": step})

    def load(self, path, *args):
        """Load into a run of the same model; return the number of the step."""
        self.init(*map(array, args))
        found = ebm.load_checkpoint(path, {"svi": self.state, "step": 0})
        self.state = found["svi"]
        return found["step"]


class ChainsInParts:
    """Chains that go on from part to part, each with a warm-up of its own."""

    def __init__(self, sampler, distribution):
        self.sampler, self.distribution = sampler, distribution
        self.key, self.state = KEY, None

    def step(self, *args):
        del args
        self.key, key = random.split(self.key)
        init = {"num_chains": 3} if self.state is None else {"init": self.state}
        options = {"num_samples": 2, "num_warmup": 20, "check": False, "progress_bar": False}
        self.state = ebm.run_chains(key, self.sampler, self.distribution, **init, **options).state

    def save(self, path, step):
        ebm.save_checkpoint(path, {"chains": self.state, "key": self.key, "step": step})

    def load(self, path, *args):
        """Load into chains of the same shape; return the number of the step."""
        self.step(*args)
        like = {"chains": self.state, "key": self.key, "step": 0}
        found = ebm.load_checkpoint(path, like)
        self.state, self.key = found["chains"], found["key"]
        return found["step"]


def advance(chains, distribution, values, seed=0):
    """All chains and those that moved."""
    after, moved = chains.advance(random.key(seed), distribution, array(values))
    return np.asarray(after), np.asarray(moved.samples)


# --- MCMC ---

TWO_CHAINS = {"num_chains": 2}


def mcmc(kernel, *args, init_params=None, **options):
    """MCMC after its run, with chains at once."""
    options = {"progress_bar": False, "chain_method": "vectorized"} | options
    start = None if init_params is None else {name: array(at) for name, at in init_params.items()}
    run = infer.MCMC(kernel, **options)
    run.run(KEY, *map(array, args), init_params=start)
    return run


def check_modes(mcmc, site, **options):
    return ebm.check_modes(KEY, mcmc, site, **options)


def print_summary(mcmc):
    mcmc.print_summary()


stock_to_arviz = az.from_numpyro


def refused_gradient(latent="scale"):
    """Context in which the gradient of an unknown log-normalizer is warned of."""
    match = rf"'{latent}'.*: .* doubly intractable"
    return pytest.warns(UserWarning, match=match)


# A kernel of ours has named the latent variable before, once.
refused_by_kernel = nullcontext
