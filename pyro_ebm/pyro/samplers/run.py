"""Runs of samplers: short runs, and chains with warm-up."""

import warnings
from dataclasses import replace
from typing import Any

import pyro
import torch
from torch import Tensor
from tqdm.auto import trange

from pyro_ebm.core.samplers import checks
from pyro_ebm.core.samplers import run as core
from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.gibbs import kernel_for
from pyro_ebm.core.samplers.settings import check_sampler
from pyro_ebm.diagnostics import Chains
from pyro_ebm.missing_modes import describe_missing_modes
from pyro_ebm.pyro.samplers.base import Sampler
from pyro_ebm.pyro.samplers.langevin import Langevin
from pyro_ebm.pyro.samplers.replica_exchange import ReplicaExchange
from pyro_ebm.pyro.samplers.target import (
    Potential,
    Target,
    compiled_steps,
    initial_values,
    real_array,
    value_and_gradient,
)
from pyro_ebm.pyro.samplers.warmup import Warmup, prepare_state


@torch.no_grad()
def short_run(
    sampler: Sampler,
    potential: Potential,
    position: Tensor,
    num_steps: int,
    own_ndim: int = 0,
    *,
    from_data: bool = False,
) -> core.ShortRun:
    """Run some steps from a position; detached.

    Step sizes: :func:`pyro_ebm.core.samplers.run.begin_short_run`.
    """
    with pyro.validation_enabled(is_validate=False):
        if type(sampler) is Langevin:  # A class of the user's may have a step of its own.
            end = sampler._walk(potential, position, num_steps)
            return core.ShortRun(end, end.new_ones(()))
        state = sampler.init(potential, position)
        state, longest = core.begin_short_run(sampler, state, own_ndim, from_data=from_data)
        state, rate = _steps(sampler, potential, state, num_steps, longest)
    return core.ShortRun(state.position, rate)


@torch.no_grad()
def move_levels(
    sampler: ReplicaExchange, distribution: Any, values: Tensor, num_steps: int
) -> core.ShortRun:
    """Run replica exchange from values of its levels, ``(num_chains, num_levels, *event)``."""
    target = Target.of_any(distribution)
    sampler = kernel_for(sampler, target)
    with pyro.validation_enabled(is_validate=False):
        positions = target.position(values).unbind(1)
        state = sampler.init_levels(target.potential, positions)
        # Even or odd pairs swap first, by chance: a run may be of one step.
        state = state._replace(index=int(torch.randint(2, ())))
        state, rate = _steps(sampler, target.potential, state, num_steps)
    positions = torch.stack([level.position for level in state.levels()], 1)
    return core.ShortRun(target.value(positions), rate)


@torch.no_grad()
def move_values(
    sampler: Sampler,
    distribution: Any,
    value: Tensor,
    num_steps: int,
    own_ndim: int = 0,
    *,
    from_data: bool = False,
) -> core.ShortRun:
    """Run some steps from values in the support; see :func:`short_run`."""
    target = Target.of_any(distribution)
    start = target.potential, target.position(value)
    kernel = kernel_for(sampler, target)
    run = short_run(kernel, *start, num_steps, own_ndim, from_data=from_data)
    return replace(run, samples=target.value(run.samples))


def run_chains(
    sampler: Sampler,
    distribution: Any,
    *,
    num_samples: int = 1000,
    num_warmup: int = 0,
    thinning: int = 1,
    num_chains: int | None = None,
    init: Tensor | ChainState | None = None,
    check: bool | Tensor = True,
    progress_bar: bool = True,
    compile_steps: bool = False,
) -> Chains:
    """Run many chains on a Pyro distribution of any ``batch_shape``.

    Other arguments and statistics: :func:`pyro_ebm.core.samplers.checks.check_run`. A discrete
    support needs ``Gibbs`` or ``GibbsWithGradients``. With ``compile_steps``, ``torch.compile``
    compiles each step, which takes many seconds at first and pays off over thousands of steps.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_ebm.pyro import MALA, run_chains
        >>> normal = dist.Normal(0.0, 1e-3)
        >>> chains = run_chains(MALA(), normal, num_samples=50, num_warmup=50, progress_bar=False)
        >>> chains.samples.shape
        torch.Size([4, 50])
    """
    check_sampler(sampler)
    checks.check_target(distribution)
    init = init if isinstance(init, ChainState | None) else real_array("init", init)
    check = checks.check_reference(distribution, check, torch.as_tensor)
    num_chains = checks.check_run(num_samples, num_warmup, thinning, num_chains, init)
    target, validates = Target.of_any(distribution), distribution._validate_args
    sampler = kernel_for(sampler, target)
    draws, frozen = [], torch.no_grad()(target.potential)
    with pyro.validation_enabled(is_validate=False), compiled_steps(enabled=compile_steps):
        state = _start(sampler, distribution, target, num_chains, init, probes=validates)
        warmup = Warmup(sampler, state, num_warmup)
        num_steps = num_warmup + num_samples * thinning
        for index in trange(num_steps, disable=not progress_bar, desc=type(sampler).__name__):
            state, info = sampler.step(target.potential, warmup.braked(state))
            if index < num_warmup:
                state = warmup.adapt(index, state, info)
            elif (index - num_warmup + 1) % thinning == 0:
                draws.append(core.kept_draw(frozen, state, info))
        chains = _chains(distribution, target, draws, state)
    rate, diverging = (chains.statistics[name] for name in ("acceptance_rate", "diverging"))
    for trouble in (
        *checks.describe_trouble(sampler, distribution, num_warmup, rate, diverging),
        *describe_missing_modes(distribution, chains.samples, check),
    ):
        warnings.warn(trouble, stacklevel=2)
    return chains


def _steps(
    sampler: Sampler,
    potential: Potential,
    state: ChainState,
    num_steps: int,
    longest: Any = None,
) -> tuple[ChainState, Tensor]:
    """Take some steps, and tune the step size; return the mean acceptance too."""
    total = state.position.new_zeros(())
    for _ in range(num_steps):
        state, info = sampler.step(potential, state)
        state = core.tuned(sampler, state, info, longest)
        total = total + info.acceptance_rate.mean()
    return state, total / num_steps


def _start(
    sampler: Sampler, distribution: Any, target: Any, num_chains: int, init: Any, *, probes: bool
) -> ChainState:
    if init is None:
        init = initial_values(distribution, (num_chains,))

    def begin(position: Tensor) -> Any:
        state = prepare_state(sampler, sampler.init(target.potential, position))
        known = state.potential is not None
        return state, state[1:3] if known else value_and_gradient(target.potential, position)

    return core.start_chains(
        sampler,
        distribution,
        target,
        num_chains,
        init,
        begin,
        probes=probes,
        is_known=torch.is_tensor,
    )


@torch.no_grad()
def _chains(
    distribution: Any, target: Any, draws: list[tuple[Any, ...]], state: ChainState
) -> Chains:
    *arrays, infos = zip(*draws, strict=True)
    position, potential = (torch.stack(parts, dim=1) for parts in arrays)
    info = {name: torch.stack([info[name] for info in infos], dim=1) for name in infos[0]}
    stacked = position, potential, info
    return Chains(*core.summarize_draws(distribution, target, stacked, state.step_size), state)
