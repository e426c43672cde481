"""Modes of stacked digits that a generator finds, with entropy and without.

A value is three digits as channels, drawn independently: 1,000 modes, counted by a classifier of
single digits over 26,000 draws of the generator. Reported are how many modes it found, and
KL(modes of draws, uniform); and the same of stacked images that no one was trained on, whose KL is
not zero: digits are not equally frequent, and counting adds (modes - 1) / (2 draws), 0.019.

The generator adds noise, and an encoder bounds its entropy from below (`entropy="noise"`): a
density of images, although there are far fewer latent dimensions. Data get the same noise; draws
are counted without it. `no entropy` is the same but for the entropy in the generator's loss.

By default digits are scikit-learn's, 8 x 8. With `--only data=mnist.npz` they are StackedMNIST,
from the file of that name in the folder that `PYRO_EBM_DATA` names, with larger networks and more
steps; its settings are guesses after the published number of steps and rate, and were never tried.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from evidence.hosts import Adam, Nets
from pyro_ebm.datasets import digits

FIGURES = ("modes", "kl", "data modes", "data kl")
METHODS = {"bounds": 1.0, "no entropy": 0.0}  # weights of the entropy
NUM_CHANNELS, NUM_MODES = 3, 1000
NUM_DRAWS = 26_000
BASE = (0.3, 0.5)  # mean and standard deviation of the base of the energy
BETAS = (0.0, 0.9)
BLOCK = 100  # steps whose batches are in memory at once


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Sizes of the networks, and their training.

    Attributes:
        width: Width of the two hidden layers of energy, generator and encoder.
        num_latents: Dimension of the generator's latent.
        noise_scale: Standard deviation of the noise.
        penalty_weight: See ``BidirectionalBounds``.
        batch_size: Number of values, and of draws.
        learning_rate: Adam's, at the start; it falls to zero along half a cosine.
        num_steps: Number of steps.
    """

    width: int
    num_latents: int
    num_steps: int
    noise_scale: float = 0.1
    penalty_weight: float = 5e-4
    batch_size: int = 64
    learning_rate: float = 2e-3


# Two settings were tried for "bounds", with NumPyro, seed 100: penalty weight .01 and rate 1e-3,
# 1,000 steps, 6 modes; 5e-4 and 2e-3, 2,500 steps, 926 modes, KL .62. "No entropy" with these:
# 4 modes, and 96, KL 3.65.
SETTINGS = {
    "digits": Setting(width=256, num_latents=32, num_steps=4000),
    "mnist.npz": Setting(width=1024, num_latents=128, num_steps=60_000, learning_rate=2e-4),
}
CELLS = [{"data": "digits", "method": method} for method in METHODS]
OPTIONAL = [{"data": "mnist.npz", "method": method} for method in METHODS]
QUICK_SETTING = Setting(width=64, num_latents=8, num_steps=100)
QUICK = {"data": "digits", "method": "bounds", "setting": QUICK_SETTING}


class Part(NamedTuple):
    """Images with pixels in [0, 1], shape ``(n, pixels)``, and their labels."""

    images: np.ndarray
    labels: np.ndarray


class Images(NamedTuple):
    train: Part
    test: Part


def read_images(data: str) -> Images:
    """Read single digits.

    Raises:
        FileNotFoundError: If the file is not there.
    """
    if data == "digits":
        train, _, test = digits()
        return Images(Part(*train), Part(*test))
    path = Path(os.environ.get("PYRO_EBM_DATA", ".")) / data
    with np.load(path) as file:
        parts = [
            Part(
                (file[f"{name}_images"] / 255).astype(np.float32).reshape(-1, 28 * 28),
                file[f"{name}_labels"].astype(int),
            )
            for name in ("train", "test")
        ]
    return Images(*parts)


def indices(num_images: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Choose the images that are stacked, ``(*shape, NUM_CHANNELS)``."""
    return np.random.default_rng(seed).integers(num_images, size=(*shape, NUM_CHANNELS))


def batches(images: np.ndarray, setting: Setting, seed: int) -> Iterator[np.ndarray]:
    """Stack images for every step and add noise, some steps at a time."""
    rng, shape = np.random.default_rng([seed, 1]), (setting.num_steps, setting.batch_size)
    chosen = indices(len(images), shape, seed)
    for block in np.split(chosen, range(BLOCK, setting.num_steps, BLOCK)):
        x = images[block].reshape(*block.shape[:2], -1)
        yield (x + setting.noise_scale * rng.standard_normal(x.shape)).astype(np.float32)


class Counter:
    """Count of modes, by a classifier that is trained on single digits."""

    def __init__(self, data: Images) -> None:
        from sklearn.neural_network import MLPClassifier

        net = MLPClassifier((64,), early_stopping=True, max_iter=100, random_state=0)
        self.classifier = net.fit(*data.train)
        self.accuracy = self.classifier.score(*data.test)

    def __call__(self, stacked: np.ndarray) -> dict[str, float]:
        """Count the modes of ``(N, 3 * pixels)``, and compute their KL from the uniform law."""
        pixels = stacked.shape[1] // NUM_CHANNELS
        labels = self.classifier.predict(stacked.reshape(-1, pixels)).reshape(-1, NUM_CHANNELS)
        counts = np.bincount(labels @ np.array([100, 10, 1]), minlength=NUM_MODES)
        shares = counts[counts > 0] / len(stacked)
        return {
            "modes": int(np.sum(counts > 0)),
            "kl": float(np.sum(shares * np.log(shares * NUM_MODES))),
        }


def networks(host: Any, setting: Setting, num_pixels: int) -> Nets:
    return {
        "energy": host.mlp(num_pixels, None, setting.width),
        "generator": host.mlp(setting.num_latents, num_pixels, setting.width, final="sigmoid"),
        "encoder": host.mlp(num_pixels, 2 * setting.num_latents, setting.width),
    }


@cache
def inference(host: Any, setting: Setting, method: str) -> Any:
    def model(nets: Nets, x: Any) -> None:
        prior = host.ebm.EnergyBased(nets["energy"], host.normal(x.shape[-1], *BASE))
        with host.plate("data", len(x)):
            host.sample("x", prior, obs=x)

    def guide(nets: Nets, x: Any) -> None:
        latent, options = host.normal(setting.num_latents), {"noise_scale": setting.noise_scale}
        generator, encoder = host.pushforward(latent, nets["generator"], **options), nets["encoder"]
        host.ebm.attach("x", generator=generator, encoder=lambda x: posterior(host, encoder, x))

    objective = host.ebm.BidirectionalBounds(
        entropy="noise", entropy_weight=METHODS[method], penalty_weight=setting.penalty_weight
    )
    loss = host.ebm.EnergyELBO(objective, num_normalizer_samples=0)
    return host.Inference(model, guide, loss, Adam(setting.learning_rate, BETAS), setting.num_steps)


def posterior(host: Any, encoder: Any, x: Any) -> Any:
    parameters = encoder(x)
    size = parameters.shape[-1] // 2
    scale = array_namespace(parameters).exp(parameters[..., size:])
    return host.dist.Normal(parameters[..., :size], scale).to_event(1)


def train(
    host: Any, seed: int, images: np.ndarray, method: str, setting: Setting
) -> tuple[Nets, float]:
    """Train, and return the networks with the share of steps that were refused."""
    host.seed(seed)
    nets, total = networks(host, setting, NUM_CHANNELS * images.shape[1]), 0
    steps = inference(host, setting, method).train(nets, batches(images, setting, seed))
    for trained, refused in steps:
        nets, total = trained, total + refused
    return nets, total / setting.num_steps


def run(
    host: Any, seed: int, *, data: str, method: str, setting: Setting | None = None
) -> dict[str, float]:
    images, setting = read_images(data), setting or SETTINGS[data]
    nets, refused = train(host, seed, images.train.images, method, setting)
    z = host.draw(host.normal(setting.num_latents), NUM_DRAWS)
    draws = host.evaluate(nets["generator"], z)
    energies = host.evaluate(nets["energy"], draws)
    return count_modes(images, draws) | {
        "energy scale": float(np.std(energies)),
        "refused": refused,
    }


def count_modes(data: Images, draws: np.ndarray) -> dict[str, float]:
    """Count the modes of draws without noise, and of as many unseen stacks."""
    count = Counter(data)
    chosen = indices(len(data.test.images), (len(draws),), 10_000)
    unseen = count(data.test.images[chosen].reshape(len(draws), -1))
    return {
        **count(np.clip(draws, 0.0, 1.0)),
        **{f"data {name}": value for name, value in unseen.items()},
        "accuracy": float(count.accuracy),
    }
