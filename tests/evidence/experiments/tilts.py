"""An energy that tilts a fitted Gaussian or a fitted flow, held constant.

The data are two spirals. The Gaussian has the mean and covariance of 10,000 training points, the
flow (two affine coupling layers) is fitted to them by likelihood. Then the net of the comparison in
the plane is trained by KALE, in either form, on the same points, and nothing else moves.

`base` and `tilted` are log-likelihoods of fresh points, in nats a point; their difference, `gain`,
is L(E) = -mean E - log Z. log Z is bracketed on grids by `log_normalizer`. `kl_base` and `kl_model`
are divergences of the truth from base and model, both by another quadrature, which normalizes the
model itself: kl_base - kl_model is L(E) without either error.
"""

import math
from functools import cache
from typing import Any

import numpy as np

from evidence.hosts import Adam, no_guide
from evidence.plane import grid
from pyro_ebm.datasets import toy

TOY = toy("two_spirals")
FIGURES = ("base", "tilted", "gain")
BASES = ("gaussian", "flow")
FORMS = ("donsker_varadhan", "fenchel")
NUM_TRAIN, NUM_TEST = 10_000, 10_000
WIDTH, DEPTH = 128, 3
BATCH_SIZE = 128
ADAM = Adam(3e-3)
NORMALIZER_ADAM = Adam(3e-2)  # of the learned log-normalizer, which no figure uses
NUM_STEPS = 1000  # of the flow, then of the energy
FLOW = {"num_layers": 2, "width": 32}
NUM_BASE_SAMPLES = 500
GRID = {"limit": 6.0, "size": 200}
CELLS = [{"base": base, "form": form} for base in BASES for form in FORMS]
QUICK = {"base": "gaussian", "form": "fenchel", "num_steps": 100}


@cache
def flow_inference(host: Any, num_steps: int) -> Any:
    def model(nets: Any, x: Any) -> None:
        with host.plate("data", len(x), subsample_size=BATCH_SIZE) as batch:
            host.sample("x", host.flow_distribution(nets["flow"]), obs=x[batch])

    return host.Inference(model, no_guide, host.infer.Trace_ELBO(), ADAM, num_steps)


def energy_inference(host: Any, base: Any, form: str, num_steps: int) -> Any:
    def model(nets: Any, x: Any) -> None:
        with host.plate("data", len(x), subsample_size=BATCH_SIZE) as batch:
            host.sample("x", host.ebm.EnergyBased(nets["energy"], base), obs=x[batch])

    def guide(nets: Any, x: Any) -> None:
        if form == "fenchel":
            host.ebm.attach("x", log_normalizer=nets["log_normalizer"])

    objective = host.ebm.KALE(form=form, num_samples=NUM_BASE_SAMPLES)
    loss = host.ebm.EnergyELBO(objective, num_normalizer_samples=0)
    adam = {"energy": ADAM, "log_normalizer": NORMALIZER_ADAM}
    return host.Inference(model, guide, loss, adam, num_steps)


def fitted_base(host: Any, base: str, train: np.ndarray, num_steps: int) -> Any:
    """Fit the base; its parameters are constants from here on."""
    if base == "gaussian":
        mean, covariance = train.mean(0), np.cov(train.T).astype(np.float32)
        moments = host.array(mean), host.array(covariance)
        return host.dist.MultivariateNormal(*moments, validate_args=False)
    nets = {"flow": host.flow(2, **FLOW)}
    nets = host.frozen(flow_inference(host, num_steps).fit(nets, host.array(train)))
    return host.flow_density(nets["flow"])


def run(
    host: Any, seed: int, *, base: str, form: str, num_steps: int = NUM_STEPS
) -> dict[str, float]:
    host.seed(seed)
    train = TOY.sample(NUM_TRAIN, seed=seed).astype(np.float32)
    test = TOY.sample(NUM_TEST, seed=10_000 + seed).astype(np.float32)
    fitted = fitted_base(host, base, train, num_steps)
    nets = {"energy": host.mlp(2, None, WIDTH, DEPTH), "log_normalizer": host.array(0.0)}
    inference = energy_inference(host, fitted, form, num_steps)
    energy = inference.fit(nets, host.array(train))["energy"]

    def parts(x: Any) -> tuple[Any, Any]:
        return energy(x), fitted.log_prob(x)

    def of_points(points: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(part.astype(float) for part in host.evaluate(parts, points))

    log_z = host.log_normalizer(host.ebm.EnergyBased(energy, fitted), method="grid")
    energies, log_base = of_points(test)
    return figures(energies, log_base, log_z) | divergences(*of_points(midpoints()))


def figures(energies: np.ndarray, log_base: np.ndarray, log_z: Any) -> dict[str, float]:
    """Log-likelihoods of points from their energies and log-densities under the base."""
    tilts = -energies
    gain = tilts.mean() - float(log_z.estimate)
    return {
        "base": log_base.mean(),
        "tilted": log_base.mean() + gain,
        "gain": gain,
        "error": tilts.std(ddof=1) / math.sqrt(len(tilts)),
        "lower": tilts.mean() - float(log_z.upper),
        "upper": tilts.mean() - float(log_z.lower),
    }


def midpoints() -> np.ndarray:
    return grid(**GRID)[0].astype(np.float32)


def divergences(energies: np.ndarray, log_base: np.ndarray) -> dict[str, float]:
    """KL(truth, base) and KL(truth, model) from values at midpoints."""
    log_area, log_truth = grid(**GRID)[1], _log_truth()
    log_model = log_base - energies
    log_model = log_model - np.logaddexp.reduce(log_model) - log_area
    near = log_truth > -np.inf
    share = np.exp(log_truth[near] + log_area)
    return {
        "kl_base": float(share @ (log_truth - log_base)[near]),
        "kl_model": float(share @ (log_truth - log_model)[near]),
    }


@cache
def _log_truth() -> np.ndarray:
    return TOY.log_density(grid(**GRID)[0])
