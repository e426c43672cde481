from helpers.objectives.contrastive_divergence import *  # noqa: F403
from helpers.objectives.contrastive_divergence import Recorder, X, over_normal

import pyro_ebm.pyro as ebm


def test_calls_of_the_sampler(host):
    """One at the start and one a step; the last has values and draws."""
    energy = Recorder()
    objective = ebm.ContrastiveDivergence(sampler=ebm.MALA(0.1), num_steps=5)
    host.loss(objective, over_normal(host, energy), X)
    assert energy.shapes == 6 * [(8,)] + [(16,)]
