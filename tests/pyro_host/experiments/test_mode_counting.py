"""Modes of stacked digits, shortened."""

import pyro
import torch
from mode_counting import METHODS, Setting, read_images
from mode_counting_pyro import players_of, train


def test_every_network_learns():
    images = read_images("digits").train.images
    setting = Setting(width=16, num_latents=4, num_steps=20)
    pyro.set_rng_seed(0)
    start = players_of(setting, 192)
    trained, refused = train(images, setting, METHODS["bounds"], seed=0)
    assert refused == 0.0

    def moved(player):
        old, new = (list(getattr(players, player).parameters()) for players in (start, trained))
        return any(not torch.equal(a, b) for a, b in zip(old, new, strict=True))

    assert all(map(moved, start._fields))
