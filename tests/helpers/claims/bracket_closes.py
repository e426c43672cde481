import math

import numpy as np

from helpers.claims import Claim


def width(run, index):
    return run.upper[index] - run.lower[index]


def distance(run):
    """Largest difference of the distribution functions of generator and energy."""
    line, density = np.asarray(run.line)[:, 0], np.asarray(run.density_on_line)
    of_energy = np.cumsum(density) * (line[1] - line[0])
    draws = np.sort(np.asarray(run.draws)[:, 0])
    return np.abs(np.searchsorted(draws, line) / len(draws) - of_energy).max()


CLAIMS = [
    Claim(
        "It stays between the bounds",
        lambda run: np.nanmin([run.truth - run.lower, run.upper - run.truth]),
        low=0.0,
    ),
    Claim("and they come together", lambda run: width(run, -1), high=0.3),
    Claim("draws of the generator follow the density of the energy", distance, high=0.05),
    Claim("$R$ is nearly zero", lambda run: float(run.bounds.penalty), high=0.01),
    Claim(
        "$\\log 2$ nats of $\\log Z$",
        lambda run: float(run.whole - run.bounds.estimate) - math.log(2),
        low=-0.02,
        high=0.02,
    ),
]
