"""NumPyro, as the tests of evidence see it; `pyro.py` has the same names."""

from functools import partial

import jax
import jax.numpy as xp
import numpy as np
import numpyro as ppl  # noqa: F401
import numpyro.distributions as dist
import optax
from jax import random
from jax.tree_util import Partial as bind  # noqa: N813, F401
from numpyro import infer
from numpyro.handlers import mask, scale, substitute  # noqa: F401

import pyro_ebm.numpyro as ebm
from helpers.hosts.numpyro import normal  # noqa: F401
from pyro_ebm.core.objectives.bidirectional_bounds import half_squared_norm
from pyro_ebm.numpyro.evidence import annealing
from pyro_ebm.numpyro.objectives.generator import VariationalGenerator

KEY = random.key(0)
log_normalizer = partial(ebm.log_normalizer, KEY)
generator_bounds = partial(ebm.generator_bounds, KEY)


def log_marginal(*args, **options):
    return partial(ebm.log_marginal(*args, **options), KEY)


def check_conditional(joint, *, theta=None, phi=None, seed=0, **options):
    draws = {"theta": theta, "phi": phi}
    given = {name: array(x) for name, x in draws.items() if x is not None}
    return ebm.check_conditional(joint, **options)(random.key(seed), **given)


def same_family(component):
    """Mixture of two components that are the same."""
    weights = dist.Categorical(xp.ones(2) / 2)
    return dist.MixtureSameFamily(weights, component.expand((*component.batch_shape, 2)))


def simulation_based_calibration(prior, noise, posterior, **options):
    def simulator(key, theta):
        return xp.zeros(()) if noise is None else theta + noise * random.normal(key, theta.shape)

    if not isinstance(posterior, ebm.EnergyBased):
        given = posterior
        posterior = lambda key, x: given(x)  # noqa: E731
    return ebm.simulation_based_calibration(KEY, prior, simulator, posterior, **options)


to_numpy = np.asarray


def array(values):
    """Array of the default precision."""
    return xp.asarray(np.asarray(values), float)


def whole(x):
    """Numbers as integers."""
    return x.astype(int)


def random_normal(*shape):
    return random.normal(KEY, shape)


def seed(number):
    """Nothing to do: the key is always the same."""


def resample(log_weights):
    return annealing.resample(KEY, log_weights)


def compared(distribution, generator, latent, entropy):
    """Log-ratios of latent values, and half squared norms of their slopes."""
    return tuple(map(np.asarray, _compared(distribution, generator, array(latent), entropy)))


@partial(jax.jit, static_argnames="entropy")
def _compared(distribution, generator, latent, entropy):
    generated = VariationalGenerator.of(KEY, distribution, generator, entropy=entropy)
    draws = generated.compare(distribution, latent)
    return draws.log_ratio, half_squared_norm(draws.ratio_gradient)


def fitted(toy):
    """Model and guide with the parameters that a toy starts with."""
    return [substitute(function, data=toy.start) for function in (toy.model, toy.guide)]


def autoguide(name, model, x, values):
    """Guide around these values of the latents."""
    start = infer.init_to_value(values=values)
    guide = getattr(infer.autoguide, name)(model, init_scale=0.7, init_loc_fn=start)
    svi = infer.SVI(model, guide, optax.sgd(0.0), infer.Trace_ELBO())
    return substitute(guide, data=svi.get_params(svi.init(KEY, x)))


def tied_guide(model, x):
    """Guide with one distribution over the latents of all data points."""

    def guide(x):
        joint = dist.Normal(x / 2, 0.8).to_event(1)
        z = ppl.sample("joint", joint, infer={"is_auxiliary": True})
        with ppl.plate("data", len(x)):
            ppl.sample("z", dist.Delta(z))

    return guide


class OnlySamples(dist.Normal):
    """A normal without a density."""

    def log_prob(self, value):
        raise NotImplementedError
