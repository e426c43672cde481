import numpy as np

from helpers.claims import Claim

NEAR = ("score matching", "denoising", "ED, little noise", "CD from the data")
OF_BASE = ("maximum likelihood", "KALE", "noise-contrastive")
LEFT = slice(0, 220)


def error(run, name):
    """Error of the mass of the left cluster, a quarter."""
    curve = run.curves[name]
    return abs(curve[LEFT].sum() / curve.sum() - 0.25)


def shape_error(run, name):
    """Total variation from the shape of the right cluster."""
    right = np.asarray(run.line)[:, 0] > 0
    curves = run.curves[name][right], np.exp(run.truth.log_density(run.line))[right]
    one, two = (curve / curve.sum() for curve in curves)
    return np.abs(one - two).sum() / 2


CLAIMS = [
    Claim(
        "*Those that compare only nearby points do not know the weights.*",
        lambda run: max(error(run, name) for name in NEAR),
        low=0.05,
    ),
    Claim(
        "look at the shape of each cluster, and get it right",
        lambda run: max(shape_error(run, name) for name in NEAR),
        high=0.15,
    ),
    Claim(
        "energy discrepancy sees both at once", lambda run: error(run, "ED, much noise"), high=0.05
    ),
    Claim(
        "*Those that draw from the base do.*",
        lambda run: max(error(run, name) for name in OF_BASE),
        high=0.05,
    ),
    Claim(
        "Compare contrastive divergence without and with a penalty on energies",
        lambda run: error(run, "CD, chains") - error(run, "CD, chains, penalty"),
        low=0.0,
    ),
    Claim(
        "The same holds for pseudo-spherical divergence and for f-EBM",
        lambda run: max(error(run, "pseudo-spherical"), error(run, "f-EBM")),
        high=0.15,
    ),
    Claim("*A generator draws without chains*", lambda run: error(run, "bounds"), high=0.15),
]
