"""Pyro, as the tests of models and inference see it; `numpyro.py` has the same names."""

import random
from contextlib import nullcontext
from functools import partial
from functools import partial as bind  # noqa: F401
from unittest.mock import patch

import arviz as az
import numpy as np
import pyro as ppl
import pyro.distributions as dist  # noqa: F401
import pytest
import torch as xp
from pyro import infer
from pyro.optim import SGD, Adam, PyroLRScheduler
from pyro.poutine import mask, replay, scale, trace  # noqa: F401
from torch.distributions import biject_to  # noqa: F401

import pyro_ebm.pyro as ebm  # noqa: F401
from helpers.hosts.pyro import (  # noqa: F401
    MLP,
    Bowl,
    Walk,
    attaching,
    empty_guide,
    fit,
    latent_model,
    mean_field_guide,
    mlp,
    normal,
    observed_model,
    prior,
    register,
)
from helpers.samplers.pyro import run_chains  # noqa: F401
from pyro_ebm.pyro.model import posterior as room

# Names in messages: of parameters in a closure, and of the way to freeze parameters.
HIDDEN, FREEZING, HOST = "a tensor of shape ()", "requires_grad_(False).eval()", "Pyro"

# To train a toy to its end with, and to go through a few steps with.
VECTORIZED = {"vectorize_particles": True, "max_plate_nesting": 1}
ENUMERATED = {"max_plate_nesting": 1, "strict_enumeration_warning": False}
ELBOS = {
    "Trace": infer.Trace_ELBO,
    "Trace x4 vectorized": partial(infer.Trace_ELBO, 4, **VECTORIZED),
    "TraceMeanField": infer.TraceMeanField_ELBO,
    "TraceGraph": infer.TraceGraph_ELBO,
    "TraceEnum": partial(infer.TraceEnum_ELBO, **ENUMERATED),
    "Renyi x2": partial(infer.RenyiELBO, 0.5, 2),
    "Renyi x4 vectorized": partial(infer.RenyiELBO, 0.5, 4, **VECTORIZED),
    "ReweightedWakeSleep x4": partial(infer.ReweightedWakeSleep, 4, max_plate_nesting=1),
}
STOCK = {
    "Trace": infer.Trace_ELBO,
    "Trace x3 in turn": partial(infer.Trace_ELBO, 3),
    "Trace x3": partial(infer.Trace_ELBO, 3, vectorize_particles=True),
    "TraceMeanField x2": partial(infer.TraceMeanField_ELBO, 2),
    "TraceGraph x2": partial(infer.TraceGraph_ELBO, 2),
    "TraceEnum": ELBOS["TraceEnum"],
    "Renyi x2": partial(infer.RenyiELBO, num_particles=2),
    "ReweightedWakeSleep x2": partial(infer.ReweightedWakeSleep, 2, max_plate_nesting=1),
}
# Those that need no density of the guide.
WITHOUT_WEIGHTS = ["Trace", "TraceMeanField", "TraceGraph", "TraceEnum"]


def array(values):
    """Array of the default precision; booleans stay booleans."""
    values = np.asarray(values)
    return xp.as_tensor(values, dtype=None if values.dtype == bool else xp.get_default_dtype())


def to_numpy(x):
    return x.detach().numpy().copy()


def jit(function):
    return function


def frozen(energy):
    """The energy with constant parameters."""
    return energy.requires_grad_(False).eval()


held = frozen


def with_weight(weight):
    """A bowl with a given weight."""
    return partial(xp.func.functional_call, Bowl(), {"weight": weight})


# --- posteriors and guides ---


def posterior(model, *args, **kwargs):
    return room.Posterior(model, args, kwargs)


def starts(posterior, num_chains):
    return posterior.starts(num_chains)


def traces(guide, model, *args):
    """Messages of a guide, and of the model replayed, by name."""
    guide_trace = trace(guide).get_trace(*args)
    model_trace = trace(replay(model, trace=guide_trace)).get_trace(*args)
    return dict(guide_trace.nodes), dict(model_trace.nodes)


def draws(guide, *args):
    """Values that a guide emits."""
    return {name: to_numpy(value) for name, value in guide(*args).items()}


def predict(model, guide, *args, params, num_samples):
    del params
    return infer.Predictive(model, guide=guide, num_samples=num_samples)(*args)


def prior_draws(model, **options):
    return infer.Predictive(model, **options)()


def guide_draws(guide, fitted, *args, num_samples):
    """Draws of site ``z`` of a fitted autoguide."""
    del fitted
    args = [array(value) for value in args]
    predictive = infer.Predictive(guide, num_samples=num_samples, parallel=True)
    return to_numpy(predictive(*args)["z"]).reshape(num_samples, -1)


def laplace(guide, fitted, *args):
    """Posterior of a fitted ``AutoLaplaceApproximation``."""
    del fitted
    args = [array(value) for value in args]
    return guide.laplace_approximation(*args).get_posterior(*args)


# --- training ---


def start_again():
    ppl.clear_param_store()
    ppl.set_rng_seed(0)


def global_state():
    """What Pyro and torch keep for the process."""
    store = {name: value.tolist() for name, value in ppl.get_param_store().named_parameters()}
    return store, xp.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())


def sgd(learning_rate):
    return SGD({"lr": learning_rate})


def adam_with_a_schedule(learning_rate, factor):
    """Adam, with a rate that falls by a factor after each step."""
    options = {"optimizer": xp.optim.Adam, "optim_args": {"lr": learning_rate}, "gamma": factor}
    return PyroLRScheduler(xp.optim.lr_scheduler.ExponentialLR, options)


def loss_and_gradients(loss, model, guide, *args):
    """Loss of fresh parameters, and gradients by name."""
    ppl.clear_param_store()
    ppl.set_rng_seed(3)
    value = loss.loss_and_grads(model, guide, *args)
    store = ppl.get_param_store()
    gradients = {name: store[name].unconstrained().grad for name in store}
    gradients = {n.replace("$$$", "."): to_numpy(g) for n, g in gradients.items() if g is not None}
    return value, gradients


def draws_of_loss(guide, *args):
    """Values and log-densities at site ``z`` of the guide in :func:`loss_and_gradients`."""
    ppl.set_rng_seed(3)
    site_trace = trace(guide).get_trace(*args)
    site_trace.compute_log_prob()
    logs = [site["log_prob"] for n, site in site_trace.nodes.items() if n in ("z", "z$init")]
    return to_numpy(site_trace.nodes["z"]["value"]), [to_numpy(log) for log in logs]


# Whether metrics are read outside of `jit`.
METRICS_ARE_KNOWN = True


class Training:
    """A training run, step by step."""

    is_compiled_once = True

    def __init__(self, model, guide, loss, optimizer=None):
        self.model, self.guide, self.loss = model, guide, loss
        self.svi = infer.SVI(model, guide, optimizer or Adam({"lr": 0.05}), loss)

    def fill(self, chains, values, *args):
        del args
        ppl.get_param_store()[chains] = array(values)

    def step(self, *args):
        loss = self.svi.step(*map(array, args))
        if isinstance(self.svi.optim, PyroLRScheduler):
            self.svi.optim.step()
        return loss

    first_step = step

    def evaluate(self, *args):
        return self.svi.evaluate_loss(*map(array, args))

    def metrics(self, *args, seed=0):
        ppl.set_rng_seed(seed)
        found = self.loss.metrics(self.model, self.guide, *map(array, args))
        assert not any(value.requires_grad for site in found.values() for value in site.values())
        return found

    def record(self, recorder, *args):
        recorder(*map(array, args))

    def param(self, name):
        return to_numpy(ppl.get_param_store()[name.replace(".", "$$$")])

    chains = param

    def save(self, path, step=0):
        ebm.save_checkpoint(path, {"svi": self.svi, "step": step})

    def load(self, path, *args):
        """Load into a run of the same model; return the number of the step."""
        self.step(*args)  # Makes parameters and chains.
        return ebm.load_checkpoint(path, {"svi": self.svi, "step": 0})["step"]


class ChainsInParts:
    """Chains that go on from part to part, each with a warm-up of its own."""

    def __init__(self, sampler, distribution):
        self.sampler, self.distribution, self.state = sampler, distribution, None

    def step(self, *args):
        del args
        init = {"num_chains": 3} if self.state is None else {"init": self.state}
        options = {"num_samples": 2, "num_warmup": 20, "check": False, "progress_bar": False}
        self.state = ebm.run_chains(self.sampler, self.distribution, **init, **options).state

    def save(self, path, step):
        ebm.save_checkpoint(path, {"chains": self.state, "step": step})

    def load(self, path, *args):
        """Load into chains of the same shape; return the number of the step."""
        self.step(*args)
        found = ebm.load_checkpoint(path, {"chains": self.state, "step": 0})
        self.state = found["chains"]
        return found["step"]


def advance(chains, distribution, values, seed=0):
    """All chains and those that moved."""
    ppl.set_rng_seed(seed)
    with xp.no_grad():
        after, moved = chains.advance(distribution, array(values))
        return to_numpy(after), to_numpy(moved.samples)


# --- MCMC ---

TWO_CHAINS = {}


def mcmc(kernel, *args, num_samples, num_warmup, num_chains=1, init_params=None, **options):
    """MCMC after its run, with chains in this process."""
    options |= {"num_chains": num_chains, "disable_progbar": True}
    if init_params is not None:
        options["initial_params"] = {name: array(at) for name, at in init_params.items()}
    warning = pytest.warns(UserWarning, match="drawn sequentially")
    with patch("torch.multiprocessing.cpu_count", lambda: 1):
        with warning if num_chains > 1 else nullcontext():
            run = infer.MCMC(kernel, num_samples, num_warmup, **options)
    run.run(*map(array, args))
    return run


def check_modes(mcmc, site, **options):
    return ebm.check_modes(mcmc, site, **options)


def print_summary(mcmc):
    mcmc.summary()


def stock_to_arviz(mcmc):
    return az.from_pyro(mcmc, log_likelihood=False)


def refused_gradient(latent="scale"):
    """Context in which the gradient of an unknown log-normalizer is refused."""
    del latent
    return pytest.raises(ValueError, match="doubly intractable")


refused_by_kernel = refused_gradient
