import math

from helpers.claims import Claim

SMALL, MIDDLE, LARGE = "variance 0.003", "variance 0.1", "variance 3.0"


def last(run, name, metric="objective"):
    return float(run.runs[name][1].metrics["x"][metric][-1])


CLAIMS = [
    Claim(
        "With the smallest variance it hardly leaves that line",
        lambda run: math.log(1 + 1 / 4) - last(run, SMALL),
        high=0.08,
    ),
    Claim(
        "because its loss is the lowest", lambda run: last(run, LARGE) - last(run, MIDDLE), high=0.0
    ),
    Claim("It must become positive", lambda run: last(run, MIDDLE, "energy_gap"), low=0.1),
    Claim(
        "the best that any model can reach on average",
        lambda run: max(run.scores.values()) - run.scores["truth"],
        high=0.01,
    ),
    Claim(
        "The smallest variance is far behind",
        lambda run: run.scores[MIDDLE] - run.scores[SMALL],
        low=0.2,
    ),
    Claim(
        "The middle one is the best of the three",
        lambda run: run.scores[MIDDLE] - max(run.scores[SMALL], run.scores[LARGE]),
        low=0.0,
    ),
    Claim(
        "although its loss is not the lowest",
        lambda run: last(run, MIDDLE) - last(run, LARGE),
        low=0.0,
    ),
]
