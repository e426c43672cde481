"""Pyro, as the tests of evidence see it; `numpyro.py` has the same names."""

from functools import partial as bind  # noqa: F401

import numpy as np
import pyro as ppl  # noqa: F401
import pyro.distributions as dist
import torch as xp
from pyro.infer import autoguide as autoguides
from pyro.infer.autoguide import AutoMultivariateNormal
from pyro.poutine import mask, scale  # noqa: F401

import pyro_ebm.pyro as ebm
from helpers.hosts.pyro import normal  # noqa: F401
from pyro_ebm.core.objectives.bidirectional_bounds import half_squared_norm
from pyro_ebm.pyro.evidence.annealing import resample  # noqa: F401
from pyro_ebm.pyro.objectives.generator import VariationalGenerator

log_normalizer, log_marginal = ebm.log_normalizer, ebm.log_marginal
generator_bounds = ebm.generator_bounds


def check_conditional(joint, *, theta=None, phi=None, seed=0, **options):
    """Result of the check, at draws of a part."""
    draws = {"theta": theta, "phi": phi}
    given = {name: array(x) for name, x in draws.items() if x is not None}
    ppl.set_rng_seed(seed)
    return ebm.check_conditional(joint, **options)(**given)


def same_family(component):
    """Mixture of two components that are the same."""
    weights = dist.Categorical(xp.ones(2) / 2)
    return dist.MixtureSameFamily(weights, component.expand((*component.batch_shape, 2)))


def simulation_based_calibration(prior, noise, posterior, **options):
    """With noise of a scale as the simulator, or with one number for all."""

    def simulator(theta):
        return xp.zeros(()) if noise is None else theta + noise * xp.randn(theta.shape)

    ppl.set_rng_seed(0)
    return ebm.simulation_based_calibration(prior, simulator, posterior, **options)


def to_numpy(x):
    return x.numpy()


def array(values):
    """Array of the default precision."""
    return xp.as_tensor(np.asarray(values), dtype=xp.get_default_dtype())


def whole(x):
    """Numbers as integers."""
    return x.long()


def random_normal(*shape):
    return xp.randn(shape)


def seed(number):
    ppl.set_rng_seed(number)


def compared(distribution, generator, latent, entropy):
    """Log-ratios of latent values, and half squared norms of their slopes."""
    generated = VariationalGenerator.of(distribution, generator, entropy=entropy)
    draws = generated.compare(distribution, array(latent))
    return draws.log_ratio.numpy(), half_squared_norm(draws.ratio_gradient).numpy()


def fitted(toy):
    """Model and guide with the parameters that a toy starts with."""
    return toy.model, toy.guide


def autoguide(name, model, x, values):
    """Guide around these values of the latents."""
    start = autoguides.initialization.init_to_value(values=values)
    guide = getattr(autoguides, name)(model, init_scale=0.7, init_loc_fn=start)
    guide(x)
    return guide


def tied_guide(model, x):
    """Guide with one distribution over the latents of all data points."""
    guide = AutoMultivariateNormal(model, init_scale=0.8)
    guide(x)
    return guide


class OnlySamples(dist.Normal):
    """A normal without a density."""

    def log_prob(self, value):
        raise NotImplementedError
