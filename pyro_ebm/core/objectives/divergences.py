r"""The f-divergences, as functions of the logarithm of the density ratio.

.. math:: D_f(p \| q) = \mathbb E_q[f(u)], \qquad u = p / q, \quad \ell = \log u

with f convex. Training by a variational bound needs four functions of :math:`\ell`:

.. math::
    a = f'(e^\ell), \qquad b = f^*(f'(e^\ell)) = e^\ell f'(e^\ell) - f(e^\ell), \qquad
    \frac{da}{d\ell}, \qquad \frac{db}{d\ell} = e^\ell \frac{da}{d\ell}

where :math:`f^*` is the convex conjugate. The closed forms below overflow for large
:math:`|\ell|` only where the result itself does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_choice, check_finite

Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Divergence:
    r"""An f-divergence, as elementwise functions of arrays.

    Its curvature :math:`f''(1) = a'(0)` sets the size of the gradients near the optimum.

    Attributes:
        f: :math:`f(u)`.
        a: :math:`f'(e^\ell)` as a function of :math:`\ell`.
        b: :math:`f^*(f'(e^\ell))` as a function of :math:`\ell`.
        a_derivative: :math:`da/d\ell = u f''(u)` as a function of :math:`\ell`.
        b_derivative: :math:`db/d\ell = u^2 f''(u)` as a function of :math:`\ell`.
    """

    f: Function
    a: Function
    b: Function
    a_derivative: Function
    b_derivative: Function


@dataclass(frozen=True)
class AlphaDivergence:
    """An alpha-divergence by its number, which can be compared and pickled."""

    alpha: float

    @property
    def closed_form(self) -> Divergence:
        """Its functions."""
        alpha = self.alpha

        def a(ell: Any) -> Any:
            return _scaled_expm1(ell, alpha - 1.0)

        def b(ell: Any) -> Any:
            return _scaled_expm1(ell, alpha)

        return Divergence(
            # The formula without its differences of large terms near alpha 0 and 1.
            f=lambda u: u * a(_log(u)) - b(_log(u)),
            a=a,
            b=b,
            a_derivative=lambda ell: _exp((alpha - 1.0) * ell),
            b_derivative=lambda ell: _exp(alpha * ell),
        )


def alpha_divergence(alpha: float) -> AlphaDivergence:
    r"""Make an alpha-divergence, which covers modes for large alpha and seeks them for negative.

    .. math:: f(u) = \frac{u^\alpha - 1 - \alpha (u - 1)}{\alpha (\alpha - 1)}

    Alpha 1 is KL, 0 reverse KL, 1/2 twice squared Hellinger, 2 half of Pearson and -1 half of
    Neyman (up to a multiple of :math:`u - 1` in f).

    Args:
        alpha: Any finite number.
    """
    return AlphaDivergence(check_finite("alpha", alpha))


def from_function(f: Function, differentiate: Callable[[Function], Function]) -> Divergence:
    r"""Make a :class:`Divergence` of a function and its derivatives.

    Args:
        f: :math:`f(u)` of arrays of positive numbers, elementwise.
        differentiate: The host's derivative of an elementwise function, again one.
    """
    first = differentiate(f)
    second = differentiate(first)

    def a(ell: Any) -> Any:
        return first(_exp(ell))

    def b(ell: Any) -> Any:
        u = _exp(ell)
        return u * first(u) - f(u)

    def a_derivative(ell: Any) -> Any:
        u = _exp(ell)
        return u * second(u)

    return Divergence(f, a, b, a_derivative, lambda ell: _exp(ell) * a_derivative(ell))


def check_f(f: Any) -> None:
    """Raise unless this names a divergence (``ValueError``) or makes one (``TypeError``)."""
    if isinstance(f, str):
        check_choice("f", f, DIVERGENCES)
    elif not callable(f) and not isinstance(f, AlphaDivergence):
        raise TypeError(
            f"Expected `f` to be one of {list(DIVERGENCES)}, an alpha_divergence or a function of "
            f"positive numbers, got {f!r}."
        )


def find_divergence(f: Any) -> Divergence | None:
    """Return what a checked ``f`` names, or None for a function."""
    if isinstance(f, AlphaDivergence):
        return f.closed_form
    return DIVERGENCES[f] if isinstance(f, str) else None


def check_function(divergence: Divergence, log_ratio: Any) -> None:
    r"""Raise ``ValueError`` unless a function is elementwise, finite and convex on a grid.

    The grid is :math:`\ell` of the host, shape ``(N,)``, within about 3 of zero in single
    precision.
    """
    xp = array_namespace(log_ratio)
    u = xp.exp(log_ratio)
    values = {"f": divergence.f(u), "f'": divergence.a(log_ratio)}
    curvature = divergence.b_derivative(log_ratio)
    for name, value in {**values, "f''": curvature}.items():
        if tuple(value.shape) != tuple(u.shape):
            raise ValueError(
                f"Expected {name} to be elementwise, got shape {tuple(value.shape)} from "
                f"{tuple(u.shape)}."
            )
        _check_at(u, xp.isfinite(value), f"{name} to be finite", value)
    terms = xp.abs(values["f"]) + xp.abs(u * values["f'"]) + xp.abs(curvature)
    is_convex = curvature >= -100.0 * float(xp.finfo(u.dtype).eps) * terms
    _check_at(u, is_convex, "f to be convex with u^2 f''(u) >= 0", curvature)
    if not bool(xp.any(curvature > 0)):
        raise ValueError(
            "Expected f with u^2 f''(u) > 0 somewhere, got a function without curvature, as that "
            "of total variation: its critic has no gradient."
        )


def _check_at(u: Any, holds: Any, claim: str, got: Any) -> None:
    xp = array_namespace(holds)
    if not bool(xp.all(holds)):
        i = int(xp.argmin(xp.astype(holds, xp.int32)))
        raise ValueError(f"Expected {claim}, got {float(got[i]):.6g} at u = {float(u[i]):.4g}.")


def _scaled_expm1(x: Any, rate: float) -> Any:
    return _expm1(rate * x) / rate if rate != 0 else x


def _elementwise(name: str) -> Function:
    return lambda x: getattr(array_namespace(x), name)(x)


_exp, _expm1, _log, _log1p = map(_elementwise, ("exp", "expm1", "log", "log1p"))
_ones = _elementwise("ones_like")


def _softplus(x: Any) -> Any:
    xp = array_namespace(x)
    return xp.logaddexp(x, xp.zeros_like(x))


def _sigmoid(x: Any) -> Any:
    return _exp(-_softplus(-x))


DIVERGENCES = {
    # Maximum likelihood.
    "kl": Divergence(
        f=lambda u: u * _log(u),
        a=lambda ell: 1.0 + ell,
        b=_exp,
        a_derivative=_ones,
        b_derivative=_exp,
    ),
    "reverse_kl": Divergence(
        f=lambda u: -_log(u),
        a=lambda ell: -_exp(-ell),
        b=lambda ell: ell - 1.0,
        a_derivative=lambda ell: _exp(-ell),
        b_derivative=_ones,
    ),
    # Twice the Jensen-Shannon divergence of information theory.
    "jensen_shannon": Divergence(
        f=lambda u: u * _log(u) - (u + 1.0) * _log((u + 1.0) / 2.0),
        a=lambda ell: math.log(2.0) - _softplus(-ell),
        b=lambda ell: _softplus(ell) - math.log(2.0),
        a_derivative=lambda ell: _sigmoid(-ell),
        b_derivative=_sigmoid,
    ),
    "squared_hellinger": Divergence(
        f=lambda u: (u**0.5 - 1.0) ** 2,
        a=lambda ell: -_expm1(-0.5 * ell),
        b=lambda ell: _expm1(0.5 * ell),
        a_derivative=lambda ell: 0.5 * _exp(-0.5 * ell),
        b_derivative=lambda ell: 0.5 * _exp(0.5 * ell),
    ),
    "pearson": Divergence(
        f=lambda u: (u - 1.0) ** 2,
        a=lambda ell: 2.0 * _expm1(ell),
        b=lambda ell: _expm1(2.0 * ell),
        a_derivative=lambda ell: 2.0 * _exp(ell),
        b_derivative=lambda ell: 2.0 * _exp(2.0 * ell),
    ),
    "neyman": Divergence(
        f=lambda u: (1.0 - u) ** 2 / u,
        a=lambda ell: -_expm1(-2.0 * ell),
        b=lambda ell: -2.0 * _expm1(-ell),
        a_derivative=lambda ell: 2.0 * _exp(-2.0 * ell),
        b_derivative=lambda ell: 2.0 * _exp(-ell),
    ),
    # The sum of KL and reverse KL.
    "jeffreys": Divergence(
        f=lambda u: (u - 1.0) * _log(u),
        a=lambda ell: 1.0 + ell - _exp(-ell),
        b=lambda ell: _exp(ell) + ell - 1.0,
        a_derivative=lambda ell: 1.0 + _exp(-ell),
        b_derivative=lambda ell: 1.0 + _exp(ell),
    ),
    # Jensen-Shannon as in GANs: f = u log u - (u + 1) log(u + 1), and f(1) = -log 4.
    "gan": Divergence(
        f=lambda u: -u * _log1p(1.0 / u) - _log1p(u),
        a=lambda ell: -_softplus(-ell),
        b=_softplus,
        a_derivative=lambda ell: _sigmoid(-ell),
        b_derivative=_sigmoid,
    ),
}
