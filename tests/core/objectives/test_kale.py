import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import optimize

from pyro_ebm.core.objectives.kale import (
    check_log_normalizer,
    choose_base_loss,
    fenchel_bound,
    log_normalizer_gradient,
    log_partition,
)

rng = np.random.default_rng(0)


def exact_partition(energies, base):
    """Log-partition over a base of given masses: as if each point were drawn in proportion."""
    return log_partition(energies - np.log(len(base) * base))


def likelihood(energies, data, base):
    """L, of the masses of data and base."""
    return -data @ energies - exact_partition(energies, base)


def bound(energies, log_normalizer, data, base):
    """F, likewise."""
    return -data @ energies - fenchel_bound(exact_partition(energies, base), log_normalizer)


def kl(p, q):
    return p @ np.log(p / q)


def model(energies, base):
    """Masses of the model."""
    return base * np.exp(-energies - exact_partition(energies, base))


def kale(features, data, base):
    """Maximum of L over energies that are linear in the features, and where it is."""

    def descent(weights):
        energies = features @ weights
        gradient = features.T @ (data - model(energies, base))
        return -likelihood(energies, data, base), gradient

    found = optimize.minimize(descent, np.zeros(features.shape[1]), jac=True, tol=1e-12)
    return -found.fun, features @ found.x


# --- discrete, as on the methods page (5.1) ---

P, G, E = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5]), np.array([0.0, 0.5, 1.0])


def test_discrete_values():
    assert exact_partition(E, G) == pytest.approx(-0.5693398059513868, abs=1e-12)
    assert likelihood(E, P, G) == pytest.approx(0.2193398059513868, abs=1e-12)
    assert bound(E, 0.0, P, G) == pytest.approx(0.0841010815004888, abs=1e-12)
    assert bound(E, 0.3, P, G) == pytest.approx(-0.0692282298885165, abs=1e-12)
    assert bound(E, exact_partition(E, G), P, G) == pytest.approx(likelihood(E, P, G), abs=1e-12)
    np.testing.assert_allclose(model(E, G), [0.35342001, 0.32154011, 0.32503989], atol=1e-8)
    assert kl(P, model(E, G)) == pytest.approx(0.0555474136108596, abs=1e-12)
    assert likelihood(-np.log(P / G), P, G) == pytest.approx(kl(P, G), abs=1e-12)


@pytest.fixture
def games():
    """Random data, bases, energies and log-normalizers on six states."""
    masses, energies = rng.dirichlet(np.ones(6), size=(20, 2)), 3.0 * rng.normal(size=(20, 6))
    return list(zip(masses[:, 0], masses[:, 1], energies, rng.normal(size=20), strict=True))


def test_gap_to_the_bound(games):
    for data, base, energies, log_normalizer in games:
        lag = log_normalizer - exact_partition(energies, base)
        gap = likelihood(energies, data, base) - bound(energies, log_normalizer, data, base)
        assert gap == pytest.approx(lag + np.exp(-lag) - 1, rel=1e-9)
        assert gap > 0


def test_likelihood_is_what_the_model_gains(games):
    for data, base, energies, _ in games:
        gain = kl(data, base) - kl(data, model(energies, base))
        assert likelihood(energies, data, base) == pytest.approx(gain, abs=1e-12)


def test_likelihood_is_below_the_divergence(games):
    for data, base, energies, log_normalizer in games:
        assert bound(0.0 * energies, 0.0, data, base) == pytest.approx(0.0, abs=1e-12)
        assert bound(energies, log_normalizer, data, base) < kl(data, base)
        value, best = kale(rng.normal(size=(6, 2)), data, base)
        assert 0 <= value < kl(data, base)
        # At the optimum the model is never worse than the base.
        assert kl(data, model(best, base)) <= kl(data, base)
        value, best = kale(np.eye(6), data, base)
        assert value == pytest.approx(kl(data, base), abs=1e-9)
        assert kale(np.eye(6), data, data)[0] == pytest.approx(0.0, abs=1e-12)


def test_best_energy_matches_moments(games):
    for data, base, *_ in games:
        features = rng.normal(size=(6, 2))
        _, best = kale(features, data, base)
        np.testing.assert_allclose(model(best, base) @ features, data @ features, atol=1e-6)


def test_constants_of_the_energy_drop_out(games):
    for data, base, energies, log_normalizer in games:
        shifted = likelihood(energies + 2.5, data, base)
        assert shifted == pytest.approx(likelihood(energies, data, base), abs=1e-12)
        shifted = bound(energies + 2.5, log_normalizer - 2.5, data, base)
        assert shifted == pytest.approx(bound(energies, log_normalizer, data, base), rel=1e-9)


# --- normal, by quadrature (5.2) ---

X = np.linspace(-16, 16, 3201)


def normal(mean, variance):
    masses = np.exp(-0.5 * (X - mean) ** 2 / variance) + 1e-300
    return masses / masses.sum()


BASE = normal(0.0, 1.0)


def partition_of_model(b, c):
    """Of b x^2 / 2 - c x over N(0, 1)."""
    return 0.5 * c**2 / (1 + b) - 0.5 * math.log(1 + b)


def test_quadratic_energy_over_a_normal():
    energies, data = 0.3 * X**2 - 0.9 * X, normal(0.7, 4.0)
    assert partition_of_model(0.6, 0.9) == pytest.approx(0.0181231853771322, abs=1e-12)
    assert exact_partition(energies, BASE) == pytest.approx(0.0181231853771322, abs=1e-9)
    assert likelihood(energies, data, BASE) == pytest.approx(-0.7351231853771322, abs=1e-9)
    np.testing.assert_allclose(model(energies, BASE), normal(0.5625, 0.625), atol=1e-12)
    assert kl(data, model(energies, BASE)) == pytest.approx(1.7869760048171868, abs=1e-9)


@pytest.mark.parametrize(
    ("scale", "divergence"), [(0.5, 0.5631471805599453), (1.0, 0.245), (2.0, 1.0518528194400547)]
)
def test_divergence_of_quadratic_and_linear_energies(scale, divergence):
    data = normal(0.7, scale**2)
    precision = 1 / scale**2
    best = 0.5 * (precision - 1) * X**2 - 0.7 * precision * X
    assert likelihood(best, data, BASE) == pytest.approx(divergence, abs=1e-9)
    value, linear = kale(X[:, None], data, BASE)
    assert value == pytest.approx(0.245, abs=1e-9)
    np.testing.assert_allclose(linear, -0.7 * X, atol=1e-4)


@pytest.mark.parametrize(("mean", "expected"), [(0.7, 0.7 * 0.4 - 0.08), (0.3, 0.045)])
def test_linear_energies_of_bounded_slope(mean, expected):
    data = normal(mean, 0.25)
    found = optimize.minimize_scalar(
        lambda slope: -likelihood(-slope * X, data, BASE), bounds=(-0.4, 0.4), method="bounded"
    )
    assert -found.fun == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("distance", [2.0, 0.5, 0.01])
def test_disjoint_supports_are_at_a_finite_distance(distance):
    """The best energy of slope 3 at most between two points falls by 3 a unit."""
    data, base = np.array([0.0, 1.0]), np.array([1.0, 1e-300])
    found = optimize.minimize_scalar(
        lambda slope: -likelihood(slope * np.array([0.0, distance]), data, base),
        bounds=(-3.0, 3.0),
        method="bounded",
    )
    assert -found.fun == pytest.approx(3 * distance, rel=1e-5)


# --- the latent model (5.4): z ~ N(0, 1) exp(-E), x | z ~ N(z, 1/2), x = 1.2 ---


@pytest.mark.parametrize(
    ("loc", "variance", "log_normalizer", "expected"),
    [
        (0.9166666667, 0.2777777778, None, -1.1584550510328644),
        (0.9166666667, 0.2777777778, 0.0, -1.1586202725611985),
        (0.9166666667, 0.2777777778, 0.5, -1.2579550048738310),
        (0.5, 0.5, None, -1.5770617185818048),
    ],
)
def test_bound_in_an_elbo(loc, variance, log_normalizer, expected):
    posterior = normal(loc, variance)
    energies, spacing = 0.3 * X**2 - 0.9 * X, X[1] - X[0]
    log_joint = -((1.2 - X) ** 2) - 0.5 * X**2 - 0.5 * np.log(math.pi * 2 * math.pi)
    elbo = posterior @ (log_joint - energies - np.log(posterior / spacing))
    partition = exact_partition(energies, BASE)
    taken = partition if log_normalizer is None else fenchel_bound(partition, log_normalizer)
    assert elbo - taken == pytest.approx(expected, abs=1e-9)


# --- draws (5.5) ---


def test_log_partition_of_draws_is_low():
    """E = -x over N(0, 1), whose log-partition is 1/2."""
    for size, expected in [(1, 0.0), (4, 0.338), (16, 0.451), (64, 0.487), (256, 0.4966)]:
        partitions = log_partition(-rng.normal(size=(size, 10_000)))
        error = partitions.std() / 100
        assert partitions.mean() == pytest.approx(expected, abs=4 * error + 0.0015)
        assert partitions.mean() < 0.5 - 3 * error
        bounds = fenchel_bound(partitions, 0.2)
        exact = fenchel_bound(np.array(0.5), 0.2)
        assert bounds.mean() == pytest.approx(exact, abs=4 * bounds.std() / 100)


# --- directions of the log-normalizer (5.3) ---


@pytest.mark.parametrize(
    ("log_normalizer", "raw", "safe"),
    [(-3.0, -72.69979, -0.986431), (0.0, -2.669297, -0.727468), (1.3, 0.0, 0.0)]
    + [(4.0, 0.932794, 13.879730)],
)
def test_directions_of_the_log_normalizer(log_normalizer, raw, safe):
    partition = np.array(1.3)
    found = log_normalizer_gradient(partition, log_normalizer, safe=False)
    assert found == pytest.approx(raw, rel=1e-6)
    step = 1e-6
    bounds = [fenchel_bound(partition, log_normalizer + d) for d in (step, -step)]
    assert (bounds[0] - bounds[1]) / (2 * step) == pytest.approx(found, rel=1e-6, abs=1e-6)
    preconditioned = log_normalizer_gradient(partition, log_normalizer, safe=True)
    assert preconditioned == pytest.approx(safe, rel=1e-6)
    assert preconditioned == pytest.approx(found / (1 - found), rel=1e-12)


@pytest.mark.parametrize(("safe", "sign"), [(False, 1), (True, -1)])
def test_directions_settle_under_noise(safe, sign):
    partitions = rng.normal(size=100)
    root = sign * np.log(np.mean(np.exp(sign * partitions)))
    assert log_normalizer_gradient(partitions, root, safe=safe).mean() == pytest.approx(0, abs=1e-9)


def test_large_exponents_are_cut():
    far = np.array(500.0)
    assert fenchel_bound(far, 0.0) == math.expm1(30.0)
    assert log_normalizer_gradient(far, 0.0, safe=False) == -math.expm1(30.0)
    assert log_normalizer_gradient(far, 0.0, safe=True) == -1.0
    assert log_normalizer_gradient(-far, 0.0, safe=True) == math.expm1(30.0)
    assert fenchel_bound(-far, 0.0) == -1.0


def test_a_cut_exponent_passes_no_gradient():
    torch = pytest.importorskip("torch")
    partitions = torch.tensor([29.0, 31.0], requires_grad=True)
    fenchel_bound(partitions, 0.0).sum().backward()
    assert partitions.grad.tolist() == pytest.approx([math.exp(29.0), 0.0])


# --- choices ---


def test_default_base_loss():
    dense, implicit = SimpleNamespace(), SimpleNamespace(is_implicit=True)
    assert choose_base_loss(None, dense) == "full"
    assert choose_base_loss(None, implicit) == "generalized"
    for base_loss in ("full", "likelihood", "generalized"):
        assert choose_base_loss(base_loss, dense) == base_loss
    for base_loss in ("full", "likelihood"):
        with pytest.raises(ValueError, match=f"without a density, got '{base_loss}'"):
            choose_base_loss(base_loss, implicit)
    with pytest.raises(ValueError, match="a base to draw from, got base=None"):
        choose_base_loss(None, None)


@pytest.mark.parametrize(
    ("form", "log_normalizer", "message"),
    [
        ("fenchel", None, r"attach\(site, log_normalizer=.*got form='fenchel' and none"),
        ("donsker_varadhan", np.zeros(()), "got form='donsker_varadhan' and one"),
        ("fenchel", np.zeros(3), r"the batch shape of the base, \(2,\), got shape \(3,\)"),
    ],
)
def test_log_normalizer_of_the_wrong_form_or_shape(form, log_normalizer, message):
    with pytest.raises(ValueError, match=message):
        check_log_normalizer(form, log_normalizer, (2,))


@pytest.mark.parametrize("log_normalizer", [0.5, np.zeros(()), np.zeros(2)])
def test_log_normalizer_of_the_right_shape(log_normalizer):
    check_log_normalizer("fenchel", log_normalizer, (2,))
    check_log_normalizer("donsker_varadhan", None, (2,))
