import numpy as np

from helpers.claims import Claim


def off(run):
    """Largest total variation between a learned density and the truth."""
    x, step = np.asarray(run.grid)[:, 0], 0.01
    for_each = []
    for c, learned in zip(np.asarray(run.contexts), np.asarray(run.density).T, strict=True):
        share = run.share_of_echoes(c)
        truth = (1 - share) * run.normal_density(x, 0.0, run.SCALE)
        truth = truth + share * run.normal_density(x, run.DETOUR, run.DETOUR_SCALE)
        for_each.append(0.5 * np.abs(learned - truth).sum() * step)
    return max(for_each)


def narrower(run, key):
    return run.draws["learned noise"][key].std() / run.draws["normal noise"][key].std()


def z_score(run, key, truth):
    draws = run.draws["learned noise"][key]
    return abs(draws.mean() - truth) / draws.std()


CLAIMS = [
    Claim("an energy learns it", off, high=0.15),
    Claim(
        "Three contexts give three log Z",
        lambda run: len(np.unique(np.asarray(run.log_z.estimate))),
        low=3,
        high=3,
    ),
    Claim(
        "`NUTS` finds their posterior as ever",
        lambda run: max(z_score(run, "start", run.START), z_score(run, "speed", run.SPEED)),
        high=3.0,
    ),
    Claim(
        "its posterior is much narrower",
        lambda run: max(narrower(run, "start"), narrower(run, "speed")),
        high=0.7,
    ),
]
