import numpy as np
import pytest
from helpers.targets import normal_p_value

from pyro_ebm.core.samplers import replica_exchange as core
from pyro_ebm.core.samplers.dynamics import ChainState, TransitionInfo
from pyro_ebm.core.samplers.settings import HMC, MALA, KineticLangevin, Langevin, check_exact

TEMPERATURES = (8.0, 4.0, 2.0, 1.0)
SCALES = np.sqrt(TEMPERATURES)[:, None, None]
NUM_CHAINS = 20_000


def gaussian(position):
    return 0.5 * (position**2).sum(-1)


def exact_levels(rng):
    """Levels of a standard normal in two dimensions, as `stack_levels` makes them, and a state."""
    position = SCALES * rng.normal(size=(4, NUM_CHAINS, 2))
    one = np.array(1.0)
    states = [ChainState(x, gaussian(x), x, None, one, one, 0) for x in position]
    return states[-1]._replace(hotter=tuple(states[:-1]))


def swapped(state, rng):
    stacked, temperature = core.stack_levels(TEMPERATURES, state)
    info = TransitionInfo(np.ones(stacked.potential.shape), stacked.potential < 0)
    uniform = rng.uniform(size=(3, NUM_CHAINS))
    return core.swap_levels(state, stacked, info, temperature, uniform)


def p_values(num_steps=6):
    """P-values of levels that have done nothing but swap, from exact draws."""
    rng = np.random.default_rng(1)
    state = exact_levels(rng)
    for _ in range(num_steps):
        state, _ = swapped(state, rng)
    return [normal_p_value(x.position / s) for x, s in zip(state.levels(), SCALES, strict=True)]


def test_swaps_leave_every_level_exact():
    assert min(p_values()) > 1e-3


@pytest.mark.parametrize("wrong", [0.0, 0.5, -1.0])
def test_a_wrong_rule_is_caught(monkeypatch, wrong):
    right = core.swap_log_ratio
    monkeypatch.setattr(core, "swap_log_ratio", lambda *args: wrong * right(*args))
    assert max(p_values()) < 1e-3


def test_pairs_take_turns_and_values_go_along():
    rng = np.random.default_rng(0)
    state = exact_levels(rng)
    for pairs in ([(0, 1), (2, 3)], [(1, 2)], [(0, 1), (2, 3)]):
        before, (state, info) = state, swapped(state, rng)
        old, new = (np.stack([x.position for x in s.levels()]) for s in (before, state))
        moved = (old != new).all(-1)
        for k, j in pairs:
            assert 0.5 < moved[k].mean() < 0.9
            np.testing.assert_array_equal(moved[k], moved[j])
            np.testing.assert_array_equal(new[k, moved[k]], old[j, moved[k]])
            np.testing.assert_array_equal(new[j, moved[k]], old[k, moved[k]])
        assert not moved[[k for k in range(4) if k not in sum(pairs, ())]].any()
        for level in state.levels():
            np.testing.assert_allclose(level.potential, gaussian(level.position))
            np.testing.assert_allclose(level.gradient, level.position)
        assert info.swap_rate.shape == (NUM_CHAINS, 3)


def test_a_swap_without_a_density_is_refused():
    infinite = np.array([[np.inf], [np.inf]])
    with np.errstate(invalid="ignore"):
        ratio = core.swap_log_ratio(infinite, np.array([[2.0], [1.0]]))
    assert ratio == -np.inf


# --- settings ---


def test_settings():
    sampler = core.ReplicaExchange(HMC(0.1, adapt_mass_matrix=True), temperatures=[9, 3, 1])
    assert sampler.temperatures == (9.0, 3.0, 1.0)
    assert hash(sampler) == hash(core.ReplicaExchange(sampler.kernel, temperatures=(9, 3, 1)))
    assert (sampler.step_size, sampler.target_accept_prob) == (0.1, 0.8)
    assert sampler.adapt_mass_matrix
    with pytest.raises(ValueError, match="accepts or rejects .* got ReplicaExchange"):
        check_exact(sampler)


@pytest.mark.parametrize("kernel", [Langevin(0.1), KineticLangevin(0.1)])
def test_unadjusted_kernels_are_refused(kernel):
    with pytest.raises(ValueError, match="accepts or rejects .* got "):
        core.ReplicaExchange(kernel)


@pytest.mark.parametrize("wrong", [(), (1.0,), (4.0, 2.0), (1.0, 2.0), (2.0, 2.0, 1.0), 3.0, "ab"])
def test_temperatures_descend_to_1(wrong):
    with pytest.raises(ValueError, match="`temperatures` to descend to 1, got"):
        core.ReplicaExchange(MALA(), temperatures=wrong)
