"""Trained parameters in whatever runs a model again."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from flax import linen
from helpers.compilations import counted_compilations
from helpers.hosts.numpyro import Bowl, latent_model, mean_field_guide, prior, register
from jax import random
from numpyro.contrib.module import flax_module, random_flax_module
from numpyro.handlers import substitute
from numpyro.infer import SVI

import pyro_ebm.numpyro as ebm

KEY, X = random.key(0), np.linspace(-1.0, 1.0, 8).reshape(4, 2)
KNOWN = {"log_normalizers": {"z": 0.0}, "num_samples": 5000}
MODEL = latent_model(Bowl())


def params_of(weight, shift=0.0):
    return {"energy$params": Bowl(weight), "shift": jnp.full(2, shift)}


def test_log_marginal_has_the_values_of_substituted_functions():
    data = params_of(1.5, shift=0.1)
    functions = substitute(MODEL, data=data), substitute(mean_field_guide, data=data)
    expected = ebm.log_marginal(*functions, **KNOWN)(KEY, X)
    result = ebm.log_marginal(MODEL, mean_field_guide, params=data, **KNOWN)(KEY, X)
    np.testing.assert_allclose(result.estimate, expected.estimate, rtol=1e-5)


def test_new_parameters_compile_nothing():
    results = []
    for weight in (0.5, 1.0, 2.0):
        with counted_compilations() as compiled:
            estimate = ebm.log_marginal(MODEL, mean_field_guide, params=params_of(weight), **KNOWN)(
                KEY, X
            )
        results.append(float(estimate.estimate.sum()))
    assert not compiled
    assert len(set(results)) == 3


def test_distributions_of_new_parameters_compile_nothing():
    results = []
    for weight in (0.5, 1.0, 2.0):
        with counted_compilations() as compiled:
            found = ebm.site_distribution(MODEL, "z", params=params_of(weight))(X)
            results.append(float(ebm.log_normalizer(KEY, found, method="importance").estimate))
    assert not compiled
    assert results == sorted(results, reverse=True)


def test_check_model_takes_them_and_does_without():
    assert ebm.check_model(MODEL, mean_field_guide)(X) == []
    assert ebm.check_model(MODEL, mean_field_guide, params=params_of(1.0))(X) == []


@pytest.mark.parametrize("params", [None, {"shift": 0.0}])
def test_parameters_that_nobody_supplies_are_named(params):
    match = r"parameters \['energy\$params'\], got none.*params=svi.get_params\(state\)"
    with pytest.raises(ValueError, match=match):
        ebm.log_marginal(MODEL, mean_field_guide, params=params, **KNOWN)(KEY, X)
    kernel = ebm.SamplerKernel(MODEL, ebm.MALA(0.1), params=params)
    with pytest.raises(ValueError, match=match):
        kernel.init(KEY, 0, None, (X,), {})


def test_the_guide_needs_its_parameters_too():
    given = {"energy$params": Bowl()}
    with pytest.raises(ValueError, match=r"parameters \['shift'\], got none"):
        ebm.log_marginal(MODEL, mean_field_guide, params=given, **KNOWN)(KEY, X)


def test_a_kernel_moves_on_the_posterior_of_trained_parameters():
    params, values = params_of(2.0), {"z": jnp.ones((4, 2))}
    kernel = ebm.SamplerKernel(MODEL, ebm.MALA(0.1), params=params)
    state = kernel.init(KEY, 0, values, (X,), {})
    density = prior(Bowl(2.0)).log_prob(values["z"]).sum() + dist.Normal(1.0, 1.0).log_prob(X).sum()
    assert float(state.potential_energy) == pytest.approx(-float(density), rel=1e-5)


class Normalized(linen.Module):
    """A decoder with running means."""

    @linen.compact
    def __call__(self, z):
        return linen.BatchNorm(use_running_average=True)(linen.Dense(2)(z))


def stateful_model(x):
    energy = register("energy", Bowl())
    net = flax_module("net", Normalized(), input_shape=(1, 2), mutable=["batch_stats"])
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", prior(energy))
        numpyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)


def test_states_of_modules_are_handed_on():
    loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=0.25))
    svi = SVI(stateful_model, mean_field_guide, optax.adam(0.01), loss)
    result = svi.run(KEY, 2, X, progress_bar=False)
    params, state = result.params, result.state.mutable_state
    assert ebm.check_model(stateful_model, mean_field_guide)(X) == []
    with pytest.raises(ValueError, match=r"\['net\$state'\], got none.* \| state.mutable_state"):
        ebm.log_marginal(stateful_model, mean_field_guide, params=params, **KNOWN)(KEY, X)
    estimates = []
    for shift in (0.0, 1.0):
        moved = jax.tree.map(lambda leaf: leaf + shift, state)  # noqa: B023
        options = {**KNOWN, "params": params | moved, "num_samples": 20_000}
        log_marginal = ebm.log_marginal(stateful_model, mean_field_guide, **options)
        with warnings.catch_warnings(action="ignore"):  # The guide is hardly trained.
            estimates.append(log_marginal(KEY, X).estimate.mean())
    assert math.isfinite(estimates[0])
    assert abs(estimates[0] - estimates[1]) > 0.01


def test_random_modules_need_no_values():
    def model(x):
        net = random_flax_module("net", linen.Dense(1), dist.Normal(0.0, 1.0), input_shape=(2,))
        numpyro.sample("x", dist.Normal(net(x)[:, 0], 1.0).to_event(1), obs=x[:, 0])

    state = ebm.SamplerKernel(model, ebm.MALA(0.1)).init(KEY, 0, None, (X,), {})
    assert set(state.z) == {"net/kernel", "net/bias"}
