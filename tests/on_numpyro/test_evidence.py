import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from jax import random
from oracles import LOG_NORMALIZER_QUARTIC

import pyro_ebm.numpyro as ebm
from pyro_ebm.numpyro.evidence import _annealed


def tilted_normal(weight):
    return ebm.EnergyBased(
        lambda x: weight * (x**4).sum(-1), dist.Normal(jnp.zeros(2), 1.0).to_event(1)
    )


@pytest.mark.parametrize("method", ["annealed", "importance"])
def test_log_normalizer_covers_the_truth(method):
    result = ebm.log_normalizer(random.key(0), tilted_normal(0.25), method=method, num_samples=4000)
    assert result.estimate.shape == ()
    assert 0 < result.standard_error < 0.05
    assert abs(result.estimate - 2 * LOG_NORMALIZER_QUARTIC) < 4 * result.standard_error
    assert 1 < result.effective_sample_size <= 4000


def test_annealing_pays_where_the_base_is_far():
    far = ebm.EnergyBased(
        lambda x: 10.0 * ((x - 1.5) ** 2).sum(-1), dist.Normal(jnp.zeros(3), 1.0).to_event(1)
    )
    # In each dimension: exp(-a (x - m)^2 / 2) N(x; 0, 1) with a = 20, m = 1.5.
    truth = 3 * (-0.5 * jnp.log(21.0) - 20 * 1.5**2 / (2 * 21))
    sampler = ebm.MALA(0.02)
    annealed = ebm.log_normalizer(random.key(0), far, num_temperatures=300, sampler=sampler)
    plain = ebm.log_normalizer(random.key(0), far, method="importance")
    assert abs(annealed.estimate - truth) < 0.2
    assert annealed.effective_sample_size > 3 * plain.effective_sample_size


def test_batches_and_constrained_supports():
    rates = jnp.array([1.0, 4.0])
    tilted = ebm.EnergyBased(lambda x: 2 * x, dist.Exponential(rates))
    result = ebm.log_normalizer(random.key(0), tilted, num_samples=3000)
    assert result.estimate.shape == (2,)
    assert jnp.allclose(result.estimate, jnp.log(rates / (rates + 2)), atol=0.05)


def test_new_parameters_compile_nothing_anew(quartic):
    def estimate(weight):
        energy = type(quartic)(jnp.array(weight))
        prior = ebm.EnergyBased(energy, dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        return ebm.log_normalizer(random.key(0), prior, num_samples=100).estimate

    first = estimate(0.1)
    compiled = _annealed._cache_size()
    assert estimate(3.0) < first
    assert _annealed._cache_size() == compiled


def test_wrong_arguments():
    key = random.key(0)
    with pytest.raises(ValueError, match="base to start from, got base=None"):
        ebm.log_normalizer(key, ebm.EnergyBased(lambda x: x, event_shape=()))
    with pytest.raises(ValueError, match="`method` to be one of"):
        ebm.log_normalizer(key, tilted_normal(1.0), method="exact")
    with pytest.raises(ValueError, match="`num_samples`"):
        ebm.log_normalizer(key, tilted_normal(1.0), num_samples=0)
