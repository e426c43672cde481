"""Digits without an encoder, by chains that are stored for each image.

Decoder, energy-based prior and objective are those of the digits without an encoder, in 600 steps
of training. In each, posterior chains take `num_langevin` steps, at equal cost: from a draw of the
base (fresh), or from where the chain of this image stopped when it was last in a batch (stored).
Step sizes were chosen for each on validation images with seed 0 of Pyro, among .005, .01, .02, .04,
.08, .16 and, where the largest of these was best, .32.

Figures are log-likelihoods in nats an image of the test split, by importance sampling from a normal
fitted to the posterior of each image.
"""

from typing import Any

from evidence import digits
from evidence.experiments import langevin_digits
from pyro_ebm import datasets

FIGURES = ("log-likelihood",)
NUM_TRAINING, NUM_FITTING, NUM_POSTERIOR = 600, 300, 300
IMPORTANCE = {"num_samples": 500, "batch_size": 50}
LOG_Z = {"num_samples": 500, "num_temperatures": 1000}
STEP_SIZES = {("fresh", 2): 0.08, ("stored", 2): 0.08, ("fresh", 10): 0.16, ("stored", 10): 0.08}
CELLS = [{"num_langevin": number, "start": start} for start, number in STEP_SIZES]
QUICK = {
    "num_langevin": 2,
    "start": "stored",
    "num_training": 20,
    "num_fitting": 20,
    "num_posterior": 20,
    "num_images": 20,
    "log_z": (("method", "importance"), ("num_samples", 100)),
}


def run(
    host: Any,
    seed: int,
    *,
    num_langevin: int,
    start: str,
    step_size: float | None = None,
    num_training: int = NUM_TRAINING,
    num_fitting: int = NUM_FITTING,
    num_posterior: int = NUM_POSTERIOR,
    num_images: int | None = None,
    log_z: Any = LOG_Z,
    split: str = "test",
) -> dict[str, float]:
    host.seed(seed)
    data, model = datasets.digits(), digits.model(host)
    nets = digits.networks(host, energy=True, encoder=False)
    options = {"step_size": step_size or STEP_SIZES[start, num_langevin], "start": start}
    images = host.array(data.train.images)
    nets = langevin_digits.train(host, nets, images, num_training, num_langevin, **options)
    images = host.array(getattr(data, split).images[:num_images])
    known = {"z": host.log_normalizer(digits.prior(host, nets), **dict(log_z))}
    guide = langevin_digits.fitted_posteriors(host, nets, images, num_fitting, num_posterior)
    found = host.log_marginal(model, guide, nets, images, log_normalizers=known, **IMPORTANCE)
    return {
        "log-likelihood": float(found.estimate.mean()),
        "log Z": [float(known["z"].estimate), float(known["z"].standard_error)],
    }
