"""Training with data on a mesh, whose axes JAX makes explicit by default, and on its devices."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.hosts.numpyro import Bowl, attaching, empty_guide, fit, observed_model
from helpers.infer import meshes
from jax import random
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import pyro_ebm.numpyro as ebm

X = random.normal(random.key(0), (16, 2))


def on_mesh(kind):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(kind,))
    return jax.device_put(X, NamedSharding(mesh, PartitionSpec("data")))


@pytest.mark.parametrize(
    ("objective", "guide"),
    [
        (ebm.EnergyDiscrepancy(variance=1.0), empty_guide),
        (
            ebm.ContrastiveDivergence(num_steps=2),
            attaching("x", chains=ebm.PersistentChains(4, (2,))),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_numbers_are_those_of_one_device(objective, guide):
    loss, model = ebm.EnergyELBO(objective), observed_model(Bowl())
    plain, *others = (
        fit(model, guide, loss, x, num_steps=2)
        for x in (X, on_mesh(AxisType.Auto), on_mesh(AxisType.Explicit))
    )
    for other in others:
        np.testing.assert_allclose(other.losses, plain.losses, rtol=1e-6)
        weights = [result.params["energy.weight"] for result in (other, plain)]
        np.testing.assert_allclose(*weights, rtol=1e-6)


def test_metrics():
    loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=1.0))
    found = [
        loss.metrics(random.key(0), {}, observed_model(Bowl()), empty_guide, x)
        for x in (X, on_mesh(AxisType.Explicit))
    ]
    np.testing.assert_allclose(*(metrics["x"]["objective"] for metrics in found), rtol=1e-5)


def test_warning_of_a_normalizer_for_each_device():
    """Traced alone, for devices that are not there."""
    mesh, spec = jax.sharding.AbstractMesh((2,), ("data",)), PartitionSpec("data")

    def trace(objective):
        loss = ebm.EnergyELBO(objective, num_normalizer_samples=0)
        arguments = random.key(0), {}, observed_model(Bowl()), empty_guide
        share = {"mesh": mesh, "in_specs": spec, "out_specs": spec, "check_vma": False}
        jax.eval_shape(jax.shard_map(lambda x: loss.loss(*arguments, x)[None], **share), X)

    with pytest.warns(UserWarning, match="MaximumLikelihood.* site 'x' .* each of 2 devices"):
        trace(ebm.MaximumLikelihood(num_samples=4))
    trace(ebm.ScoreMatching())


# --- several devices, in a process of their own ---


@pytest.fixture(scope="module")
def runs():
    command = [sys.executable, "-m", "helpers.infer.meshes"]
    folder = Path(__file__).parents[2]
    options = {"capture_output": True, "text": True, "check": False, "timeout": 250}
    run = subprocess.run(command, cwd=folder, **options)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def assert_same_numbers(found, expected):
    """Sums over devices have another order, which shows in the last digits."""
    for name in ("losses", "weights", "chains"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("number", [2, 4])
def test_arrays_on_several_devices(runs, number):
    assert_same_numbers(runs[f"Auto {number}"], runs["one"])
    assert runs[f"Explicit {number}"] == runs[f"Auto {number}"]


def test_each_device_by_itself(runs):
    """Its own chains, and the mean of the gradients of all: E = w |x|^2 over a base N(0, 2)."""
    found, weight = runs["shard_map"], 0.5
    for _ in range(meshes.NUM_STEPS):
        slopes = 2 * (2 * weight + 0.25) * (meshes.X**2).sum(axis=-1) - 4
        weight -= meshes.RATE * slopes.sum()
    assert found["weights"][0] == pytest.approx(weight, rel=1e-5)
    chains = np.reshape(found["chains"], (4, *np.shape(runs["one"]["chains"])))
    for k in range(4):
        assert (chains[k] != chains[k - 1]).any(axis=-1).all()
