"""A clean start for the examples in docstrings."""

import sys

import pytest


@pytest.fixture(autouse=True)
def fresh_parameters(request: pytest.FixtureRequest) -> None:
    """Empty Pyro's parameter store; an example brings everything else that it needs."""
    if isinstance(request.node, pytest.DoctestItem) and "pyro" in sys.modules:
        sys.modules["pyro"].clear_param_store()
