import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from jax import random

import pyro_ebm.numpyro as ebm

BASE = dist.Normal(jnp.zeros(2), 1.0).to_event(1)


def square(x):
    return (x**2).sum(-1)


@pytest.mark.parametrize(
    ("energy", "message"),
    [
        (lambda x: (x**2).sum(-1, keepdims=True), r"to shape \(4,\), got shape \(4, 1\)"),
        (lambda x: (x**2).sum(), r"to shape \(4,\), got shape \(\)"),
        (lambda x: 1.0, "got float"),
    ],
)
def test_energy_of_the_wrong_output_shape(energy, message):
    with pytest.raises(ValueError, match=message):
        ebm.EnergyBased(energy, BASE).log_prob(jnp.ones((4, 2)))


@pytest.mark.parametrize("shape", [(3,), (), (4, 3)])
def test_value_of_the_wrong_event_shape(shape):
    with pytest.raises(ValueError, match=r"event shape \(2,\), got a value of shape"):
        ebm.EnergyBased(square, BASE, validate_args=False).log_prob(jnp.ones(shape))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"energy": 3.0}, TypeError, "`energy` to be callable, got float"),
        (
            {"energy": square, "base": square},
            TypeError,
            "`base` to be a distribution, got function",
        ),
        ({"energy": square}, ValueError, "Expected a `base` or an `event_shape`, got neither"),
        (
            {"energy": square, "base": BASE, "event_shape": (3,)},
            ValueError,
            r"that of the base, \(2,\), got \(3,\)",
        ),
        (
            {"energy": square, "base": BASE, "sampler": square},
            TypeError,
            "`sampler` to have init and step, got function",
        ),
        (
            {"energy": square, "base": BASE, "log_normalizer": 1.0},
            TypeError,
            "`log_normalizer` to be callable, got float",
        ),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ebm.EnergyBased(**arguments)


def test_nan_energy_is_an_error_where_the_host_validates():
    broken = {"energy": lambda x: square(x) * jnp.nan, "base": BASE}
    with pytest.raises(ValueError, match="got NaN"):
        ebm.EnergyBased(**broken, validate_args=True).log_prob(jnp.ones(2))
    assert jnp.isnan(ebm.EnergyBased(**broken, validate_args=False).log_prob(jnp.ones(2)))


def test_nan_value_is_out_of_support_as_the_host_has_it():
    with pytest.warns(UserWarning, match="Out-of-support"):
        log_prob = ebm.EnergyBased(square, BASE, validate_args=True).log_prob(jnp.full(2, jnp.nan))
    assert log_prob == -jnp.inf


def test_chains_that_diverge_are_an_error_where_the_host_validates():
    def steep(x):
        return 100 * (x**4).sum(-1)

    with pytest.raises(ValueError, match="finite draws, got NaN or infinity"):
        ebm.EnergyBased(steep, BASE, validate_args=True).sample(random.key(0), (100,))
