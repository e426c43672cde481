"""Modes of stacked digits, shortened."""

import jax
import jax.numpy as jnp
from jax import random
from mode_counting import METHODS, Setting, read_images
from mode_counting_numpyro import players_of, train


def test_every_network_learns():
    images = read_images("digits").train.images
    setting = Setting(width=16, num_latents=4, num_steps=20)
    trained, refused = train(images, setting, METHODS["bounds"], seed=0)
    assert refused == 0.0
    start = players_of(random.split(random.key(0), 3)[0], setting, 192)

    def moved(player):
        old, new = (jax.tree.leaves(getattr(players, player)) for players in (start, trained))
        pairs = zip(old, new, strict=True)
        return any(not jnp.array_equal(a, b) for a, b in pairs if isinstance(a, jax.Array))

    assert all(map(moved, start._fields))
