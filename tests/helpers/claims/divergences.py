import numpy as np

from helpers.claims import Claim
from pyro_ebm.core.objectives.divergences import DIVERGENCES


def normal(run, name):
    found = run.fits[name][0].normal()
    return float(found.loc), float(found.scale)


def off(run):
    """Largest error of a mean or a standard deviation."""
    exact = {name: run.exact_fit(f) for name, f in run.FUNCTIONS.items()}
    return np.abs([np.subtract(normal(run, name), exact[name]) for name in run.fits]).max()


def mass(run, name, low, high):
    grid, (loc, scale) = np.asarray(run.grid), normal(run, name)
    density = np.exp(-0.5 * ((grid - loc) / scale) ** 2)
    return density[(grid > low) & (grid < high)].sum() / density.sum()


def in_gap(run, name):
    return mass(run, name, -1.2, -0.4)


def on_the_left(run, name):
    return mass(run, name, -3.0, -1.2)


def between(run, name):
    """Place of a standard deviation between that of reverse KL, 0, and that of KL, 1."""
    scales = [normal(run, key)[1] for key in ("reverse KL", name, "KL")]
    return (scales[1] - scales[0]) / (scales[2] - scales[0])


def log_ratio_error(run, name):
    """Median error of the critic's log-ratio where both densities are above 0.05."""
    energy, critic = run.fits[name]
    log_q = np.asarray(energy.normal().log_prob(run.grid))
    both = np.minimum(np.asarray(run.log_p), log_q) > np.log(0.05)
    found = np.asarray(critic(run.grid) + energy(run.grid))
    return np.median(np.abs(found - (np.asarray(run.log_p) - log_q))[both])


def largest_weight(name):
    """Largest weight of a gradient of critic or energy, at ratios from e^-30 to e^30."""
    divergence, log_ratio = DIVERGENCES[name], np.linspace(-30, 30, 601)
    return max(divergence.a_derivative(log_ratio).max(), divergence.b_derivative(log_ratio).max())


CLAIMS = [
    Claim("its minimum is what training should have found", off, high=0.15),
    Claim("it *covers* both modes", lambda run: on_the_left(run, "KL"), low=0.05),
    Claim(
        "and fills the gap between them as a price",
        lambda run: in_gap(run, "KL") / in_gap(run, "reverse KL"),
        low=1.5,
    ),
    Claim(
        "it *seeks* the larger mode and gives the smaller one up",
        lambda run: on_the_left(run, "reverse KL"),
        high=0.03,
    ),
    Claim(
        "The other two lie between",
        lambda run: max(between(run, "Jensen-Shannon"), between(run, "Hellinger")),
        high=1.0,
    ),
    Claim(
        "here close to KL",
        lambda run: min(between(run, "Jensen-Shannon"), between(run, "Hellinger")),
        low=0.5,
    ),
    Claim(
        "the critic knows the log-ratio",
        lambda run: max(log_ratio_error(run, name) for name in run.fits),
        high=0.25,
    ),
    Claim("has bounded weights", lambda run: largest_weight("jensen_shannon"), high=1.0),
]
