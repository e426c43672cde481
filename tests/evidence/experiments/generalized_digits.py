"""Generalized energy-based priors of a decoder of digits.

Networks, training images and guide are those of the tutorials. The prior is the tutorials' normal
one; a flow (affine coupling layers), trained with decoder and encoder by the stock ELBO; or
either of these with an energy, trained by KALE, the flow along with it.

The penalty is what keeps the tilted normal in place. The encoder follows the energy, and a shift
of both costs nothing: they drift to where few draws of the base count and KALE takes log Z for too
low. Tried with NumPyro, seed 0, reading metrics in training alone: without penalty it ended in NaN;
with one of 0.1 a single of 500 draws counted after 250 steps, and NaN came by 350; with one of 1
more than 300 counted over 800 steps. Beside these there was a run of 200 steps of either flow prior
without penalty, on validation images.

Figures are paired gains over another prior of the same seed, in nats an image of the test split,
with the standard error over images and log Z.
"""

from typing import Any

import numpy as np

from evidence import digits
from evidence.hosts import Adam, Nets
from pyro_ebm import datasets

COMPARISONS = (
    *(("tilted normal", "normal"), ("flow", "normal")),
    *(("tilted flow", "normal"), ("tilted flow", "flow")),
)
FIGURES = tuple(f"{name} over {other}" for name, other in COMPARISONS)
PRIORS = ("normal", "tilted normal", "flow", "tilted flow")
NUM_STEPS, BATCH_SIZE, ADAM = 1500, 128, Adam(1e-3)
FLOW = {"num_layers": 3, "width": 64}
OBJECTIVE = {"num_samples": 500, "gradient_penalty": 1.0}
NUM_IMPORTANCE = 500
LOG_Z = {"num_samples": 500, "num_temperatures": 200}
CELLS = [{"num_steps": NUM_STEPS}]
QUICK = {"num_steps": 30}


def networks(host: Any, prior: str, flow: Any = FLOW) -> Nets:
    nets = digits.networks(host, energy="tilted" in prior)
    return nets | ({"flow": host.flow(digits.NUM_LATENTS, **flow)} if "flow" in prior else {})


def inference(host: Any, prior: str, num_steps: int, objective: Any = OBJECTIVE) -> Any:
    loss = host.infer.Trace_ELBO()
    if "tilted" in prior:
        kale = host.ebm.KALE(**objective)
        loss = host.ebm.EnergyELBO(kale, loss, num_normalizer_samples=0)
    return host.Inference(digits.model(host), digits.guide(host), loss, ADAM, num_steps)


def look_at(
    host: Any, nets: Nets, images: np.ndarray, num_importance: int = NUM_IMPORTANCE, **options: Any
) -> tuple[np.ndarray, float]:
    """Log-likelihoods of images, and log Z's error; options are those of ``log_normalizer``."""
    scores = digits.log_likelihood(host, nets, images, num_importance)
    estimate, error = digits.log_z(host, nets, **options)
    return scores - estimate, error


def run(host: Any, seed: int, *, num_steps: int, split: str = "test") -> dict[str, Any]:
    data, found = datasets.digits(), {}
    train, images = host.array(data.train.images), getattr(data, split).images
    for prior in PRIORS:
        host.seed(seed)
        nets = networks(host, prior)
        nets = inference(host, prior, num_steps).fit(nets, train, batch_size=BATCH_SIZE)
        found[prior] = look_at(host, nets, images, **LOG_Z)
    gains = zip(FIGURES, COMPARISONS, strict=True)
    figures = {name: digits.gain(*found[one], *found[other]) for name, (one, other) in gains}
    return figures | {f"score, {prior}": float(one[0].mean()) for prior, one in found.items()}
