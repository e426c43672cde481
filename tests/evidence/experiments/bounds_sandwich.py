"""Bounds of log Z along whole training runs, beside the truth.

On the line and in the plane, quadrature gives log Z. At 21 examinations from the start of a run to
its end there are, from draws of the generator, the lower bound E f, the importance estimate, the
penalty R and, where the log-Sobolev constant rho is known, the upper bound E f + R / rho.

It is known where U(G(z)) - log |det J(z)| is strongly convex: the least eigenvalue of its
Hessian, from differences of slopes on a fine grid over 6 standard deviations of z. (Further out the
generator is linear up to exp(-|z|) and the energy's curvature grows.) Where that is not
positive there is no upper bound. Two of the runs have an energy that is convex whatever its
parameters are; those with a net have the lower bound and the estimate alone.

Generators are monotone in each coordinate, and the coordinates are then mixed by a triangular
matrix: injective and onto, which makes the bounds true ones. All is in double precision.

`violations` counts bounds on the wrong side by more than 4 standard errors; `known` the
examinations with an upper bound; `gap` is log Z minus its lower bound.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from evidence.hosts import Adam, Nets
from evidence.measures import bounds
from pyro_ebm.datasets import toy

FIGURES = ("violations", "known", "gap, start", "gap, end")
NUM_LOOKS, NUM_DRAWS = 20, 20_000
BATCH_SIZE, ADAM = 128, Adam(1e-2, betas=(0.0, 0.9))
NUM_BENDS, WIDTH = 2, 32
SLACK = 4.0  # standard errors that a bound may be off
GRIDS = {1: 2001, 2: 241}  # points on an axis, for the log-Sobolev constant


@dataclass(frozen=True, kw_only=True)
class Case:
    """Data and energy of a run.

    Attributes:
        dimension: Dimension of the data.
        convex: Whether the energy is :func:`convex_energy`; otherwise it is a net.
        draw: Function of a generator of random numbers and a count that draws data.
        penalty_weight: See ``BidirectionalBounds``.
        num_steps: Number of steps.
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
CELLS = [{"case": case} for case in CASES]
QUICK = {"case": "skewed, convex", "num_steps": 60, "num_looks": 2}


def batches(case: Case, seed: int) -> np.ndarray:
    """Draw fresh data for every step, ``(num_steps, BATCH_SIZE, dimension)``."""
    points = case.draw(np.random.default_rng(seed), case.num_steps * BATCH_SIZE)
    return points.reshape(case.num_steps, BATCH_SIZE, case.dimension)


def energy_parameters(dimension: int) -> dict[str, np.ndarray]:
    """Start of :func:`convex_energy`."""
    return {
        "matrix": 0.5 * np.eye(dimension),
        "slope": np.zeros(dimension),
        "log_quartic": np.full(dimension, -2.0),
    }


def convex_energy(parameters: Any, x: Any) -> Any:
    r"""Evaluate :math:`\tfrac12 |A x|^2 + \tfrac14 \sum_i b_i x_i^4 - c \cdot x`, with b > 0."""
    xp, matrix = array_namespace(x), parameters["matrix"]
    quadratic = 0.5 * xp.sum((x @ matrix.T) ** 2, axis=-1)
    terms = 0.25 * xp.exp(parameters["log_quartic"]) * x**4 - parameters["slope"] * x
    return quadratic + xp.sum(terms, axis=-1)


def generator_parameters(dimension: int) -> dict[str, np.ndarray]:
    """Start of :func:`generate`: near the identity, its bends on either side."""
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
    r"""Apply increasing functions to the coordinates, then a unit triangular matrix.

    .. math:: y_i = a_i + s_i z_i + \sum_k h_{ik} \tanh(w_{ik} (z_i - c_{ik})), \quad x = (I + L) y
    """
    xp = array_namespace(z)
    steps = xp.exp(parameters["log_slopes"]) * (z[..., None] - parameters["centers"])
    bends = xp.sum(xp.exp(parameters["log_heights"]) * xp.tanh(steps), axis=-1)
    y = parameters["location"] + xp.exp(parameters["log_scale"]) * z + bends
    return y + y @ xp.tril(parameters["mixing"], k=-1).T


def log_sobolev(slope: Callable[[np.ndarray], np.ndarray], dimension: int) -> float:
    """Compute the least curvature of minus the log-density of the latent under the energy.

    Args:
        slope: Gradient of f, from latent values ``(N, dimension)`` to ``(N, dimension)``.
        dimension: Dimension of the latent, which is standard normal.
    """
    line = np.linspace(-6.0, 6.0, GRIDS[dimension])
    points = np.stack(np.meshgrid(*dimension * [line], indexing="ij"), axis=-1)
    rows = points.reshape(-1, dimension)
    gradient = (rows - slope(rows)).reshape(points.shape)
    hessian = np.stack([np.gradient(gradient, line, axis=i) for i in range(dimension)], axis=-1)
    # One-sided differences at the faces are coarser.
    inner = hessian[(slice(1, -1),) * dimension]
    return float(np.linalg.eigvalsh(0.5 * (inner + np.swapaxes(inner, -1, -2))).min())


def networks(host: Any, case: Case) -> Nets:
    if case.convex:
        energy = host.Formula(convex_energy, energy_parameters(case.dimension))
    else:
        energy = host.mlp(case.dimension, None, WIDTH)
    generator = host.Formula(generate, generator_parameters(case.dimension))
    return {"energy": energy, "generator": generator}


def density(host: Any, nets: Nets, case: Case) -> Any:
    return host.ebm.EnergyBased(nets["energy"], host.normal(case.dimension, scale=3.0))


def generator(host: Any, nets: Nets, case: Case) -> Any:
    return host.pushforward(host.normal(case.dimension), nets["generator"])


def inference(host: Any, case: Case) -> Any:
    def model(nets: Nets, x: Any) -> None:
        with host.plate("data", len(x)):
            host.sample("x", density(host, nets, case), obs=x)

    def guide(nets: Nets, x: Any) -> None:
        host.ebm.attach("x", generator=generator(host, nets, case))

    objective = host.ebm.BidirectionalBounds(penalty_weight=case.penalty_weight)
    loss = host.ebm.EnergyELBO(objective, num_normalizer_samples=0)
    return host.Inference(model, guide, loss, ADAM, case.num_steps)


def look_at(host: Any, nets: Nets, case: Case) -> dict[str, float]:
    """Truth, bounds of it and, where the energy is convex, the log-Sobolev constant."""
    pair = density(host, nets, case), generator(host, nets, case)
    _, log_ratios, slopes = host.log_ratios(*pair, NUM_DRAWS)
    rho = float("nan")
    if case.convex:
        rho = log_sobolev(lambda z: host.log_ratios(*pair, z)[2], case.dimension)
    log_z = host.log_normalizer(pair[0], method="grid")
    found = bounds(log_ratios, slopes)
    return {
        "truth": float(log_z.estimate),
        "bracket": float(log_z.upper - log_z.lower),
        **found,
        "rho": rho,
        "upper": found["lower"] + found["penalty"] / rho if rho > 0 else float("nan"),
    }


def summarize(looks: list[dict[str, float]]) -> dict[str, Any]:
    """Count violations and known constants, and measure gaps."""
    slacks = [slack for look in looks for slack in _slacks(look)]
    along = ("truth", "lower", "estimate", "penalty")
    return {
        "violations": sum(slack < 0 for slack in slacks),
        "known": sum(look["rho"] > 0 for look in looks),
        "gap, start": looks[0]["truth"] - looks[0]["lower"],
        "gap, end": looks[-1]["truth"] - looks[-1]["lower"],
        "least slack": min(slacks),
        "along": {name: [round(look[name], 5) for look in looks if name in look] for name in along},
    }


def _slacks(look: dict[str, float]) -> list[float]:
    """Truth less lower bound, upper bound less truth, with the benefit of the doubt."""
    doubt = SLACK * look["error, lower"] + look["bracket"]
    slacks = [look["truth"] - look["lower"] + doubt]
    if look["rho"] > 0:
        doubt = doubt + SLACK * look["error, penalty"] / look["rho"]
        slacks.append(look["upper"] - look["truth"] + doubt)
    return slacks


def train(host: Any, seed: int, case: Case, num_looks: int) -> list[dict[str, float]]:
    """Examine a run from its start to its end."""
    host.seed(seed)
    start, blocks = networks(host, case), np.split(batches(case, seed), num_looks)
    looks = [look_at(host, start, case)]
    for nets, refused in inference(host, case).train(start, blocks):
        if refused:
            raise RuntimeError(f"Expected finite losses, got {refused} that are not.")
        looks.append(look_at(host, nets, case))
    return looks


def run(
    host: Any, seed: int, *, case: str, num_steps: int = 1000, num_looks: int = NUM_LOOKS
) -> dict[str, Any]:
    with host.float64():
        return summarize(train(host, seed, replace(CASES[case], num_steps=num_steps), num_looks))
