import numpy as np
from evidence.simulation import _log_likelihood, accuracy, exact, observation, prior, simulate
from scipy.stats import multivariate_normal, norm

rng = np.random.default_rng(0)


def assert_moments_agree(draws, theta, weights, *, atol):
    """Of draws, and of weighted points, in units of the standard deviation."""
    mean = weights @ theta
    scale = np.sqrt(weights @ (theta - mean) ** 2)
    np.testing.assert_allclose((draws.mean(0) - mean) / scale, 0, atol=atol)
    np.testing.assert_allclose(draws.std(0) / scale, 1, atol=atol)


def test_two_moons_by_quadrature():
    """The crescent in polar coordinates: radius N(.1, .01), an angle of half a circle."""
    x = simulate("two moons", rng, np.array([[0.3, 0.1]]))[0]
    side = np.linspace(-1, 1, 1501)
    theta = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    plus, minus = theta.sum(1), theta[:, 1] - theta[:, 0]
    place = x.ravel() - np.stack([-np.abs(plus), minus], 1) / np.sqrt(2) - [0.25, 0]
    radius = np.hypot(*place.T)
    density = np.where(place[:, 0] > 0, norm.pdf(radius, 0.1, 0.01) / radius, 0)
    draws = exact("two moons", x, 0, 20_000)
    assert_moments_agree(draws, theta, density / density.sum(), atol=0.03)


def test_likelihood_of_slcp():
    theta, x = prior("SLCP", rng, 3), rng.normal(size=(4, 2))
    expected = []
    for row in theta:
        first, second = row[2:4] ** 2
        between = np.tanh(row[4]) * first * second
        covariance = [[first**2, between], [between, second**2]]
        expected.append(multivariate_normal(row[:2], covariance).logpdf(x).sum())
    constant = 4 * np.log(2 * np.pi)
    np.testing.assert_allclose(_log_likelihood(theta, x) - constant, expected, rtol=1e-8)


def test_simulations_of_slcp():
    theta = np.array([0.5, -1.0, 1.2, 0.7, 0.6])
    x = simulate("SLCP, points", rng, np.tile(theta, (50_000, 1))).reshape(-1, 2)
    scales, between = theta[2:4] ** 2, np.tanh(0.6)
    np.testing.assert_allclose(x.mean(0), theta[:2], atol=0.01)
    np.testing.assert_allclose(x.std(0), scales, rtol=0.01)
    np.testing.assert_allclose(np.corrcoef(x.T)[0, 1], between, atol=0.01)


def test_slcp_by_importance():
    """An observation whose posterior is wide enough for draws of the prior as a reference."""
    x = observation("SLCP", 4)
    theta = prior("SLCP", rng, 1_000_000)
    log_weights = _log_likelihood(theta, x)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    assert 1 / np.sum(weights**2) > 1500
    assert_moments_agree(exact("SLCP", x, 0, 4000), theta, weights, atol=0.12)


def test_accuracy():
    x, y = rng.normal(size=(2, 300, 2))
    assert abs(accuracy(x, y) - 0.5) < 0.1
    assert accuracy(x, y + 4) > 0.97
