"""Runs of samplers: one independent draw a chain, or whole chains with warm-up."""

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from tqdm.auto import tqdm

from pyro_ebm.core.checks import check_positive_integer, check_start, describe_trouble
from pyro_ebm.diagnostics import Chains
from pyro_ebm.numpyro.samplers import ChainState, Sampler, Transition
from pyro_ebm.numpyro.samplers.target import (
    Potential,
    Tilted,
    is_unconstrained,
    to_unconstrained,
    unconstrained_potential,
    value_and_gradient,
)
from pyro_ebm.numpyro.samplers.warmup import (
    Warmup,
    adapt,
    begin_warmup,
    end_warmup,
    prepare_state,
    window_flags,
)

__all__ = ["draw", "run_chains"]


def draw(
    rng_key: Array,
    sampler: Sampler,
    potential: Potential,
    position: Array,
    num_steps: int | None = None,
) -> Array:
    """Positions after ``num_steps`` (default: the sampler's) steps from ``position``."""

    def move(state: ChainState, key: Array) -> tuple[ChainState, None]:
        return sampler.step(key, potential, state)[0], None

    keys = random.split(rng_key, num_steps or sampler.num_steps)
    return lax.scan(move, sampler.init(potential, position), keys)[0].position


def run_chains(
    rng_key: Array,
    sampler: Sampler,
    distribution: Any,
    *,
    num_chains: int = 4,
    num_samples: int = 1000,
    num_warmup: int = 0,
    thinning: int = 1,
    init: Array | ChainState | None = None,
    progress_bar: bool = True,
) -> Chains:
    """Run many chains on a distribution at once.

    Args:
        rng_key: Random key.
        sampler: For example :class:`MALA`.
        distribution: A NumPyro distribution, of any ``batch_shape``. New parameters of the same
            module compile nothing anew.
        num_chains: Number of independent chains.
        num_samples: Draws that are kept of each chain.
        num_warmup: Steps before the first draw. In them a sampler with a ``target_acceptance``
            tunes its step size, and one with ``adapt_scale`` measures every coordinate's
            standard deviation; all chains share what is learned. After that nothing changes.
        thinning: Steps from one draw to the next.
        init: Where the chains start: values of shape ``(num_chains, *batch, *event)``, or the
            ``state`` of an earlier run of this sampler, which goes on from there with the step
            size and the scales that it learned. Default: draws from the base of an energy-based
            distribution, else standard normal in unconstrained space.
        progress_bar: Whether to show one.

    Returns:
        Chains with samples of shape ``(num_chains, num_samples, *batch, *event)`` and
        statistics ``lp`` (log-density up to a constant), ``acceptance_rate``, ``diverging``,
        ``step_size``, and for an energy-based distribution with a base ``ebm_energy``.

    Raises:
        ValueError: If a count is out of range, ``init`` has another shape, the support cannot be
            mapped to unconstrained space, or chains start where there is no finite density.

    Warns:
        UserWarning: If chains diverged or never moved; the draws are returned all the same.
    """
    check_positive_integer("num_chains", num_chains)
    check_positive_integer("num_samples", num_samples)
    check_positive_integer("num_warmup", num_warmup, minimum=0)
    check_positive_integer("thinning", thinning)
    start_key, warmup_key, sample_key = random.split(rng_key, 3)
    state = _start(start_key, sampler, distribution, num_chains, init)
    num_steps = num_warmup + num_samples * thinning
    draws = []
    with tqdm(total=num_steps, disable=not progress_bar, desc=type(sampler).__name__) as bar:
        warmup = begin_warmup(state)
        steps = (random.split(warmup_key, num_warmup), *window_flags(num_warmup))
        for block in _blocks(steps, num_warmup, whole=not progress_bar):
            state, warmup = _warm_up(block, sampler, distribution, state, warmup)
            bar.update(len(block[0]))
        if num_warmup:
            state = end_warmup(sampler, state, warmup)
        keys = random.split(sample_key, num_samples)
        for block in _blocks(keys, num_samples, whole=not progress_bar):
            state, kept = _keep(block, sampler, distribution, state, thinning)
            draws.append(kept)
            bar.update(len(block) * thinning)
    samples, statistics = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *draws)
    chains = Chains(samples, statistics, state)
    rate, diverging = statistics["acceptance_rate"], statistics["diverging"]
    for trouble in describe_trouble(sampler, distribution, rate, diverging):
        warnings.warn(trouble, stacklevel=2)
    return chains


def _blocks(steps: Any, num_steps: int, *, whole: bool) -> list[Any]:
    """Equal parts, for a progress bar to advance by, and what remains."""
    size = max(num_steps if whole else num_steps // 20, 1)
    starts = range(0, num_steps, size)
    return [jax.tree.map(lambda leaf: leaf[i : i + size], steps) for i in starts]  # noqa: B023


@partial(jax.jit, static_argnames="sampler")
def _warm_up(
    steps: Any, sampler: Sampler, distribution: Any, state: ChainState, warmup: Warmup
) -> tuple[ChainState, Warmup]:
    potential = unconstrained_potential(distribution)

    def step(carry: tuple[ChainState, Warmup], at: Any) -> tuple[Any, None]:
        (state, warmup), (key, learns, ends) = carry, at
        state, info = sampler.step(key, potential, state)
        return adapt(sampler, state, info, warmup, learns, ends), None

    return lax.scan(step, (state, warmup), steps)[0]


@partial(jax.jit, static_argnames=("sampler", "thinning"))
def _keep(
    keys: Array, sampler: Sampler, distribution: Any, state: ChainState, thinning: int
) -> tuple[ChainState, tuple[Array, dict[str, Array]]]:
    potential = unconstrained_potential(distribution)

    def step(state: ChainState, key: Array) -> Transition:
        return sampler.step(key, potential, state)

    def keep(state: ChainState, key: Array) -> tuple[ChainState, Any]:
        state, infos = lax.scan(step, state, random.split(key, thinning))
        info = jax.tree.map(lambda leaf: leaf[-1], infos)
        if state.potential is not None:
            return state, (state.position, state.potential, info)
        value = potential(state.position)
        diverging = info.diverging | ~jnp.isfinite(value)
        return state, (state.position, value, info._replace(diverging=diverging))

    state, draws = lax.scan(keep, state, keys)
    position, value, info = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), draws)
    bijection = to_unconstrained(distribution)
    samples, lp = bijection(position), -value
    if not is_unconstrained(distribution):
        lp = lp - bijection.log_abs_det_jacobian(position, samples)
    statistics = {"lp": lp, **info._asdict()}
    statistics["step_size"] = jnp.broadcast_to(state.step_size, lp.shape)
    if isinstance(distribution, Tilted) and distribution.base is not None:
        statistics["ebm_energy"] = distribution.base.log_prob(samples) - lp
    return state, (samples, statistics)


@partial(jax.jit, static_argnames="sampler")
def _initial_state(sampler: Sampler, distribution: Any, position: Array) -> Any:
    potential = unconstrained_potential(distribution)
    state = prepare_state(sampler, sampler.init(potential, position))
    return state, (
        state[1:3] if state.potential is not None else value_and_gradient(potential, position)
    )


def _start(
    rng_key: Array,
    sampler: Sampler,
    distribution: Any,
    num_chains: int,
    init: Array | ChainState | None,
) -> ChainState:
    bijection = to_unconstrained(distribution)
    shape = (num_chains, *distribution.batch_shape, *distribution.event_shape)
    before = init if isinstance(init, ChainState) else None
    if before is not None:
        value = bijection(before.position)
    elif init is not None:
        value = jnp.asarray(init)
    elif isinstance(distribution, Tilted):
        value = distribution.start(rng_key, (num_chains,))
    else:
        value = bijection(random.normal(rng_key, bijection.inverse_shape(shape)))
    if value.shape != shape:
        raise ValueError(
            f"Expected `init` of shape {shape} (chains, *batch, *event), got {value.shape}."
        )
    position = bijection.inv(value) if before is None else before.position
    # Evaluated anew in any case: the energy may have been trained since.
    state, evaluated = _initial_state(sampler, distribution, position)
    check_start(distribution, *evaluated)
    if before is not None:
        state = before._replace(potential=state.potential, gradient=state.gradient)
    return state
