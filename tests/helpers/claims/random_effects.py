import numpy as np

from helpers.claims import Claim


def off(run, name):
    """Total variation between a law and the truth."""
    density, truth = (np.exp(np.asarray(run.log_densities[key])) for key in (name, "truth"))
    return 0.5 * np.abs(density - truth).sum() * 0.02


def truth_at_peak(run, name):
    return np.exp(np.asarray(run.log_densities["truth"])[np.argmax(run.log_densities[name])])


def root_mean_square(run, name):
    return np.sqrt(np.mean((run.draws[name].mean(1) - run.truth) ** 2))


def length(run, name):
    low, high = np.quantile(run.draws[name], [0.05, 0.95], axis=1)
    return (high - low).mean()


CLAIMS = [
    Claim(
        "The energy finds the two factories nonetheless", lambda run: off(run, "energy"), high=0.4
    ),
    Claim(
        "the normal law has its peak where there are hardly any sensors",
        lambda run: truth_at_peak(run, "normal"),
        high=0.05,
    ),
    Claim(
        "`az.compare` ranks the laws by how well they predict",
        lambda run: run.comparison.index[0] == "energy",
        low=1,
    ),
    Claim(
        "with good reason: the errors above are smaller too",
        lambda run: root_mean_square(run, "energy") / root_mean_square(run, "normal"),
        high=0.95,
    ),
    Claim(
        "intervals are shorter",
        lambda run: length(run, "energy") / length(run, "normal"),
        high=0.95,
    ),
    Claim("the answer is a probability", lambda run: run.right[run.settled].mean(), low=0.9),
]
