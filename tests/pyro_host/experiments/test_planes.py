"""The comparison of objectives in the plane, shortened."""

import pyro
import pytest
from planes import BATCH_SIZE, SETTINGS, score
from planes_pyro import log_density, mlp, train

SHORT = ("energy discrepancy", "f-EBM, Jensen-Shannon")


@pytest.fixture
def nets():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    return {"energy": mlp(), "critic": mlp()}


@pytest.mark.parametrize("objective", SETTINGS)
def test_a_step_takes_the_evaluations_that_it_is_charged(objective, nets):
    """Points that go through the nets; a product with the Hessian is one more for its point."""
    num_values = 3 * BATCH_SIZE
    charged = num_values * SETTINGS[objective].evaluations
    calls = []
    for net in nets.values():
        net.register_forward_hook(lambda net, inputs, energies: calls.append(len(energies)))
    train("two_spirals", objective, 0, charged, **nets)
    # What SVI reports has the energy of each value too.
    by_objective = sum(calls) - num_values
    assert charged == by_objective * (2 if objective == "sliced score matching" else 1)


@pytest.mark.parametrize("objective", SHORT)
def test_a_short_run_comes_closer_to_the_data(objective, nets):
    train("two_spirals", objective, 0, 200_000, **nets)
    density = log_density(nets["energy"])
    figures = score(density, "two_spirals", 0, num_test=1000, grid_size=160)
    assert figures["difference"] > -1.3  # the base alone: -1.6
