"""Energy-based distributions: definition, arguments, and what needs no host."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from array_api_compat import array_namespace

from pyro_ebm.core.distributions.checks import is_implicit
from pyro_ebm.core.distributions.context import bounds_shape, evaluate, own_shape
from pyro_ebm.core.distributions.enumerable import Enumerable
from pyro_ebm.core.distributions.joint import check_given, context_of
from pyro_ebm.core.distributions.known import identity
from pyro_ebm.core.numerics import as_real
from pyro_ebm.core.samplers.truncation import infinite_outside, move_inside, truncates


class AbstractEnergyBased(Enumerable):
    r"""A distribution given by an energy, known up to its normalizing constant.

    .. math:: p(x) = \frac1Z e^{-\beta E(x)} p_0(x), \qquad Z = \int e^{-\beta E(x)} p_0(x)\, dx

    ``log_prob`` is *frozen in the parameters*: it leaves out :math:`\log Z` and has gradients in
    the value only. Stock ELBOs, guides and MCMC kernels are then correct for everything except the
    parameters of energy and base, which an objective trains: see ``EnergyELBO``. Energy and base
    must not depend on another latent variable, since its posterior would need :math:`\log Z`.

    On a ``Pushforward`` base, chains run in its latent space (``latent``). If such a base has no
    density, ``log_prob`` is relative to the base: minus the scaled energy.

    With a ``context`` :math:`c` (covariates, labels, features of a group), one for each element of
    the batch, this is a conditional density. Each context has its own log-normalizer:

    .. math:: p(x \mid c) = \frac1{Z(c)} e^{-\beta E(x, c)} p_0(x)

    Args:
        energy: :math:`E`, any callable from ``(N, *event_shape)`` to ``(N,)``, low where values
            are likely; with a context, from ``(N, *event_shape)`` and ``(N, *context_event)``. Rows
            must not influence each other (no batch norm). N is often not the number of data, so
            pass what differs between rows as context, not in a closure.
        base: :math:`p_0`: a distribution with ``log_prob``, and with ``sample`` if you need draws
            or the log-normalizer; a ``Pushforward``, which may have no ``log_prob``; or a
            normalizing flow. Default: the flat measure.
        event_shape: Shape of one value; required only without a base.
        context: An array of shape ``(*context_batch, *context_event)``, or several (a dictionary of
            tensors, on NumPyro any pytree), each with its own ``context_event`` shape. The batch
            shape is that of base and context, broadcast together. A context that depends on a
            latent variable makes a model doubly intractable.
        context_batch_ndims: Number of leading batch dimensions of the context. Default: as many
            as the base has, and at least one, so that ``(N,)`` labels, ``(N, d)`` covariates and
            ``(N, height, width)`` images are N contexts each. Set it to 2 for two plates around
            a base without batch shape.
        support: Constraint on the values, or on each of their elements. Default: that of the base,
            else all real numbers. If it is narrower than the base's, the energy counts as infinite
            outside, and is only called inside. Bounds may differ between elements of the batch,
            as contexts do.
        sampler: How ``sample`` draws: ``SMC()``, the default; ``Grid()``, for exact draws in one
            to three dimensions; or a kernel, for a short run from draws of the base.
        num_sampler_steps: Number of steps if ``sampler`` is a kernel.
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

    # The host's class of targets.
    _target_class: ClassVar[Any]
    # Whether the support may be narrower than the base's.
    _is_truncated: bool = False
    # Whether a run of chains has evaluated its rows.
    _is_probed: bool = False
    # Whether parameters are constants, although the log-normalizer is known.
    _is_held: bool = False
    # Whether the log-normalizer is declared to be the same for every context.
    _is_conditional: bool = False
    # Whether it is a conditional of a joint distribution without a known log-normalizer.
    _lacks_constant: bool = False

    energy: Any
    base: Any = None
    context: Any = None
    context_batch_ndims: int
    _map_context: Any
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
            ValueError: If arguments are validated and draws are not finite.

        Warns:
            UserWarning: If the record of ``SMC`` shows that weights of modes are uncertain; see
                ``run_smc``.
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

    def normalized(self, log_normalizer: Any) -> Any:
        """Normalize by a log-normalizer that is known, and hold all parameters constant.

        ``log_prob`` of the result is a log-density, of held-out values or in ``az.loo``, as exact
        as the number is.

        Args:
            log_normalizer: Result of ``log_normalizer``, whose standard error ``log_marginal``
                adds, or exact numbers in the batch shape of base and context.

        Raises:
            ValueError: If a number is not finite, or the shape is another.
        """
        raise NotImplementedError

    def conditional(self, **given: Any) -> Any:
        r"""Condition an energy on a ``Joint`` base on values of some of its parts.

        .. math:: p(x \mid \theta) \propto e^{-\beta E(\theta, x)} p_0(x)

        ``log_prob`` is differentiable in the value and in the given parts, which may be latent
        variables: it *declares* that :math:`\log Z` does not depend on them. That is so where the
        energy was trained on pairs, and the given parts of the pairs follow the base's (a prior
        that they were drawn from); ``check_conditional`` checks it. Parameters are held constant,
        and a constant is missing, unless the joint distribution has its ``log_normalizer``.

        With data given it is a posterior, up to a constant: draws by ``run_chains`` need no model.

        Args:
            **given: Values of parts, shapes ``(*batch, *event_shape)`` of each.

        Returns:
            Distribution of the other part, or of a ``Joint`` of the others, with the broadcast
            batch shape of what is given.

        Raises:
            ValueError: If the base is no ``Joint``, a part is unknown or has another event shape,
                or no part is left.
        """
        raise NotImplementedError

    def _settings(self) -> dict[str, Any]:
        """Arguments for a distribution like this one, with another energy and base."""
        names = ("context", "context_batch_ndims", "sampler", "num_sampler_steps")
        names += ("inverse_temperature", "log_normalizer")
        settings = {name: getattr(self, name) for name in names}
        return {**settings, "validate_args": self._validate_args}

    def _scaled(self, energy: Any, value: Any) -> Any:
        value = self._real(value)
        if not self._is_truncated:
            return self._times_temperature(evaluate(self, energy, value))
        inside, value = move_inside(self, value)
        energies = self._times_temperature(evaluate(self, energy, value))
        return infinite_outside(inside, energies)

    def _set_support(self, support: Any, num_event_dims: int, batch_shape: Any) -> Any:
        """Keep a support of events, or of each element; return the batch shape with its bounds."""
        if support is not None and not support.is_discrete and support.event_dim < num_event_dims:
            num_dims = num_event_dims - support.event_dim
            support = self._target_class.independent(support, num_dims)
        self._is_truncated = truncates(support, self.base, self._target_class)
        # A discrete one is the base's, which knows the number of codes in compiled code too.
        self._support: Any = None if support is None or support.is_discrete else support
        has_bounds = self._is_truncated or self.base is None
        shape = bounds_shape(self._support if has_bounds else None, num_event_dims, batch_shape)
        if self.base is not None and shape != batch_shape:
            self.base = self.base.expand(shape)  # As for contexts: each has draws of its own.
        return shape

    @property
    def _is_unnormalized(self) -> bool:
        """Absence of a constant from the log-density."""
        return self.log_normalizer is None or self._lacks_constant

    def _times_temperature(self, energies: Any) -> Any:
        return energies if self.inverse_temperature == 1 else self.inverse_temperature * energies

    def _target(self) -> Any:
        return self._target_class.of(self)

    def _real(self, value: Any) -> Any:
        real = as_real(value)
        return real if real is value or not self.support.is_discrete else value

    def _potential(self, energy: Any, value: Any) -> Any:
        value = self._real(value)
        scaled = self._scaled(energy, value)
        if self.base is None or is_implicit(self.base):
            return scaled
        return scaled - self._base_log_prob(value)

    def _base_log_prob(self, value: Any) -> Any:
        return self.base.log_prob(value)


def conditioned(
    distribution: AbstractEnergyBased, given: Mapping[str, Any], joint: Any
) -> tuple[Any, dict[str, Any]]:
    """Return base and settings of the parts that are left; ``joint`` is the host's class."""
    check_given(distribution, given)
    parts = distribution.base.parts
    left = {name: part for name, part in parts.items() if name not in given}
    (base,) = left.values() if len(left) == 1 else (joint(**left),)
    settings = distribution._settings() | context_of(distribution, given)
    if distribution.log_normalizer is None:
        settings["log_normalizer"] = partial(identity, 0.0)
    return base, settings


def normalize(distribution: AbstractEnergyBased, log_normalizer: Any) -> Any:
    """Give a new distribution a log-normalizer that is known, and hold its parameters constant."""
    distribution.log_normalizer = log_normalizer
    distribution._is_held, distribution._lacks_constant = True, False
    return distribution


def check_log_normalizer(distribution: AbstractEnergyBased, number: Any) -> None:
    """Raise unless numbers can be the log-normalizers of a distribution."""
    shape, expected = tuple(number.shape), own_shape(distribution)
    if shape not in ((), expected):
        raise ValueError(
            f"Expected `log_normalizer` of the batch shape of base and context, {expected}, got "
            f"{shape}."
        )
    xp = array_namespace(number)
    if not bool(xp.all(xp.isfinite(number))):
        raise ValueError("Expected `log_normalizer` to be finite, got NaN or infinity.")


def scaled_energy(distribution: AbstractEnergyBased, value: Any) -> Any:
    """Evaluate the energy times the inverse temperature, shape ``(*sample, *batch)``."""
    return distribution._scaled(distribution.energy, value)
