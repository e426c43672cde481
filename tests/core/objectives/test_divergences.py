import math

import numpy as np
import pytest
from helpers.divergence_games import ALPHAS, BY_NAME, LE_CAM

from pyro_ebm.core.objectives.divergences import (
    DIVERGENCES,
    alpha_divergence,
    check_f,
    check_function,
    find_divergence,
    from_function,
)

# Symmetric about zero, which is among them.
LOG_RATIOS = np.linspace(-6, 6, 601)
FUNCTIONS = ("a", "b", "a_derivative", "b_derivative")

every_divergence = pytest.mark.parametrize("divergence", BY_NAME.values(), ids=BY_NAME)


@every_divergence
def test_functions_follow_from_f(divergence):
    """To a hundred times the error of central differences."""
    step = np.finfo(float).eps ** (1 / 3)

    def slope(function):
        return (function(LOG_RATIOS + step) - function(LOG_RATIOS - step)) / (2 * step)

    u, f = np.exp(LOG_RATIOS), divergence.f(np.exp(LOG_RATIOS))
    a, b, a_derivative, b_derivative = (getattr(divergence, n)(LOG_RATIOS) for n in FUNCTIONS)
    tolerance = 100 * step**2 * (abs(f) + abs(u * a) + abs(b) + abs(b_derivative))
    for found, expected in [
        (u * a, slope(lambda ell: divergence.f(np.exp(ell)))),
        (b, u * a - f),
        (u * a_derivative, u * slope(divergence.a)),
        (b_derivative, u * a_derivative),
    ]:
        assert np.all(abs(found - expected) <= tolerance)
    assert np.all(b_derivative > 0)


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
    ("name", "conjugate"),
    [
        ("kl", lambda t: np.exp(t - 1)),
        ("reverse_kl", lambda t: -1 - np.log(-t)),
        ("jensen_shannon", lambda t: -np.log(2 - np.exp(t))),
        ("squared_hellinger", lambda t: t / (1 - t)),
        ("pearson", lambda t: t**2 / 4 + t),
        ("neyman", lambda t: 2 - 2 * np.sqrt(1 - t)),
        ("gan", lambda t: -np.log(1 - np.exp(t))),
        *[(f"alpha={alpha}", alpha_conjugate(alpha)) for alpha in (-1, -0.5, 0.5, 2)],
    ],
)
def test_b_is_the_conjugate_in_closed_form(name, conjugate):
    ell, divergence = LOG_RATIOS[150:-150], BY_NAME[name]
    np.testing.assert_allclose(divergence.b(ell), conjugate(divergence.a(ell)), atol=1e-12)


# f'(1), f(1) and f''(1).
AT_ONE = {
    "kl": (1, 0, 1),
    "reverse_kl": (-1, 0, 1),
    "jensen_shannon": (0, 0, 0.5),
    "squared_hellinger": (0, 0, 0.5),
    "pearson": (0, 0, 2),
    "neyman": (0, 0, 2),
    "jeffreys": (0, 0, 2),
    "gan": (-math.log(2), -math.log(4), 0.5),
    **{f"alpha={alpha}": (0, 0, 1) for alpha in ALPHAS},
    "le_cam": (0, 0, 1),
}


@pytest.mark.parametrize("name", BY_NAME)
def test_where_data_and_model_agree(name):
    divergence, (slope, value, curvature) = BY_NAME[name], AT_ONE[name]
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
    ("alpha", "factor", "name"),
    [(-1, 0.5, "neyman"), (0.5, 2, "squared_hellinger"), (2, 0.5, "pearson"), (1, 1, "kl")]
    + [(alpha, 1, "kl") for alpha in (1 - 1e-12, 1 + 1e-12)]
    + [(alpha, 1, "reverse_kl") for alpha in (-1e-12, 0, 1e-12)],
)
def test_members_of_the_alpha_family(alpha, factor, name):
    member = alpha_divergence(alpha).closed_form
    for function in FUNCTIONS:
        ours, theirs = (getattr(d, function)(LOG_RATIOS) for d in (member, BY_NAME[name]))
        constant = ours[300] - factor * theirs[300]
        np.testing.assert_allclose(ours - constant, factor * theirs, rtol=1e-9, atol=1e-9)
        assert constant == 0 or (function in "ab" and name in {"kl", "reverse_kl"})


@pytest.mark.parametrize("alpha", [-1, -0.5, 0.3, 0.9, 3])
def test_alpha_is_its_formula(alpha):
    u = np.exp(LOG_RATIOS)
    formula = (u**alpha - 1 - alpha * (u - 1)) / (alpha * (alpha - 1))
    f = alpha_divergence(alpha).closed_form.f
    np.testing.assert_allclose(f(u), formula, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["jensen_shannon", "gan"])
def test_bounded_slopes_need_no_bound_on_the_log_ratio(name):
    divergence, ell = BY_NAME[name], np.array([-1000, -50, 50, 1000], dtype=np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        a, b = divergence.a(ell), divergence.b(ell)
        slopes = [divergence.a_derivative(ell), divergence.b_derivative(ell)]
    # Straight lines, up to the constant of f(1).
    constant = divergence.b(np.zeros(1)) - math.log(2)
    np.testing.assert_allclose(a, np.minimum(ell, 0) - constant, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(b, np.maximum(ell, 0) + constant, rtol=1e-6, atol=1e-6)
    small = np.exp(-np.abs(ell))
    np.testing.assert_allclose(slopes[0], np.where(ell < 0, 1, small), rtol=1e-5)
    np.testing.assert_allclose(slopes[1], np.where(ell > 0, 1, small), rtol=1e-5)
    assert all(array.dtype == np.float32 for array in [a, b, *slopes])


# --- names and functions ---


def test_names():
    for name, divergence in DIVERGENCES.items():
        check_f(name)
        assert find_divergence(name) is divergence
    assert alpha_divergence(-0.5) == alpha_divergence(-0.5) != alpha_divergence(0.5)
    ell = np.ones(1)
    assert find_divergence(alpha_divergence(2)).b(ell) == BY_NAME["alpha=2"].b(ell)
    assert find_divergence(np.square) is None


@pytest.mark.parametrize("alpha", [math.nan, math.inf, True, "kl"])
def test_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match="Expected `alpha` to be a finite number, got "):
        alpha_divergence(alpha)


def le_cam(
    f=LE_CAM.f,
    first=lambda u: (u - 1) * (u + 3) / (u + 1) ** 2,
    second=lambda u: 8 / (u + 1) ** 3,
):
    """Divergence from a function, where differentiation is a table."""
    return from_function(f, {f: first, first: second}.__getitem__)


def test_divergence_of_a_function():
    divergence = le_cam()
    check_function(divergence, LOG_RATIOS)
    for name in FUNCTIONS:
        expected = getattr(LE_CAM, name)(LOG_RATIOS)
        np.testing.assert_allclose(getattr(divergence, name)(LOG_RATIOS), expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"f": lambda u: np.where(u > 2, math.inf, (u - 1) ** 2 / (u + 1))},
            "f to be finite, got inf at u = 2.0",
        ),
        ({"f": lambda u: u.sum()}, r"f to be elementwise, got shape \(\) from \(601,\)"),
        ({"first": lambda u: math.nan * u}, "f' to be finite, got nan"),
        ({"second": lambda u: math.inf * u}, "f'' to be finite, got inf"),
        ({"second": lambda u: -8 / (u + 1) ** 3}, "f to be convex .*, got -.* at u = "),
    ],
)
def test_functions_that_make_no_divergence(wrong, message):
    with pytest.raises(ValueError, match=f"Expected {message}"):
        check_function(le_cam(**wrong), LOG_RATIOS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_linear_pieces_count_as_convex(dtype):
    """Their curvature is rounding; with nothing but such pieces no critic has a gradient."""
    rounding, log_ratio = np.finfo(dtype).eps, np.linspace(-3, 3, 25, dtype=dtype)

    def piecewise(curvature):
        bend = lambda u: np.where(u > 1, curvature, -rounding / u).astype(dtype)  # noqa: E731
        return le_cam(lambda u: 3 * (u - 1), lambda u: 0 * u + 3, bend)

    check_function(piecewise(1.0), log_ratio)
    with pytest.raises(ValueError, match="got a function without curvature, as that of total"):
        check_function(piecewise(0.0), log_ratio)
