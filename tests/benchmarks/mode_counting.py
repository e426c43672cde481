"""Modes of stacked digits that a generator finds, with entropy and without; what both hosts share.

A value is three digits as channels, drawn independently: 1,000 modes, counted by a classifier of
single digits over 26,000 draws of the generator. Reported are how many modes it found, and
KL(modes of draws, uniform); and the same of stacked images that no one was trained on, whose KL is
not zero: digits are not equally frequent, and counting adds (modes - 1) / (2 draws), 0.019.

The generator adds noise, and an encoder bounds its entropy from below (``entropy="noise"``): a
density of images, although there are far fewer latent dimensions. Data get the same noise; draws
are counted without it. ``no entropy`` is the same but for the entropy in the generator's loss.

By default digits are scikit-learn's, 8 x 8. ``--data mnist.npz`` is StackedMNIST, from the file of
that name in the folder that ``PYRO_EBM_DATA`` names, with larger networks and more steps.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyro_ebm.datasets import digits

METHODS = {"bounds": 1.0, "no entropy": 0.0}  # weights of the entropy
SEEDS = (0, 1, 2)
NUM_CHANNELS, NUM_MODES = 3, 1000
NUM_DRAWS = 26_000
BASE = (0.3, 0.5)  # mean and standard deviation of the base of the energy
BETAS = (0.0, 0.9)
COLUMNS = ["modes", "kl", "data modes", "data kl", "accuracy", "energy scale", "refused"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How large the players are, and how they are trained.

    Attributes:
        width: Of the two hidden layers of energy, generator and encoder.
        num_latents: Of the generator.
        noise_scale: Standard deviation of the noise.
        penalty_weight: Of the bounds.
        batch_size: Of values, and of draws.
        learning_rate: Adam's, at the start; it falls to zero along half a cosine.
        num_steps: Of training.
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
# 4 modes, and 96, KL 3.65. Those of StackedMNIST are guesses, after the published number of steps
# and rate: nothing was tried.
SETTINGS = {
    "digits": Setting(width=256, num_latents=32, num_steps=4000),
    "mnist.npz": Setting(width=1024, num_latents=128, num_steps=60_000, learning_rate=2e-4),
}


class Part(NamedTuple):
    """Images, pixels in [0, 1] of shape ``(n, pixels)``, and what they show."""

    images: np.ndarray
    labels: np.ndarray


class Images(NamedTuple):
    train: Part
    test: Part


def read_images(data: str) -> Images:
    """Single digits.

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
    """Which images are stacked, ``(*shape, NUM_CHANNELS)``."""
    return np.random.default_rng(seed).integers(num_images, size=(*shape, NUM_CHANNELS))


class Counter:
    """Counts modes by a classifier that is trained on single digits."""

    def __init__(self, data: Images) -> None:
        from sklearn.neural_network import MLPClassifier

        net = MLPClassifier((64,), early_stopping=True, max_iter=100, random_state=0)
        self.classifier = net.fit(*data.train)
        self.accuracy = self.classifier.score(*data.test)

    def __call__(self, stacked: np.ndarray) -> dict[str, float]:
        """How many modes there are in ``(N, 3 * pixels)``, and their KL from the uniform law."""
        pixels = stacked.shape[1] // NUM_CHANNELS
        labels = self.classifier.predict(stacked.reshape(-1, pixels)).reshape(-1, NUM_CHANNELS)
        counts = np.bincount(labels @ np.array([100, 10, 1]), minlength=NUM_MODES)
        shares = counts[counts > 0] / len(stacked)
        return {
            "modes": int(np.sum(counts > 0)),
            "kl": float(np.sum(shares * np.log(shares * NUM_MODES))),
        }


def loss(ebm: Any, setting: Setting, entropy_weight: float) -> Any:
    """The loss of a host's front end."""
    objective = ebm.BidirectionalBounds(
        entropy="noise", entropy_weight=entropy_weight, penalty_weight=setting.penalty_weight
    )
    return ebm.EnergyELBO(objective, num_normalizer_samples=0)


def figures(
    data: Images, draws: np.ndarray, energies: np.ndarray, refused: float
) -> dict[str, float]:
    """What is reported of a run.

    Args:
        data: Single digits.
        draws: Of the generator, without noise, ``(NUM_DRAWS, 3 * pixels)``.
        energies: There, ``(NUM_DRAWS,)``.
        refused: Share of steps whose loss was not finite.
    """
    count = Counter(data)
    chosen = indices(len(data.test.images), (len(draws),), 10_000)
    unseen = count(data.test.images[chosen].reshape(len(draws), -1))
    return {
        **count(np.clip(draws, 0.0, 1.0)),
        **{f"data {name}": value for name, value in unseen.items()},
        "accuracy": float(count.accuracy),
        "energy scale": float(np.std(energies)),
        "refused": refused,
    }


def read_arguments(name: str) -> argparse.Namespace:
    """``--output`` and ``--data``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=Path("benchmark_output") / f"{name}.jsonl")
    parser.add_argument("--data", choices=tuple(SETTINGS), default="digits")
    return parser.parse_args()


def cells(data: str) -> list[dict[str, Any]]:
    return [{"data": data, "method": method, "seed": seed} for seed in SEEDS for method in METHODS]


def print_table(rows: list[dict[str, Any]]) -> None:
    """Means over seeds and, in brackets, their standard errors."""
    print(f"\n{'':12s}" + "".join(f"{name:>18s}" for name in COLUMNS))
    for method in METHODS:
        own = [row for row in rows if row["cell"]["method"] == method]
        print(f"{method:12s}" + "".join(_mean(own, name) for name in COLUMNS))


def _mean(rows: list[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in rows]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.3f} ({error:.3f})".rjust(18)
