"""Handwritten digits without an encoder.

The decoder and the energy are those of the digits tutorials. Both priors are trained with short-run
posterior Langevin in the place of an encoder. One of two settings was chosen on validation images
(0.01 and 40 steps against 0.005 and 80). Each unseen image is then scored twice: by importance
sampling from a normal fitted to its posterior, and, the first 50 of them, by annealing from the
base.

Figures are log-likelihoods in nats an image of the test split, and the paired gain of the
energy-based prior, with the standard errors over images and log Z.
"""

from typing import Any

import numpy as np

from evidence import digits
from evidence.hosts import Adam, Nets
from evidence.measures import mean_and_error
from pyro_ebm import datasets

METHODS = ("importance", "annealed")
FIGURES = tuple(f"{kind}, {method}" for method in METHODS for kind in ("normal", "tilted", "gain"))
NUM_TRAINING, BATCH_SIZE, ADAM = 1200, 128, Adam(1e-3)
STEP_SIZE, NUM_LANGEVIN = 0.01, (40, 300)  # in training, and before normals are fitted
VARIANCE = 0.25
# The fitted normals are widened: tails thinner than the posterior's cost more.
NUM_FITTING, FITTING_ADAM, WIDENED = 1000, Adam(1e-2), 1.15
IMPORTANCE = {"num_samples": 1000, "batch_size": 50}
NUM_ANNEALED_IMAGES = 50
ANNEALING = {"method": "annealed", "num_samples": 8, "num_temperatures": 400}
LOG_Z = {"num_samples": 500, "num_temperatures": 1000}
CELLS = [{"num_training": NUM_TRAINING}]
QUICK = {
    "num_training": 20,
    "num_fitting": 20,
    "num_langevin": (5, 20),
    "num_images": 20,
    "importance": (("num_samples", 10),),
    "annealing": None,
    "log_z": (("method", "importance"), ("num_samples", 100)),
}


def train(
    host: Any,
    nets: Nets,
    images: Any,
    num_training: int,
    num_langevin: int,
    *,
    step_size: float = STEP_SIZE,
    start: str = "fresh",
) -> Nets:
    """Train with a guide that has no parameters."""
    model, kernel = digits.model(host), host.ebm.Langevin(step_size)
    loss = host.infer.Trace_ELBO()
    if "energy" in nets:
        loss = host.ebm.EnergyELBO(host.ebm.EnergyDiscrepancy(variance=VARIANCE), loss)
    guide = host.ebm.LangevinGuide(model, kernel, num_steps=num_langevin, start=start)
    training = host.Inference(model, guide, loss, ADAM, num_training)
    return host.frozen(training.fit(nets, images, batch_size=BATCH_SIZE))


def normals(host: Any, loc: Any, scale_tril: Any) -> Any:
    """Sample latents, each image's from a normal of its own."""
    with host.plate("images", len(loc)):
        options = {"scale_tril": scale_tril, "validate_args": False}
        return host.sample("z", host.dist.MultivariateNormal(loc, **options))


def fitted_posteriors(
    host: Any, nets: Nets, images: Any, num_fitting: int, num_langevin: int
) -> Any:
    """Fit a normal to the posterior of each image, from chains."""
    model, constraints = digits.model(host), host.dist.constraints
    kernel = host.ebm.Langevin(STEP_SIZE / 2)
    chains = host.ebm.LangevinGuide(model, kernel, num_steps=num_langevin)
    shape = (len(images), digits.NUM_LATENTS, digits.NUM_LATENTS)
    narrow = np.broadcast_to(0.1 * np.eye(digits.NUM_LATENTS, dtype=np.float32), shape).copy()
    start = {"loc": host.call(chains, nets, images)["z"], "tril": host.array(narrow)}
    lower = getattr(constraints, "scaled_unit_lower_cholesky", constraints.lower_cholesky)

    def frozen(fitted: Nets, images: Any) -> None:
        del fitted
        model(nets, images)

    def guide(fitted: Nets, images: Any) -> None:
        del images
        normals(host, fitted["loc"], host.param("tril", start["tril"], constraint=lower))

    loss = host.infer.Trace_ELBO()
    fitted = host.Inference(frozen, guide, loss, FITTING_ADAM, num_fitting).fit(start, images)
    return lambda nets, images: normals(host, fitted["loc"], WIDENED * fitted["tril"])


def run(
    host: Any,
    seed: int,
    *,
    num_training: int,
    num_fitting: int = NUM_FITTING,
    num_langevin: tuple[int, int] = NUM_LANGEVIN,
    num_images: int | None = None,
    importance: Any = IMPORTANCE,
    annealing: Any = ANNEALING,
    log_z: Any = LOG_Z,
    split: str = "test",
) -> dict[str, Any]:
    data, found = datasets.digits(), {}
    images = host.array(getattr(data, split).images[:num_images])
    few = images[:NUM_ANNEALED_IMAGES]
    model, figures = digits.model(host), {}
    for name in ("normal", "tilted"):
        host.seed(seed)
        nets = digits.networks(host, energy=name == "tilted", encoder=False)
        train_images = host.array(data.train.images)
        nets = train(host, nets, train_images, num_training, num_langevin[0])
        known, error = {}, 0.0
        if "energy" in nets:
            known["z"] = host.log_normalizer(digits.prior(host, nets), **dict(log_z))
            error = float(known["z"].standard_error)
            figures["log_z"] = [float(known["z"].estimate), error]
        guide = fitted_posteriors(host, nets, images, num_fitting, num_langevin[1])
        options = {"log_normalizers": known}
        found[name, "importance"] = host.log_marginal(
            model, guide, nets, images, **options, **dict(importance)
        )
        if annealing is not None:
            found[name, "annealed"] = host.log_marginal(
                model, None, nets, few, **options, **annealing
            )
    for method in METHODS[: 1 if annealing is None else 2]:
        scores = [np.asarray(found[name, method].estimate) for name in ("normal", "tilted")]
        figures[f"normal, {method}"] = mean_and_error(scores[0])
        figures[f"tilted, {method}"] = mean_and_error(scores[1], error)
        figures[f"gain, {method}"] = mean_and_error(scores[1] - scores[0], error)
    return figures
