from types import SimpleNamespace

import pytest

from pyro_ebm.core.infer.elbo import EnergyELBO
from pyro_ebm.core.infer.energy_sites import (
    as_loss,
    check_attached,
    check_names,
    check_plates,
)
from pyro_ebm.core.objectives.loss import Loss


class Objective:
    def loss(self, distribution, value, *, critic, encoder=None):
        del distribution, value, critic, encoder


@pytest.mark.parametrize("attached", [["critic"], ["critic", "encoder"]])
def test_required_and_optional_parts_may_be_attached(attached):
    check_attached("x", Objective().loss, attached)


@pytest.mark.parametrize(
    ("attached", "got"), [([], "nothing"), (["encoder"], "encoder"), (["critic", "chains"], "chai")]
)
def test_missing_and_unknown_parts_are_errors(attached, got):
    parts = r"\['critic'\], and optionally \['encoder'\], to site 'x'"
    message = rf"attach {parts} by attach\('x', .*got .*{got}"
    with pytest.raises(ValueError, match=message):
        check_attached("x", Objective().loss, attached)


@pytest.mark.parametrize(
    ("objective", "attached", "message"),
    [
        ({"z": Objective()}, [], r"energy-based sites of the model \(\['x', 'y'\]\), got 'z'"),
        (None, ["typo"], r"attach\(...\) for sites with an objective \(\['x'\]\), got 'typo'"),
        (None, ["y"], r"attach\(...\) for sites with an objective \(\['x'\]\), got 'y'"),
    ],
)
def test_names_are_those_of_sites(objective, attached, message):
    sites = {"x": SimpleNamespace(objective=1), "y": SimpleNamespace(objective=None)}
    check_names({"x": Objective()}, sites, ["x"])
    with pytest.raises(ValueError, match=message):
        check_names(objective, sites, attached)


def test_batch_dimensions_are_plates():
    check_plates("x", (1, 8), {-1})
    message = r"'x' to be a plate, got batch shape \(3, 8\) with no plate at -2"
    with pytest.raises(ValueError, match=message):
        check_plates("x", (3, 8), {-1})


def test_losses_come_with_metrics():
    assert as_loss(Objective(), (1.0, {})) == Loss(1.0, {})
    for wrong in (1.0, (1.0, 2.0), (1.0, {}, 2.0)):
        with pytest.raises(TypeError, match=r"`loss` of Objective to return Loss\("):
            as_loss(Objective(), wrong)


@pytest.mark.parametrize(
    ("objective", "options", "error", "message"),
    [
        (0.25, {}, TypeError, "objective with a `loss`, got float"),
        ({"x": 0.25}, {}, TypeError, "objective with a `loss`, got float"),
        (Objective, {}, TypeError, r"the class Objective: call it, as in Objective\("),
        (Objective(), {"num_normalizer_samples": -1}, ValueError, "`num_normalizer_samples`"),
    ],
)
def test_wrong_settings_of_an_elbo(objective, options, error, message):
    with pytest.raises(error, match=message):
        EnergyELBO(objective, **options)
