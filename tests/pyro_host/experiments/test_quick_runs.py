"""Runs of seconds of all experiments."""

import pytest
from evidence import hosts
from evidence.experiments import density, planes
from helpers.quick_runs import CHECKS, WITH_TABLES
from helpers.real_data import needs_tables

from pyro_ebm.pyro.distributions.bound_energy import KnownLogProb

HOST = hosts.load("pyro")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=needs_tables if name in WITH_TABLES else ()) for name in CHECKS],
)
def test_quick_run(name):
    CHECKS[name](HOST)


@pytest.mark.parametrize("objective", planes.SETTINGS)
def test_evaluations_of_a_step(objective, monkeypatch):
    """Points that go through the nets; a product with the Hessian is one more for its point."""
    monkeypatch.setattr(KnownLogProb, "of", lambda *_: None)
    evaluations = planes.SETTINGS[objective].evaluations

    def evaluated(num_steps):
        nets, calls = planes.players(HOST, 0), []
        for net in nets.values():
            net.register_forward_hook(lambda net, inputs, energies: calls.append(len(energies)))
        budget = num_steps * planes.BATCH_SIZE * evaluations
        planes.train(HOST, nets, "two_spirals", objective, 0, budget)
        return sum(calls)

    # Without the first step, which probes the energy. What SVI reports has each value's energy too.
    by_objective = evaluated(3) - evaluated(1) - 2 * planes.BATCH_SIZE
    charged = 2 * planes.BATCH_SIZE * evaluations
    assert charged == by_objective * (2 if objective == "sliced score matching" else 1)


@needs_tables
def test_base_is_that_of_likelihood():
    likelihood = density.run(HOST, 0, table="red wine", method="ML", num_steps=50)
    changes = {"num_steps": 25, "num_base_samples": 50, "learning_rate": 1e-4}
    figures = density.run(HOST, 0, table="red wine", method="KALE-DV", num_base_steps=50, **changes)
    assert figures["initial"] == pytest.approx(likelihood["test"], abs=1e-5)
    assert abs(figures["estimated"] + density.OFFSET) < 4 * figures["standard error"] < 0.04
