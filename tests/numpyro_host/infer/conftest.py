import pytest

pytest.register_assert_rewrite("helpers.infer")

from helpers.infer import numpyro as adapter  # noqa: E402


@pytest.fixture(params=adapter.STOCK)
def stock(request):
    """Every stock ELBO of the host."""
    return adapter.STOCK[request.param]
