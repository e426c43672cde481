"""Brackets on known normalizing constants, with Pyro.

Run: ``python tests/benchmarks/brackets_pyro.py``
"""

import warnings

import pyro
import pyro.distributions as dist
import torch
from brackets import (
    BASE_SCALE,
    CELLS,
    COLUMNS,
    B,
    V,
    W,
    centers,
    log_normalizer,
    offsets,
)
from resumable import output_path, run_cells
from torch import Tensor

import pyro_ebm.pyro as ebm

SAMPLERS = {
    "MALA": ebm.MALA(0.1),
    "MALA, step size 1e-6": ebm.MALA(1e-6, target_acceptance=None),
    "HMC": ebm.HMC(0.1),
}


def quartic() -> ebm.EnergyBased:
    return ebm.EnergyBased(lambda x: x.pow(4) / 4, dist.Normal(0.0, 1.0))


def network() -> ebm.EnergyBased:
    w, b, v = (torch.as_tensor(x, dtype=torch.get_default_dtype()) for x in (W, B, V))
    base = dist.Normal(torch.zeros(2), BASE_SCALE).to_event(1)
    return ebm.EnergyBased(lambda x: torch.tanh(x @ w.T + b) @ v, base)


def mixture(num_dims: int, batch_shape: tuple[int, ...] = ()) -> ebm.EnergyBased:
    options = {"dtype": torch.get_default_dtype()}
    center = torch.as_tensor(centers(num_dims), **options)
    offset = torch.as_tensor(offsets(num_dims), **options)

    def energy(x: Tensor) -> Tensor:
        squares = (x[:, None] - center).square().sum(-1)
        tilt = x.square().sum(-1) / (2 * BASE_SCALE**2)
        return -torch.logsumexp(offset - 0.5 * squares, dim=-1) - tilt

    base = dist.Normal(torch.zeros(*batch_shape, num_dims), BASE_SCALE).to_event(1)
    return ebm.EnergyBased(energy, base)


def run(
    target: str, num_dims: int, method: str, num_temperatures: int, sampler: str, seed: int
) -> dict[str, float]:
    pyro.set_rng_seed(seed)
    targets = {"quartic": quartic, "network": network, "mixture": lambda: mixture(num_dims)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Some brackets are to widen.
        result = ebm.log_normalizer(
            targets[target](),
            method=method,
            num_temperatures=num_temperatures,
            sampler=SAMPLERS[sampler],
        )
    figures = log_normalizer(target), result.lower, result.estimate, result.upper, *result[3:5]
    return dict(zip(COLUMNS, map(float, figures), strict=True))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_cells(CELLS, run, output_path("brackets_pyro"), columns=COLUMNS)
