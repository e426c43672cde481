"""Chains that anneal from the base of an energy-based distribution to it, and back."""

from typing import Any

import torch
from torch import Tensor

from pyro_ebm.core.evidence.annealing import (
    Schedule,
    log_weight_increment,
    mean_where,
    pilot_inverse_temperatures,
    schedule,
    spread_where,
    tuned,
)
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.samplers import ChainState, KineticLangevin, Langevin, Sampler
from pyro_ebm.pyro.samplers.target import Potential, is_unconstrained, to_unconstrained

__all__ = ["check_exact", "make_draws", "plan", "tempered", "walk"]


def tempered(distribution: EnergyBased, inverse_temperature: Tensor) -> Potential:
    r"""Potential of :math:`e^{-\beta E} p_0` over unconstrained space.

    Args:
        distribution: Energy :math:`E` and base :math:`p_0`, if there is one.
        inverse_temperature: :math:`\beta`, broadcasts with the base's batch shape.
    """
    bijection, plain = to_unconstrained(distribution), is_unconstrained(distribution)

    def potential(position: Tensor) -> Tensor:
        value = bijection(position)
        energy = distribution.evaluate(value)
        # Not zero times infinity: at first, what the energy forbids does not count.
        result = torch.where(inverse_temperature > 0, inverse_temperature * energy, 0.0)
        if distribution.base is not None:
            result = result - distribution.base.log_prob(value)
        return result if plain else result - bijection.log_abs_det_jacobian(position, value)

    return potential


def plan(
    distribution: EnergyBased, sampler: Sampler, position: Tensor, num_temperatures: int
) -> Schedule:
    """Temperatures and step sizes, learned by chains that start at draws of the base."""
    inverse_temperatures = position.new_tensor(pilot_inverse_temperatures())
    state = sampler.init(tempered(distribution, inverse_temperatures[0]), position)
    distance = torch.zeros_like(state.potential[0])
    log_step_size = state.step_size.log() + distance
    distances, log_step_sizes = [distance], [log_step_size]
    for inverse_temperature in inverse_temperatures[1:]:
        potential = tempered(distribution, inverse_temperature)
        state, gain = _heat(sampler, potential, state, log_step_size.exp())
        alive = state.potential.isfinite()
        state, info = sampler.step(potential, state)
        if sampler.target_acceptance is not None:
            rate = mean_where(alive, info.acceptance_rate)
            log_step_size = tuned(log_step_size, rate, sampler.target_acceptance)
        distance = distance + spread_where(alive, gain)
        distances.append(distance)
        log_step_sizes.append(log_step_size)
    shares = torch.linspace(0.0, 1.0, num_temperatures + 1).to(position)
    return schedule(
        shares, inverse_temperatures, torch.stack(distances), torch.stack(log_step_sizes)
    )


def walk(
    distribution: EnergyBased, sampler: Sampler, path: Schedule, position: Tensor
) -> tuple[Tensor, Tensor]:
    """Positions at the end of a path, and the log-weights that chains gained on it."""
    inverse_temperatures, step_sizes = path
    state = sampler.init(tempered(distribution, inverse_temperatures[0]), position)
    log_weights = torch.zeros_like(state.potential)
    for inverse_temperature, step_size in zip(
        inverse_temperatures[1:], step_sizes[1:], strict=True
    ):
        potential = tempered(distribution, inverse_temperature)
        state, gain = _heat(sampler, potential, state, step_size)
        log_weights = log_weights + gain
        state, _ = sampler.step(potential, state)
    return state.position, log_weights


def make_draws(
    distribution: EnergyBased,
    sampler: Sampler,
    step_size: Tensor,
    position: Tensor,
    log_weights: Tensor,
    num_moves: int,
) -> tuple[Tensor, Tensor]:
    """Positions drawn by their weights, then moved, and the mean acceptance of the moves."""
    chosen = _chosen(log_weights)
    chosen = chosen.reshape(chosen.shape + (1,) * (position.ndim - chosen.ndim))
    potential = tempered(distribution, torch.ones_like(step_size))
    state = sampler.init(potential, torch.take_along_dim(position, chosen, 0))
    state = state._replace(step_size=step_size)
    rates = []
    for _ in range(num_moves):
        state, info = sampler.step(potential, state)
        rates.append(info.acceptance_rate.mean(0))
    return state.position, torch.stack(rates).mean(0)


def _chosen(log_weights: Tensor) -> Tensor:
    """Stratified resampling: as many indices as weights, each about as often as it weighs."""
    num_weights = len(log_weights)
    weights = log_weights.softmax(0).movedim(0, -1).contiguous()
    steps = torch.arange(num_weights, device=weights.device)
    points = (steps + torch.rand_like(weights)) / num_weights
    chosen = torch.searchsorted(weights.cumsum(-1), points, right=True)
    # Rounding may leave the sum of all weights a hair below the last point.
    return chosen.clamp(max=num_weights - 1).movedim(-1, 0)


def _heat(
    sampler: Sampler, potential: Potential, state: ChainState, step_size: Any
) -> tuple[ChainState, Tensor]:
    """The chains at the next temperature, and what that changes of their log-weights."""
    before = state.potential
    state = sampler.init(potential, state.position)._replace(step_size=step_size)
    return state, log_weight_increment(before, state.potential)


def check_exact(sampler: Sampler) -> None:
    """Raise if a sampler does not accept or reject its moves."""
    if isinstance(sampler, Langevin | KineticLangevin):
        raise ValueError(
            "Expected a sampler that accepts or rejects its moves, such as MALA or HMC, for only "
            f"they leave a density invariant and weights unbiased, got {sampler}."
        )
