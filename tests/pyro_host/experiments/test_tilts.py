"""The comparison of tilted bases, shortened."""

import math

import pytest
from tilts_pyro import run


@pytest.mark.parametrize("form", ["donsker_varadhan", "fenchel"])
def test_a_short_run_gains_over_its_base(form):
    base = "gaussian" if form == "fenchel" else "flow"
    figures = run(base, form, 0, num_steps={"flow": 100, "energy": 100})
    assert figures["upper"] - figures["lower"] < 0.002
    assert figures["lower"] > 0.1
    assert figures["tilted"] - figures["base"] == pytest.approx(figures["gain"])
    # The identity KL(P, Q) = KL(P, G) - L, whose sides share no estimate.
    gain = figures["kl_base"] - figures["kl_model"]
    assert math.isclose(figures["gain"], gain, abs_tol=4 * figures["error"])
