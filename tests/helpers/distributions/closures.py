"""Energies that are functions of variables, which may change after the distribution is made."""

import numpy as np
import pytest

SCALES = [1.0, 100.0]


def directly(scale):
    return lambda x: scale * x**2 / 2


def through_another(scale):
    square = lambda x: scale * x**2  # noqa: E731
    return lambda x: square(x) / 2


def recursive(scale):
    def energy(x, depth=2):
        return energy(x, depth - 1) if depth else scale * x**2 / 2

    return energy


@pytest.mark.parametrize("make", [directly, through_another, recursive])
def test_closures(host, make):
    found = [
        host.ebm.EnergyBased(make(s), event_shape=()).potential(host.array(1.0)) for s in SCALES
    ]
    assert [float(potential) for potential in found] == [0.5, 50.0]


def test_variables_of_a_loop(host):
    distributions = []
    for k in range(2):
        plain = lambda x: SCALES[k] * x**2 / 2  # noqa: B023, E731
        options = {"event_shape": (), "log_normalizer": lambda: host.array(k)}  # noqa: B023
        distributions.append(host.ebm.EnergyBased(lambda x: plain(x), **options))  # noqa: B023
    found = [float(d.log_prob(host.array(1.0))) for d in distributions]
    assert found == [-0.5, -51.0]


def test_shared_variables_stay_shared(host):
    seen, count = [], 0

    def energy(x):
        nonlocal count
        count += 1
        seen.append(len(x))
        return later(x)

    distribution = host.ebm.EnergyBased(energy, event_shape=())
    later = lambda x: 3 * x  # noqa: E731
    np.testing.assert_allclose(distribution.potential(host.array([1.0, 2.0])), [3.0, 6.0])
    assert (count, seen) == (1, [2])


def test_log_normalizers_are_bound_too(host):
    values = []
    for k in range(2):
        options = {"event_shape": (), "log_normalizer": lambda: k * host.array(1.0)}  # noqa: B023
        values.append(host.ebm.EnergyBased(lambda x: 0 * x, **options))
    assert [float(d.log_prob(host.array(0.0))) for d in values] == [0.0, -1.0]
