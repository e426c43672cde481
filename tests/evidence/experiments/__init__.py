"""Experiments: ``CELLS`` of settings, and ``run(host, seed, **cell)`` that returns figures.

``FIGURES`` are those that ``RESULTS.md`` shows, below the docstring of the experiment. ``QUICK``
holds the arguments of a run of seconds. ``OPTIONAL`` cells run where ``--only`` names them.
"""

from importlib import import_module
from typing import Any

NAMES = (
    *("planes", "gaussians_25", "f_divergence_toy", "f_divergence_digits"),
    *("generalized", "tilts", "density", "generalized_digits"),
    *("bounds_planes", "bounds_sandwich", "mode_counting", "bounds_digits"),
    *("langevin_toy", "langevin_digits", "stored_digits", "brackets"),
    *("conditional_normal", "conditional_digits", "mode_weights", "cd_scales"),
    *("learned_likelihood", "hierarchy", "tempering", "bit_codes", "ising"),
    *("mixed_tables", "digits_priors", "anomalies", "simulators"),
)


def load(name: str) -> Any:
    """Import an experiment."""
    return import_module(f"evidence.experiments.{name}")
