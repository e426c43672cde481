"""Every formula gives the same, in single precision, with arrays of any library."""

import importlib

import numpy as np
import pytest

from pyro_ebm.core.objectives import krylov
from pyro_ebm.core.objectives.bidirectional_bounds import half_squared_norm, hinge
from pyro_ebm.core.objectives.contrastive_divergence import contrastive_divergence
from pyro_ebm.core.objectives.divergences import DIVERGENCES, alpha_divergence, find_divergence
from pyro_ebm.core.objectives.energy_discrepancy import energy_discrepancy
from pyro_ebm.core.objectives.f_divergence import f_divergence, log_ratio_metrics
from pyro_ebm.core.objectives.jacobian import log_det, smallest
from pyro_ebm.core.objectives.kale import fenchel_bound, log_normalizer_gradient, log_partition
from pyro_ebm.core.objectives.maximum_likelihood import maximum_likelihood
from pyro_ebm.core.objectives.negatives import energy_metrics, mean_square, weight_metrics
from pyro_ebm.core.objectives.pseudo_spherical import pseudo_spherical, pseudo_spherical_metrics
from pyro_ebm.core.objectives.score_matching import (
    coordinate_directions,
    denoising_score_matching,
    score_matching,
)

LIBRARIES = ["array_api_strict", "torch", "jax.numpy"]


def read(metrics):
    return [metric() for metric in metrics.values()]


def divergence_functions(name, ell):
    divergence = find_divergence(name)
    functions = divergence.a, divergence.b, divergence.a_derivative, divergence.b_derivative
    return [function(ell) for function in functions]


def kale_functions(energies, log_normalizer):
    partition = log_partition(energies)
    gradients = [log_normalizer_gradient(partition, log_normalizer, safe=s) for s in (True, False)]
    bounds = [fenchel_bound(partition, number) for number in (log_normalizer, 0.25)]
    return [partition, *bounds, *gradients]


def krylov_functions(matrices, start):
    def product(v):
        return (matrices @ v[..., None])[..., 0]

    def transposed(u):
        return (u[:, None, :] @ matrices)[:, 0, :]

    descent, state = krylov.begin_descent(product, start), krylov.begin_bidiagonal(start, 5, 2)
    for step in range(2):
        descent = krylov.descend(product, transposed, descent)
        state = krylov.bidiagonalize(product, transposed, step, state)
    return [descent.image**2, *krylov.quadrature(state)]


rng = np.random.default_rng(0)
ELL, BATCH, DRAWS = np.linspace(-3, 3, 61), rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
ROWS, NUMBERS = rng.normal(size=(4, 2, 3)), np.array([0.3, -40.0, 40.0])
COPIES = rng.normal(size=(5, 4, 3))
MATRICES, START = rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 3))

FORMULAS = {
    **{name: (lambda ell, f=name: divergence_functions(f, ell), ELL) for name in DIVERGENCES},
    "alpha": (lambda ell: divergence_functions(alpha_divergence(0.7), ell), ELL),
    "f": (lambda x, y: f_divergence(DIVERGENCES["neyman"], x, y, bound=1.5), BATCH, DRAWS),
    "f metrics": (lambda x, y: read(log_ratio_metrics(x, y, 0.5)), BATCH, DRAWS),
    "discrepancy": (
        lambda x, y: [energy_discrepancy(x, y, 0.3)],
        BATCH,
        rng.normal(size=(5, 4, 3)),
    ),
    "contrastive": (lambda x, y: [contrastive_divergence(x, y), mean_square(x, y)], BATCH, DRAWS),
    "likelihood": (lambda x, y: [maximum_likelihood(x, y, y)], BATCH, DRAWS),
    "spherical": (lambda x, y: pseudo_spherical(0.5, x, y), BATCH, DRAWS[:, 0]),
    "sizes": (lambda x, y: read(pseudo_spherical_metrics(0.5, x, y)), BATCH, DRAWS),
    "metrics": (lambda x, y: read({**energy_metrics(x, y), **weight_metrics(y)}), BATCH, DRAWS),
    "kale": (kale_functions, DRAWS, NUMBERS),
    "bounds": (lambda x: [half_squared_norm(x), *hinge(x, 0.7, 0.2)], ROWS),
    "scores": (lambda g, v: [score_matching(g, v, v, 2)], ROWS, rng.normal(size=(5, 4, 2, 3))),
    "denoising": (lambda g, v: [denoising_score_matching(g, v, 0.3, 1)], ROWS, ROWS),
    "directions": (lambda identity: [coordinate_directions(identity, 2, (2, 3))], np.eye(6)),
    "jacobian": (lambda j: [log_det(j), log_det(j[:, :3, :]), smallest(j)], MATRICES),
    "krylov": (krylov_functions, MATRICES, START),
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", FORMULAS)
def test_same_in_every_library(library, name):
    xp = importlib.import_module(library)
    function, *arrays = FORMULAS[name]
    arrays = [array.astype(np.float32) for array in arrays]
    compiled = importlib.import_module("jax").jit(function) if library == "jax.numpy" else function
    found = compiled(*(xp.asarray(array) for array in arrays))
    tolerance = 1e-3 if name in {"jacobian", "krylov"} else 1e-5
    for ours, expected in zip(found, function(*arrays), strict=True):
        assert np.asarray(ours).dtype == np.float32
        np.testing.assert_allclose(np.asarray(ours), expected, rtol=tolerance, atol=1e-5)
