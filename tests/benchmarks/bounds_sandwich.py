r"""Bounds of log Z along whole training runs, beside the truth; what both hosts share.

On the line and in the plane, quadrature gives log Z. At twenty looks from the start of a run to its
end there are, from draws of the generator, the lower bound :math:`E f`, the importance estimate,
:math:`R` and, where the log-Sobolev constant :math:`\rho` is known, the upper bound
:math:`E f + R / \rho`.

It is known where :math:`U(G(z)) - \log |\det J(z)|` is strongly convex: the least eigenvalue of its
Hessian, from differences of slopes on a fine grid over 6 standard deviations of z. (Further out the
generator is linear up to :math:`e^{-|z|}` and the energy's curvature grows.) Where that is not
positive there is no upper bound, and the table has a dash. Two of the runs have an energy that is
convex whatever its parameters are; those with a net have the lower bound and the estimate alone.

Generators are monotone in each coordinate, which are then mixed by a triangular matrix: injective
and onto, so that the bounds are true ones. All is in double precision.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from pyro_ebm.datasets import toy

NUM_LOOKS, NUM_DRAWS = 20, 20_000
BATCH_SIZE, BETAS, LEARNING_RATE = 128, (0.0, 0.9), 1e-2
NUM_BENDS, WIDTH = 2, 32
SLACK = 4.0  # standard errors that a bound may be off
GRIDS = {1: 2001, 2: 241}  # points on an axis, for the log-Sobolev constant
COLUMNS = ["failures", "known", "gap, start", "gap, end", "least slack"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A run.

    Attributes:
        dimension: Of the data.
        convex: Whether the energy is :func:`convex_energy`; otherwise it is a net.
        draw: Data, from a generator of random numbers and their count.
        penalty_weight: Of the bounds.
        num_steps: Of training.
    """

    dimension: int
    convex: bool
    draw: Callable[[np.random.Generator, int], np.ndarray]
    penalty_weight: float = 1.0
    num_steps: int = 1000


def _skewed(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.log(rng.gamma(2.5, size=(count, 1)))


def _two_modes(rng: np.random.Generator, count: int) -> np.ndarray:
    left = rng.random((count, 1)) < 0.3
    noise = rng.standard_normal((count, 1))
    return np.where(left, -2.0 + 0.5 * noise, 1.5 + 0.8 * noise)


def _skewed_and_correlated(rng: np.random.Generator, count: int) -> np.ndarray:
    first, second = np.log(rng.gamma(2.5, size=(2, count)))
    return np.stack([first, second + 0.5 * first], axis=-1)


CASES = {
    "skewed, convex": Case(dimension=1, convex=True, draw=_skewed),
    "two modes, net": Case(dimension=1, convex=False, draw=_two_modes, penalty_weight=0.1),
    "skewed plane, convex": Case(dimension=2, convex=True, draw=_skewed_and_correlated),
    "moons, net": Case(dimension=2, convex=False, draw=toy("two_moons").draw, penalty_weight=0.1),
}


def batches(case: Case, num_steps: int, seed: int) -> np.ndarray:
    """Fresh draws for every step, ``(num_steps, BATCH_SIZE, dimension)``."""
    points = case.draw(np.random.default_rng(seed), num_steps * BATCH_SIZE)
    return points.reshape(num_steps, BATCH_SIZE, case.dimension)


def loss(ebm: Any, case: Case) -> Any:
    """The loss of a host's front end."""
    objective = ebm.BidirectionalBounds(penalty_weight=case.penalty_weight)
    return ebm.EnergyELBO(objective, num_normalizer_samples=0)


def energy_parameters(dimension: int) -> dict[str, np.ndarray]:
    """Where :func:`convex_energy` starts."""
    return {
        "matrix": 0.5 * np.eye(dimension),
        "slope": np.zeros(dimension),
        "log_quartic": np.full(dimension, -2.0),
    }


def convex_energy(parameters: Any, x: Any) -> Any:
    r""":math:`\tfrac12 |A x|^2 + \tfrac14 \sum_i b_i x_i^4 - c \cdot x`, :math:`b_i > 0`."""
    xp, matrix = array_namespace(x), parameters["matrix"]
    quadratic = 0.5 * xp.sum((x @ matrix.T) ** 2, axis=-1)
    terms = 0.25 * xp.exp(parameters["log_quartic"]) * x**4 - parameters["slope"] * x
    return quadratic + xp.sum(terms, axis=-1)


def generator_parameters(dimension: int) -> dict[str, np.ndarray]:
    """Where :func:`generate` starts: near the identity, its bends on either side."""
    centers = np.linspace(-1.0, 1.0, NUM_BENDS)
    return {
        "location": np.zeros(dimension),
        "log_scale": np.zeros(dimension),
        "log_heights": np.full((dimension, NUM_BENDS), -2.0),
        "log_slopes": np.zeros((dimension, NUM_BENDS)),
        "centers": np.tile(centers, (dimension, 1)),
        "mixing": np.zeros((dimension, dimension)),
    }


def generate(parameters: Any, z: Any) -> Any:
    r"""An increasing function of each coordinate, then a triangular matrix with ones in it.

    .. math:: y_i = a_i + s_i z_i + \sum_k h_{ik} \tanh(w_{ik} (z_i - c_{ik})), \quad x = (I + L) y
    """
    xp = array_namespace(z)
    steps = xp.exp(parameters["log_slopes"]) * (z[..., None] - parameters["centers"])
    bends = xp.sum(xp.exp(parameters["log_heights"]) * xp.tanh(steps), axis=-1)
    y = parameters["location"] + xp.exp(parameters["log_scale"]) * z + bends
    return y + y @ xp.tril(parameters["mixing"], k=-1).T


def log_sobolev(slope: Callable[[np.ndarray], np.ndarray], dimension: int) -> float:
    """Least curvature of minus the log-density of the latent under the energy.

    Args:
        slope: Of f, from latent values ``(N, dimension)`` to ``(N, dimension)``.
        dimension: Of the latent, which is standard normal.
    """
    line = np.linspace(-6.0, 6.0, GRIDS[dimension])
    points = np.stack(np.meshgrid(*dimension * [line], indexing="ij"), axis=-1)
    rows = points.reshape(-1, dimension)
    gradient = (rows - slope(rows)).reshape(points.shape)
    hessian = np.stack([np.gradient(gradient, line, axis=i) for i in range(dimension)], axis=-1)
    # One-sided differences at the faces are coarser.
    inner = hessian[(slice(1, -1),) * dimension]
    return float(np.linalg.eigvalsh(0.5 * (inner + np.swapaxes(inner, -1, -2))).min())


def look(case: Case, log_z: Any, bounds: dict[str, float], slope: Any) -> dict[str, float]:
    """What is seen of a run: the truth, and bounds of it.

    Args:
        case: The run.
        log_z: The record of ``log_normalizer`` on a grid.
        bounds: Lower bound, penalty and estimate with their standard errors.
        slope: Of :func:`log_sobolev`.
    """
    rho = log_sobolev(slope, case.dimension) if case.convex else float("nan")
    known = rho > 0
    return {
        "truth": float(log_z.estimate),
        "bracket": float(log_z.upper - log_z.lower),
        **bounds,
        "rho": rho,
        "upper": bounds["lower"] + bounds["penalty"] / rho if known else float("nan"),
    }


def summarize(looks: list[dict[str, float]]) -> dict[str, Any]:
    """Bounds that are on the wrong side, beyond their errors; how many are known; gaps."""
    slacks = [slack for look in looks for slack in _slacks(look)]
    return {
        "failures": sum(slack < 0 for slack in slacks),
        "known": sum(look["rho"] > 0 for look in looks),
        "gap, start": looks[0]["truth"] - looks[0]["lower"],
        "gap, end": looks[-1]["truth"] - looks[-1]["lower"],
        "least slack": min(slacks),
        "looks": looks,
    }


def _slacks(look: dict[str, float]) -> list[float]:
    """Truth less lower bound, upper bound less truth, with the benefit of the doubt."""
    doubt = SLACK * look["error, lower"] + look["bracket"]
    slacks = [look["truth"] - look["lower"] + doubt]
    if look["rho"] > 0:
        doubt = doubt + SLACK * look["error, penalty"] / look["rho"]
        slacks.append(look["upper"] - look["truth"] + doubt)
    return slacks


def cells(seeds: tuple[int, ...] = (0,)) -> list[dict[str, Any]]:
    return [{"case": case, "seed": seed} for case in CASES for seed in seeds]


def print_tables(rows: list[dict[str, Any]]) -> None:
    """Each run from start to end."""
    names = ("lower", "estimate", "truth", "upper", "penalty", "rho", "effective share")
    for row in rows:
        print(f"\n{row['cell']['case']}, seed {row['cell']['seed']}")
        print("look" + "".join(f"{name:>16s}" for name in names))
        for index, look in enumerate(row["looks"]):
            figures = (f"{look[name]:16.4f}" for name in names)
            print(f"{index:4d}" + "".join(figures).replace("nan", "  -"))
