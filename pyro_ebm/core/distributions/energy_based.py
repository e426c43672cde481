"""Energy-based distributions: definition, arguments, and what needs no host."""

from collections.abc import Callable
from math import prod
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.distributions.checks import check_energy_shape, check_value_shape, is_implicit


class AbstractEnergyBased:
    r"""A distribution given by an energy, known up to its normalizing constant.

    .. math:: p(x) = \frac1Z e^{-\beta E(x)} p_0(x), \qquad Z = \int e^{-\beta E(x)} p_0(x)\, dx

    ``log_prob`` is *frozen in the parameters*: it leaves out :math:`\log Z` and is differentiable
    in the value alone. Every stock ELBO, guide and MCMC kernel is then right for everything but the
    parameters of energy and base, which an objective trains: see ``EnergyELBO``.

    On a ``Pushforward`` base, chains run in its latent space (``latent``). Where such a base has no
    density, ``log_prob`` is relative to the base: minus the scaled energy.

    Args:
        energy: :math:`E`, any callable from ``(N, *event_shape)`` to ``(N,)``, low where values
            are likely. Rows must not influence each other (no batch norm).
        base: :math:`p_0`, a distribution with ``log_prob``, and with ``sample`` where draws or the
            log-normalizer are needed; a ``Pushforward``, which may lack the former; or a
            normalizing flow. Default: the flat measure.
        event_shape: Shape of one value; required only without a base.
        support: Constraint on the values. Default: that of the base, else all real numbers.
        sampler: Kernel that ``sample`` runs from draws of the base. Default: ``Langevin(0.05)``,
            an approximation.
        num_sampler_steps: Number of steps that ``sample`` runs it for.
        inverse_temperature: :math:`\beta`, a number that multiplies the energy. Above 1 it
            sharpens what was trained at 1. (The images of Arbel et al. were drawn at 100, and
            hardly differ from the base's at 1.)
        log_normalizer: Function without arguments that returns :math:`\log Z` if it is known, a
            number or an array that broadcasts with ``batch_shape``. Then ``log_prob`` is the exact
            density, with gradients in everything.
        validate_args: As in any distribution of the host.

    Raises:
        TypeError: If the energy is not callable, the base not a distribution, or the sampler not a
            kernel.
        ValueError: If shapes are missing or disagree, or a number is out of range.
    """

    energy: Any
    base: Any
    sampler: Any
    num_sampler_steps: int
    inverse_temperature: float
    log_normalizer: Any
    event_shape: Any
    _validate_args: Any

    def potential(self, value: Any) -> Any:
        """Scaled energy minus log-density of the base, differentiable in value *and* parameters.

        The scaled energy alone where the base has no density.

        Args:
            value: Shape ``(*sample, *batch_shape, *event_shape)``.

        Returns:
            Shape ``(*sample, *batch_shape)``.
        """
        raise NotImplementedError

    def log_prob(self, value: Any) -> Any:
        r"""Log-density up to :math:`-\log Z`, differentiable in the value alone.

        With a known ``log_normalizer``: the log-density, differentiable in everything.

        Raises:
            ValueError: If arguments are validated and the energy is NaN.
        """
        raise NotImplementedError

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        """Draws by the sampler, started at draws from the base; detached.

        Raises:
            ValueError: If arguments are validated and the chains diverged.
        """
        raise NotImplementedError

    @property
    def latent(self) -> Any:
        r"""The same distribution in the latent space of its base: an energy on a density.

        .. math:: \nu(z) \propto \eta(z)\, e^{-\beta E(G(z))}, \qquad G(z) \sim p \text{ for }
            z \sim \nu

        NUTS, ``run_chains`` and ``log_normalizer`` work on it; its log-normalizer is this
        distribution's. The noise of a ``Pushforward`` is a part of its latent, which is then one
        vector, noise last.

        Raises:
            ValueError: If the base is no ``Pushforward``, ``TransformedDistribution`` or flow.
        """
        raise NotImplementedError

    def _settings(self) -> dict[str, Any]:
        """Arguments for a distribution like this one, with another energy and base."""
        names = ("sampler", "num_sampler_steps", "inverse_temperature", "log_normalizer")
        settings = {name: getattr(self, name) for name in names}
        return {**settings, "validate_args": self._validate_args}

    def _scaled(self, energy: Any, value: Any) -> Any:
        energies = evaluate_energy(energy, value, self.event_shape)
        return energies if self.inverse_temperature == 1 else self.inverse_temperature * energies

    def _potential(self, energy: Any, value: Any) -> Any:
        scaled = self._scaled(energy, value)
        if self.base is None or is_implicit(self.base):
            return scaled
        return scaled - self.base.log_prob(value)


def evaluate_energy(energy: Callable[[Any], Any], value: Any, event_shape: tuple[int, ...]) -> Any:
    """Evaluate an energy in one call, with exactly one batch dimension.

    The energy maps ``(N, *event_shape)`` to ``(N,)``, and this function
    ``(*batch, *event_shape)`` to ``(*batch,)``.

    Raises:
        ValueError: If the value has another event shape, or the energy does not return one number
            for each value.
    """
    batch_shape = check_value_shape(value.shape, event_shape)
    # Not -1: a batch of no values has no shape to infer it from.
    num_values = prod(batch_shape)
    energies = energy(array_namespace(value).reshape(value, (num_values, *event_shape)))
    check_energy_shape(energies, num_values)
    return array_namespace(energies).reshape(energies, batch_shape)


def scaled_energy(distribution: AbstractEnergyBased, value: Any) -> Any:
    """Evaluate the energy times the inverse temperature, shape ``(*sample, *batch)``."""
    return distribution._scaled(distribution.energy, value)


def describe_divergence(sampler: Any) -> str:
    """Error message for draws that are not finite."""
    return (
        f"Expected {sampler} to give finite draws, got NaN or infinity: lower its `step_size`, or "
        "look at the energy."
    )
