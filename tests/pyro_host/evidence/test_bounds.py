import torch
from helpers.evidence.bounds import *  # noqa: F403

import pyro_ebm.pyro as ebm


def test_no_gradient_is_left():
    scale = torch.tensor(0.7, requires_grad=True)
    generator = ebm.Pushforward(torch.distributions.Normal(0.0, 1.0), lambda z: scale * z)
    distribution = ebm.EnergyBased(lambda x: x**2 / 2 + x**4 / 4, event_shape=())
    result = ebm.generator_bounds(distribution, generator, num_samples=10)
    assert not any(part.requires_grad for part in vars(result).values())
