from types import SimpleNamespace

import numpy as np
import pytest

from pyro_ebm.core.distributions.checks import (
    check_distribution,
    check_energies,
    check_generated_shape,
    check_ingredients,
    check_one_distribution,
    check_one_transform,
    check_real_latent,
    check_value_shape,
)
from pyro_ebm.core.distributions.context import evaluate
from pyro_ebm.core.distributions.energy_based import AbstractEnergyBased, scaled_energy
from pyro_ebm.core.distributions.pushforward import AbstractPushforward, check_noise_scale

BASE = SimpleNamespace(event_shape=(3,), batch_shape=(), log_prob=lambda x: -x.sum(-1))
VALUES = np.random.default_rng(0).normal(size=(3, 4, 2, 5))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3.0, BASE, None, None), TypeError, "`energy` to be callable, got float"),
        ((len, None, None, None), ValueError, "a `base` or an `event_shape`, got neither"),
        ((len, BASE, (2,), None), ValueError, r"that of the base, \(3,\), got \(2,\)"),
        ((len, BASE, None, 0.1), TypeError, "`log_normalizer` to be callable, got float"),
    ],
)
def test_ingredients(arguments, error, message):
    check_ingredients(len, BASE, (3,), float)
    with pytest.raises(error, match=message):
        check_ingredients(*arguments)


def test_host_class_of_a_distribution():
    check_distribution("base", BASE, SimpleNamespace)
    with pytest.raises(TypeError, match="`base` to be a distribution, got float"):
        check_distribution("base", 3.0, SimpleNamespace)


def test_one_distribution_for_all_batch_elements():
    check_one_distribution(SimpleNamespace(base=BASE, context=None))
    check_one_distribution(SimpleNamespace(base=None, context=None))
    batched = SimpleNamespace(event_shape=(), batch_shape=(4,))
    with pytest.raises(ValueError, match=r"elements here, got a base of batch shape \(4,\)"):
        check_one_distribution(SimpleNamespace(base=batched, context=None), " here")
    with pytest.raises(ValueError, match="one distribution for all batch elements, got a context"):
        check_one_distribution(SimpleNamespace(base=BASE, context=0))


def test_latents():
    check_one_transform(BASE, BASE)
    with pytest.raises(ValueError, match="one transform for all batch elements"):
        check_one_transform(BASE, SimpleNamespace(event_shape=(4, 3)))
    check_real_latent(BASE, is_real=True)
    with pytest.raises(ValueError, match="a latent over all real numbers"):
        check_real_latent(BASE, is_real=False)
    assert check_generated_shape((1, 2, 3), (1, 5)) == (2, 3)
    with pytest.raises(ValueError, match=r"the generator to map .* \(2, 3\) from \(1, 5\)"):
        check_generated_shape((2, 3), (1, 5))


@pytest.mark.parametrize(
    ("scale", "message"),
    [(-1.0, "a number of at least 0, got -1.0"), (np.ones(1), r"one number, got shape \(1,\)")],
)
def test_noise_scale(scale, message):
    assert check_noise_scale(1, np.ndarray) == 1.0
    assert check_noise_scale(np.array(0.5), np.ndarray) == 0.5
    with pytest.raises(ValueError, match=f"`noise_scale` to be {message}"):
        check_noise_scale(scale, np.ndarray)


# --- evaluation ---


def evaluate_rows(energy, value, event_shape):
    distribution = SimpleNamespace(event_shape=event_shape, base=None, context=None)
    return evaluate(distribution, energy, value)


def test_energy_sees_one_batch_dimension():
    shapes = []
    energies = evaluate_rows(lambda x: shapes.append(x.shape) or x[:, 0, 0], VALUES, (2, 5))
    assert shapes == [(12, 2, 5)]
    np.testing.assert_array_equal(energies, VALUES[..., 0, 0])
    assert evaluate_rows(lambda x: x[:, 0], np.ones((0, 2)), (2,)).shape == (0,)
    assert evaluate_rows(lambda x: x[:, 0], np.ones(2), (2,)).shape == ()


@pytest.mark.parametrize(
    ("energy", "got"),
    [
        (lambda x: x.sum(-1, keepdims=True), r"shape \(7, 1\)"),
        (lambda x: x.sum(), r"shape \(\)"),
        (lambda x: 0.0, "float"),
    ],
)
def test_wrong_energy_shape(energy, got):
    assert check_energies(np.ones(7), np.ones((7, 2)), None).shape == (7,)
    with pytest.raises(ValueError, match=r"Expected the energy to map .* got " + got):
        evaluate_rows(energy, np.ones((7, 2)), (2,))


def test_energies_are_real_numbers():
    counts = evaluate_rows(lambda x: (x > 1).sum(-1), np.arange(6).reshape((3, 2)), (2,))
    assert counts.dtype == float
    assert counts.tolist() == [0.0, 2.0, 2.0]
    assert evaluate_rows(lambda x: x[:, 0] > 1, np.ones((3, 2)), (2,)).tolist() == [0.0] * 3
    with pytest.raises(ValueError, match="the energy to give real numbers, got complex128"):
        evaluate_rows(lambda x: x[:, 0] + 1j, np.ones((3, 2)), (2,))


def test_wrong_event_shape():
    assert check_value_shape((7, 2), (2,)) == (7,)
    for shape in ((7, 2), ()):
        with pytest.raises(ValueError, match=r"a value of event shape \(3,\), got .*"):
            check_value_shape(shape, (3,))


def test_inverse_temperature_scales_the_energy():
    distribution = AbstractEnergyBased()
    distribution.energy, distribution.event_shape = lambda x: x.sum((-1, -2)), (2, 5)
    for inverse_temperature in (1.0, 3.0):
        distribution.inverse_temperature = inverse_temperature
        expected = inverse_temperature * VALUES.sum((-1, -2))
        np.testing.assert_allclose(scaled_energy(distribution, VALUES), expected)


def test_generator_sees_one_batch_dimension():
    pushforward = AbstractPushforward()
    pushforward.latent = SimpleNamespace(event_shape=(2, 5))
    pushforward.generator = lambda z: z.sum(-1)
    pushforward.event_shape = (2,)
    np.testing.assert_allclose(pushforward.generate(VALUES), VALUES.sum(-1))
