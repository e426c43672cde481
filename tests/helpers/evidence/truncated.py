"""Marginal likelihoods with a half-normal prior: an energy on half of the base's support."""

import math

import numpy as np
import pytest

X = np.array([0.5, 1.0])
KNOWN = {"log_normalizers": {"z": math.log(0.5)}}


def model_and_guide(host):
    positive = host.dist.constraints.positive

    def model(x):
        with host.ppl.plate("data", len(x)):
            base = host.dist.Normal(0.0, 1.0)
            z = host.ppl.sample("z", host.ebm.EnergyBased(lambda z: 0 * z, base, support=positive))
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("z", host.dist.HalfNormal(1.0))

    return model, guide


def test_importance(host):
    result = host.log_marginal(*model_and_guide(host), **KNOWN)(host.array(X))
    # 2 N(x; 0, 2) Phi(x / sqrt 2)
    share = np.array([0.5 * (1 + math.erf(x / 2)) for x in X])
    exact = np.log(2 * share) - X**2 / 4 - 0.5 * math.log(4 * math.pi)
    errors = (np.asarray(result.estimate) - exact) / np.asarray(result.standard_error)
    assert abs(errors).max() < 4


def test_annealed_is_refused(host):
    estimate = host.log_marginal(*model_and_guide(host), method="annealed", **KNOWN)
    with pytest.raises(ValueError, match="support as wide as the base's .* at site 'z'; use meth"):
        estimate(host.array(X))
