"""Draws inside of a support, and which of them are copies."""

from types import SimpleNamespace

import numpy as np

from pyro_ebm.core.samplers.truncation import ancestors_of, choose_inside


def test_copies_have_the_numbers_of_their_originals():
    """Rows with 3, 5 (all), none, and 1 draw inside; vectors of two numbers."""
    draws = np.random.default_rng(0).normal(size=(5, 4, 2))
    inside = np.ones((5, 4), dtype=bool)
    inside[[0, 2], 0] = inside[:, 2] = inside[1:, 3] = False
    chosen, share = choose_inside(inside, draws, 5)
    np.testing.assert_allclose(share, [0.6, 1.0, 0.0, 0.2])
    law = SimpleNamespace(_is_truncated=True, event_shape=(2,))
    ancestors = ancestors_of(law, chosen)
    np.testing.assert_array_equal(ancestors[:, 0], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(ancestors[:, 1], np.arange(5))
    np.testing.assert_array_equal(ancestors[:, 3], np.zeros(5))
    np.testing.assert_array_equal(chosen[[0, 1, 2], 0], draws[[1, 3, 4], 0])


def test_no_copies_without_a_narrower_support():
    assert ancestors_of(SimpleNamespace(_is_truncated=False), np.zeros((3, 2))) is None


def test_draws_that_are_no_numbers_are_no_copies():
    law = SimpleNamespace(_is_truncated=True, event_shape=())
    np.testing.assert_array_equal(ancestors_of(law, np.full(3, np.nan)), np.arange(3))
