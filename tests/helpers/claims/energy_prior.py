import numpy as np

from helpers.claims import Claim


def separation(run, name):
    """Share of the codes' variance that is between kinds of digits."""
    codes, labels = np.asarray(run.codes[name]), run.data.test.labels
    within = np.mean([codes[labels == digit].var(0).sum() for digit in range(10)])
    return 1 - within / codes.var(0).sum()


def spread(run, name):
    return np.asarray(run.codes[name]).std()


CLAIMS = [
    Claim(
        "An energy-based prior can follow them", lambda run: run.gain.mean() / run.error, low=3.0
    ),
    Claim(
        "holds the codes together",
        lambda run: spread(run, "energy prior") / spread(run, "normal prior"),
        low=1.0,
    ),
    Claim(
        "Under the energy prior kinds of digits move apart",
        lambda run: separation(run, "energy prior") - separation(run, "normal prior"),
        low=0.0,
    ),
    Claim(
        "It warns of images for which few of the draws count",
        lambda run: run.printed.count("Warning: The effective sample size of log p(x)"),
        low=1,
    ),
]
