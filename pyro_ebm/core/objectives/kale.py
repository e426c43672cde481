"""KALE: the likelihood of an energy relative to a base that need not have a density."""

from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.numerics import log_mean_exp

__all__ = [
    "DIRECTIONS",
    "FORMS",
    "check_log_normalizer",
    "choose_base_loss",
    "fenchel_bound",
    "is_implicit",
    "log_normalizer_gradient",
    "log_partition",
]

FORMS = ("donsker_varadhan", "fenchel")

# What a base does about the log-partition: it climbs down, climbs up or leaves it alone.
DIRECTIONS = {"full": 1.0, "generalized": -1.0, "likelihood": 0.0}

# Exponents beyond this are cut: a log-normalizer that lags so far behind is not right anyway.
_LARGEST_EXPONENT = 30.0


def log_partition(energies: Any) -> Any:
    r"""Log-normalizer of an energy relative to its base, from M draws of the base.

    .. math:: \hat A = \log \frac1M \sum_{m=1}^M e^{-E(y_m)}, \qquad y_m \sim p_0

    It is low on average (Jensen's inequality) and its exponential is not. Its gradient weighs
    draws by ``softmax(-energies)``. The Donsker-Varadhan loss of a value is
    :math:`E(x) + \hat A`, whose mean over data p is :math:`-L`, with
    :math:`L \le \mathrm{KL}(p \| p_0)` and equality for :math:`E = -\log p / p_0`.

    Args:
        energies: :math:`E(y_m)`, shape ``(M, *context)``.

    Returns:
        Shape ``(*context,)``.
    """
    return log_mean_exp(-energies)


def fenchel_bound(log_partition: Any, log_normalizer: Any) -> Any:
    r"""Upper bound of a log-partition that is linear in its exponential.

    .. math:: \hat A \le A + e^{\hat A - A} - 1

    Tight at :math:`A = \hat A`. Its mean over independent draws is that with the exact
    log-partition. With it in the place of :math:`\hat A` the loss of a value has the mean
    :math:`-F`, and :math:`L - F = (A - \hat A) + e^{\hat A - A} - 1 \ge 0`.

    Args:
        log_partition: :math:`\hat A`, shape ``(*context,)``.
        log_normalizer: A, a number or of shape ``(*context,)``.

    Returns:
        Shape ``(*context,)``. An exponent above 30 counts as 30, and passes no gradient.

    References:
        | Generalized Energy Based Models (Arbel et al., 2021)
        | https://arxiv.org/abs/2003.05033
    """
    xp = array_namespace(log_partition)
    return log_normalizer + xp.expm1(_capped(log_partition - log_normalizer))


def log_normalizer_gradient(log_partition: Any, log_normalizer: Any, *, safe: bool) -> Any:
    r"""What a log-normalizer A descends along, to reach the log-partition :math:`\hat A`.

    The derivative :math:`g = 1 - e^{\hat A - A}` of :func:`fenchel_bound` in A; or, ``safe``,

    .. math:: \frac{g}{1 - g} = e^{A - \hat A} - 1

    which has the same root and is at least -1 where A lags behind and g explodes. Averaged over
    noisy :math:`\hat A`, the first is zero at :math:`A = \log \mathbb E[e^{\hat A}]`, the exact
    log-partition, and the second at :math:`A = -\log \mathbb E[e^{-\hat A}]`, which is lower.

    Args:
        log_partition: :math:`\hat A`, shape ``(*context,)``.
        log_normalizer: A, a number or of shape ``(*context,)``.
        safe: Whether to take the second.

    Returns:
        Shape ``(*context,)``; exponents above 30 count as 30.
    """
    xp = array_namespace(log_partition)
    lag = log_partition - log_normalizer
    return xp.expm1(_capped(-lag)) if safe else -xp.expm1(_capped(lag))


def is_implicit(base: Any) -> bool:
    """Whether a base can be drawn from and has no density."""
    return getattr(base, "is_implicit", False)


def choose_base_loss(base_loss: str | None, base: Any) -> str:
    """What trains a base: as asked for, or by whether it has a density.

    Args:
        base_loss: A name in :data:`DIRECTIONS`, or None.
        base: A distribution, ``is_implicit`` where it has no density.

    Raises:
        ValueError: If there is no base, or no density where one is needed.
    """
    if base is None:
        raise ValueError("Expected a base to draw from, got base=None.")
    if base_loss is None:
        return "generalized" if is_implicit(base) else "full"
    if is_implicit(base) and base_loss != "generalized":
        raise ValueError(
            "Expected `base_loss` to be 'generalized' for a base without a density, "
            f"got {base_loss!r} for {base}."
        )
    return base_loss


def check_log_normalizer(form: str, log_normalizer: Any, context: tuple[int, ...]) -> None:
    """Raise unless a log-normalizer was declared for the Fenchel form, and for it alone.

    Args:
        form: A form of KALE.
        log_normalizer: What the guide declared, or None.
        context: Batch shape of the base.
    """
    if (log_normalizer is None) == (form == "fenchel"):
        raise ValueError(
            "Expected the guide to declare a log-normalizer, auxiliary(site, log_normalizer=...), "
            f"for form='fenchel' and for no other, got form={form!r} and "
            f"{'none' if log_normalizer is None else 'one'}."
        )
    shape = tuple(getattr(log_normalizer, "shape", ()))
    if shape not in {(), tuple(context)}:
        raise ValueError(
            "Expected `log_normalizer` to be a number or to have the batch shape of the base, "
            f"{tuple(context)}, got shape {shape}."
        )


def _capped(exponent: Any) -> Any:
    xp = array_namespace(exponent)
    return xp.clip(exponent, max=_LARGEST_EXPONENT)
