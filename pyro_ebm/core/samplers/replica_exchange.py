r"""Replica exchange: levels of chains from hot to cold that swap their positions."""

from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_positive
from pyro_ebm.core.numerics import expand_left, expand_right
from pyro_ebm.core.samplers.dynamics import (
    ChainState,
    TransitionInfo,
    accept,
    decision_info,
    rejected_where_nan,
)
from pyro_ebm.core.samplers.settings import Kernel, check_exact, check_sampler


@dataclass(frozen=True)
class ReplicaExchange(Kernel):
    r"""Replica exchange (parallel tempering): hot chains cross between modes, cold ones sample.

    Every chain has a level for each temperature :math:`T_k`, with density :math:`e^{-U / T_k}`.
    All levels move by the same kernel, in one evaluation of the potential; then neighbours swap
    with probability

    .. math:: \min\left(1, e^{(1/T_k - 1/T_{k+1})\, (U(x_k) - U(x_{k+1}))}\right),

    even and odd pairs in turn. Draws and statistics are those of the last level, :math:`T = 1`.
    The statistic ``swap_rate`` has these probabilities, shape ``(..., num_levels - 1)``, the
    hottest pair first: a rate near 0 asks for temperatures in between.

    A level measures coordinates in units of :math:`\sqrt{T_k}` times those of the kernel, and
    warm-up tunes the step size (and the scales) of each level by itself.

    Codes of discrete columns move by ``Gibbs`` or ``GibbsWithGradients`` as its kernel.

    It is for long chains: ``run_chains``, ``SamplerKernel``, and ``PersistentChains``, which store
    all levels. What stays invariant is the density of all levels together, but they start at the
    same positions: draws of the first tens of steps have too low an energy, and no mode is found
    before hot levels have crossed. Estimates of evidence refuse it.

    Args:
        kernel: Moves the levels. It must accept or reject, as ``MALA``, ``HMC`` and ``Gibbs`` do.
        temperatures: :math:`T_k`, which descend to 1. The highest should be a good part of the
            height of the barriers between modes, in nats, which swap rates do not show: levels that
            are all too cold swap well. In few dimensions, factors of 4 between neighbours suffice.
            A step costs a gradient for each of them.

    Raises:
        ValueError: If the kernel is not exact, or temperatures do not descend to 1.

    References:
        | Replica Monte Carlo simulation of spin glasses (Swendsen and Wang, 1986)
        | Non-reversible parallel tempering: a scalable highly parallel MCMC scheme (Syed,
          Bouchard-Côté, Deligiannidis and Doucet, 2022)
    """

    kernel: Any
    _: KW_ONLY
    temperatures: tuple[float, ...] = (64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0)
    # Right after `init`, hotter levels are not in their densities.
    is_exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_exact(check_sampler(self.kernel, "kernel"))
        object.__setattr__(self, "temperatures", _check_temperatures(self.temperatures))

    @property
    def step_size(self) -> float | None:
        """Step size of the kernel."""
        return getattr(self.kernel, "step_size", None)

    @property
    def target_accept_prob(self) -> float | None:
        """Mean acceptance probability that warm-up tunes every level to."""
        return self.kernel.target_accept_prob

    @property
    def adapt_mass_matrix(self) -> bool:
        """Whether warm-up also learns a scale for each coordinate, at every level."""
        return self.kernel.adapt_mass_matrix

    def check_start(self, position: Any, gradient: Any, gradient_at: Any) -> None:
        """Raise where ``kernel`` does."""
        if isinstance(self.kernel, Kernel):
            self.kernel.check_start(position, gradient, gradient_at)

    def init(self, potential: Any, position: Any) -> ChainState:
        """Start all levels at the same positions, with one gradient."""
        return self._joined([self.kernel.init(potential, position)] * len(self.temperatures))

    def init_levels(self, potential: Any, positions: Any) -> ChainState:
        """Start levels at positions of their own, the hottest first."""
        return self._joined([self.kernel.init(potential, each) for each in positions])

    def _joined(self, states: list[ChainState]) -> ChainState:
        cold = states[-1]
        if cold.potential is None or cold.velocity is not None:
            raise ValueError(
                "Expected `kernel` to have a potential and no velocity as its state, as MALA, HMC "
                f"and Gibbs, got {self.kernel}."
            )
        scales = [cold.scale * temperature**0.5 for temperature in self.temperatures]
        levels = zip(states[:-1], scales, strict=False)
        hotter = (level._replace(step_size=cold.step_size, scale=s) for level, s in levels)
        return cold._replace(hotter=tuple(hotter))


class Tempered(NamedTuple):
    """Potential of all levels at once, :math:`U / T`, a pytree.

    Attributes:
        potential: :math:`U`.
        temperature: :math:`T`, shape ``(num_levels, *chains)``.
    """

    potential: Any
    temperature: Any

    def __call__(self, position: Any) -> Any:
        """Evaluate the potential of each level at its positions."""
        return self.potential(position) / self.temperature


def stack_levels(temperatures: tuple[float, ...], state: ChainState) -> tuple[ChainState, Any]:
    """Make one state of all levels, each with its tempered potential; return temperatures too.

    Levels are an additional first dimension of chains.
    """
    levels, xp = state.levels(), array_namespace(state.potential)
    temperature = xp.stack([xp.full_like(state.potential, each) for each in temperatures])
    position = xp.stack([level.position for level in levels])
    gradient = state.gradient
    if gradient is not None:
        gradient = xp.stack([level.gradient for level in levels])
        gradient = gradient / expand_right(temperature, gradient.ndim)
    stacked = state._replace(
        position=position,
        potential=xp.stack([level.potential for level in levels]) / temperature,
        gradient=gradient,
        step_size=xp.stack([expand_left(each.step_size, temperature.ndim - 1) for each in levels]),
        scale=xp.stack([expand_left(each.scale, position.ndim - 1) for each in levels]),
        hotter=(),
    )
    return stacked, temperature


def swap_levels(
    state: ChainState, moved: ChainState, info: TransitionInfo, temperature: Any, uniform: Any
) -> tuple[ChainState, TransitionInfo]:
    r"""Swap neighbours among levels that have moved, and take the stack apart.

    Pairs :math:`(k, k + 1)` with even :math:`k` swap at even steps, odd ones at odd steps.

    Args:
        state: State before the move.
        moved: All levels after it, as :func:`stack_levels` makes them.
        info: Statistics of the move.
        temperature: Of each level, shape ``(num_levels, *chains)``.
        uniform: Random numbers, shape ``(num_levels - 1, *chains)``.
    """
    xp = array_namespace(uniform)
    potential, gradient = moved.potential * temperature, moved.gradient
    if gradient is not None:
        gradient = gradient * expand_right(temperature, gradient.ndim)
    log_ratio = swap_log_ratio(potential, temperature)
    swaps = xp.log(uniform) < log_ratio
    swaps = xp.stack([swaps[k, ...] & ((k + state.index) % 2 == 0) for k in range(len(swaps))])
    arrays = [_levels(swaps, x) for x in (moved.position, potential, gradient)]
    levels = state.levels()
    states = [level.moved(*parts) for level, *parts in zip(levels, *arrays, strict=True)]
    infos = [TransitionInfo(*(x[k, ...] for x in info[:2])) for k in range(len(levels))]
    swap_rate = xp.moveaxis(decision_info(log_ratio).acceptance_rate, 0, -1)
    return (
        states[-1]._replace(hotter=tuple(states[:-1])),
        infos[-1]._replace(hotter=tuple(infos[:-1]), swap_rate=swap_rate),
    )


def swap_log_ratio(potential: Any, temperature: Any) -> Any:
    r"""Compute the log of the Metropolis ratio of a swap, for each pair of neighbours.

    .. math:: \log \alpha_k = (1/T_k - 1/T_{k+1})\, (U(x_k) - U(x_{k+1}))
    """
    inverse = 1.0 / temperature
    difference = potential[:-1, ...] - potential[1:, ...]
    return rejected_where_nan((inverse[:-1, ...] - inverse[1:, ...]) * difference)


def _check_temperatures(temperatures: Any) -> tuple[float, ...]:
    try:
        values = tuple(check_positive("temperatures", each) for each in temperatures)
    except (TypeError, ValueError):
        values = ()
    if len(values) < 2 or values[-1] != 1 or any(a <= b for a, b in pairwise(values)):
        raise ValueError(f"Expected `temperatures` to descend to 1, got {temperatures!r}.")
    return values


def _levels(swaps: Any, x: Any) -> list[Any]:
    """Swap levels ``k`` and ``k + 1`` of ``x`` where ``swaps[k]``, and take them apart."""
    num_levels = swaps.shape[0] + 1
    if x is None:
        return [None] * num_levels
    xp = array_namespace(x)
    never = xp.zeros_like(swaps[:1, ...])
    from_above = accept(xp.concat([swaps, never]), xp.concat([x[1:, ...], x[-1:, ...]]), x)
    swapped = accept(xp.concat([never, swaps]), xp.concat([x[:1, ...], x[:-1, ...]]), from_above)
    return [swapped[k, ...] for k in range(num_levels)]
