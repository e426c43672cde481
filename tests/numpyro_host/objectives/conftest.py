import pytest

pytest.register_assert_rewrite("helpers.objectives")


@pytest.fixture
def host():
    """Adapter of the tests that are the same on both hosts."""
    from helpers.objectives import numpyro

    return numpyro
