import pytest

pytest.register_assert_rewrite("helpers.distributions")


@pytest.fixture
def host():
    """Adapter of the tests that are the same on both hosts."""
    from helpers.samplers import pyro

    return pyro


@pytest.fixture
def optimized():
    """For tests with long loops, where NumPyro needs it."""
