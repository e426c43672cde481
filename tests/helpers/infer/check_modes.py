"""Modes that MCMC has missed at a site of a model."""

import numpy as np
import pytest

from helpers.infer.log_likelihood import finished
from helpers.samplers.smc import LEFT, two_modes

rng = np.random.default_rng(0)


def draws(shares, *shape):
    """Draws of which these shares lie at -1.5, for each row."""
    below = rng.uniform(size=shape) < shares
    return np.where(below, -1.5, 1.5) + 0.1 * rng.normal(size=shape)


def check(host, model, values, site="z", **options):
    mcmc = finished(host, model, values)
    return host.check_modes(mcmc, site, **options)


def test_a_mode_that_one_row_of_a_plate_misses(host):
    def model():
        with host.ppl.plate("rows", 2):
            host.ppl.sample("z", two_modes(host))

    complete = draws([LEFT, LEFT], 2, 500, 2)
    assert check(host, model, {"z": complete}) == 0.0
    with pytest.warns(UserWarning, match="of the draws of SMC lie where no chain .* site 'z'"):
        missed = check(host, model, {"z": draws([LEFT, 1.0], 2, 500, 2)})
    assert missed == pytest.approx(1 - LEFT, abs=0.1)


def test_given_reference_of_a_posterior(host):
    def model():
        z = host.ppl.sample("z", two_modes(host))
        host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=host.array(0.3))

    values = {"z": draws(1.0, 2, 500)}
    with pytest.raises(ValueError, match=r"'z' to follow .* observes \['x'\].* Give `reference`"):
        check(host, model, values)
    with pytest.warns(UserWarning, match="of the values of `reference`"):
        missed = check(host, model, values, reference=draws(0.7, 500))
    assert missed == pytest.approx(0.3, abs=0.05)


def test_refusals(host):
    def model():
        scale = host.ppl.sample("scale", host.dist.LogNormal(0.0, 1.0))
        host.ppl.sample("z", host.ebm.EnergyBased(lambda z: scale * z**2, event_shape=()))
        normal = host.dist.Normal(host.array([0.0, 0.0]), 1.0)
        masked = host.ebm.EnergyBased(lambda x: x**2, normal).mask(host.array([1.0, 0.0]) > 0)
        host.ppl.sample("masked", masked)

    values = {"z": np.zeros((1, 4)), "masked": np.zeros((1, 4, 2)), "scale": np.ones((1, 4))}
    for site, message in {
        "z": r"depend on parameters and data only, .* \['scale'\]",
        "masked": "got a site with a mask, a scale or a transform",
        "scale": "or without an energy",
        "other": r"Expected a site with draws \(\['masked', 'scale', 'z'\]\), got 'other'",
    }.items():
        with pytest.raises(ValueError, match=message):
            check(host, model, values, site)
    with pytest.raises(ValueError, match=r"shape \(M, \*shape\), .* \(2,\) of site 'masked'"):
        check(host, model, values, "masked", reference=np.zeros((5, 3)))
