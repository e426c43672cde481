import pytest

from pyro_ebm.core.infer.elbo import EnergyELBO
from pyro_ebm.core.infer.energy_sites import (
    as_loss,
    check_attached,
    check_attached_sites,
    check_plates,
    check_sites,
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
    message = rf"attach \['critic', 'encoder'\] to site 'x' by attach\('x', .*got .*{got}"
    with pytest.raises(ValueError, match=message):
        check_attached("x", Objective().loss, attached)


def test_attached_sites_need_an_objective():
    check_attached_sites(["x"], ["x", "y"])
    message = r"attach\(...\) for sites with an objective \(\['x'\]\), got 'typo'"
    with pytest.raises(ValueError, match=message):
        check_attached_sites(["x", "typo"], ["x"])


def test_objectives_need_a_site():
    check_sites({"x": Objective()}, ["x", "y"])
    check_sites(Objective(), [])
    with pytest.raises(ValueError, match=r"sites of the model \(\['x'\]\), got 'y'"):
        check_sites({"y": Objective()}, ["x"])


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
