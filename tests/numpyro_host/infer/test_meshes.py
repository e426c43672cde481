"""Training with data on a mesh, whose axes JAX makes explicit by default."""

import jax
import numpy as np
import pytest
from helpers.hosts.numpyro import Bowl, attaching, empty_guide, fit, observed_model
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
