"""Spread of log Z over the parameters of learned likelihoods."""

import warnings

import numpy as np
import pytest
from scipy.optimize import minimize

# --- every pair of 3 parameters and 4 values: training on pairs, and on values given parameters ---

NUM_THETAS, NUM_VALUES = 3, 4
rng = np.random.default_rng(0)
PAIRS = rng.dirichlet(np.ones(12)).reshape(NUM_THETAS, NUM_VALUES) + 0.02
PAIRS /= PAIRS.sum(1, keepdims=True) * NUM_THETAS
MIXING = np.full((NUM_VALUES, NUM_VALUES), 0.15) + 0.4 * np.eye(NUM_VALUES)
# Perturbations of both parts, and of the value alone.
KERNELS = {
    "pairs": np.kron(np.full((3, 3), 0.2) + 0.4 * np.eye(NUM_THETAS), MIXING),
    "values": np.kron(np.eye(NUM_THETAS), MIXING),
}


def fit(kernel):
    """Energies of all pairs that minimize their energy discrepancy, from a random start."""
    data = PAIRS.ravel()

    def loss(energies):
        weights = kernel * np.exp(-energies)
        totals, noisy = weights.sum(1), kernel @ data
        gradient = data - (noisy / totals) @ weights
        return data @ energies + noisy @ np.log(totals), gradient

    start = 2 * np.random.default_rng(3).normal(size=PAIRS.shape)
    # Nothing moves the mean of a parameter's energies where values alone are perturbed.
    start += np.arange(NUM_THETAS)[:, None] - start.mean(1, keepdims=True)
    found = minimize(loss, start.ravel(), jac=True, method="BFGS", options={"gtol": 1e-11})
    return found.x.reshape(PAIRS.shape)


def of_cells(host, energies):
    """Joint energy that is constant on cells, one for each pair."""

    def energy(theta, x):
        cell = host.xp.floor(theta) * NUM_VALUES + host.xp.floor(x)
        return host.xp.sum((cell[:, None] == host.xp.arange(12)) * host.array(energies.ravel()), -1)

    sides = {"theta": NUM_THETAS, "x": NUM_VALUES}
    base = {name: host.dist.Uniform(0.0, host.array(float(n))) for name, n in sides.items()}
    return host.ebm.EnergyBased(energy, host.ebm.Joint(**base))


def posterior_error(energies):
    found = np.exp(-energies) / np.exp(-energies).sum(0)
    return np.abs(found - PAIRS / PAIRS.sum(0)).max()


def draws_given(value, energies, number=240):
    """Parameters, one in each place of a cell, in proportion to the posterior."""
    cdf = np.cumsum(np.exp(-energies[:, value])) / np.exp(-energies[:, value]).sum()
    return np.searchsorted(cdf, (np.arange(number) + 0.5) / number) + 0.5


def test_exact_enumeration(host):
    fitted = {name: fit(kernel) for name, kernel in KERNELS.items()}
    for energies in fitted.values():
        likelihood = np.exp(-energies) / np.exp(-energies).sum(1, keepdims=True)
        np.testing.assert_allclose(likelihood, NUM_THETAS * PAIRS, atol=1e-6)
    assert posterior_error(fitted["pairs"]) < 1e-6
    assert posterior_error(fitted["values"]) > 0.2
    options = {"num_draws": 240, "num_samples": 400}
    result = host.check_conditional(
        of_cells(host, fitted["pairs"]), theta=draws_given(0, fitted["pairs"]), **options
    )
    assert result.prior.spread < 1e-5
    assert result.posterior.spread < 1e-5
    assert result.largest_shift < 1e-5
    with pytest.raises(ValueError, match=r"got a spread of log Z \d\.\d+ nats over the posterior"):
        host.check_conditional(
            of_cells(host, fitted["values"]), theta=draws_given(0, fitted["values"]), **options
        )


# --- x | theta ~ N(theta, 1/4), and log Z(theta) = -slope * theta ---

THETA = np.random.default_rng(1).normal(1.0, 0.4, size=100)


def tilted(host, slope, scale=2.0, prior=None, **options):
    slope = host.array(slope)

    def energy(theta, x):
        return 2 * (x - theta) ** 2 - x**2 / (2 * scale**2) + slope * theta

    prior = host.normal(()) if prior is None else prior
    base = host.ebm.Joint(theta=prior, x=host.normal((), scale=scale))
    return host.ebm.EnergyBased(energy, base, **options)


@pytest.mark.once
def test_spread_and_shift_in_closed_form(host):
    result = host.check_conditional(tilted(host, 0.1), theta=THETA)
    assert result.posterior.spread == pytest.approx(0.1 * THETA.std(), rel=1e-2)
    assert result.prior.spread == pytest.approx(0.1, rel=0.25)
    weights = np.exp(0.1 * THETA) / np.exp(0.1 * THETA).sum()
    shift = (weights @ THETA - THETA.mean()) / THETA.std()
    assert result.largest_shift == pytest.approx(shift, rel=1e-2)
    assert f"{result.posterior.spread:.3f} nats over the posterior" in str(result)
    assert "effective samples" in str(result)


def test_a_spread_that_moves_the_posterior(host):
    match = r"moves by 0\.1\d\d standard deviations.* Train for"
    with pytest.warns(UserWarning, match=match) as caught:
        host.check_conditional(tilted(host, 0.4), theta=THETA)
    assert "site-packages" not in caught[0].filename
    with pytest.raises(ValueError, match="Expected log Z to be the same for all values of"):
        host.check_conditional(tilted(host, 2.0), theta=THETA)


def test_standard_error_of_a_move(host):
    """In three dimensions, where draws of the base are not in strata, against their scatter."""
    slope = host.array(0.3)

    def energy(theta, x):
        squares = 2 * (x - theta[:, None]) ** 2 - x**2 / 2
        return host.xp.sum(squares, -1) + slope * theta

    base = host.ebm.Joint(theta=host.normal(()), x=host.normal((3,)))
    joint = host.ebm.EnergyBased(energy, base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = [
            host.check_conditional(joint, theta=0.5 * THETA, seed=seed) for seed in range(60)
        ]
    moves = np.array([float(result.shift["theta"]) for result in results])
    errors = np.array([float(result.standard_error["theta"]) for result in results])
    weights = np.exp(0.15 * THETA) / np.exp(0.15 * THETA).sum()
    truth = (weights @ THETA - THETA.mean()) / THETA.std()
    assert np.mean(np.abs(moves - truth) < 2.3 * errors) > 0.8
    # A jackknife is too large on average, here by a tenth; the ratio of 60 runs scatters by .12.
    assert 0.7 < np.sqrt(np.mean(errors**2)) / np.std(moves) < 1.6
    assert any(result.certain_shift == 0.0 for result in results)


def test_groups_and_repeated_observations(host):
    """The sum over groups, for each of 4 observations."""
    theta = THETA.reshape(25, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = host.check_conditional(tilted(host, 0.05), theta=theta, num_observations=4)
    assert result.posterior.spread == pytest.approx(0.05 * 4 * theta.sum(1).std(), rel=1e-2)
    assert result.shift["theta"].shape == (4,)


def test_a_spread_that_cannot_be_estimated(host):
    with pytest.warns(UserWarning, match="over the posterior unknown: effective samples .* base"):
        host.check_conditional(tilted(host, 0.0, scale=2000.0), theta=THETA)
    improper = host.dist.ImproperUniform(host.dist.constraints.real, (), ())
    with pytest.raises(ValueError, match="Expected parts with `sample`, got Joint"):
        host.check_conditional(tilted(host, 0.0, prior=improper), theta=THETA)


def test_draws_that_are_no_numbers(host):
    theta = np.where(np.arange(len(THETA)) % 50, THETA, np.nan)
    message = r"draws of \['theta'\] with finite log Z, got NaN or infinity at \d+ of \d+"
    with pytest.raises(ValueError, match=message):
        host.check_conditional(tilted(host, 0.0), theta=theta, num_draws=len(THETA))


def test_draws_that_do_not_fit(host):
    with pytest.raises(ValueError, match="two or more, got"):
        host.check_conditional(tilted(host, 0.0), theta=THETA[:1])
    with pytest.raises(ValueError, match=r"Expected parts out of \['theta', 'x'\], got \['phi'\]"):
        host.check_conditional(tilted(host, 0.0), phi=THETA)
    with pytest.raises(ValueError, match="Expected `num_draws` to be an integer of at least 2"):
        host.check_conditional(tilted(host, 0.0), theta=THETA, num_draws=1)
