import pytest

pytest.register_assert_rewrite("helpers.infer")

from helpers.infer import numpyro as adapter  # noqa: E402


@pytest.fixture(params=adapter.STOCK)
def stock(request):
    """Every stock ELBO of the host."""
    return adapter.STOCK[request.param]


@pytest.fixture(params=adapter.WITHOUT_WEIGHTS)
def unweighted(request):
    """Every stock ELBO that needs no density of the guide."""
    return adapter.ELBOS[request.param]


@pytest.fixture(params=adapter.ELBOS)
def elbo_name(request):
    """Name of every stock ELBO that a toy is trained with."""
    return request.param
