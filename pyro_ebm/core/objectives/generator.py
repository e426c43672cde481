"""Generators as variational families of an energy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace

ENTROPIES = ("exact", "smallest_singular_value", "stochastic", "noise")


@dataclass(frozen=True)
class GeneratorDraws:
    r"""Draws of a generator with their potentials.

    Attributes:
        value: :math:`x = T(w)`, shape ``(N, *event)``, with gradients for the generator.
        neg_log_density: :math:`-\log \eta(w) + \log v(w)`, shape ``(N,)``, with gradients for
            generator and encoder; its mean is the generator's entropy.
        potential: :math:`U(x)`, shape ``(N,)``, with gradients for energy and base alone.
        gradient: :math:`\nabla_x U(x)`, shape ``(N, *event)``, with gradients for energy and base.
        pull: From cotangents of the first two to one of the latent.
    """

    # The host's function that holds an array constant.
    constant: ClassVar[Any]

    value: Any
    neg_log_density: Any
    potential: Any
    gradient: Any
    pull: Callable[..., Any]

    @property
    def log_ratio(self) -> Any:
        r""":math:`f`, shape ``(N,)``, as constants; the mean of :math:`e^f` estimates Z."""
        return self.constant(self.neg_log_density - self.potential)

    @property
    def ratio_gradient(self) -> Any:
        r""":math:`\nabla_w f`, shape ``(N, *latent)``, as constants."""
        return self.constant(self.ratio_gradient_at(self.constant(self.gradient)))

    def ratio_gradient_at(self, gradient: Any) -> Any:
        """Compute it for a potential of another gradient; differentiable in that."""
        xp = array_namespace(gradient)
        return self.pull((-gradient, xp.ones_like(self.neg_log_density)))[0]


@dataclass(frozen=True)
class VariationalGenerator:
    r"""A map :math:`x = T(w)` of a latent variable :math:`w \sim \eta` with a volume.

    .. math::
        f(w) = -U(T(w)) - \log \eta(w) + \log v(w), \qquad
        \mathbb E[f] \le \log \mathbb E[e^f]

    :math:`v` is the generator's volume element or an estimate of it. Where noise is part of the
    latent, it is that of the noise times the encoder's density of the latent that was drawn.

    Attributes:
        source: The generator, a ``Pushforward`` without noise.
        value_and_log_volume: From latent values ``(N, *latent)`` to the values of the generator
            and :math:`\log v` there, shape ``(N,)``.
    """

    source: Any
    value_and_log_volume: Callable[[Any], tuple[Any, Any]]

    def value_and_neg_log_density(self, latent: Any) -> tuple[Any, Any]:
        """Map latent values to values, and to minus the log-density of those."""
        value, log_volume = self.value_and_log_volume(latent)
        return value, log_volume - self.source.latent.log_prob(latent)


def by_jacobian(source: Any, log_det: Callable[..., Any]) -> Callable[[Any], tuple[Any, Any]]:
    """Make the ``value_and_log_volume`` of a generator that is known by its Jacobians alone.

    ``log_det`` has a function of rows and the rows as arguments, as :func:`log_det_jtj`.
    """

    def flat(rows: Any) -> Any:
        xp, num_rows = array_namespace(rows), rows.shape[0]
        latent = xp.reshape(rows, (num_rows, *source.latent.event_shape))
        return xp.reshape(source.generate(latent), (num_rows, -1))

    def value_and_log_volume(latent: Any) -> tuple[Any, Any]:
        rows = array_namespace(latent).reshape(latent, (latent.shape[0], -1))
        return source.generate(latent), 0.5 * log_det(flat, rows)

    return value_and_log_volume


def volume_options(settings: Any) -> dict[str, Any]:
    """Return those of the settings of an objective or a bound that choose the volume."""
    return {name: getattr(settings, name) for name in ("entropy", "num_iterations", "num_probes")}


def check_generator(entropy: str, distribution: Any, generator: Any, encoder: Any) -> None:
    """Raise unless a ``Pushforward`` can be a variational family of an energy."""
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
            "Expected an encoder, attach(site, generator=..., encoder=...) in the guide, for "
            f"entropy='noise' and for no other, got entropy={entropy!r} and "
            f"{'none' if encoder is None else 'one'}."
        )
    if getattr(generator, "has_noise", False) != (entropy == "noise"):
        raise ValueError(
            "Expected a generator with noise, Pushforward(..., noise_scale=...), for "
            f"entropy='noise' and for no other, got entropy={entropy!r} and {generator}."
        )


def check_encoder(posterior: Any, latent: Any) -> None:
    """Raise unless an encoder returned one distribution over the latent for each value."""
    found = [tuple(getattr(posterior, name, ())) for name in ("batch_shape", "event_shape")]
    expected = [tuple(latent.shape[:1]), tuple(latent.shape[1:])]
    if found != expected:
        raise ValueError(
            "Expected the encoder to map (N, *event_shape) to a distribution over the latent, of "
            f"batch shape {expected[0]} and event shape {expected[1]} here, got {posterior} of "
            f"{found[0]} and {found[1]}."
        )


def describe_small_latent(latent_size: int, event_size: int) -> str:
    """Return the warning about a generator of fewer latent than data dimensions."""
    return (
        f"A generator of {latent_size} latent dimensions makes values on a surface in "
        f"{event_size} dimensions. Without noise its lower bound is one of the integral over that "
        "surface, and can be above log Z: give it noise and an encoder (entropy='noise'), or as "
        "many latent dimensions."
    )
