"""Bidirectional bounds: an energy between bounds of its likelihood that a generator makes."""

from typing import Any

from array_api_compat import array_namespace

__all__ = [
    "ENTROPIES",
    "PENALTIES",
    "check_encoder",
    "check_partner",
    "describe_small_latent",
    "excess",
    "half_square",
]

ENTROPIES = ("exact", "smallest_singular_value", "stochastic", "noise")

PENALTIES = ("log_ratio", "data")


def half_square(slope: Any) -> Any:
    r"""What the slope of a log-ratio says about a bound's gap.

    .. math:: r(w) = \tfrac12 |\nabla_w f(w)|^2, \qquad R = \mathbb E_\eta[r]

    For latent values w of density :math:`\eta` and log-ratios f, :math:`\log \mathbb E[e^f]` is at
    least :math:`\mathbb E[f]`, and at most :math:`\mathbb E[f] + R / \rho`, where :math:`\rho` is
    the log-Sobolev constant of :math:`\eta e^f`. (It is at least 1 for a standard normal
    :math:`\eta` and concave f.)

    Args:
        slope: :math:`\nabla_w f`, shape ``(N, *event)``.

    Returns:
        Shape ``(N,)``.

    References:
        | Bounds all around: training energy-based models with bidirectional bounds (Geng et al.,
          2021), https://arxiv.org/abs/2111.00929
    """
    xp = array_namespace(slope)
    return 0.5 * xp.sum(xp.reshape(slope, (slope.shape[0], -1)) ** 2, axis=-1)


def excess(penalty: Any, weight: float, threshold: float) -> tuple[Any, Any]:
    r"""A penalty beyond its threshold, and its derivative in the penalty.

    .. math:: \max(w R - \zeta, 0), \qquad w \, [w R > \zeta]

    Args:
        penalty: :math:`R`, any shape.
        weight: :math:`w \ge 0`.
        threshold: :math:`\zeta \ge 0`.

    Returns:
        Both of the penalty's shape.
    """
    xp = array_namespace(penalty)
    beyond = weight * penalty - threshold
    zero = xp.zeros_like(beyond)
    return xp.where(beyond > 0, beyond, zero), xp.where(beyond > 0, zero + weight, zero)


def check_partner(entropy: str, distribution: Any, generator: Any, encoder: Any) -> None:
    """Raise unless a generator can be the variational partner of an energy.

    Args:
        entropy: How its entropy is estimated.
        distribution: The energy-based distribution.
        generator: A ``Pushforward``.
        encoder: What the guide declared beside it, or None.
    """
    if tuple(generator.batch_shape):
        raise ValueError(
            "Expected one generator for all batch elements, got one of batch shape "
            f"{tuple(generator.batch_shape)}."
        )
    if tuple(generator.event_shape) != tuple(distribution.event_shape):
        raise ValueError(
            "Expected a generator of the event shape of its site, "
            f"{tuple(distribution.event_shape)}, got {tuple(generator.event_shape)}."
        )
    if (encoder is not None) != (entropy == "noise"):
        raise ValueError(
            "Expected the guide to declare an encoder, auxiliary(site, generator=..., "
            f"encoder=...), for entropy='noise' and for no other, got entropy={entropy!r} and "
            f"{'none' if encoder is None else 'one'}."
        )
    if getattr(generator, "has_noise", False) != (entropy == "noise"):
        raise ValueError(
            "Expected a generator with noise, Pushforward(..., noise_scale=...), for "
            f"entropy='noise' and for no other, got entropy={entropy!r} and {generator}."
        )


def check_encoder(posterior: Any, latent: Any) -> None:
    """Raise unless an encoder gave one distribution over the latent for each value.

    Args:
        posterior: What it gave.
        latent: Latent values, shape ``(N, *latent)``.
    """
    found = [tuple(getattr(posterior, name, ())) for name in ("batch_shape", "event_shape")]
    expected = [tuple(latent.shape[:1]), tuple(latent.shape[1:])]
    if found != expected:
        raise ValueError(
            "Expected the encoder to map (N, *event_shape) to a distribution over the latent, of "
            f"batch shape {expected[0]} and event shape {expected[1]} here, got {posterior} of "
            f"{found[0]} and {found[1]}."
        )


def describe_small_latent(latent_size: int, event_size: int) -> str:
    """What a user should know of a generator of fewer latent than data dimensions."""
    return (
        f"A generator of {latent_size} latent dimensions makes values on a surface in "
        f"{event_size} dimensions. Without noise its lower bound is one of the integral over that "
        "surface, and can be above log Z: give it noise and an encoder (entropy='noise'), or as "
        "many latent dimensions."
    )
