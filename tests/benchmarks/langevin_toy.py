"""The linear-Gaussian toy with Langevin for a guide, for both hosts: what is run, what is true."""

from scipy.optimize import brentq

NUM_STEPS, NUM_AVERAGED, LEARNING_RATE = 500, 300, 0.04
# MALA and HMC are exact, and Langevin is not: what its bias makes of the fitted prior is known.
SAMPLERS = {
    "MALA": ("MALA", {"step_size": 0.7, "num_steps": 8}),
    "HMC": ("HMC", {"step_size": 0.3, "num_leapfrog": 5, "num_steps": 3}),
    "Langevin": ("Langevin", {"step_size": 0.2, "num_steps": 20}),
    "warm": ("MALA", {"step_size": 0.7, "num_steps": 2}),
}


def cells(elbos: list[str]) -> list[dict]:
    """Every layout with the plain ELBO, every ELBO in a plate, and the other samplers."""
    # As one event, all rows are accepted or rejected together: large steps need HMC there.
    plain = [
        ("Trace", "to_event", "HMC"),
        ("Trace", "subsample", "MALA"),
        ("Trace", "mask", "MALA"),
    ]
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
    kind, options = SAMPLERS[sampler]

    def excess(precision: float) -> float:
        variance = 1 / (1 + precision)
        if kind == "Langevin":
            variance = variance / (1 - options["step_size"] / (2 * variance))
        return 5 / (1 + precision) ** 2 + variance - 1 / precision

    return brentq(excess, 0.05, 1.0)
