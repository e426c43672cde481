"""Generalized energy-based models in the plane.

*Circles.* The data lie on the unit circle, the base on one whose center, a parameter, starts three
units away: no density, disjoint supports, infinite KL. KALE with a smooth energy is finite: it is
estimated at the start, by an energy that has a base at rest, and at the end of training both. The
base must find the data, and KALE fall to zero.

*Tilts.* A net makes points in the plane of a normal latent variable of one dimension (a curve) or
two: an implicit base. Base and energy are trained together by KALE, five steps of the energy for
each of the base, up to the step at which the base stops, early or late; the energy goes on to its
optimum, rates falling to zero. Then draws of the base, and of the model that the energy makes of
it, are compared with fresh data by the squared maximum mean discrepancy. Draws of the model are
of two kinds: latent chains, and draws of the base resampled by their weights. (KALE bounds a gain
in KL; no theorem says that the discrepancy falls with it, and where the base is a curve off the
data it need not.)

The gradient penalty matters: with a tenth of it, energies learn to put all weight on a few draws
where the base hardly reaches the data (an effective share of 2e-5), and the model is far worse than
its base. Penalty, rates and stops were chosen on seed 0. Gains are the base's discrepancy minus the
model's, and the likelihood of fresh points relative to the base, in nats.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from evidence.hosts import Adam, Nets, no_guide, train_all
from pyro_ebm.datasets import toy

FIGURES = (
    *("kale, start", "kale, end", "distance, end"),
    *("gain, chains", "gain, resampled", "gain, likelihood"),
)
WIDTH, BASE_WIDTH = 64, 32  # of the nets of energy and base: two hidden layers, SiLU
BATCH_SIZE = 256  # values, and draws of the base
BETAS = (0.5, 0.9)
ENERGY_STEPS = 5  # for each of the base
CENTER = (3.0, 0.0)
STEP_SIZE = 0.05  # of chains
KINDS = ("chains", "resampled")  # of draws of the model
BANDWIDTHS = (0.25, 0.5, 1.0)  # standard deviations of the Gaussian kernels, which are averaged


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Training of energy and base.

    Attributes:
        num_steps: Steps of the energy.
        base_starts: Count of steps from which the base moves.
        base_stops: Count of steps from which it moves no more.
        gradient_penalty: See ``KALE``.
        rates: Adam's for energy and base, at the start; they fall to zero along half a cosine.
        num_draws: Draws of the model by chains.
        chain_steps: Steps of each chain.
        pool_size: Draws of the base.
    """

    num_steps: int
    base_starts: int = 0
    base_stops: int
    gradient_penalty: float
    rates: tuple[float, float]
    num_draws: int = 1500
    chain_steps: int = 200
    pool_size: int = 50_000

    def base_moves(self, count: Any) -> Any:
        turn = count % ENERGY_STEPS == ENERGY_STEPS - 1
        return turn & (count >= self.base_starts) & (count < self.base_stops)


CIRCLE = Setting(
    num_steps=1500,
    base_starts=100,
    base_stops=1500,
    gradient_penalty=0.2,
    rates=(3e-3, 3e-2),  # smaller ones, and the base stops short of the data
)
AT_REST = replace(CIRCLE, num_steps=300, base_stops=0)
TOYS = ("two_moons", "8_gaussians")
TILTS = {
    name: Setting(num_steps=2000, base_stops=base_stops, gradient_penalty=0.1, rates=(2e-3, 1e-2))
    for name, base_stops in (("early", 300), ("late", 1500))
}
CELLS = [
    {"data": "circle", "dimension": 1, "stop": "late"},
    *(
        {"data": name, "dimension": dimension, "stop": stop}
        for name in TOYS
        for dimension in (1, 2)
        for stop in TILTS
    ),
]
QUICK = {
    "data": "8_gaussians",
    "dimension": 2,
    "stop": "early",
    "changes": {
        **{"num_steps": 300, "base_stops": 100, "gradient_penalty": 1.0},
        **{"num_draws": 2000, "chain_steps": 50, "pool_size": 5000},
    },
}
QUICK_CIRCLE = {
    "data": "circle",
    "dimension": 1,
    "stop": "late",
    "changes": {"num_steps": 150, "base_starts": 50, "base_stops": 150},
}


def on_circle(count: int, seed: int) -> np.ndarray:
    angle = np.random.default_rng(seed).uniform(-np.pi, np.pi, count)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)


def circle(parameters: Any, angle: Any) -> Any:
    xp = array_namespace(angle)
    return parameters["center"] + xp.stack([xp.cos(angle), xp.sin(angle)], axis=-1)


def batches(name: str, num_steps: int, seed: int) -> np.ndarray:
    """Draw fresh points for every step, of the circle or of a toy."""
    count = num_steps * BATCH_SIZE
    points = on_circle(count, seed) if name == "circle" else toy(name).sample(count, seed=seed)
    return points.reshape(num_steps, BATCH_SIZE, 2).astype(np.float32)


def latent(host: Any, data: str, dimension: int) -> Any:
    return host.dist.Uniform(-np.pi, np.pi) if data == "circle" else host.normal(dimension)


@cache
def inference(host: Any, data: str, dimension: int, setting: Setting) -> Any:
    def model(nets: Any, x: Any) -> None:
        base = host.ebm.Pushforward(latent(host, data, dimension), nets["base"])
        with host.plate("data", len(x)):
            host.sample("x", host.ebm.EnergyBased(nets["energy"], base), obs=x)

    energy, base = (Adam(rate, BETAS) for rate in setting.rates)
    adam = {
        "energy": energy,
        "base": replace(base, condition=setting.base_moves, every=ENERGY_STEPS),
    }
    objective = host.ebm.KALE(num_samples=BATCH_SIZE, gradient_penalty=setting.gradient_penalty)
    loss = host.ebm.EnergyELBO(objective, num_normalizer_samples=0)
    return host.Inference(model, no_guide, loss, adam, setting.num_steps)


def train(host: Any, seed: int, data: str, dimension: int, setting: Setting) -> Nets:
    if data == "circle":
        base = host.Formula(circle, {"center": np.asarray(CENTER, dtype=np.float32)})
    else:
        base = host.mlp(dimension, 2, BASE_WIDTH)
    nets = {"energy": host.mlp(2, None, WIDTH), "base": base}
    points = batches(data, setting.num_steps, seed)
    return host.frozen(train_all(inference(host, data, dimension, setting), nets, [points]))


class Estimate(NamedTuple):
    value: float
    standard_error: float


def kale(on_data: np.ndarray, on_base: np.ndarray) -> Estimate:
    """Estimate ``-E_p[E] - log E_p0[exp(-E)]`` from energies of draws."""
    log_weights = -on_base.astype(np.float64)
    top = log_weights.max()
    weights = np.exp(log_weights - top)
    value = -np.mean(on_data, dtype=np.float64) - top - np.log(np.mean(weights))
    errors = np.std(on_data), np.std(weights) / np.mean(weights)
    counts = len(on_data), len(on_base)
    return Estimate(float(value), float(np.hypot(*(np.array(errors) / np.sqrt(counts)))))


def discrepancies(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute terms of the squared maximum mean discrepancy of samples of one size, ``(N, N)``.

    They can be subtracted: terms of ``(x, y)`` less those of ``(z, y)`` compare x and z.
    """
    cross = _kernel(x, y)
    return _kernel(x, x) + _kernel(y, y) - cross - cross.T


def unbiased(terms: np.ndarray) -> Estimate:
    """Average the terms off the diagonal; the standard error is a U-statistic's."""
    off = terms - np.diag(np.diag(terms))
    rows = off.sum(1) / (len(terms) - 1)
    return Estimate(rows.mean(), 2 * rows.std(ddof=1) / np.sqrt(len(terms)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1) - 2 * x @ y.T
    return np.mean([np.exp(-squares / (2 * b**2)) for b in BANDWIDTHS], axis=0)


def resample(draws: np.ndarray, energies: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw from the model among draws of its base, in proportion to weights."""
    weights = np.exp(energies.min() - energies.astype(np.float64))
    chosen = np.random.default_rng(seed).choice(len(draws), count, p=weights / weights.sum())
    return draws[chosen]


def compare(
    name: str,
    seed: int,
    *,
    pool: np.ndarray,
    walked: np.ndarray,
    energy: Callable[[np.ndarray], np.ndarray],
) -> dict[str, float]:
    """Compare a model and its base with fresh data.

    Args:
        name: Name of the toy.
        seed: Seed of the data and of resampling.
        pool: Draws of the base, ``(pool_size, 2)``.
        walked: Draws of the model from chains, ``(N, 2)``.
        energy: Energies ``(N,)`` of points ``(N, 2)``.
    """
    count, energies = len(walked), energy(pool)
    fresh, more = (toy(name).sample(count, seed=s + seed) for s in (10_000, 20_000))
    rest = slice(count, None)
    draws = {
        "base": pool[:count],
        "chains": walked,
        "resampled": resample(pool[rest], energies[rest], count, seed),
        "data": more,
    }
    terms = {label: discrepancies(points, fresh) for label, points in draws.items()}
    figures = {label: unbiased(own).value for label, own in terms.items()}
    unseen = toy(name).sample(len(pool), seed=30_000 + seed).astype(np.float32)
    gains = {kind: unbiased(terms["base"] - terms[kind]) for kind in KINDS}
    for label, gain in (gains | {"likelihood": kale(energy(unseen), energies)}).items():
        figures |= {f"gain, {label}": gain.value, f"error, {label}": gain.standard_error}
    weights = np.exp(energies.min() - energies.astype(np.float64))
    share = weights.sum() ** 2 / np.sum(weights**2) / len(weights)
    return figures | {"effective share": float(share)}


def run(
    host: Any, seed: int, *, data: str, dimension: int, stop: str, changes: Any = None
) -> dict[str, float]:
    host.seed(seed)
    changes = changes or {}
    if data == "circle":
        settings = {"end": replace(CIRCLE, **changes)}
        settings |= {} if changes else {"start": AT_REST}
        return run_circle(host, seed, settings)
    setting = replace(TILTS[stop], **changes)
    nets = train(host, seed, data, dimension, setting)
    base = host.ebm.Pushforward(latent(host, data, dimension), nets["base"])
    pool = host.draw(base, setting.pool_size)
    sampler = host.ebm.MALA(STEP_SIZE)
    options = {"sampler": sampler, "num_sampler_steps": setting.chain_steps}
    walked = host.draw(host.ebm.EnergyBased(nets["energy"], base, **options), setting.num_draws)
    energy = nets["energy"]
    return compare(data, seed, pool=pool, walked=walked, energy=lambda x: host.evaluate(energy, x))


def run_circle(host: Any, seed: int, settings: dict[str, Setting]) -> dict[str, float]:
    """Distance of the base from the data and their KALE, at the start and at the end."""
    data, figures = on_circle(CIRCLE.pool_size, 10_000 + seed), {}
    for time, setting in settings.items():
        nets = train(host, seed, "circle", 1, setting)
        base = host.ebm.Pushforward(latent(host, "circle", 1), nets["base"])
        draws = host.draw(base, setting.pool_size)
        center = np.asarray(nets["base"].values["center"])
        energies = (host.evaluate(nets["energy"], x) for x in (data, draws))
        figures[f"distance, {time}"] = float(np.linalg.norm(center))
        figures[f"kale, {time}"] = kale(*energies).value
    return figures
