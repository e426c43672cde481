"""Compiled runs of samplers: short runs, and chains with warm-up."""

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.tree_util import register_dataclass
from numpyro.util import not_jax_tracer
from tqdm.auto import tqdm

from pyro_ebm.core.samplers import checks
from pyro_ebm.core.samplers import run as core
from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.gibbs import kernel_for
from pyro_ebm.core.samplers.settings import check_sampler
from pyro_ebm.diagnostics import Chains
from pyro_ebm.missing_modes import describe_missing_modes
from pyro_ebm.numpyro.samplers.base import Sampler, Transition, check_rng_key
from pyro_ebm.numpyro.samplers.langevin import Langevin
from pyro_ebm.numpyro.samplers.replica_exchange import ReplicaExchange
from pyro_ebm.numpyro.samplers.target import (
    Potential,
    Target,
    initial_values,
    promoted,
    value_and_gradient,
)
from pyro_ebm.numpyro.samplers.warmup import (
    Warmup,
    adapt,
    begin_warmup,
    braked,
    end_warmup,
    prepare_state,
    schedule,
)

register_dataclass(core.ShortRun)


def short_run(
    rng_key: Array,
    sampler: Sampler,
    potential: Potential,
    position: Array,
    num_steps: int,
    own_ndim: int = 0,
    *,
    from_data: bool = False,
) -> core.ShortRun:
    position = promoted(potential, position)
    if type(sampler) is Langevin:
        end = sampler._walk(rng_key, potential, position, num_steps)
        return core.ShortRun(end, jnp.ones((), end.dtype))
    start = sampler.init(potential, position)
    start, longest = core.begin_short_run(sampler, start, own_ndim, from_data=from_data)
    state, rate = _steps(rng_key, sampler, potential, start, num_steps, longest)
    return core.ShortRun(state.position, rate)


def move_levels(
    rng_key: Array, sampler: ReplicaExchange, distribution: Any, values: Array, num_steps: int
) -> core.ShortRun:
    distribution, values = lax.stop_gradient((distribution, values))
    target = Target.of_any(distribution)
    sampler = kernel_for(sampler, target)
    positions = promoted(target.potential, jnp.moveaxis(target.position(values), 1, 0))
    start = sampler.init_levels(target.potential, positions)
    # Even or odd pairs swap first, by chance: a run may be of one step.
    parity = random.randint(random.fold_in(rng_key, 2), (), 0, 2, start.index.dtype)
    start = start._replace(index=parity)
    state, rate = _steps(rng_key, sampler, target.potential, start, num_steps)
    positions = jnp.stack([level.position for level in state.levels()], 1)
    return core.ShortRun(target.value(positions), rate)


def move_values(
    rng_key: Array,
    sampler: Sampler,
    distribution: Any,
    value: Array,
    num_steps: int,
    own_ndim: int = 0,
    *,
    from_data: bool = False,
) -> core.ShortRun:
    distribution, value = lax.stop_gradient((distribution, value))
    target = Target.of_any(distribution)
    start = target.potential, target.position(value)
    kernel = kernel_for(sampler, target)
    run = short_run(rng_key, kernel, *start, num_steps, own_ndim, from_data=from_data)
    return replace(run, samples=target.value(run.samples))


def run_chains(
    rng_key: Array,
    sampler: Sampler,
    distribution: Any,
    *,
    num_samples: int = 1000,
    num_warmup: int = 0,
    thinning: int = 1,
    num_chains: int | None = None,
    init: Array | ChainState | None = None,
    check: bool | Array = True,
    progress_bar: bool = True,
) -> Chains:
    """Run many chains on a NumPyro distribution at once.

    Arguments and statistics: :func:`pyro_ebm.core.samplers.checks.check_run`. A discrete support
    needs ``Gibbs`` or ``GibbsWithGradients``. New parameters of the same module do not compile
    again. Without a progress bar, warm-up and draws are one compiled loop each. Inside ``jit`` and
    ``vmap`` there is no bar, and there are no warnings.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> from pyro_ebm.numpyro import MALA
        >>> normal = dist.Normal(0.0, 1e-3)
        >>> options = dict(num_warmup=300, num_samples=50, progress_bar=False)
        >>> run_chains(jax.random.key(0), MALA(), normal, **options).samples.shape
        (4, 50)
    """
    check_rng_key(rng_key)
    check_sampler(sampler)
    checks.check_target(distribution)
    sampler = kernel_for(sampler, Target.of_any(distribution))
    inputs = jax.tree.leaves((rng_key, distribution, init))
    progress_bar = progress_bar and all(map(not_jax_tracer, inputs))
    if not isinstance(init, ChainState | None):
        init = checks.real_array("init", init, jnp.asarray)
    check = checks.check_reference(distribution, check, jnp.asarray)
    num_chains = checks.check_run(num_samples, num_warmup, thinning, num_chains, init)
    start_key, *run_keys = random.split(rng_key, 3)
    state = _start(start_key, sampler, distribution, num_chains, init)
    run = num_warmup, num_samples, thinning
    state, draws = _run(run_keys, sampler, distribution, state, run, bar=progress_bar)
    samples, statistics = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *draws)
    rate, diverging = statistics["acceptance_rate"], statistics["diverging"]
    if not_jax_tracer(rate):
        for trouble in (
            *checks.describe_trouble(sampler, distribution, num_warmup, rate, diverging),
            *describe_missing_modes(distribution, samples, check, random.fold_in(rng_key, 3)),
        ):
            warnings.warn(trouble, stacklevel=2)
    return Chains(samples, statistics, state)


def _steps(
    rng_key: Array,
    sampler: Sampler,
    potential: Potential,
    state: ChainState,
    num_steps: int,
    longest: Any = None,
) -> tuple[ChainState, Array]:
    def move(state: ChainState, key: Array) -> tuple[ChainState, Array]:
        state, info = sampler.step(key, potential, state)
        return core.tuned(sampler, state, info, longest), info.acceptance_rate.mean()

    state, rates = lax.scan(move, state, random.split(rng_key, num_steps))
    return state, rates.mean()


def _run(
    rng_keys: list[Array],
    sampler: Sampler,
    distribution: Any,
    state: ChainState,
    run: tuple[int, int, int],
    *,
    bar: bool,
) -> tuple[ChainState, list[Any]]:
    """Warm up, and keep draws: ``run`` is steps of warm-up, draws, and steps between two."""
    (num_warmup, num_samples, thinning), draws = run, []
    num_steps = num_warmup + num_samples * thinning
    with tqdm(total=num_steps, disable=not bar, desc=type(sampler).__name__) as progress:
        warmup = begin_warmup(sampler, state)
        steps = (random.split(rng_keys[0], num_warmup), schedule(num_warmup))
        for block in _blocks(steps, num_warmup, whole=not bar):
            state, warmup = _warm_up(block, sampler, distribution, state, warmup)
            progress.update(len(block[0]))
        if num_warmup:
            state = end_warmup(sampler, state, warmup)
        for block in _blocks(random.split(rng_keys[1], num_samples), num_samples, whole=not bar):
            state, kept = _keep(block, sampler, distribution, state, thinning)
            draws.append(kept)
            progress.update(len(block) * thinning)
    return state, draws


def _blocks(steps: Any, num_steps: int, *, whole: bool) -> list[Any]:
    """Split steps into equal parts for a progress bar to advance by, and the rest."""
    size = max(num_steps if whole else num_steps // 20, 1)
    starts = range(0, num_steps, size)
    return [jax.tree.map(lambda leaf: leaf[i : i + size], steps) for i in starts]  # noqa: B023


@partial(jax.jit, static_argnames="sampler")
def _warm_up(
    steps: Any, sampler: Sampler, distribution: Any, state: ChainState, warmup: Warmup
) -> tuple[ChainState, Warmup]:
    potential = Target.of_any(distribution).potential

    def step(carry: tuple[ChainState, Warmup], at: Any) -> tuple[Any, None]:
        (state, warmup), (key, now) = carry, at
        state, info = sampler.step(key, potential, braked(state, warmup))
        return adapt(sampler, state, info, warmup, now), None

    return lax.scan(step, (state, warmup), steps)[0]


@partial(jax.jit, static_argnames=("sampler", "thinning"))
def _keep(
    keys: Array, sampler: Sampler, distribution: Any, state: ChainState, thinning: int
) -> tuple[ChainState, tuple[Array, dict[str, Array]]]:
    target = Target.of_any(distribution)

    def step(state: ChainState, key: Array) -> Transition:
        return sampler.step(key, target.potential, state)

    def keep(state: ChainState, key: Array) -> tuple[ChainState, Any]:
        state, infos = lax.scan(step, state, random.split(key, thinning))
        info = jax.tree.map(lambda leaf: leaf[-1], infos)
        return state, core.kept_draw(target.potential, state, info)

    state, draws = lax.scan(keep, state, keys)
    draws = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), draws)
    return state, core.summarize_draws(distribution, target, draws, state.step_size)


@partial(jax.jit, static_argnames="sampler")
def _initial_state(sampler: Sampler, distribution: Any, position: Array) -> Any:
    potential = Target.of_any(distribution).potential
    position = promoted(potential, position)
    state = prepare_state(sampler, sampler.init(potential, position))
    known = state.potential is not None
    return state, state[1:3] if known else value_and_gradient(potential, position)


def _start(
    rng_key: Array, sampler: Sampler, distribution: Any, num_chains: int, init: Any
) -> ChainState:
    target = Target.of_any(distribution)
    if init is None:
        init = initial_values(rng_key, distribution, (num_chains,))
    begin = partial(_initial_state, sampler, distribution)
    return core.start_chains(
        sampler, distribution, target, num_chains, init, begin, probes=True, is_known=not_jax_tracer
    )
