import numpy as np

from helpers.claims import Claim


def coverage(run, at):
    """Share of simulated data inside of the outer contour; 0.86 if the law is normal."""
    likelihood = run.joint.conditional(theta=run.grid[0, 0, 0] * 0 + at)
    points = run.grid[:1, 0] * 0 + run.simulate(np.full(300, at))
    below = np.asarray(likelihood.log_prob(points)) - np.max(
        np.asarray(likelihood.log_prob(run.grid))
    )
    return np.mean(below > -2.0)


def off(run, at):
    return abs(coverage(run, at) - 0.865)


def z_score(run):
    draws = np.asarray(run.draws)
    return abs(draws.mean() - run.TRUTH) / draws.std()


def between(run):
    """Standard deviations between the means of two kinds of draws."""
    draws, others = np.asarray(run.draws), np.asarray(run.by_smc.samples)
    return abs(draws.mean() - others.mean()) / draws.std()


CLAIMS = [
    Claim(
        "Its contours should lie where the simulator puts its data",
        lambda run: max(off(run, at) for at in (-1.5, 0.0, 1.5)),
        high=0.12,
    ),
    Claim("a plate, as for any likelihood", z_score, high=3.0),
    Claim("It warns above 0.1 standard deviations", lambda run: run.found.largest_shift, high=0.1),
    Claim("The draws agree with those of `NUTS`", between, high=0.3),
    Claim("a p-value that is not small", lambda run: run.calibration.p_values.item(), low=0.01),
]
