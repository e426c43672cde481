"""Small images of handwritten digits."""

from typing import NamedTuple

import numpy as np

from pyro_ebm._extras import require


class Split(NamedTuple):
    """Images with their labels.

    Attributes:
        images: Pixels in [0, 1], float32 of shape `(n, 64)`, rows of an 8 x 8 image in turn.
        labels: Digits 0 to 9, integers of shape `(n,)`.
    """

    images: np.ndarray
    labels: np.ndarray


class Digits(NamedTuple):
    """Handwritten digits in three parts that share no image.

    Attributes:
        train: 1197 images to fit parameters on.
        validation: 200 images to choose settings on.
        test: 400 images for reported numbers.
    """

    train: Split
    validation: Split
    test: Split


def digits(seed: int = 0) -> Digits:
    """Load the 1797 digits of 8 x 8 pixels in scikit-learn, split at random.

    Args:
        seed: The same seed gives the same split.

    Raises:
        ImportError: If scikit-learn is not installed.

    References:
        Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998),
        https://doi.org/10.24432/C50P49
    """
    with require("scikit-learn"):
        from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    parts = np.split(order, [1197, 1397])
    pixels = (images / 16).astype(np.float32)
    return Digits(*(Split(pixels[part], labels[part]) for part in parts))
