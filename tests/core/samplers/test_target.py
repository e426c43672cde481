from types import SimpleNamespace

import numpy as np
import pytest

from pyro_ebm.core.samplers.target import AbstractTarget


class Exponential:
    """Bijection from the real line to positive numbers."""

    __call__ = staticmethod(np.exp)
    inv = staticmethod(np.log)

    @staticmethod
    def log_abs_det_jacobian(position, value):
        return np.log(value)


class Target(AbstractTarget):
    @staticmethod
    def biject_to(support):
        if not support.is_known:
            raise NotImplementedError
        return Exponential()

    @staticmethod
    def is_real(support):
        return support.is_real


def support(*, is_real=False, is_discrete=False, is_known=True):
    return SimpleNamespace(is_real=is_real, is_discrete=is_discrete, is_known=is_known)


class Gamma:
    """Density x^2 exp(-x) up to a constant."""

    support = support()

    def log_prob(self, value):
        return 2 * np.log(value) - value


class EnergyBased(Gamma):
    base = energy = _validate_args = _is_probed = None

    def potential(self, value):
        return -Gamma.log_prob(self, value)

    def _check_rows(self, value):
        raise AssertionError

    _reference = _check_rows

    def log_prob(self, value):
        raise AssertionError


@pytest.mark.parametrize("distribution", [Gamma(), EnergyBased()])
def test_change_of_variables(distribution):
    target, position = Target.of(distribution), np.linspace(-1.0, 1.0, 5)
    value = target.value(position)
    np.testing.assert_allclose(target.position(value), position)
    np.testing.assert_allclose(target.log_volume(position), position)
    np.testing.assert_allclose(target.potential(position), value - 3 * position)


def test_no_change_of_variables_on_all_of_space():
    target = Target(support(is_real=True), lambda value: value**2)
    assert target.is_unconstrained
    assert target.potential(3.0) == 9.0


@pytest.mark.parametrize("option", [{"is_discrete": True}, {"is_known": False}])
def test_support_without_a_bijection(option):
    with pytest.raises(ValueError, match="a continuous support .* got .* of the distribution"):
        Target(support(**option), np.sum, "the distribution")
