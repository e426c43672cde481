from importlib import import_module

import pyro
import pytest
import torch
import zuko  # noqa: F401

# Folders that share the adapter of another.
ADAPTERS = {"distributions": "samplers", "model": "infer"}


@pytest.fixture
def host(request):
    """Adapter of the tests that are written once for both hosts."""
    folder = request.path.parent.name
    return import_module(f"helpers.{ADAPTERS.get(folder, folder)}.pyro")


@pytest.fixture
def optimized():
    """For tests with long loops, where NumPyro needs it."""


@pytest.fixture(autouse=True)
def fresh_pyro():
    torch.set_num_threads(1)
    pyro.enable_validation()  # zuko turns it off in all of torch when it is imported.
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
