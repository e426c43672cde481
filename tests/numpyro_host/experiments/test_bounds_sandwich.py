"""Bounds along a training run, shortened."""

from dataclasses import replace

import bounds_sandwich as settings
import pytest
from bounds_sandwich_numpyro import train


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(settings, "NUM_LOOKS", 2)


@pytest.mark.usefixtures("float64")
def test_the_truth_is_between_the_bounds():
    case = replace(settings.CASES["skewed, convex"], num_steps=60)
    figures = settings.summarize(train(case, 0))
    assert figures["failures"] == 0
    assert figures["known"] == 3
    assert figures["least slack"] < 0.2
    for look in figures["looks"]:
        assert look["estimate"] == pytest.approx(look["truth"], abs=4 * look["error, estimate"])
