import warnings

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from helpers.compilations import counted_compilations
from helpers.evidence.log_normalizer import *  # noqa: F403
from helpers.evidence.log_normalizer import NETWORK, network
from jax import random

import pyro_ebm.numpyro as ebm

KEY = random.key(0)


def test_new_parameters_compile_nothing_again(host):
    options = {"num_samples": 4, "num_temperatures": 3, "num_moves": 1}
    compilations = []
    for factor in (0.5, 1.0):
        with counted_compilations() as compiled, warnings.catch_warnings(action="ignore"):
            ebm.log_normalizer(KEY, network(host, factor=factor), method="grid")
            ebm.log_normalizer(KEY, network(host, factor=factor), **options)
        compilations.append(len(compiled))
    assert compilations[0] > compilations[1] == 0


def test_network_over_many_runs(host):
    # In 576 runs of 12 seeds 69 effective samples or more: far from the 10 that trigger a warning,
    # on any processor.
    options = {"num_samples": 300, "num_temperatures": 160, "num_moves": 40}
    # The elements of a batch are runs of their own.
    runs = ebm.log_normalizer(KEY, network(host, (48,)), **options)
    assert runs.effective_sample_size.min() > 30
    assert (runs.lower < NETWORK).sum() >= 45
    assert (runs.upper > NETWORK).sum() >= 45
    # The errors of both directions are added up, which is too much for these chains: 0.7 expected.
    scores = (runs.estimate - NETWORK) / runs.standard_error
    assert 0.5 < (scores**2).mean() ** 0.5 < 1.0
    assert jnp.median(runs.upper - runs.lower) < 0.4
    assert (runs.estimate[1:] != runs.estimate[:-1]).all()


@pytest.mark.parametrize("method", ["importance", "annealed"])
def test_inside_jit_and_vmap(method):
    options = {"num_samples": 200, "num_temperatures": 5, "num_moves": 5}

    @jax.jit
    @jax.vmap
    def estimate(precision):
        base = dist.Normal(0.0, 1.0)
        distribution = ebm.EnergyBased(lambda x: 0.5 * precision * x**2, base)
        return ebm.log_normalizer(KEY, distribution, method=method, **options)

    precisions = jnp.array([1.0, 3.0])
    result = estimate(precisions)
    truth = -0.5 * jnp.log1p(precisions)
    assert (abs(result.estimate - truth) < 4 * result.standard_error).all()
    assert "\n[1]: log Z = -0." in str(result)


def test_a_key_comes_first():
    prior = ebm.EnergyBased(lambda x: x**2, dist.Normal(0.0, 1.0))
    for call in (
        lambda: ebm.log_normalizer(0, prior),
        lambda: ebm.log_normalizer(prior, KEY),
        lambda: ebm.run_chains(ebm.MALA(0.1), prior, KEY),
        lambda: ebm.generator_bounds(None, prior, prior.base),
    ):
        with pytest.raises(TypeError, match=r"Expected `rng_key` to be a key, .* got "):
            call()
