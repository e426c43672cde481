"""Pushforward distributions: definition, arguments, and what needs no host."""

from math import prod
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_nonnegative, check_scalar


class AbstractPushforward:
    r"""The distribution of a generator's output on a random latent.

    .. math:: x = G(z) + \sigma \epsilon, \qquad z \sim \eta, \quad \epsilon \sim N(0, I)

    As the base of an ``EnergyBased`` distribution it makes a generalized energy-based model: the
    base determines where values lie, the energy how likely they are there. It can be sampled, with
    gradients in the parameters of generator and latent. It has a density only if the generator is
    a ``Transform`` of the host, which can be inverted, and there is no noise. Otherwise
    ``log_prob`` raises: values lie on a set of fewer dimensions, or their density has no closed
    form. (For the latter, ``log_marginal`` of the model ``z ~ latent; x ~ Normal(G(z), sigma)``
    estimates it.)

    Args:
        latent: :math:`\eta`, any distribution; with noise, draws of energies on it need one over
            all real numbers.
        generator: :math:`G`, from ``(N, *latent.event_shape)`` to ``(N, *event_shape)``: a module,
            a function, or a ``Transform``.
        noise_scale: :math:`\sigma \ge 0`, a *standard deviation*; a number, or a positive array of
            shape ``()``, such as a ``param``.
        event_shape: Shape of one value. Default: that of the generator's output on zeros.
        validate_args: As in any distribution of the host.

    Raises:
        TypeError: If ``latent`` is no distribution or ``generator`` cannot be called.
        ValueError: If the noise is negative, or the generator does not map one latent value to one
            value.

    References:
        | Generalized Energy Based Models (Arbel, Zhou and Gretton, 2021)
        | https://arxiv.org/abs/2003.05033
    """

    latent: Any
    generator: Any
    noise_scale: Any
    event_shape: Any
    _is_invertible: bool

    @property
    def has_noise(self) -> bool:
        """Whether there is noise; a scale that is an array counts as positive."""
        return not isinstance(self.noise_scale, float) or self.noise_scale > 0

    @property
    def is_implicit(self) -> bool:
        """Whether there is no ``log_prob``."""
        return self.has_noise or not self._is_invertible

    def generate(self, latent: Any) -> Any:
        """Apply the generator to latent values, without noise.

        Args:
            latent: Shape ``(*sample, *batch_shape, *latent.event_shape)``.

        Returns:
            Shape ``(*sample, *batch_shape, *event_shape)``.
        """
        latent_shape = tuple(self.latent.event_shape)
        batch_shape = tuple(latent.shape[: latent.ndim - len(latent_shape)])
        values = self.generator(
            array_namespace(latent).reshape(latent, (prod(batch_shape), *latent_shape))
        )
        return array_namespace(values).reshape(values, (*batch_shape, *self.event_shape))

    def log_prob(self, value: Any) -> Any:
        """Log-density, if the generator is a ``Transform`` and there is no noise.

        Raises:
            NotImplementedError: Otherwise.
        """
        reason = (
            "with noise the density has no closed form"
            if self.has_noise
            else f"{type(self.generator).__name__} cannot be inverted"
        )
        raise NotImplementedError(
            f"Expected a Transform as the generator of a Pushforward to give a density, {reason}."
        )

    @property
    def noiseless(self) -> Any:
        """The same distribution with its noise, if there is any, as a part of the latent.

        Raises:
            ValueError: If there is noise, and the support of the latent is not all real numbers.
        """
        raise NotImplementedError


def with_density(distribution: Any) -> Any:
    """Return an energy-based distribution with a density: on a pushforward, that of the latent."""
    is_pushforward = isinstance(distribution.base, AbstractPushforward)
    return distribution.latent if is_pushforward else distribution


def check_noise_scale(noise_scale: Any, array_type: type) -> Any:
    """Return a number as a float, an array as it is; raise if negative or of several elements."""
    if not isinstance(noise_scale, array_type):
        return check_nonnegative("noise_scale", noise_scale)
    check_scalar("noise_scale", noise_scale.shape)
    return noise_scale


NO_BIJECTION = (
    "Expected a density for chains to run on, got a base without one: use the latent space, "
    "EnergyBased(...).latent."
)
IMAGE = "image of a generator (a base without density: chains run on `.latent`)"
