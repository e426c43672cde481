import arviz as az
import numpy as np

from helpers.claims import Claim


def off(run):
    """Largest total variation between learned and exact probabilities of a month."""
    exact = [run.exact_probabilities(day) for day in run.some_days]
    return 0.5 * np.abs(run.learned - exact).sum(-1).max()


def r_hat(run):
    return az.summary(run.data, kind="diagnostics")["r_hat"].max()


def share_of_pictures(run):
    return np.mean([(draw.ravel() == run.pictures).all(1).any() for draw in run.draws])


CLAIMS = [
    Claim("one draw in ten is kept", r_hat, high=1.05),
    Claim("beside the answer of the law that made the data", off, high=0.2),
    Claim("the fourteen pictures of 3 x 3 pixels", lambda run: len(run.pictures), low=14, high=14),
    Claim("The fourteen pictures should have all the mass", lambda run: run.masses.sum(), low=0.95),
    Claim("in equal parts", lambda run: run.masses.max() / run.masses.min(), high=2.0),
    Claim("and so finds all pictures", share_of_pictures, low=0.9),
]
