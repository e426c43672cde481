"""Brackets on known normalizing constants.

- quartic: E(x) = x^4 / 4, base N(0, 1);
- network: E(x) = v . tanh(W x + b) with random weights, in two dimensions, base N(0, 3^2);
- mixture: three normals of scale 1 times e^5, base N(0, 3^2).

The truth is exact for the mixture and a sum over a fine grid for the others. `log_normalizer` with
1,000 samples gives `lower`, `estimate` and `upper`.
"""

import warnings
from typing import Any

import numpy as np
from helpers import normalizers

FIGURES = ("lower", "estimate", "upper")
TRUTH = {
    "quartic": normalizers.LOG_Z_QUARTIC,
    "network": normalizers.LOG_Z_NETWORK,
    "mixture": normalizers.LOG_Z_MIXTURE,
}
# Target, dimensions, method, temperatures, sampler.
_RUNS = [
    ("quartic", 1, "grid", 1, "MALA"),
    ("quartic", 1, "importance", 1, "MALA"),
    ("quartic", 1, "annealed", 100, "MALA"),
    ("network", 2, "grid", 1, "MALA"),
    ("network", 2, "annealed", 100, "MALA"),
    ("mixture", 2, "grid", 1, "MALA"),
    ("mixture", 2, "importance", 1, "MALA"),
    ("mixture", 2, "annealed", 100, "MALA"),
    ("mixture", 16, "importance", 1, "MALA"),
    ("mixture", 16, "annealed", 2, "MALA"),
    ("mixture", 16, "annealed", 100, "MALA, step size 1e-6"),
    ("mixture", 16, "annealed", 100, "MALA"),
    ("mixture", 16, "annealed", 400, "MALA"),
    ("mixture", 64, "annealed", 400, "MALA"),
    ("mixture", 64, "annealed", 1600, "MALA"),
    ("mixture", 64, "annealed", 200, "HMC"),
]
_SETTINGS = ("target", "num_dims", "method", "num_temperatures", "sampler")
CELLS = [dict(zip(_SETTINGS, run, strict=True)) for run in _RUNS]
QUICK = CELLS[7]


def distribution(host: Any, target: str, num_dims: int) -> Any:
    if target == "quartic":
        return host.ebm.EnergyBased(normalizers.quartic, host.dist.Normal(0.0, 1.0))
    if target == "network":
        energy, arrays = normalizers.network, (normalizers.W, normalizers.B, normalizers.V)
    else:
        energy = normalizers.mixture
        arrays = normalizers.centers(num_dims), normalizers.offsets(num_dims)
    constants = (host.array(x.astype(np.float32)) for x in arrays)
    base = host.normal(num_dims, scale=normalizers.BASE_SCALE)
    return host.ebm.EnergyBased(host.bind(energy, *constants), base)


def kernel(host: Any, name: str) -> Any:
    """Kernel for annealing; with a step size of 1e-6, which is not tuned, chains do not move."""
    if name == "MALA, step size 1e-6":
        return host.ebm.MALA(1e-6, target_accept_prob=None)
    return getattr(host.ebm, name)(0.1)


def run(
    host: Any,
    seed: int,
    *,
    target: str,
    num_dims: int,
    method: str,
    num_temperatures: int,
    sampler: str,
) -> dict[str, float]:
    host.seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Some brackets are to widen.
        result = host.log_normalizer(
            distribution(host, target, num_dims),
            method=method,
            num_temperatures=num_temperatures,
            sampler=kernel(host, sampler),
        )
    return {
        "truth": TRUTH[target],
        **{name: float(getattr(result, name)) for name in ("lower", "estimate", "upper")},
        "standard error": float(result.standard_error),
        "effective samples": float(result.effective_sample_size),
    }
