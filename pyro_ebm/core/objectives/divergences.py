r"""The f-divergences as records, in the logarithm of the density ratio.

.. math:: D_f(p \| q) = \mathbb E_q[f(u)], \qquad u = p / q, \quad \ell = \log u

with f convex. Training by a variational bound needs four functions of :math:`\ell`:

.. math::
    a = f'(e^\ell), \qquad b = f^*(f'(e^\ell)) = e^\ell f'(e^\ell) - f(e^\ell), \qquad
    \frac{da}{d\ell}, \qquad \frac{db}{d\ell} = e^\ell \frac{da}{d\ell}

where :math:`f^*` is the convex conjugate. They are written here such that a large
:math:`|\ell|` overflows only where the result itself does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_choice, check_finite

__all__ = [
    "GAN",
    "JEFFREYS",
    "JENSEN_SHANNON",
    "KL",
    "NEYMAN",
    "PEARSON",
    "REVERSE_KL",
    "SQUARED_HELLINGER",
    "Divergence",
    "alpha_divergence",
    "check_divergence",
    "find_divergence",
]


@dataclass(frozen=True)
class Divergence:
    r"""An f-divergence, as functions that map arrays of NumPy, torch or JAX elementwise.

    Its curvature :math:`f''(1) = a'(0)` sets the size of the gradients near the optimum.

    Attributes:
        name: What it is called in errors.
        f: :math:`f(u)`.
        a: :math:`f'(e^\ell)` as a function of :math:`\ell`.
        b: :math:`f^*(f'(e^\ell))` as a function of :math:`\ell`.
        a_derivative: :math:`da/d\ell = u f''(u)` as a function of :math:`\ell`.
        b_derivative: :math:`db/d\ell = u^2 f''(u)` as a function of :math:`\ell`.
    """

    name: str
    f: Callable[[Any], Any] = field(repr=False)
    a: Callable[[Any], Any] = field(repr=False)
    b: Callable[[Any], Any] = field(repr=False)
    a_derivative: Callable[[Any], Any] = field(repr=False)
    b_derivative: Callable[[Any], Any] = field(repr=False)

    @staticmethod
    def from_function(
        name: str,
        f: Callable[[Any], Any],
        first: Callable[[Any], Any],
        second: Callable[[Any], Any],
    ) -> "Divergence":
        r"""Divergence of a convex f with its two derivatives.

        An objective checks them when it is made, see :func:`check_divergence`. Powers of
        :math:`e^\ell` overflow early, so give the objective a bound on the log-ratio.

        Args:
            name: What to call it in errors.
            f: :math:`f(u)`, a function of arrays of positive numbers.
            first: :math:`f'(u)`.
            second: :math:`f''(u)`.

        Example:
            >>> le_cam = Divergence.from_function(
            ...     "le_cam",
            ...     f=lambda u: (u - 1) ** 2 / (u + 1),
            ...     first=lambda u: (u - 1) * (u + 3) / (u + 1) ** 2,
            ...     second=lambda u: 8 / (u + 1) ** 3,
            ... )
        """

        def b(ell: Any) -> Any:
            u = _exp(ell)
            return u * first(u) - f(u)

        def a_derivative(ell: Any) -> Any:
            u = _exp(ell)
            return u * second(u)

        def b_derivative(ell: Any) -> Any:
            return _exp(ell) * a_derivative(ell)

        return Divergence(name, f, lambda ell: first(_exp(ell)), b, a_derivative, b_derivative)


def find_divergence(divergence: Divergence | str) -> Divergence:
    """Return the divergence of that name, or the record itself if it is one.

    Raises:
        TypeError: If it is neither a name nor a :class:`Divergence`.
        ValueError: If nothing has that name; lists the names.
    """
    if isinstance(divergence, Divergence):
        return divergence
    if not isinstance(divergence, str):
        raise TypeError(
            f"Expected `divergence` to be a Divergence or one of {list(_BY_NAME)}, "
            f"got {divergence!r}."
        )
    return _BY_NAME[check_choice("divergence", divergence, _BY_NAME)]


def check_divergence(divergence: Divergence, log_ratio: Any) -> None:
    r"""Raise unless f is finite and convex and the other functions follow from it.

    Derivatives are compared with central differences of step :math:`\varepsilon^{1/3}`, where
    :math:`\varepsilon` is the resolution of the array's dtype, to a hundred times the error that
    these have.

    Args:
        divergence: The record.
        log_ratio: Where to look: some :math:`\ell`, shape ``(N,)``, of the array library that the
            functions are to work with; within about 3 of zero in single precision.

    Raises:
        ValueError: If something does not hold; says what and where.
    """
    xp = array_namespace(log_ratio)
    step = float(xp.finfo(log_ratio.dtype).eps) ** (1 / 3)

    def slope(function: Callable[[Any], Any]) -> Any:
        return (function(log_ratio + step) - function(log_ratio - step)) / (2.0 * step)

    u = xp.exp(log_ratio)
    names = ("a", "b", "a_derivative", "b_derivative")
    values = {"f": divergence.f(u)} | {n: getattr(divergence, n)(log_ratio) for n in names}
    for name, value in values.items():
        _check_at(u, xp.isfinite(value), f"{name} of {divergence} to be finite", value)
    f, a, b, a_derivative, b_derivative = values.values()
    scale = xp.abs(f) + xp.abs(u * a) + xp.abs(b) + xp.abs(b_derivative)
    for claim, got, expected in (
        ("u a = u f'(u)", u * a, slope(lambda ell: divergence.f(xp.exp(ell)))),
        ("b = u f'(u) - f(u)", b, u * a - f),
        ("u a_derivative = u^2 f''(u)", u * a_derivative, u * slope(divergence.a)),
        ("b_derivative = u^2 f''(u)", b_derivative, u * a_derivative),
        ("convexity, u^2 f''(u) >= 0,", b_derivative, xp.abs(b_derivative)),
    ):
        holds = xp.abs(got - expected) <= 100.0 * step**2 * scale
        _check_at(u, holds, f"{claim} of {divergence}", got)


def _check_at(u: Any, holds: Any, claim: str, got: Any) -> None:
    xp = array_namespace(holds)
    if not bool(xp.all(holds)):
        i = int(xp.argmin(xp.astype(holds, xp.int32)))
        raise ValueError(f"Expected {claim}, got {float(got[i]):.6g} at u = {float(u[i]):.4g}.")


def alpha_divergence(alpha: float) -> Divergence:
    r"""The alpha-divergence, which covers all modes for large alpha and seeks one for negative.

    .. math:: f(u) = \frac{u^\alpha - 1 - \alpha (u - 1)}{\alpha (\alpha - 1)}

    Alpha 1 is KL, 0 reverse KL, 1/2 twice squared Hellinger, 2 half of Pearson and -1 half of
    Neyman (up to a multiple of :math:`u - 1` in f).
    """
    alpha = check_finite("alpha", alpha)

    def a(ell: Any) -> Any:
        return _scaled_expm1(ell, alpha - 1.0)

    def b(ell: Any) -> Any:
        return _scaled_expm1(ell, alpha)

    return Divergence(
        f"alpha={alpha:g}",
        # The same as the formula above without its differences of large terms near 0 and 1.
        f=lambda u: u * a(_log(u)) - b(_log(u)),
        a=a,
        b=b,
        a_derivative=lambda ell: _exp((alpha - 1.0) * ell),
        b_derivative=lambda ell: _exp(alpha * ell),
    )


def _scaled_expm1(x: Any, rate: float) -> Any:
    return _expm1(rate * x) / rate if rate != 0 else x


def _elementwise(name: str) -> Callable[[Any], Any]:
    return lambda x: getattr(array_namespace(x), name)(x)


_exp, _expm1, _log, _log1p = map(_elementwise, ("exp", "expm1", "log", "log1p"))
_ones = _elementwise("ones_like")


def _softplus(x: Any) -> Any:
    xp = array_namespace(x)
    return xp.logaddexp(x, xp.zeros_like(x))


def _sigmoid(x: Any) -> Any:
    return _exp(-_softplus(-x))


# Maximum likelihood: f = u log u.
KL = Divergence(
    "kl",
    f=lambda u: u * _log(u),
    a=lambda ell: 1.0 + ell,
    b=_exp,
    a_derivative=_ones,
    b_derivative=_exp,
)

REVERSE_KL = Divergence(
    "reverse_kl",
    f=lambda u: -_log(u),
    a=lambda ell: -_exp(-ell),
    b=lambda ell: ell - 1.0,
    a_derivative=lambda ell: _exp(-ell),
    b_derivative=_ones,
)

# Twice the Jensen-Shannon divergence of information theory.
JENSEN_SHANNON = Divergence(
    "jensen_shannon",
    f=lambda u: u * _log(u) - (u + 1.0) * _log((u + 1.0) / 2.0),
    a=lambda ell: math.log(2.0) - _softplus(-ell),
    b=lambda ell: _softplus(ell) - math.log(2.0),
    a_derivative=lambda ell: _sigmoid(-ell),
    b_derivative=_sigmoid,
)

SQUARED_HELLINGER = Divergence(
    "squared_hellinger",
    f=lambda u: (u**0.5 - 1.0) ** 2,
    a=lambda ell: -_expm1(-0.5 * ell),
    b=lambda ell: _expm1(0.5 * ell),
    a_derivative=lambda ell: 0.5 * _exp(-0.5 * ell),
    b_derivative=lambda ell: 0.5 * _exp(0.5 * ell),
)

PEARSON = Divergence(
    "pearson",
    f=lambda u: (u - 1.0) ** 2,
    a=lambda ell: 2.0 * _expm1(ell),
    b=lambda ell: _expm1(2.0 * ell),
    a_derivative=lambda ell: 2.0 * _exp(ell),
    b_derivative=lambda ell: 2.0 * _exp(2.0 * ell),
)

NEYMAN = Divergence(
    "neyman",
    f=lambda u: (1.0 - u) ** 2 / u,
    a=lambda ell: -_expm1(-2.0 * ell),
    b=lambda ell: -2.0 * _expm1(-ell),
    a_derivative=lambda ell: 2.0 * _exp(-2.0 * ell),
    b_derivative=lambda ell: 2.0 * _exp(-ell),
)

# The sum of KL and reverse KL.
JEFFREYS = Divergence(
    "jeffreys",
    f=lambda u: (u - 1.0) * _log(u),
    a=lambda ell: 1.0 + ell - _exp(-ell),
    b=lambda ell: _exp(ell) + ell - 1.0,
    a_derivative=lambda ell: 1.0 + _exp(-ell),
    b_derivative=lambda ell: 1.0 + _exp(ell),
)

# Jensen-Shannon as a GAN has it: f = u log u - (u + 1) log(u + 1), and f(1) = -log 4.
GAN = Divergence(
    "gan",
    f=lambda u: -u * _log1p(1.0 / u) - _log1p(u),
    a=lambda ell: -_softplus(-ell),
    b=_softplus,
    a_derivative=lambda ell: _sigmoid(-ell),
    b_derivative=_sigmoid,
)

_ALL = (KL, REVERSE_KL, JENSEN_SHANNON, SQUARED_HELLINGER, PEARSON, NEYMAN, JEFFREYS, GAN)
_BY_NAME = {divergence.name: divergence for divergence in _ALL}
