import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.infer.log_likelihood import *  # noqa: F403
from helpers.infer.log_likelihood import X, finished, log_likelihood, rng
from pyro import poutine
from pyro.infer.reparam import LocScaleReparam
from scipy import stats


def test_codes_in_their_own_type(host):
    """Draws of codes are real numbers; a model indexes by them."""
    means, codes = np.array([-1.0, 0.5, 2.0]), rng.integers(3, size=(2, 4, len(X)))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(3)))
            pyro.sample("x", dist.Normal(host.array(means)[z], 1.0), obs=x)

    found = log_likelihood(finished(host, model, {"z": codes.astype(float)}, X), host)
    np.testing.assert_allclose(found["x"], stats.norm(means[codes]).logpdf(X), rtol=1e-5)


def test_reparametrized_latents_have_none(host):
    @poutine.reparam(config={"z": LocScaleReparam(0.0)})
    def model(x):
        z = pyro.sample("z", dist.Normal(1.0, 2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    noise = rng.normal(size=(2, 4))
    found = log_likelihood(finished(host, model, {"z_decentered": noise}, X), host)
    assert list(found) == ["x"]
    expected = stats.norm(1 + 2 * noise[..., None]).logpdf(X)
    np.testing.assert_allclose(found["x"], expected, rtol=1e-5)


def test_subsample_that_is_given(host):
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), subsample=torch.tensor([2, 0])) as index:
            pyro.sample("x", dist.Normal(z, 2.0), obs=x[index])

    mcmc = finished(host, model, {"z": np.zeros((1, 3))}, X)
    with pytest.raises(ValueError, match="all data .* got 2 of 5 elements of plate 'data'"):
        log_likelihood(mcmc, host)
