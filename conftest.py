"""A clean start for the examples in docstrings, and one cache for all that JAX compiles."""

import gc
import os
import sys
from importlib import import_module
from pathlib import Path

import pytest

# Compiling takes most of the time of a test on NumPyro. What was compiled once is kept, for all
# processes and for the next time.
os.environ |= {
    "JAX_COMPILATION_CACHE_DIR": str(Path(__file__).parent / ".pytest_cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}

# Searches for garbage take a tenth of the time, and find little.
gc.set_threshold(100_000, 50, 1000)

pytest.register_assert_rewrite("helpers")


def pytest_configure() -> None:
    """Shift the seeds of all tests, for `make seeds`."""
    if shift := int(os.environ.get("SEED_SHIFT", "0")):
        import_module("helpers.seeds").shift_seeds(shift)


@pytest.fixture(autouse=True)
def start_of_an_example(request: pytest.FixtureRequest) -> None:
    """Seed Pyro and empty its parameter store before an example; compile fast rather than well."""
    if isinstance(request.node, pytest.DoctestItem):
        if "pyro" in sys.modules:
            sys.modules["pyro"].clear_param_store()
            sys.modules["pyro"].set_rng_seed(0)
        if "jax" in sys.modules:
            sys.modules["jax"].config.update("jax_disable_most_optimizations", val=True)
