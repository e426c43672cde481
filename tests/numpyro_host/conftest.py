from importlib import import_module

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

import pyro_ebm.numpyro as ebm

# What JAX compiles long, and other cases of the same test prove.
LEFT_OUT = (
    *("recovers_the_prior[Trace x4 vectorized]", "recovers_the_prior[Renyi x2]"),
    *("shapes[image]", "shapes[vector]", "mask_to_event[image]", "mask_to_event[vector]"),
    *("stay_exact[gaussian-HMC]", "hmc-correlated]", "mala-correlated]"),
)

# Folders that share the adapter of another.
ADAPTERS = {"distributions": "samplers", "model": "infer"}


def pytest_collection_modifyitems(config, items):
    left_out = [
        item for item in items if item.get_closest_marker("once") or item.nodeid.endswith(LEFT_OUT)
    ]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def host(request):
    """Adapter of the tests that are written once for both hosts."""
    folder = request.path.parent.name
    return import_module(f"helpers.{ADAPTERS.get(folder, folder)}.numpyro")


class Quartic(eqx.Module):
    """E(x) = sum of weight x^4, an energy with a parameter."""

    weight: jax.Array

    def __call__(self, x):
        return (self.weight * x**4).reshape(x.shape[0], -1).sum(-1)


@pytest.fixture(autouse=True)
def quick_compilation(request):
    # Compiling takes most of the time of a small test.
    optimize = "optimized" in request.fixturenames
    jax.config.update("jax_disable_most_optimizations", not optimize)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def optimized():
    """For tests with long loops."""


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def quartic():
    return Quartic(jnp.array(0.25))


@pytest.fixture
def prior(quartic):
    return ebm.EnergyBased(quartic, dist.Normal(jnp.zeros(2), 1.0).to_event(1))
