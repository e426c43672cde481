import pytest

pytest.register_assert_rewrite("helpers.evidence")


@pytest.fixture
def host():
    """Adapter of the tests that are the same on both hosts."""
    from helpers.evidence import pyro

    return pyro
