import pytest

pytest.register_assert_rewrite("helpers.distributions")


@pytest.fixture
def host():
    """Adapter of the tests that are the same on both hosts."""
    from helpers.samplers import numpyro

    return numpyro
