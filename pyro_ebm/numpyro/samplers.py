"""Markov chains, vectorised: ``state = init(...)``, ``state, info = step(...)``, ``run_chains``.

A sampler walks on a potential over unconstrained space (minus a log-density, up to a constant)
and knows of no distribution.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.distributions import biject_to
from tqdm.auto import tqdm

from pyro_ebm.core.checks import check_positive, check_positive_integer
from pyro_ebm.core.dynamics import accept, langevin_move, mala_log_acceptance
from pyro_ebm.diagnostics import Chains
from pyro_ebm.numpyro.potentials import (
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

    position: Array
    potential: Array
    gradient: Array


class TransitionInfo(NamedTuple):
    """What happened in one step, in ArviZ's words.

    Attributes:
        acceptance_rate: Probability of acceptance, shape ``(*chains,)``.
        diverging: Whether the move led to no finite potential, shape ``(*chains,)``.
    """

    acceptance_rate: Array
    diverging: Array


Transition = tuple[ChainState, TransitionInfo]


@runtime_checkable
class Sampler(Protocol):
    """What a sampler has: ``init``, ``step``, and the steps that one independent draw takes.

    Samplers are hashable (frozen dataclasses are), so that compiled functions are used again.
    """

    @property
    def num_steps(self) -> int:
        """Steps that one independent draw takes."""
        ...

    def init(self, potential: Potential, position: Array) -> ChainState:
        """Start chains at a position."""
        ...

    def step(self, rng_key: Array, potential: Potential, state: ChainState) -> Transition:
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

    def init(self, potential: Potential, position: Array) -> ChainState:
        """Start chains at a position of shape ``(*chains, *event)``."""
        return _state_at(potential, position)

    def step(self, rng_key: Array, potential: Potential, state: ChainState) -> Transition:
        """Move every chain once; one gradient."""
        proposal = _state_at(potential, _langevin_proposal(rng_key, state, self.step_size))
        diverging = ~jnp.isfinite(proposal.potential)
        return proposal, TransitionInfo(jnp.ones_like(proposal.potential), diverging)


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

    def init(self, potential: Potential, position: Array) -> ChainState:
        """Start chains at a position of shape ``(*chains, *event)``."""
        return _state_at(potential, position)

    def step(self, rng_key: Array, potential: Potential, state: ChainState) -> Transition:
        """Propose and accept or reject in every chain; one gradient."""
        noise_key, accept_key = random.split(rng_key)
        proposal = _state_at(potential, _langevin_proposal(noise_key, state, self.step_size))
        log_ratio = mala_log_acceptance(*state, *proposal, self.step_size)
        uniform = random.uniform(accept_key, log_ratio.shape, log_ratio.dtype)
        accepted = jnp.log(uniform) < log_ratio
        moved = jax.tree.map(partial(accept, accepted), proposal, state)
        rate = jnp.exp(jnp.minimum(log_ratio, 0.0))
        return moved, TransitionInfo(rate, ~jnp.isfinite(proposal.potential))


def draw(rng_key: Array, sampler: Sampler, potential: Potential, position: Array) -> Array:
    """Positions after ``sampler.num_steps`` steps from ``position``."""

    def move(state: ChainState, key: Array) -> tuple[ChainState, None]:
        return sampler.step(key, potential, state)[0], None

    keys = random.split(rng_key, sampler.num_steps)
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
    start_key, warmup_key, sample_key = random.split(rng_key, 3)
    state = _initial_state(start_key, sampler, distribution, num_chains, init)
    num_steps = num_warmup + num_samples * thinning
    draws = []
    with tqdm(total=num_steps, disable=not progress_bar, desc=type(sampler).__name__) as bar:
        for keys in _blocks(random.split(warmup_key, num_warmup), whole=not progress_bar):
            state, _ = _run_block(keys, sampler, distribution, state, 1)
            bar.update(len(keys))
        for keys in _blocks(random.split(sample_key, num_samples), whole=not progress_bar):
            state, block = _run_block(keys, sampler, distribution, state, thinning)
            draws.append(block)
            bar.update(len(keys) * thinning)
    samples, statistics = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *draws)
    return Chains(samples, statistics, state)


def _blocks(keys: Array, *, whole: bool) -> list[Array]:
    """Equal parts, for a progress bar to advance by, and what remains."""
    size = len(keys) if whole else max(len(keys) // 20, 1)
    return [keys[start : start + size] for start in range(0, len(keys), max(size, 1))]


@partial(jax.jit, static_argnames=("sampler", "thinning"))
def _run_block(
    keys: Array, sampler: Sampler, distribution: Any, state: ChainState, thinning: int
) -> Any:
    potential = unconstrained_potential(distribution)
    bijection = biject_to(distribution.support)

    def step(state: ChainState, key: Array) -> Transition:
        return sampler.step(key, potential, state)

    def keep(state: ChainState, key: Array) -> tuple[ChainState, Any]:
        state, info = lax.scan(step, state, random.split(key, thinning))
        return state, (state.position, state.potential, jax.tree.map(lambda leaf: leaf[-1], info))

    state, draws = lax.scan(keep, state, keys)
    position, potentials, info = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), draws)
    samples, lp = bijection(position), -potentials
    if not is_unconstrained(distribution):
        lp = lp - bijection.log_abs_det_jacobian(position, samples)
    return state, (samples, {"lp": lp, **info._asdict()})


def _initial_state(
    rng_key: Array,
    sampler: Sampler,
    distribution: Any,
    num_chains: int,
    init: Array | ChainState | None,
) -> ChainState:
    if isinstance(init, ChainState):
        return init
    bijection = biject_to(distribution.support)
    shape = (num_chains, *distribution.batch_shape, *distribution.event_shape)
    if init is not None:
        value = jnp.asarray(init)
    elif isinstance(distribution, Tilted):
        value = distribution.start(rng_key, (num_chains,))
    else:
        value = bijection(random.normal(rng_key, bijection.inverse_shape(shape)))
    if value.shape != shape:
        raise ValueError(
            f"Expected `init` of shape {shape} (chains, *batch, *event), got {value.shape}."
        )
    return sampler.init(unconstrained_potential(distribution), bijection.inv(value))


def _check_sampler(sampler: Any) -> None:
    check_positive("step_size", sampler.step_size)
    check_positive_integer("num_steps", sampler.num_steps)


def _state_at(potential: Potential, position: Array) -> ChainState:
    def total(position: Array) -> tuple[Array, Array]:
        potentials = potential(position)
        return potentials.sum(), potentials

    (_, potentials), gradient = jax.value_and_grad(total, has_aux=True)(position)
    return ChainState(position, potentials, gradient)


def _langevin_proposal(rng_key: Array, state: ChainState, step_size: float) -> Array:
    noise = random.normal(rng_key, state.position.shape, state.position.dtype)
    return langevin_move(state.position, state.gradient, noise, step_size)
