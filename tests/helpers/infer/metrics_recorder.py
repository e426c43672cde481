import numpy as np
import pytest

from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.infer.metrics_recorder import MetricsRecorder
from pyro_ebm.core.objectives.loss import Loss

X = np.linspace(-2, 2, 16).reshape(8, 2)


class Energies:
    """Mean energy, with the largest as a metric."""

    def loss(self, *args):
        energies = scaled_energy(*args[-2:])
        return Loss(energies, {"largest": lambda: energies.max()})


def training(host, loss):
    model = host.observed_model(host.Bowl())
    return host.Training(model, host.empty_guide, loss, host.sgd(1e-3))


def test_metrics_at_each_reading(host):
    """Energies are w |x|^2, and w falls in training."""
    run = training(host, host.ebm.EnergyELBO(Energies(), num_normalizer_samples=0))
    recorder, weights = host.ebm.MetricsRecorder(run.svi, every=2), []
    assert str(recorder) == "no metrics after 0 steps"
    assert recorder.metrics == {}
    for _ in range(7):
        run.step(X)
        run.record(recorder, X)
        weights.append(run.param("energy.weight"))
    assert recorder.steps == [2, 4, 6]
    (found,) = recorder.metrics.values()
    square = (X**2).sum(-1)
    expected = {"objective": square.mean(), "largest": square.max()}
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        np.testing.assert_allclose(found[name], one * np.array(weights[1::2]), rtol=1e-5)
    assert len({float(weight) for weight in weights}) == 7
    largest, objective = (weights[5] * expected[name] for name in ("largest", "objective"))
    assert str(recorder).startswith("after step 6, x: ")
    assert f"largest {largest:.3f}" in str(recorder)
    assert f"objective {objective:.3f}" in str(recorder)


def test_sites_that_some_readings_lack(host):
    """As a sequential plate, which runs the sites of its subsample alone."""
    recorder = MetricsRecorder(every=1)
    for reading in ({"x": 1.0}, {"x": 2.0, "y": 3.0}, {"y": 4.0}):
        recorder._keep({site: {"gap": host.array(gap)} for site, gap in reading.items()})
    found = [host.to_numpy(metrics["gap"]) for metrics in recorder.metrics.values()]
    np.testing.assert_array_equal(found, [[1, 2, np.nan], [np.nan, 3, 4]])


def test_refusals(host):
    run = training(host, host.infer.Trace_ELBO())
    with pytest.raises(TypeError, match="an EnergyELBO as its loss, got Trace_ELBO"):
        host.ebm.MetricsRecorder(run.svi)
    run = training(host, host.ebm.EnergyELBO(Energies()))
    with pytest.raises(ValueError, match="`every` to be an integer of at least 1, got 0"):
        host.ebm.MetricsRecorder(run.svi, every=0)
