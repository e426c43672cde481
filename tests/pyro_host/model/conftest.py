import pytest

pytest.register_assert_rewrite("helpers.infer")


@pytest.fixture
def host():
    """Adapter of the tests that are the same on both hosts."""
    from helpers.infer import pyro

    return pyro
