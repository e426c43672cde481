import math

import pytest

from pyro_ebm.core.infer.metrics import TrustedRange, record_figures, recorded_figures

TRUSTED = TrustedRange(max_loss=100.0, max_energy_scale=10.0)


@pytest.mark.parametrize(
    ("loss", "energy_scale"), [(0.0, 0.0), (100.0, 10.0), (99.0, 0.0), (0.0, 9.0)]
)
def test_in_the_range(loss, energy_scale):
    assert TRUSTED.contains(loss, energy_scale)
    TRUSTED.check("x", loss, energy_scale)


@pytest.mark.parametrize("numbers", [(101.0, 0.0), (0.0, 11.0), (1e4, 1e4)])
def test_out_of_the_range(numbers):
    assert not TRUSTED.contains(*numbers)
    with pytest.raises(ValueError, match="loss of at most 100 .* at most 10 .* site 'x'") as error:
        TRUSTED.check("x", *numbers)
    assert "got {:.3g} and {:.3g}".format(*numbers) in str(error.value)
    assert "smaller learning rate" in str(error.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_no_number_is_in_no_range(bad, which):
    numbers = [1.0, 1.0]
    numbers[which] = bad
    assert not TRUSTED.contains(*numbers)
    with pytest.raises(ValueError, match="finite energies at site 'z', got NaN or infinity"):
        TRUSTED.check("z", *numbers)


@pytest.mark.parametrize("name", ["max_loss", "max_energy_scale"])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_bounds_are_positive(name, bad):
    with pytest.raises(ValueError, match=f"`{name}` to be a positive number, got {bad}"):
        TrustedRange(**{"max_loss": 1.0, "max_energy_scale": 1.0, name: bad})


def test_figures_reach_the_innermost_watcher():
    record_figures(lost=lambda: 1)
    with recorded_figures() as outer:
        record_figures(a=lambda: 1, b=lambda: 2)
        with recorded_figures() as inner:
            record_figures(a=lambda: 3)
        record_figures(b=lambda: 4)
    record_figures(lost=lambda: 1)
    read = [{name: figure() for name, figure in found.items()} for found in (outer, inner)]
    assert read == [{"a": 1, "b": 4}, {"a": 3}]
