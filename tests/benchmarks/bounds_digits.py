"""An energy-based prior of the digits tutorials' decoder between bounds: what both hosts share.

Networks, training images and guide are those of the tutorials; beside the guide's encoder there is
a generator of latents, a flow (affine coupling layers) of as many latent dimensions as there are,
so that its entropy is exact. All are trained together by one loss. Two penalty weights were tried,
with NumPyro and seed 100. With 1, that of a true bound where the log-ratio is concave, encoder
and energy run away together within 150 steps, to where the generator has no draws (and with Adam's
own betas too, on Pyro); with 10 the generator's draws are worth 94 % as many of the prior.
"""

from typing import Any

PRIORS = ("normal", "bounds")
COMPARISONS = [("bounds", "normal")]
SEEDS = (0, 1, 2)
NUM_STEPS, BATCH_SIZE, LEARNING_RATE = 1500, 128, 1e-3
NUM_LAYERS, FLOW_WIDTH = 3, 64
BETAS = (0.0, 0.9)
OBJECTIVE = {"penalty_weight": 10.0}
LOG_Z = {"num_samples": 500, "num_temperatures": 200}
COLUMNS = ["score", "log_z", "lower", "upper"]


def bounds(ebm: Any, stock: Any) -> Any:
    """The loss of a host's front end that trains energy and generator beside the stock ELBO."""
    objective = ebm.BidirectionalBounds(**OBJECTIVE)
    return ebm.EnergyELBO(objective, stock, num_normalizer_samples=0)


def cells(split: str = "test") -> list[dict]:
    return [{"prior": prior, "split": split, "seed": seed} for seed in SEEDS for prior in PRIORS]
