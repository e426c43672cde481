"""Sizes and starting values that both hosts share."""

from dataclasses import dataclass

import numpy as np
from harness import QUICK

LANGEVIN_STEP, NUM_LANGEVIN = 0.01, 20 if QUICK else 100
LEAPFROG_STEP, NUM_LEAPFROG, NUM_TRANSITIONS = 0.1, 10, 2 if QUICK else 10
LEARNING_RATE, VARIANCE = 1e-4, 0.25
NUM_LATENTS, NUM_PIXELS, NUM_IMAGES = 16, 64, 128


@dataclass(frozen=True)
class Size:
    """Widths of an energy's layers, and a batch."""

    num_dims: int
    width: int
    batch: int
    num_hidden: int = 2

    @property
    def layers(self):
        return self.num_dims, self.width, self.num_hidden

    @property
    def name(self):
        return f"{self.num_dims}-{self.num_hidden * f'{self.width}-'}1"


SMALL, LARGE, CODES = Size(2, 128, 1024), Size(64, 512, 256), Size(32, 256, 256, 3)


def layers(*sizes):
    """Weights and biases of a perceptron, the same for both hosts."""
    rng = np.random.default_rng(0)
    return [
        (
            (rng.uniform(-1, 1, (after, before)) / np.sqrt(before)).astype(np.float32),
            (rng.uniform(-1, 1, after) / np.sqrt(before)).astype(np.float32),
        )
        for before, after in zip(sizes, sizes[1:], strict=False)
    ]


def values(num_rows, num_dims):
    return np.random.default_rng(1).normal(size=(num_rows, num_dims)).astype(np.float32)


def images():
    return values(NUM_IMAGES, NUM_PIXELS)


def bits(num_rows, num_dims):
    return np.random.default_rng(1).integers(0, 2, (num_rows, num_dims)).astype(np.float32)


def growths_of_discrepancy():
    """Axes of growth: sizes, and the number of negatives, batch and dimension there."""
    few = 3 if QUICK else None
    yield "batch", (256, 1024, 4096, 16384, 32768)[:few], lambda n: (4, n, 16)
    yield "negatives", (1, 4, 16, 64, 256)[:few], lambda n: (n, 256, 64)
    yield "dimension", (2, 32, 256, 1024)[:few], lambda n: (16, 256, n)


CHAINS = (10, 100, 1000) if QUICK else (10, 100, 1000, 10_000, 100_000)
CONTEXTS = (256, 1024, 4096) if QUICK else (256, 1024, 4096, 16384, 32768)
PARTICLES = (1, 4, 16) if QUICK else (1, 4, 16, 64)
