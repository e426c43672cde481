import arviz as az
import numpy as np

from helpers.claims import Claim


def summary(run, name, column):
    return az.summary(run.runs[name].to_arviz(), kind="diagnostics")[column]


def r_hat(run, name):
    return summary(run, name, "r_hat").max()


def off(run, draws):
    """Largest error of the weights of the modes."""
    return np.abs(run.shares(draws) - np.asarray(run.WEIGHTS)).max()


def warns(run, name, end):
    """Whether a warning is between the name of a run and the end of its output."""
    return "Warning" in run.printed.split(name)[1].split(end)[0]


def width(run, name):
    return float(run.results[name].upper - run.results[name].lower)


def ess(run, name):
    return float(run.results[name].effective_sample_size)


CLAIMS = [
    Claim("modes get their weights", lambda run: off(run, run.draws), high=0.03),
    Claim(
        "*slow* accepts nearly every step and gets nowhere",
        lambda run: run.runs["slow"].statistics["acceptance_rate"].mean(),
        low=0.95,
    ),
    Claim(
        "R-hat and ESS show it at once",
        lambda run: min(r_hat(run, "slow"), 100 / summary(run, "slow", "ess_bulk").min()),
        low=1.5,
    ),
    Claim(
        "*scattered* mixes well within modes",
        lambda run: az.ess(np.asarray(run.runs["scattered"].samples)[:1, :, 0]),
        low=100,
    ),
    Claim(
        "R-hat is far above 1: each chain has seen another part",
        lambda run: r_hat(run, "scattered"),
        low=1.5,
    ),
    Claim("Its R-hat and ESS are excellent", lambda run: r_hat(run, "one mode"), high=1.01),
    Claim(
        "Its R-hat and ESS are excellent",
        lambda run: summary(run, "one mode", "ess_bulk").min(),
        low=400,
    ),
    Claim(
        "it has missed most of the mass",
        lambda run: run.shares(run.runs["one mode"].samples)[:2].max(),
        high=0.0,
    ),
    Claim(
        "and warned above", lambda run: warns(run, "Running one mode", "Running exchange"), low=1
    ),
    Claim("*exchange* has an R-hat near 1", lambda run: r_hat(run, "exchange"), high=1.05),
    Claim(
        "and the right weights, from the same starts as *scattered*",
        lambda run: off(run, run.runs["exchange"].samples),
        high=0.06,
    ),
    Claim("Swap rates near 0", lambda run: run.swaps.min(), low=0.1),
    Claim(
        "as flat as those of *exchange*",
        lambda run: r_hat(run, "one mode") - r_hat(run, "exchange"),
        high=0.01,
    ),
    Claim("Few of them hit narrow modes", lambda run: ess(run, "importance"), high=100),
    Claim(
        "nothing bounds $\\log Z$ from above",
        lambda run: run.results["importance"].upper,
        low=np.inf,
    ),
    Claim(
        "forward paths give the lower bound, reverse paths the upper one",
        lambda run: min(3.0 - run.results["patient"].lower, run.results["patient"].upper - 3.0),
        low=0.0,
    ),
    Claim(
        "The more temperatures, the closer they are",
        lambda run: width(run, "hasty") / width(run, "patient"),
        low=2.0,
    ),
    Claim("as in *hasty*, it warns", lambda run: warns(run, "\nimportance ", "\nhasty "), low=1),
    Claim("*grid* integrates", lambda run: abs(run.results["grid"].estimate - 3.0), high=1e-3),
    Claim(
        "the fewer of the paths count", lambda run: ess(run, "patient") / ess(run, "hasty"), low=2.0
    ),
]
