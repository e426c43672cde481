r"""Settings of the Markov kernels: formulas, arguments and checks; hosts add ``init`` and ``step``.

In all of them :math:`U` is the potential, :math:`\xi \sim \mathcal N(0, I)` is noise, and the step
size :math:`h` multiplies coordinates measured in units of the scale :math:`s` that warm-up learns.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from pyro_ebm.core.checks import (
    check_instance,
    check_nonnegative,
    check_positive,
    check_positive_integer,
    check_probability,
)

_PROTOCOL = ("init", "step", "target_accept_prob", "adapt_mass_matrix")


class Kernel:
    """Base of the settings of all kernels, from which a kernel of your own need not derive."""

    # Whether steps after `init` leave a density invariant.
    is_exact: ClassVar[bool] = True

    def init(self, *args: Any) -> Any:
        """Start chains at ``(potential, position)``, a position of shape ``(*chains, *event)``."""
        raise NotImplementedError(f"{type(self).__name__} is the settings half of a kernel.")

    def step(self, *args: Any) -> Any:
        """Move every chain once, from ``(potential, state)``; NumPyro has ``rng_key`` first."""
        raise NotImplementedError(f"{type(self).__name__} is the settings half of a kernel.")

    def check_start(self, position: Any, gradient: Any, gradient_at: Any) -> None:
        """Raise where no chain could move well, by gradients at the start and at other positions.

        ``gradient_at`` is a function of positions.
        """


@dataclass(frozen=True)
class Langevin(Kernel):
    r"""Unadjusted Langevin dynamics (ULA); one gradient a step.

    .. math:: x' = x - h \nabla U(x) + c \sqrt{2 h T_k}\, \xi

    The stationary distribution has a bias of order :math:`h`: for a Gaussian of variance
    :math:`\sigma^2` its variance is :math:`\sigma^2 / (1 - h / (2\sigma^2))`.

    Args:
        step_size: :math:`h`. Papers that write :math:`x' = x - \frac{s^2}{2} \nabla U + s \xi`
            mean :math:`h = s^2 / 2`.
        temperature: :math:`T_k`, a number or a schedule: a function of the number :math:`k` of
            steps taken. The density at temperature :math:`T` is :math:`e^{-U / T}`.
        noise_scale: :math:`c`, a factor on the noise. Below 1 chains settle in modes, as short
            runs in the literature do, and no longer sample the density.

    Raises:
        ValueError: If a number is out of range.

    References:
        | Exponential convergence of Langevin distributions and their discrete approximations
          (Roberts and Tweedie, 1996)
    """

    step_size: float
    _: KW_ONLY
    temperature: float | Callable[[Any], Any] = 1.0
    noise_scale: float = 1.0
    is_exact: ClassVar[bool] = False
    target_accept_prob: ClassVar[None] = None
    adapt_mass_matrix: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive("step_size", self.step_size)
        check_nonnegative("noise_scale", self.noise_scale)
        if not callable(self.temperature):
            check_positive("temperature", self.temperature)


@dataclass(frozen=True)
class KineticLangevin(Kernel):
    r"""Kinetic (underdamped) Langevin dynamics by the ABOBA splitting; one gradient a step.

    Half a drift, half a kick, friction and noise, half a kick, half a drift, with

    .. math::
        \text{drift: } x \mathrel{+}= h v, \qquad \text{kick: } v \mathrel{-}= h \nabla U, \qquad
        \text{friction: } v \leftarrow e^{-\kappa h} v + \sqrt{1 - e^{-2 \kappa h}}\, \xi

    For a Gaussian of variance :math:`\sigma^2` the positions have exactly that variance for every
    :math:`h < 2 \sigma`, the velocities :math:`1 / (1 - h^2 / (4 \sigma^2))`. Chains start at rest.

    Args:
        step_size: :math:`h`, a time. A comparable :class:`Langevin` step is :math:`h^2 / 2`.
        friction: :math:`\kappa`, an inverse time.

    Raises:
        ValueError: If a number is out of range.

    References:
        | Rational construction of stochastic numerical methods for molecular sampling
          (Leimkuhler and Matthews, 2013)
        | Generalized energy based models (Arbel, Zhou and Gretton, 2021)
    """

    step_size: float
    _: KW_ONLY
    friction: float = 1.0
    is_exact: ClassVar[bool] = False
    target_accept_prob: ClassVar[None] = None
    adapt_mass_matrix: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive("step_size", self.step_size)
        check_positive("friction", self.friction)


@dataclass(frozen=True)
class MALA(Kernel):
    r"""Metropolis-adjusted Langevin algorithm; leaves the density invariant; one gradient a step.

    A :class:`Langevin` proposal, accepted or rejected.

    Args:
        step_size: :math:`h` of the proposal :math:`x - h \nabla U(x) + \sqrt{2h}\, \xi`. Default:
            a rule of thumb at the initial positions
            (:func:`~pyro_ebm.core.samplers.warmup.initial_step_size`), which warm-up then tunes.
        target_accept_prob: Mean acceptance probability that warm-up tunes the step size to; None
            keeps the step size. The default is optimal in many dimensions.
        adapt_mass_matrix: Whether warm-up also learns a scale for each coordinate, a diagonal mass
            matrix (:func:`~pyro_ebm.core.samplers.local_units.local_scale`).

    Raises:
        ValueError: If a number is out of range.

    References:
        | Langevin diffusions and Metropolis-Hastings algorithms (Roberts and Stramer, 2002)
        | Optimal scaling of discrete approximations to Langevin diffusions (Roberts and
          Rosenthal, 1998)
    """

    step_size: float | None = None
    _: KW_ONLY
    target_accept_prob: float | None = 0.574
    adapt_mass_matrix: bool = True

    def __post_init__(self) -> None:
        _check_adjusted(self.step_size, self.target_accept_prob)

    def own_step_size(self, step_size: Any) -> Any:
        """Return the step size of Langevin dynamics."""
        return step_size


@dataclass(frozen=True)
class HMC(Kernel):
    r"""Hamiltonian Monte Carlo with a fixed number of leapfrog steps; leaves the density invariant.

    A fresh velocity, ``num_steps`` leapfrog steps of one gradient each, acceptance.

    Args:
        step_size: The leapfrog step :math:`h`, a time. One leapfrog step is a :class:`MALA` step
            of size :math:`h^2 / 2`. Default: from the rule of thumb of :class:`MALA`.
        num_steps: Leapfrog steps in one transition.
        step_size_jitter: Relative range :math:`j` of the step size: that of a transition is
            uniform in :math:`h (1 \pm j)`. Without, a trajectory of half a period of the target,
            ``step_size * num_steps`` near :math:`\pi \sigma`, only changes a sign, for ever.
        target_accept_prob: Mean acceptance probability that warm-up tunes the step size to; None
            keeps the step size.
        adapt_mass_matrix: Whether warm-up also learns a scale for each coordinate.

    Raises:
        ValueError: If a number is out of range.

    References:
        | MCMC using Hamiltonian dynamics (Neal, 2011)
    """

    step_size: float | None = None
    num_steps: int = 10
    _: KW_ONLY
    target_accept_prob: float | None = 0.8
    adapt_mass_matrix: bool = True
    step_size_jitter: float = 0.5

    def __post_init__(self) -> None:
        _check_adjusted(self.step_size, self.target_accept_prob)
        check_positive_integer("num_steps", self.num_steps)
        if not 0.0 <= self.step_size_jitter < 1.0:
            raise ValueError(
                "Expected `step_size_jitter` to be a number from 0 to below 1, got "
                f"{self.step_size_jitter}."
            )

    def own_step_size(self, step_size: Any) -> Any:
        """Return the leapfrog step of which one is a Langevin step."""
        return (2.0 * step_size) ** 0.5


class Source:
    """Base of settings of draws from a density that are no run of a kernel."""


@dataclass(frozen=True, kw_only=True)
class SMC(Source):
    r"""Adaptive tempered sequential Monte Carlo (an SMC sampler): draws with the weights of modes.

    A population of draws of the base (or of a standard normal in unconstrained space, if there is
    no base) moves through :math:`p_\beta \propto e^{-\beta E} p_0`, with :math:`\beta` from 0 to 1.
    Each :math:`\beta` is chosen so that half of the population is effective. Then the population
    is resampled (stratified) and moved by MALA (codes by ``Gibbs``), with a step size that follows
    the acceptance rate, in units of the population's
    :func:`~pyro_ebm.core.samplers.local_units.local_scale`. So nothing depends on the scale of the
    density. Cost: one gradient a particle for each move at each temperature, of which there are
    3 to 35 between a base and a density 50 times narrower in 1 to 32 dimensions.

    It only finds modes that a path from the base finds. If one mode is much narrower than another
    in many dimensions, it has almost no mass at small :math:`\beta`. It is then missed without any
    sign: compare with data (``log_normalizer(draws=data)``, ``run_chains(check=data)``).

    One population makes all draws of one distribution, including those that plates and ``expand``
    add. Each element of the batch of base and context has its own population, which costs
    ``num_particles`` times as much as a short run (use a kernel as the ``sampler`` for that). So
    has each draw of ``Predictive``, unless ``parallel=True`` makes one population of them all.

    Args:
        num_moves: Moves at each temperature.
        num_particles: Size of a population, if that is more than the number of draws. The weights
            of modes have a bias of order one over this number.

    Raises:
        ValueError: If a number is out of range.

    References:
        | Sequential Monte Carlo samplers (Del Moral, Doucet and Jasra, 2006)
        | Inference for Lévy-driven stochastic volatility models via adaptive sequential Monte
          Carlo (Jasra, Stephens, Doucet and Tsagaris, 2011)
    """

    num_moves: int = 10
    num_particles: int = 256

    def __post_init__(self) -> None:
        check_positive_integer("num_moves", self.num_moves)
        check_positive_integer("num_particles", self.num_particles, minimum=2)


def check_sampler(sampler: Any, name: str = "sampler") -> Any:
    """Return ``sampler``; raise ``TypeError`` unless it is an instance with init and step."""
    check_instance(name, sampler)
    missing = [attribute for attribute in _PROTOCOL if not hasattr(sampler, attribute)]
    if missing:
        raise TypeError(
            f"Expected `{name}` to have init and step, and {_PROTOCOL[2]} and {_PROTOCOL[3]} "
            "(None and False where a warm-up tunes nothing), as MALA() has, got "
            f"{type(sampler).__name__} without {', '.join(missing)}."
        )
    return sampler


def check_source(sampler: Any) -> Any:
    """Return ``sampler``; raise ``TypeError`` unless it is a kernel or :class:`Source`."""
    return sampler if isinstance(sampler, Source) else check_sampler(sampler)


def check_exact(sampler: Any) -> None:
    """Raise unless a kernel accepts or rejects its moves."""
    if not getattr(sampler, "is_exact", True):
        raise ValueError(
            "Expected a sampler that accepts or rejects its moves, such as MALA or HMC (others "
            f"do not leave a density invariant), got {sampler}."
        )


def _check_adjusted(step_size: float | None, target_accept_prob: float | None) -> None:
    if step_size is not None:
        check_positive("step_size", step_size)
    if target_accept_prob is not None:
        check_probability("target_accept_prob", target_accept_prob)
