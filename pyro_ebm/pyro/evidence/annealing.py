"""Chains that anneal from the base of an energy-based distribution to it, and back."""

import torch
from torch import Tensor

from pyro_ebm.core.evidence import annealing as core
from pyro_ebm.core.numerics import as_real, masked_mean, masked_std
from pyro_ebm.core.samplers.local_units import in_local_units, learns_scales
from pyro_ebm.core.samplers.smc import take_rows
from pyro_ebm.pyro.samplers.base import Sampler
from pyro_ebm.pyro.samplers.smc import family_sums, resample


def schedule_from_pilot(
    sampler: Sampler, path: core.Path, position: Tensor, num_temperatures: int
) -> core.Schedule:
    real = as_real(position[:1])
    inverse_temperatures = real.new_tensor(core.pilot_inverse_temperatures(num_temperatures))
    shares = torch.linspace(0.0, 1.0, num_temperatures + 1).to(real)
    measured = pilot_run(sampler, path, inverse_temperatures, position, resamples=True)
    return core.equidistant_schedule(shares, inverse_temperatures, *measured)


def pilot_run(
    sampler: Sampler,
    path: core.Path,
    inverse_temperatures: Tensor,
    position: Tensor,
    *,
    resamples: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Measure distances between temperatures, and tune the log of the step size at each.

    With ``resamples``, weights are kept even and coordinates are measured in local units, which
    are returned too.
    """
    state = sampler.init(path.at(inverse_temperatures[0]), position)
    state = core.begin_pilots(sampler, state, learns=resamples)
    distance = torch.zeros_like(state.potential[0])
    log_step_size, scales = state.step_size.log(), [state.scale]
    distances, log_step_sizes, paths = [distance], [log_step_size], core.begin_paths(state)
    for inverse_temperature in inverse_temperatures[1:]:
        potential = path.at(inverse_temperature)
        paths, gain = core.reweight(sampler, potential, paths, log_step_size.exp())
        distance = distance + masked_std(paths.state.potential.isfinite(), gain)
        if resamples:
            paths = _evened(paths)
            paths = paths._replace(state=in_local_units(sampler, paths.state))
        alive = paths.state.potential.isfinite()
        state, info = sampler.step(potential, paths.state)
        paths = paths._replace(state=state)
        if sampler.target_accept_prob is not None:
            rate = masked_mean(alive, info.acceptance_rate)
            log_step_size = log_step_size + (rate - sampler.target_accept_prob)
        distances.append(distance)
        log_step_sizes.append(log_step_size)
        scales.append(state.scale)
    learned = torch.stack(scales) if resamples and learns_scales(sampler) else None
    return torch.stack(distances), torch.stack(log_step_sizes), learned


def anneal(
    sampler: Sampler,
    path: core.Path,
    schedule: core.Schedule,
    position: Tensor,
    *,
    resamples: bool = False,
    ancestors: Tensor | None = None,
) -> core.Annealed:
    """Move chains along a path; with ``resamples``, resample them where weights are uneven.

    Starts may be copies of numbered ``ancestors``.
    """
    inverse_temperatures, step_sizes, scales = schedule
    state = sampler.init(path.at(inverse_temperatures[0]), position)
    paths = start = core.begin_paths(state, ancestors)
    if step_sizes is None:
        step_sizes = [state.step_size] * len(inverse_temperatures)
    scales = [None] * len(inverse_temperatures) if scales is None else scales
    steps = list(zip(inverse_temperatures, step_sizes, scales, strict=True))[1:]
    for left, (inverse_temperature, *units) in zip(range(len(steps))[::-1], steps, strict=True):
        potential = path.at(inverse_temperature)
        paths, _ = core.reweight(sampler, potential, paths, *units)
        if resamples and left:
            paths = _evened(paths)
        state, _ = sampler.step(potential, paths.state)
        paths = paths._replace(state=state)
    return core.finish_paths(start, paths, family_sums)


def _evened(paths: core.Paths) -> core.Paths:
    """Resample paths where their weights are uneven."""
    if not core.are_uneven(paths.log_weights).any():
        return paths
    return core.resample_uneven(paths, resample(paths.log_weights))


def resample_and_move(
    sampler: Sampler,
    path: core.Path,
    schedule: core.Schedule,
    position: Tensor,
    log_weights: Tensor,
    num_moves: int,
) -> tuple[Tensor, Tensor]:
    """Resample chains and move them at the end of a path; return the mean acceptance rate too."""
    potential = path.at(schedule.inverse_temperatures[-1])
    state = sampler.init(potential, take_rows(position, resample(log_weights)))
    state = core.in_units(state, *schedule.last())
    rates = []
    for _ in range(num_moves):
        state, info = sampler.step(potential, state)
        rates.append(info.acceptance_rate.mean(0))
    return state.position, torch.stack(rates).mean(0)
