"""The linear-Gaussian toy with Langevin for a guide, for both hosts: what is run, what is true."""

from scipy.optimize import brentq

NUM_STEPS, NUM_AVERAGED, LEARNING_RATE = 500, 300, 0.04
# MALA is exact, and Langevin is not: what its bias makes of the fitted prior is known.
SAMPLERS = {"MALA": ("MALA", 0.7, 8), "Langevin": ("Langevin", 0.2, 20), "warm": ("MALA", 0.7, 2)}


def cells(elbos: list[str]) -> list[dict]:
    """Every layout with the plain ELBO, every ELBO in a plate, and the other samplers."""
    plain = [("Trace", layout, "MALA") for layout in ("to_event", "subsample", "mask")]
    every = [(elbo, "plate", "MALA") for elbo in elbos]
    both = [("Trace x4 vectorized", "subsample", "MALA")]
    others = [("Trace", "plate", "Langevin"), ("Trace", "plate", "warm")]
    names = ("elbo", "layout", "sampler")
    return [
        {**dict(zip(names, cell, strict=True)), "seed": 1} for cell in plain + every + both + others
    ]


def fitted_precision(sampler: str) -> float:
    r"""Precision :math:`\rho` of the best prior, given draws that are as biased as they are.

    :math:`1 / \rho = E z^2 = 5 / (1 + \rho)^2 + v`, with :math:`v` the variance of the draws:
    :math:`1 / (1 + \rho)` if they are exact.
    """
    kind, step_size, _ = SAMPLERS[sampler]

    def excess(precision: float) -> float:
        variance = 1 / (1 + precision)
        if kind == "Langevin":
            variance = variance / (1 - step_size / (2 * variance))
        return 5 / (1 + precision) ** 2 + variance - 1 / precision

    return brentq(excess, 0.05, 1.0)
