"""Noise on codes against matrix exponentials, and energy discrepancy by enumeration."""

import itertools

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from pyro_ebm.column_perturbations import (
    Cyclic,
    Masking,
    Ordinal,
    Product,
    Uniform,
    walks,
)
from pyro_ebm.core.columns import Column
from pyro_ebm.core.objectives.energy_discrepancy import mask_one_discrepancy
from pyro_ebm.core.objectives.perturbations import GaussianPerturbation

# Two columns of 3 and 2 codes, in row-major order.
P = np.array([0.31491751, 0.12123495, 0.3348646, 0.02912338, 0.07757849, 0.12228107])
U = np.array([0.76103773, 0.12167502, 0.44386323, 0.33367433, 1.49407907, -0.20515826])
STATES = np.array(list(itertools.product(range(3), range(2))))


def laplacian(kind, size):
    code = np.arange(size)
    gap = abs(code[:, None] - code)
    edges = {"uniform": gap > 0, "ordinal": gap == 1, "cyclic": (gap == 1) | (gap == size - 1)}
    rate = edges[kind] / (size if kind == "uniform" else 1)
    return rate - np.diag(rate.sum(-1))


KERNELS = {"uniform": Uniform, "ordinal": Ordinal, "cyclic": Cyclic}


@pytest.mark.parametrize("time", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("size", [2, 3, 4, 16])
@pytest.mark.parametrize("kind", KERNELS)
def test_matrix_exponential(kind, size, time):
    if (kind, size) == ("cyclic", 2):
        with pytest.raises(ValueError, match="3 codes or more on a circle, got 2"):
            Cyclic(time).transition_matrix(size)
        return
    found = KERNELS[kind](time).transition_matrix(size)
    np.testing.assert_allclose(found, expm(time * laplacian(kind, size)), atol=1e-12)


@pytest.mark.parametrize("kernel", [Cyclic, Ordinal])
def test_gaussian_limit(kernel):
    # The middle code moves by sqrt(2 tau) of the unit interval.
    size, tau = 256, 0.005
    row = kernel(tau * size**2).transition_matrix(size)[size // 2]
    moved = (np.arange(size) - size // 2) / size
    assert np.sqrt(row @ moved**2) == pytest.approx(0.1, rel=2e-3)


def discrepancy(p, u, q):
    """ED by enumeration, of a symmetric kernel."""
    contrastive = -np.log(q @ np.exp(-u))
    return p @ u - p @ q @ contrastive


# Closed forms: p = (.5, .3, .2), U = (0, 1, -.5), at U and at -log p.
VALUES = {
    ("cyclic", 0.1): (0.0988100419, -0.0312055389),
    ("cyclic", 1.0): (0.2050259231, -0.0687861584),
    ("ordinal", 0.1): (0.0702920400, -0.0128175569),
    ("ordinal", 1.0): (0.1878011930, -0.0597987513),
    ("uniform", 0.1): (0.0416679102, -0.0125813937),
    ("uniform", 1.0): (0.1795036189, -0.0596087398),
    ("cyclic", 100.0): (0.2055183167, -0.0689592746),
    ("ordinal", 100.0): (0.2055183167, -0.0689592746),
    ("uniform", 100.0): (0.2055183167, -0.0689592746),
}


@pytest.mark.parametrize(("kind", "time"), VALUES)
def test_values_of_a_column(kind, time):
    p, u = np.array([0.5, 0.3, 0.2]), np.array([0.0, 1.0, -0.5])
    q = KERNELS[kind](time).transition_matrix(3)
    found = discrepancy(p, u, q), discrepancy(p, -np.log(p), q)
    np.testing.assert_allclose(found, VALUES[kind, time], atol=1e-9)
    if time == 100.0:  # Maximum likelihood.
        assert found[0] == pytest.approx(p @ u + logsumexp(-u) - np.log(3), abs=1e-9)


def product_kernel(*kernels):
    """The transition matrix on the product of 3 and 2 codes."""
    columns = Column.nominal(3), Column.nominal(2)
    tables, deviations = walks(Product(kernels), columns)
    assert not deviations.any()
    rows = [np.diff(tables[c, :size, :size], prepend=0.0) for c, size in enumerate((3, 2))]
    return np.kron(*rows)


@pytest.mark.parametrize(
    ("kernels", "at_u", "at_p"),
    [
        ((Uniform(1.0), Uniform(1.0)), 0.1075722357, -0.2261794545),
        ((Cyclic(0.5), Ordinal(0.5)), 0.1071450245, -0.2307689005),
    ],
)
def test_values_on_a_product(kernels, at_u, at_p):
    q = product_kernel(*kernels)
    assert discrepancy(P, U, q) == pytest.approx(at_u, abs=2e-8)
    assert discrepancy(P, -np.log(P), q) == pytest.approx(at_p, abs=2e-8)


def population_loss(p, u, q, w):
    """The loss with one copy, averaged over everything."""
    pairs = (p[:, None] * q) @ q
    return (pairs * np.log(w + np.exp(u[:, None] - u))).sum()


@pytest.mark.parametrize(
    ("w", "lowest", "highest"), [(1.0, 0, 1e-6), (0.1, 0.05, 0.3), (4.0, 0.02, 0.15)]
)
def test_stabilization_of_one_is_exact(w, lowest, highest):
    q = product_kernel(Uniform(1.0), Uniform(1.0))
    if w == 1.0:
        assert population_loss(P, U, q, w) == pytest.approx(0.7402129512, abs=2e-8)
        assert population_loss(P, -np.log(P), q, w) == pytest.approx(0.5819894039, abs=2e-8)
    fit = minimize(lambda u: population_loss(P, u, q, w), np.zeros(6), tol=1e-14)
    assert lowest <= abs(softmax(-fit.x) - P).max() < highest


def test_mask_one_is_pseudo_likelihood():
    u = U.reshape(3, 2)
    first = [np.stack([u[(a + k) % 3, b] for a, b in STATES]) for k in (1, 2)]
    second = [np.stack([u[a, 1 - b] for a, b in STATES])]
    loss = mask_one_discrepancy(U, np.stack(first + second), [3, 2])
    # Sum of log p(x_c | the other).
    log_p = [-2 * u[a, b] - logsumexp(-u[:, b]) - logsumexp(-u[a]) for a, b in STATES]
    np.testing.assert_allclose(2 * loss + np.log(6), -np.array(log_p), atol=1e-12)
    assert P @ loss == pytest.approx(0.012896569256, abs=2e-8)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Uniform(0.0), ValueError, "`time` to be a positive number, got 0.0"),
        (lambda: Product([Masking(1.0)]), TypeError, "`kernels` of Uniform"),
        (lambda: Product([0.5]), TypeError, "got 0.5"),
        (lambda: walks(Product([Uniform(1.0)]), (Column.nominal(2),) * 2), ValueError, "2 kernels"),
        (lambda: walks(Uniform(1.0), (Column.numeric(),)), ValueError, "fits column 0"),
        (
            lambda: walks(Product([GaussianPerturbation(1.0)]), (Column.nominal(3),)),
            ValueError,
            "fits column 0",
        ),
    ],
)
def test_wrong_noise(make, error, message):
    with pytest.raises(error, match=message):
        make()
