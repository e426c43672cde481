import numpy as np

from helpers.claims import Claim


def metric(run, name, step):
    return np.asarray(run.recorder.metrics["x"][name])[np.searchsorted(run.recorder.steps, step)]


CLAIMS = [
    Claim(
        "a handful would mean that the base misses the data",
        lambda run: metric(run, "effective_sample_size", run.NUM_STEPS - 10),
        low=50,
    ),
    Claim(
        "Once the base has stopped, the energy finds what separates the two",
        lambda run: (
            metric(run, "energy_gap", run.NUM_STEPS - 10)
            - metric(run, "energy_gap", run.BASE_STEPS)
        ),
        low=0.1,
    ),
    Claim(
        "Draws of the base fill the space between the moons",
        lambda run: run.share_near(run.draws["base"]),
        high=0.8,
    ),
    Claim(
        "Most of those of the model lie on them",
        lambda run: run.share_near(run.draws["model"]),
        low=0.85,
    ),
    Claim(
        "Held-out data show what is possible", lambda run: run.share_near(run.held_out), low=0.95
    ),
    Claim("zero would be the base itself", lambda run: float(run.gain.mean()) / run.error, low=5.0),
]
