"""Marginal likelihoods with a half-normal prior: an energy on half of the base's support."""

import math

import numpy as np
import pytest

X = np.array([0.5, 1.0])
KNOWN = {"log_normalizers": {"z": math.log(0.5)}}


def model_and_guide(host, support="positive", *bounds):
    support = getattr(host.dist.constraints, support)
    support = support(*bounds) if bounds else support

    def model(x):
        with host.ppl.plate("data", len(x)):
            base = host.dist.Normal(0.0, 1.0)
            z = host.ppl.sample("z", host.ebm.EnergyBased(lambda z: 0 * z, base, support=support))
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("z", host.dist.HalfNormal(1.0))

    return model, guide


@pytest.mark.parametrize(
    "options", [{}, {"method": "annealed", "num_temperatures": 20}], ids=["importance", "annealed"]
)
def test_log_marginal(host, options):
    result = host.log_marginal(*model_and_guide(host), **KNOWN, **options)(host.array(X))
    # 2 N(x; 0, 2) Phi(x / sqrt 2)
    share = np.array([0.5 * (1 + math.erf(x / 2)) for x in X])
    exact = np.log(2 * share) - X**2 / 4 - 0.5 * math.log(4 * math.pi)
    errors = (np.asarray(result.estimate) - exact) / np.asarray(result.standard_error)
    assert abs(errors).max() < 4


def test_a_narrow_support_is_refused(host):
    model, _ = model_and_guide(host, "interval", 2.0, 3.0)
    with pytest.raises(ValueError, match=r"share of 0.4 .*, got 0.0[12].* at site 'z': use method"):
        host.log_marginal(model, method="annealed", **KNOWN)(host.array(X))
