from types import SimpleNamespace

import numpy as np
import pytest

from pyro_ebm.core.samplers.checks import check_init_shape, check_run, check_start, describe_trouble
from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.settings import MALA, Kernel, Langevin


def run(num_samples=1, num_warmup=0, thinning=1, num_chains=None, init=None):
    return check_run(num_samples, num_warmup, thinning, num_chains, init)


def test_number_of_chains():
    position = np.zeros((3, 2))
    assert run() == 4
    assert run(num_chains=7) == 7
    assert run(init=position) == run(init=position, num_chains=3) == 3
    state = ChainState(position, None, None, None, None, None, 0)
    assert run(init=state) == 3
    for init in (position, state):
        with pytest.raises(ValueError, match=r"`init` of shape \(4, .* got \(3, 2\)"):
            run(init=init, num_chains=4)
    with pytest.raises(ValueError, match=r"`init` of shape \(num_chains, .* got \(\)"):
        run(init=np.zeros(()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "`num_samples` to be an integer of at least 1, got 0"),
        ({"num_warmup": -1}, "`num_warmup` to be an integer of at least 0, got -1"),
        ({"thinning": 0}, "`thinning` to be an integer of at least 1, got 0"),
        ({"num_chains": 0}, "`num_chains` to be an integer of at least 1, got 0"),
    ],
)
def test_counts_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_shape_of_initial_values():
    distribution = SimpleNamespace(batch_shape=(5,), event_shape=(2,))
    check_init_shape((4, 5, 2), distribution, 4)
    with pytest.raises(ValueError, match=r"`init` of shape \(4, 5, 2\) .* got \(4, 2\)"):
        check_init_shape((4, 2), distribution, 4)


@pytest.mark.parametrize(("event_shape", "where"), [((), "potential"), ((2,), "gradient")])
def test_start_without_a_density(event_shape, where):
    arrays = {"potential": np.zeros(4), "gradient": np.zeros((4, *event_shape))}
    check_start("the target", **arrays)
    arrays[where][1:3] = np.nan
    with pytest.raises(ValueError, match="where the target has .* in 2 of 4 chains"):
        check_start("the target", **arrays)


def trouble(rate, diverging, sampler: Kernel = MALA(), num_warmup=500):  # noqa: B008
    return list(describe_trouble(sampler, "the target", num_warmup, rate, diverging))


def test_trouble():
    fine, none = np.full((4, 20), 0.6), np.zeros((4, 20), bool)
    assert trouble(fine, none) == []
    some = none.copy()
    some[0, :2] = True
    (diverged,) = trouble(fine, some)
    assert diverged.startswith(f"2 of 80 kept transitions of {MALA()} on the target diverged")
    stuck = fine.copy()
    stuck[1] = 0.0
    (message,) = trouble(stuck, none)
    assert message.startswith(f"1 of 4 chains of {MALA()} on the target are stuck")
    assert "raise its `target_accept_prob`" in message
    for sampler, num_warmup, remedy in (
        (MALA(), 10, "let a longer warm-up tune its `step_size`"),
        (MALA(1.0, target_accept_prob=None), 500, "lower its `step_size`"),
        (Langevin(1.0), 500, "lower its `step_size`"),
    ):
        assert all(remedy in message for message in trouble(stuck, some, sampler, num_warmup))
    # Of a few draws one chain's mean says little.
    assert trouble(stuck[:, :5], none[:, :5]) == []
