r"""Sequential Monte Carlo along a tempered path: the arithmetic of a population.

The path of densities is :math:`p_\beta \propto e^{-\beta E} p_0`, with :math:`\beta` from 0 to 1. A
population of draws of :math:`p_0` is weighted, resampled and moved at each temperature. Its
potential at :math:`\beta` is :math:`U_\beta = U_0 + \beta E`, of which both parts, and their
gradients, are kept apart: a change of temperature evaluates nothing.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from array_api_compat import array_namespace

from pyro_ebm.core.numerics import (
    as_real,
    at_least_single,
    expand_right,
    log_mean_exp,
    row_numbers,
)
from pyro_ebm.core.samplers.dynamics import (
    ChainState,
    accept,
    langevin_move,
    mala_log_acceptance,
)
from pyro_ebm.core.samplers.local_units import local_units

MAX_TEMPERATURES = 200
# Halvings of the logarithm of an increment, from one in e^40.
NUM_HALVINGS, _LOG_SMALLEST = 20, -40.0
# Share of the population that is effective after a change of temperature.
_EFFECTIVE = 0.5
_TARGET_ACCEPT_PROB = 0.574


class Path(Protocol):
    """A tempered potential over unconstrained space, and its parts."""

    def start(self, position: Any) -> Any:
        """Evaluate :math:`U_0`."""

    def tilt(self, position: Any) -> Any:
        """Evaluate :math:`E`."""

    def at(self, inverse_temperature: Any) -> Callable[[Any], Any]:
        r"""Return :math:`U_\beta`."""
        ...


class Particles(NamedTuple):
    """Positions, shape ``(N, *batch, *event)``, and both parts of their potential.

    Attributes:
        position: Unconstrained values.
        start: :math:`U_0`, shape ``(N, *batch)``.
        tilt: :math:`E`, shape ``(N, *batch)``.
        start_gradient: Gradient of ``start``, shape of ``position``; None with discrete columns.
        tilt_gradient: Gradient of ``tilt``.
    """

    position: Any
    start: Any
    tilt: Any
    start_gradient: Any
    tilt_gradient: Any


class Population(NamedTuple):
    """Particles on their way; numbers have shape ``(*batch,)``.

    Attributes:
        particles: The particles.
        ancestors: Index of the first ancestor of each, shape ``(N, *batch)``.
        inverse_temperature: NaN where energies at the start are no numbers.
        log_normalizer: Log of the mean weight so far.
        log_step_size: Of the moves, in units of ``scale``.
        scale: Units of their coordinates, shape ``(*batch, *event)``.
        acceptance_rate: Of the moves at this temperature so far, summed and divided by
            ``num_moves``.
    """

    particles: Particles
    ancestors: Any
    inverse_temperature: Any
    log_normalizer: Any
    log_step_size: Any
    scale: Any
    acceptance_rate: Any

    @property
    def is_cooling(self) -> Any:
        """Whether the path has not reached 1."""
        return self.inverse_temperature < 1

    @property
    def gradient(self) -> Any:
        """Gradient of the tempered potential; None with discrete columns, or for a kernel."""
        position, _, _, down, up = self.particles
        if down is None:
            return None
        return down + expand_right(self.inverse_temperature, position.ndim - 1) * up

    def finite_positions(self) -> Any:
        """Return the positions, NaN where the path did not reach 1."""
        position = self.particles.position
        xp, reached = array_namespace(position), self.inverse_temperature == 1
        reached = xp.broadcast_to(reached, self.ancestors.shape)
        nothing = -1 if xp.isdtype(position.dtype, "integral") else math.nan
        return accept(reached, position, xp.full_like(position, nothing))


def begin(particles: Particles, ancestors: Any = None) -> Population:
    """Start a population at draws of the base, which may be copies of numbered ``ancestors``."""
    xp, tilt = array_namespace(particles.tilt), particles.tilt
    is_number = xp.all(xp.isfinite(tilt) | (tilt == math.inf), axis=0)
    usable = is_number & xp.any(xp.isfinite(tilt), axis=0)
    zero = xp.zeros_like(tilt[0, ...])
    num_coordinates = math.prod(particles.position.shape[tilt.ndim :])
    return Population(
        particles,
        row_numbers(tilt) if ancestors is None else ancestors,
        xp.where(usable, zero, xp.full_like(zero, math.nan)),
        at_least_single(zero),
        zero + math.log(0.5 * num_coordinates ** (-1 / 3)),
        xp.ones_like(as_real(particles.position[0, ...])),
        zero,
    )


def log_weights(population: Population, increment: Any) -> Any:
    """Log-weights for an increment of the inverse temperature; zero weight at infinite energy."""
    tilt = population.particles.tilt
    xp, tilt = array_namespace(tilt), at_least_single(tilt)
    return xp.where(xp.isfinite(tilt), -increment * tilt, xp.full_like(tilt, -math.inf))


class Search(NamedTuple):
    """Search for the next increment of a population; numbers have shape ``(*batch,)``.

    Attributes:
        low: Logarithm of an increment, relative to what is left, that leaves enough effective.
        high: Logarithm of one that may not.
        left: What is left of the path.
        above: Energies above the smallest, shape ``(N, *batch)``; zero for infinite ones.
        alive: 1 for finite energies and 0 for others.
    """

    low: Any
    high: Any
    left: Any
    above: Any
    alive: Any

    def is_enough(self, log_share: Any) -> Any:
        """Return whether half of those with finite energies are effective after an increment."""
        xp = array_namespace(log_share)
        weights = self.alive * xp.exp(-self.left * xp.exp(log_share) * self.above)
        mean, squares = xp.mean(weights, axis=0), xp.mean(weights**2, axis=0)
        return mean**2 >= _EFFECTIVE * xp.mean(self.alive, axis=0) * squares

    def halved(self) -> "Search":
        """Halve the distance of the bounds."""
        middle = 0.5 * (self.low + self.high)
        xp, enough = array_namespace(middle), self.is_enough(middle)
        return self._replace(
            low=xp.where(enough, middle, self.low), high=xp.where(enough, self.high, middle)
        )

    def increment(self) -> Any:
        """Return the increment: all that is left, if that leaves enough effective."""
        xp = array_namespace(self.low)
        whole = xp.zeros_like(self.low)
        return self.left * xp.exp(xp.where(self.is_enough(whole), whole, self.low))


def begin_search(population: Population) -> Search:
    """Begin between next to nothing and all that is left."""
    tilt, left = at_least_single(population.particles.tilt), 1.0 - population.inverse_temperature
    xp = array_namespace(tilt)
    none = xp.zeros_like(population.log_step_size)
    finite = xp.isfinite(tilt)
    least = xp.min(xp.where(finite, tilt, xp.full_like(tilt, math.inf)), axis=0)
    above = xp.where(finite, tilt - least, xp.zeros_like(tilt))
    return Search(none + _LOG_SMALLEST, none, left, above, xp.astype(finite, tilt.dtype))


def resampled(population: Population, increment: Any, chosen: Any) -> Population:
    """Change the temperature, and replace the particles by those chosen by weight."""
    weights = log_weights(population, increment)
    xp, particles = array_namespace(weights), population.particles
    left = 1.0 - population.inverse_temperature
    reached = population.inverse_temperature + increment
    moved = population._replace(
        particles=Particles(*(None if x is None else take_rows(x, chosen) for x in particles)),
        ancestors=take_rows(population.ancestors, chosen),
        inverse_temperature=xp.where(increment >= left, xp.ones_like(reached), reached),
        log_normalizer=population.log_normalizer + log_mean_exp(weights),
        acceptance_rate=xp.zeros_like(population.acceptance_rate),
    )
    position, tilt, gradient = moved.particles.position, moved.particles.tilt, moved.gradient
    return moved._replace(scale=local_units(position, tilt, gradient, 1.0))


def move(
    population: Population,
    evaluate: Callable[[Any], Particles],
    noise: Any,
    uniform: Any,
    num_moves: int,
) -> Population:
    """Move all particles once by MALA, and adapt its step size.

    ``noise`` has the shape of positions, ``uniform`` that of potentials.
    """
    here = population.particles
    xp, beta = array_namespace(here.position), population.inverse_temperature
    step_size = expand_right(xp.exp(population.log_step_size), here.position.ndim - 1)
    scale, gradient = population.scale, population.gradient
    proposal = langevin_move(here.position, gradient, noise, step_size, scale=scale)
    there = evaluate(proposal)
    log_ratio = mala_log_acceptance(
        here.start + beta * here.tilt,
        gradient,
        there.start + beta * there.tilt,
        population._replace(particles=there).gradient,
        noise,
        step_size,
        scale=scale,
    )
    accepted = xp.log(uniform) < log_ratio
    rate = xp.mean(xp.exp(xp.minimum(log_ratio, xp.zeros_like(log_ratio))), axis=0)
    return population._replace(
        particles=Particles(*(accept(accepted, *pair) for pair in zip(there, here, strict=True))),
        log_step_size=population.log_step_size + rate - _TARGET_ACCEPT_PROB,
        acceptance_rate=population.acceptance_rate + rate / num_moves,
    )


def state_of(population: Population, sampler: Any, potential: Callable[[Any], Any]) -> ChainState:
    """State of a kernel, at the step size of a population, in units of its own."""
    state = sampler.init(potential, population.particles.position)
    if sampler.target_accept_prob is None:
        return state
    step_size = array_namespace(population.scale).exp(population.log_step_size)
    scale = local_units(state.position, state.potential, state.gradient, population.scale)
    return state._replace(step_size=step_size, scale=scale)


def after_step(
    population: Population, sampler: Any, acceptance_rate: Any, num_moves: int
) -> Population:
    """Adapt the step size of a population to the acceptance of a step of a kernel."""
    rate = array_namespace(acceptance_rate).mean(acceptance_rate, axis=0)
    target = sampler.target_accept_prob
    return population._replace(
        log_step_size=population.log_step_size + (0.0 if target is None else rate - target),
        acceptance_rate=population.acceptance_rate + rate / num_moves,
    )


def take_rows(x: Any, chosen: Any) -> Any:
    """Take elements of the first axis, chosen for each element of a batch, ``(N, *batch)``."""
    xp, shape = array_namespace(x), (*chosen.shape, *x.shape[chosen.ndim :])
    return xp.take_along_axis(x, xp.broadcast_to(expand_right(chosen, x.ndim), shape), axis=0)
