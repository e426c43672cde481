"""Training by two processes of ``torch.distributed``, with gloo."""

import pytest
import torch
from helpers.infer import processes

import pyro_ebm.pyro as ebm


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return processes.run(tmp_path_factory.mktemp("processes"))


def test_both_ways_take_the_same_steps(found):
    """Weights and chains are the same to the last bit."""
    start = next(processes.MLP().parameters())
    for rank in range(2):
        ours, theirs = found[rank]["by_optimizer"], found[rank]["by_module"]
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-6)
        assert all(map(torch.equal, ours["weights"], theirs["weights"]))
        assert (ours["weights"][0] != start).all()
        assert torch.equal(ours["chains"], theirs["chains"])


@pytest.mark.parametrize("way", ["by_optimizer", "by_module"])
def test_weights_are_shared_and_chains_are_not(found, way):
    first, second = (one[way] for one in found)
    assert all(map(torch.equal, first["weights"], second["weights"]))
    assert first["losses"] != second["losses"]
    assert (first["chains"] != second["chains"]).all()


def test_parameters_start_at_those_of_the_first_process(found):
    weights = [one["from_unequal_starts"] for one in found]
    assert weights[0] == weights[1] == pytest.approx(0.5, abs=0.011)


@pytest.mark.parametrize("way", ["failing_step_of_svi", "failing_step_of_module"])
def test_an_error_on_one_process_is_an_error_on_all(found, way):
    first, second = (one[way]["messages"] for one in found)
    for message, cause in zip(first, second, strict=True):
        assert cause.startswith("ValueError: Expected finite")
        assert message.startswith("RuntimeError: Expected a step on all processes, got an error ")
        assert message.endswith(f"on rank 1, {cause.splitlines()[0]}")


def test_training_goes_on_after_an_error(found):
    first, second = (one["failing_step_of_svi"] for one in found)
    before, after, last = first["path"]
    assert first["path"] == second["path"]
    assert before == after != last
    assert first["gradient"] == second["gradient"] == 0.0
    gradients = [one["failing_step_of_module"]["gradient"] for one in found]
    assert gradients[0] == gradients[1] != 0.0


def test_one_process_can_evaluate_alone(found):
    numbers = found[0]["evaluation_on_one"]
    assert torch.isfinite(torch.tensor(numbers)).all()


def test_warning_of_a_normalizer_for_each_process(found):
    warnings = found[0]["warnings_of"]
    (message,) = warnings["MaximumLikelihood"]
    assert message.startswith("The gradient of MaximumLikelihood(num_samples=1000) at site 'x' is")
    assert "of each of 2 devices" in message
    assert warnings["DenoisingScoreMatching"] == []


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (ebm.EnergyDiscrepancy(variance=1.0), True),
        (ebm.FDivergence("kl"), True),
        (ebm.PseudoSpherical(0.5), False),
        (ebm.KALE(), False),
        (ebm.KALE(form="fenchel"), True),
        (ebm.BidirectionalBounds(), True),
        (ebm.BidirectionalBounds(threshold=0.1), False),
        (ebm.BidirectionalBounds(threshold=0.1, penalty="data"), True),
    ],
    ids=str,
)
def test_means_over_parts(objective, expected):
    assert objective._is_mean_over_parts == expected


def test_log_means_over_processes(found):
    """A mean over processes has a bias, and a gathered log-mean-exp half of the gradient."""
    for one in found:
        gradients = one["gradients_of_log_means"]
        exact = gradients["exact"]
        assert gradients["pooled"] == pytest.approx(exact, rel=1e-5)
        assert gradients["local"] != pytest.approx(exact, rel=1e-3)
        assert gradients["own_slice_put_back"] == pytest.approx(exact / 2, rel=1e-5)
