import importlib
import math

import numpy as np
import pytest
from helpers.divergence_games import LE_CAM

from pyro_ebm.core.objectives.divergences import (
    GAN,
    JEFFREYS,
    JENSEN_SHANNON,
    KL,
    NEYMAN,
    PEARSON,
    REVERSE_KL,
    SQUARED_HELLINGER,
    Divergence,
    alpha_divergence,
    check_divergence,
    find_divergence,
)

# Symmetric about zero, which is among them.
LOG_RATIOS = np.linspace(-6, 6, 601)

BUILT_IN = [KL, REVERSE_KL, JENSEN_SHANNON, SQUARED_HELLINGER, PEARSON, NEYMAN, JEFFREYS, GAN]
ALPHAS = [alpha_divergence(alpha) for alpha in (-1, -0.5, 0, 0.5, 0.9, 1, 2)]
EVERY = [*BUILT_IN, *ALPHAS, Divergence.from_function("le_cam", **LE_CAM)]

every_divergence = pytest.mark.parametrize("divergence", EVERY, ids=lambda d: d.name)


@every_divergence
def test_functions_follow_from_f(divergence):
    check_divergence(divergence, LOG_RATIOS)
    check_divergence(divergence, np.linspace(-3, 3, 61, dtype=np.float32))


@every_divergence
def test_b_is_the_conjugate_by_search(divergence):
    a, b = divergence.a(LOG_RATIOS), divergence.b(LOG_RATIOS)
    u = np.exp(LOG_RATIOS)
    searched = np.max(u * a[:, None] - divergence.f(u), axis=1)
    # The differences cancel where u is large.
    np.testing.assert_allclose(b, searched, rtol=1e-11, atol=1e-11)


def alpha_conjugate(alpha):
    return lambda t: ((1 + (alpha - 1) * t) ** (alpha / (alpha - 1)) - 1) / alpha


@pytest.mark.parametrize(
    ("divergence", "conjugate"),
    [
        (KL, lambda t: np.exp(t - 1)),
        (REVERSE_KL, lambda t: -1 - np.log(-t)),
        (JENSEN_SHANNON, lambda t: -np.log(2 - np.exp(t))),
        (SQUARED_HELLINGER, lambda t: t / (1 - t)),
        (PEARSON, lambda t: t**2 / 4 + t),
        (NEYMAN, lambda t: 2 - 2 * np.sqrt(1 - t)),
        (GAN, lambda t: -np.log(1 - np.exp(t))),
        *[(alpha_divergence(alpha), alpha_conjugate(alpha)) for alpha in (-1, -0.5, 0.5, 2)],
    ],
    ids=lambda d: getattr(d, "name", ""),
)
def test_b_is_the_conjugate_in_closed_form(divergence, conjugate):
    ell = LOG_RATIOS[150:-150]
    np.testing.assert_allclose(divergence.b(ell), conjugate(divergence.a(ell)), atol=1e-12)


@pytest.mark.parametrize(
    ("divergence", "slope", "value", "curvature"),
    [
        (KL, 1, 0, 1),
        (REVERSE_KL, -1, 0, 1),
        (JENSEN_SHANNON, 0, 0, 0.5),
        (SQUARED_HELLINGER, 0, 0, 0.5),
        (PEARSON, 0, 0, 2),
        (NEYMAN, 0, 0, 2),
        (JEFFREYS, 0, 0, 2),
        (GAN, -math.log(2), -math.log(4), 0.5),
        *[(alpha, 0, 0, 1) for alpha in ALPHAS],
        (EVERY[-1], 0, 0, 1),
    ],
    ids=lambda d: getattr(d, "name", ""),
)
def test_where_data_and_model_agree(divergence, slope, value, curvature):
    zero, step = np.zeros(1), 1e-5
    assert divergence.f(zero + 1) == pytest.approx(value)
    assert divergence.a(zero) == pytest.approx(slope)
    assert divergence.b(zero) == pytest.approx(slope - value)
    assert divergence.a_derivative(zero) == pytest.approx(curvature)

    def difference(ell):
        return divergence.a_derivative(ell) - divergence.b_derivative(ell)

    second = (difference(zero + step) - difference(zero - step)) / (2 * step)
    assert second == pytest.approx(-curvature, abs=1e-8)


@pytest.mark.parametrize(
    ("alpha", "factor", "divergence"),
    [(-1, 0.5, NEYMAN), (0.5, 2, SQUARED_HELLINGER), (2, 0.5, PEARSON), (1, 1, KL)]
    + [(alpha, 1, KL) for alpha in (1 - 1e-12, 1 + 1e-12)]
    + [(alpha, 1, REVERSE_KL) for alpha in (-1e-12, 0, 1e-12)],
)
def test_alpha_has_the_others_as_members(alpha, factor, divergence):
    member = alpha_divergence(alpha)
    names = ("a", "b", "a_derivative", "b_derivative")
    for name in names:
        ours, theirs = (getattr(d, name)(LOG_RATIOS) for d in (member, divergence))
        constant = ours[300] - factor * theirs[300]
        np.testing.assert_allclose(ours - constant, factor * theirs, rtol=1e-9, atol=1e-9)
        assert constant == 0 or (name in "ab" and divergence in (KL, REVERSE_KL))


@pytest.mark.parametrize("alpha", [-1, -0.5, 0.3, 0.9, 3])
def test_alpha_is_its_formula(alpha):
    u = np.exp(LOG_RATIOS)
    formula = (u**alpha - 1 - alpha * (u - 1)) / (alpha * (alpha - 1))
    np.testing.assert_allclose(alpha_divergence(alpha).f(u), formula, rtol=1e-11, atol=1e-13)


def test_a_divergence_from_its_function():
    user = Divergence.from_function(
        "user", lambda u: u * np.log(u), lambda u: 1 + np.log(u), lambda u: 1 / u
    )
    for name in ("a", "b", "a_derivative", "b_derivative"):
        expected = getattr(KL, name)(LOG_RATIOS)
        np.testing.assert_allclose(getattr(user, name)(LOG_RATIOS), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"f": lambda u: np.where(u > 2, math.inf, (u - 1) ** 2 / (u + 1))},
            "f of .* to be finite, got inf at u = 2.0",
        ),
        ({"first": lambda u: 1.01 * LE_CAM["first"](u)}, "u a = u f'.u. of .*, got .* at u = 0.00"),
        ({"first": lambda u: math.nan * u}, "a of .* to be finite, got nan"),
        ({"second": lambda u: 9 / (u + 1) ** 3}, r"u a_derivative = u\^2 f''.u. of .*, got .* at"),
        ({"second": lambda u: math.inf * u}, "a_derivative of .* to be finite, got inf"),
        (
            {name: lambda u, function=function: -function(u) for name, function in LE_CAM.items()},
            r"convexity, u\^2 f''.u. >= 0, of .*, got -.* at u = ",
        ),
    ],
)
def test_a_wrong_function_is_found(wrong, message):
    divergence = Divergence.from_function("mine", **(LE_CAM | wrong))
    with pytest.raises(ValueError, match=f"Expected {message}") as error:
        check_divergence(divergence, LOG_RATIOS)
    assert "Divergence(name='mine')" in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("b", "b = u f'"), ("b_derivative", r"b_derivative = u\^2 f''")],
)
def test_a_wrong_record_is_found(name, message):
    functions = {
        **vars(JENSEN_SHANNON),
        name: lambda ell: 1e-5 + getattr(JENSEN_SHANNON, name)(ell),
    }
    with pytest.raises(ValueError, match=f"Expected {message}.*'jensen_shannon'"):
        check_divergence(Divergence(**functions), LOG_RATIOS)


def test_names():
    assert [find_divergence(divergence.name) for divergence in BUILT_IN] == BUILT_IN
    assert find_divergence(ALPHAS[0]) is ALPHAS[0]
    assert repr(alpha_divergence(-0.5)) == "Divergence(name='alpha=-0.5')"
    with pytest.raises(ValueError, match=r"one of \['kl', 'reverse_kl', .*, got 'lk'"):
        find_divergence("lk")
    with pytest.raises(TypeError, match=r"a Divergence or one of \['kl', .*, got 0.5"):
        find_divergence(0.5)
    for bad in (math.nan, math.inf, True, "kl"):
        with pytest.raises(ValueError, match="Expected `alpha` to be a finite number, got "):
            alpha_divergence(bad)


@pytest.mark.parametrize("divergence", [JENSEN_SHANNON, GAN], ids=lambda d: d.name)
def test_bounded_slopes_need_no_bound_on_the_log_ratio(divergence):
    ell = np.array([-1000, -50, 50, 1000], dtype=np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        a, b = divergence.a(ell), divergence.b(ell)
        slopes = [divergence.a_derivative(ell), divergence.b_derivative(ell)]
    # They run along straight lines, up to the constant of f(1).
    constant = divergence.b(np.zeros(1)) - math.log(2)
    np.testing.assert_allclose(a, np.minimum(ell, 0) - constant, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(b, np.maximum(ell, 0) + constant, rtol=1e-6, atol=1e-6)
    small = np.exp(-np.abs(ell))
    np.testing.assert_allclose(slopes[0], np.where(ell < 0, 1, small), rtol=1e-5)
    np.testing.assert_allclose(slopes[1], np.where(ell > 0, 1, small), rtol=1e-5)
    assert all(array.dtype == np.float32 for array in [a, b, *slopes])


@every_divergence
@pytest.mark.parametrize("library", ["array_api_strict", "torch", "jax.numpy"])
def test_arrays_of_any_library(library, divergence):
    pytest.importorskip(library.split(".")[0])
    xp = importlib.import_module(library)
    ell = np.linspace(-3, 3, 61, dtype=np.float32)
    for name in ("a", "b", "a_derivative", "b_derivative"):
        function = getattr(divergence, name)
        result = np.asarray(function(xp.asarray(ell)))
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, function(ell), rtol=2e-6, atol=2e-6)
    check_divergence(divergence, xp.asarray(ell))
