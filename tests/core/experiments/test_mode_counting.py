"""Counts of the modes of stacked digits."""

import numpy as np
import pytest
from evidence.experiments.mode_counting import Counter, Images, Part, indices, read_images

from pyro_ebm.datasets import digits


@pytest.fixture(scope="module")
def data():
    return read_images("digits")


@pytest.fixture(scope="module")
def count(data):
    return Counter(data)


def test_accuracy_of_the_classifier():
    """A mean over splits, whose test parts have few hundred digits."""
    splits = [digits(seed) for seed in range(6)]
    accuracies = [Counter(Images(Part(*s.train), Part(*s.test))).accuracy for s in splits]
    assert np.mean(accuracies) > 0.93


def test_modes_of_real_stacks(data, count):
    chosen = indices(len(data.test.images), (26_000,), 0)
    figures = count(data.test.images[chosen].reshape(26_000, -1))
    assert figures["modes"] == 1000
    frequencies = np.bincount(data.test.labels) / len(data.test.labels)
    of_labels = 3 * np.sum(frequencies * np.log(10 * frequencies))
    # Of a histogram of 1000 cells, and of a classifier that errs at times.
    assert figures["kl"] == pytest.approx(of_labels + 999 / 52_000, abs=0.03)


def test_modes_of_copies_of_one_stack(data, count):
    figures = count(np.tile(data.test.images[:3].reshape(1, -1), (50, 1)))
    assert figures == {"modes": 1, "kl": pytest.approx(np.log(1000))}
