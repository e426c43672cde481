"""Markov chains, vectorised: ``state = init(...)``, ``state, info = step(...)``, ``run_chains``.

A sampler walks on a potential over unconstrained space (minus a log-density, up to a constant)
and knows of no distribution.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import biject_to
from tqdm.auto import trange

from pyro_ebm.core.checks import check_positive, check_positive_integer
from pyro_ebm.core.dynamics import accept, langevin_move, mala_log_acceptance
from pyro_ebm.diagnostics import Chains
from pyro_ebm.pyro.potentials import (
    Potential,
    Tilted,
    is_unconstrained,
    unconstrained_potential,
)

__all__ = [
    "ChainState",
    "Langevin",
    "MALA",
    "Sampler",
    "TransitionInfo",
    "draw",
    "run_chains",
]


class ChainState(NamedTuple):
    """Where the chains are, with what the next step needs of it.

    Attributes:
        position: Unconstrained values, shape ``(*chains, *event)``.
        potential: Potentials there, shape ``(*chains,)``.
        gradient: Gradients of the potential there, shape of ``position``.
    """

    position: Tensor
    potential: Tensor
    gradient: Tensor


class TransitionInfo(NamedTuple):
    """What happened in one step, in ArviZ's words.

    Attributes:
        acceptance_rate: Probability of acceptance, shape ``(*chains,)``.
        diverging: Whether the move led to no finite potential, shape ``(*chains,)``.
    """

    acceptance_rate: Tensor
    diverging: Tensor


@runtime_checkable
class Sampler(Protocol):
    """What a sampler has: ``init``, ``step``, and the steps that one independent draw takes."""

    @property
    def num_steps(self) -> int:
        """Steps that one independent draw takes."""
        ...

    def init(self, potential: Potential, position: Tensor) -> ChainState:
        """Start chains at a position."""
        ...

    def step(self, potential: Potential, state: ChainState) -> tuple[ChainState, TransitionInfo]:
        """Move every chain once."""
        ...


@dataclass(frozen=True)
class Langevin:
    r"""Unadjusted Langevin dynamics (ULA).

    .. math:: x' = x - h \nabla U(x) + \sqrt{2h}\, \xi

    Its stationary law is biased by a term of order :math:`h`: for a Gaussian of variance
    :math:`\sigma^2` it has variance :math:`\sigma^2 / (1 - h / (2\sigma^2))`.

    Args:
        step_size: :math:`h`. Papers that write :math:`x' = x - \frac{s^2}{2} \nabla U + s \xi`
            mean :math:`h = s^2 / 2`.
        num_steps: Steps of one independent draw, when a distribution's ``sample`` runs this.

    Raises:
        ValueError: If ``step_size`` or ``num_steps`` is not positive.

    References:
        | Exponential convergence of Langevin distributions and their discrete approximations
          (Roberts and Tweedie, 1996)
    """

    step_size: float
    num_steps: int = 100

    def __post_init__(self) -> None:
        _check_sampler(self)

    def init(self, potential: Potential, position: Tensor) -> ChainState:
        """Start chains at a position of shape ``(*chains, *event)``."""
        return _state_at(potential, position)

    def step(self, potential: Potential, state: ChainState) -> tuple[ChainState, TransitionInfo]:
        """Move every chain once; one gradient."""
        proposal = _state_at(potential, _langevin_proposal(state, self.step_size))
        diverging = ~torch.isfinite(proposal.potential)
        return proposal, TransitionInfo(torch.ones_like(proposal.potential), diverging)


@dataclass(frozen=True)
class MALA:
    r"""Metropolis-adjusted Langevin algorithm: :class:`Langevin` proposals, exact in the limit.

    Args:
        step_size: :math:`h` of the proposal :math:`x - h \nabla U(x) + \sqrt{2h}\, \xi`.
        num_steps: Steps of one independent draw, when a distribution's ``sample`` runs this.

    Raises:
        ValueError: If ``step_size`` or ``num_steps`` is not positive.

    References:
        | Langevin diffusions and Metropolis-Hastings algorithms (Roberts and Stramer, 2002)
    """

    step_size: float
    num_steps: int = 100

    def __post_init__(self) -> None:
        _check_sampler(self)

    def init(self, potential: Potential, position: Tensor) -> ChainState:
        """Start chains at a position of shape ``(*chains, *event)``."""
        return _state_at(potential, position)

    def step(self, potential: Potential, state: ChainState) -> tuple[ChainState, TransitionInfo]:
        """Propose and accept or reject in every chain; one gradient."""
        proposal = _state_at(potential, _langevin_proposal(state, self.step_size))
        log_ratio = mala_log_acceptance(*state, *proposal, self.step_size)
        accepted = torch.rand_like(log_ratio).log() < log_ratio
        pairs = zip(proposal, state, strict=True)
        moved = ChainState(*(accept(accepted, new, old) for new, old in pairs))
        rate = log_ratio.clamp(max=0.0).exp()
        return moved, TransitionInfo(rate, ~torch.isfinite(proposal.potential))


def draw(sampler: Sampler, potential: Potential, position: Tensor) -> Tensor:
    """Positions after ``sampler.num_steps`` steps from ``position``; detached."""
    state = sampler.init(potential, position)
    for _ in range(sampler.num_steps):
        state, _ = sampler.step(potential, state)
    return state.position


def run_chains(
    sampler: Sampler,
    distribution: Any,
    *,
    num_chains: int = 4,
    num_samples: int = 1000,
    num_warmup: int = 0,
    thinning: int = 1,
    init: Tensor | ChainState | None = None,
    progress_bar: bool = True,
) -> Chains:
    """Run many chains on a distribution at once.

    Args:
        sampler: For example :class:`MALA`.
        distribution: A Pyro distribution, of any ``batch_shape``.
        num_chains: Number of independent chains.
        num_samples: Draws that are kept of each chain.
        num_warmup: Steps before the first draw.
        thinning: Steps from one draw to the next.
        init: Where the chains start: values of shape ``(num_chains, *batch, *event)``, or the
            ``state`` of an earlier run, which goes on from there. Default: draws from the base
            of an energy-based distribution, else standard normal in unconstrained space.
        progress_bar: Whether to show one.

    Returns:
        Chains with samples of shape ``(num_chains, num_samples, *batch, *event)`` and
        statistics ``lp`` (log-density up to a constant), ``acceptance_rate``, ``diverging``.

    Raises:
        ValueError: If a count is out of range or ``init`` has another shape.
    """
    check_positive_integer("num_chains", num_chains)
    check_positive_integer("num_samples", num_samples)
    check_positive_integer("num_warmup", num_warmup, minimum=0)
    check_positive_integer("thinning", thinning)
    potential = unconstrained_potential(distribution)
    state = _initial_state(sampler, distribution, potential, num_chains, init)
    draws = []
    num_steps = num_warmup + num_samples * thinning
    for index in trange(num_steps, disable=not progress_bar, desc=type(sampler).__name__):
        state, info = sampler.step(potential, state)
        if index >= num_warmup and (index - num_warmup + 1) % thinning == 0:
            draws.append((state.position, state.potential, info))
    return _chains(distribution, draws, state)


def _chains(distribution: Any, draws: list[tuple[Any, ...]], state: ChainState) -> Chains:
    positions, potentials, infos = zip(*draws, strict=True)
    position = torch.stack(positions, dim=1)
    bijection = biject_to(distribution.support)
    samples = bijection(position)
    lp = -torch.stack(potentials, dim=1)
    if not is_unconstrained(distribution):
        lp = lp - bijection.log_abs_det_jacobian(position, samples)
    statistics = {"lp": lp}
    for name in TransitionInfo._fields:
        statistics[name] = torch.stack([getattr(info, name) for info in infos], dim=1)
    return Chains(samples, statistics, state)


def _initial_state(
    sampler: Sampler,
    distribution: Any,
    potential: Potential,
    num_chains: int,
    init: Tensor | ChainState | None,
) -> ChainState:
    if isinstance(init, ChainState):
        return init
    bijection = biject_to(distribution.support)
    shape = torch.Size((num_chains, *distribution.batch_shape, *distribution.event_shape))
    if init is None and isinstance(distribution, Tilted):
        init = distribution.start(torch.Size((num_chains,)))
    if init is None:
        position = torch.randn_like(bijection.inv(distribution.sample((num_chains,))))
    elif init.shape != shape:
        raise ValueError(
            f"Expected `init` of shape {tuple(shape)} (chains, *batch, *event), "
            f"got {tuple(init.shape)}."
        )
    else:
        position = bijection.inv(init)
    return sampler.init(potential, position)


def _check_sampler(sampler: Any) -> None:
    check_positive("step_size", sampler.step_size)
    check_positive_integer("num_steps", sampler.num_steps)


def _state_at(potential: Potential, position: Tensor) -> ChainState:
    # A chain that has run off has no density there; Pyro's own checks would stop all of them.
    inside = torch.nan_to_num(position.detach(), nan=0.0, posinf=0.0, neginf=0.0)
    # Draws are wanted under no_grad too (Predictive, initialisation of guides).
    with torch.enable_grad():
        inside.requires_grad_()
        value = potential(inside)
        (gradient,) = torch.autograd.grad(value.sum(), inside)
    finite = torch.isfinite(position).reshape((*value.shape, -1)).all(-1)
    return ChainState(position.detach(), value.detach().masked_fill(~finite, math.inf), gradient)


def _langevin_proposal(state: ChainState, step_size: float) -> Tensor:
    noise = torch.randn_like(state.position)
    return langevin_move(state.position, state.gradient, noise, step_size)
