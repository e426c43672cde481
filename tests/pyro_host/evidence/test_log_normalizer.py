import math

import pyro.distributions as dist
import pytest
import torch
from brackets import LOG_FACTOR, exact_draws, log_normalizer
from brackets_pyro import mixture, network, quartic
from pyro.distributions import constraints

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.evidence.annealing import _chosen

HOPELESS = ebm.MALA(1e-6, target_acceptance=None)


def gaussian(num_dims, precision=3.0):
    """log Z = -num_dims / 2 * log(1 + precision)."""
    base = dist.Normal(torch.zeros(num_dims), 1.0).to_event(1)
    return ebm.EnergyBased(lambda x: 0.5 * precision * x.square().sum(-1), base)


def flat_quartic():
    return ebm.EnergyBased(lambda x: x.pow(2) / 2 + x.pow(4) / 4, event_shape=())


def contains(result, truth):
    return bool(((result.lower < truth) & (truth < result.upper)).all())


@pytest.mark.parametrize(
    ("num_dims", "num_samples", "num_temperatures", "sampler"),
    [(2, 200, 30, ebm.MALA(1.0)), (16, 300, 100, ebm.MALA(1e-3)), (64, 400, 1000, None)],
)
def test_brackets_contain_the_truth(num_dims, num_samples, num_temperatures, sampler):
    result = ebm.log_normalizer(
        mixture(num_dims),
        num_samples=num_samples,
        num_temperatures=num_temperatures,
        sampler=sampler,
    )
    assert contains(result, LOG_FACTOR)
    assert result.upper - result.lower < 1
    assert abs(result.estimate - LOG_FACTOR) < 4 * result.standard_error
    assert result.log_weights.shape == result.reverse_log_weights.shape == (num_samples,)


def test_brackets_and_errors_over_many_runs():
    # The elements of a batch are runs of their own.
    result = ebm.log_normalizer(mixture(2, (60,)), num_samples=200, num_temperatures=30)
    assert result.estimate.shape == (60,)
    assert (result.lower < LOG_FACTOR).sum() >= 56
    assert (result.upper > LOG_FACTOR).sum() >= 56
    scores = (result.estimate - LOG_FACTOR) / result.standard_error
    assert 0.7 < scores.square().mean().sqrt() < 1.35
    assert (result.upper - result.lower).median() < 0.4
    assert (result.estimate[1:] != result.estimate[:-1]).all()


@pytest.mark.parametrize("method", ["annealed", "importance", "grid"])
def test_quartic(method):
    result = ebm.log_normalizer(quartic(), method=method, num_temperatures=20)
    assert contains(result, log_normalizer("quartic"))
    assert result.estimate == pytest.approx(log_normalizer("quartic"), abs=0.05)
    assert result.standard_error < 0.05


def test_grid_needs_no_base():
    truth = log_normalizer("quartic") + 0.5 * math.log(2 * math.pi)
    assert truth == pytest.approx(0.66024, abs=1e-5)
    result = ebm.log_normalizer(flat_quartic(), method="grid")
    assert contains(result, truth)
    assert result.upper - result.lower < 1e-3
    positive = constraints.independent(constraints.positive, 1)
    far = ebm.EnergyBased(
        lambda x: 50 * (x - 30).square().sum(-1), event_shape=(2,), support=positive
    )
    assert ebm.log_normalizer(far, method="grid").estimate == pytest.approx(
        math.log(math.pi / 50), abs=1e-3
    )


def test_network_annealed_and_on_a_grid():
    grid = ebm.log_normalizer(network(), method="grid")
    assert contains(grid, log_normalizer("network"))
    assert grid.upper - grid.lower < 1e-3
    annealed = ebm.log_normalizer(network(), num_samples=400, num_temperatures=50, num_moves=50)
    assert contains(annealed, grid.estimate)
    assert annealed.upper - annealed.lower < 0.8


@pytest.mark.parametrize("options", [{"num_temperatures": 2}, {"sampler": HOPELESS}])
def test_a_bad_run_widens_the_bracket_and_warns(options):
    with pytest.warns(UserWarning, match=r"log Z of EnergyBased\(energy.* are worth \d\.\d equal"):
        result = ebm.log_normalizer(mixture(16), num_samples=200, **options)
    assert contains(result, LOG_FACTOR)
    assert result.upper == result.standard_error == math.inf


def test_exact_draws_bound_from_above_in_any_case():
    draws = torch.as_tensor(exact_draws(200, 16, seed=0), dtype=torch.float32)
    with (
        pytest.warns(UserWarning, match="too few to rely on"),
        pytest.warns(UserWarning, match="only known to lie between .* nats apart"),
    ):
        result = ebm.log_normalizer(mixture(16), num_samples=200, num_temperatures=2, draws=draws)
    assert contains(result, LOG_FACTOR)
    assert 1 < result.upper - result.lower < math.inf
    assert abs(result.estimate - LOG_FACTOR) < 2 * result.standard_error < math.inf
    draws = torch.as_tensor(exact_draws(1000, 2, seed=0), dtype=torch.float32)
    result = ebm.log_normalizer(mixture(2), method="importance", draws=draws)
    assert contains(result, LOG_FACTOR)
    assert result.upper - result.lower < 1


def test_chains_that_are_stuck_are_named():
    stuck = ebm.MALA(1e3, target_acceptance=None)
    with pytest.warns(UserWarning, match=r"MALA\(step_size=1000.* accepted 0.0% of the moves"):
        ebm.log_normalizer(gaussian(2), num_samples=200, num_temperatures=5, sampler=stuck)


def test_weights_are_unbiased_whatever_the_schedule():
    result = ebm.log_normalizer(quartic(), num_samples=50_000, num_temperatures=2, num_moves=1)
    weights = (result.log_weights - log_normalizer("quartic")).exp()
    assert abs(weights.mean() - 1) < 4 * weights.std() / math.sqrt(50_000)
    inverse = (log_normalizer("quartic") - result.reverse_log_weights).exp()
    assert abs(inverse.mean() - 1) < 6 * inverse.std() / math.sqrt(50_000)
    assert weights.std() > 0.05


def test_draws_are_chosen_by_their_weights():
    weights = torch.tensor([[0.0, 0.3], [0.7, 0.1], [0.2, 0.0], [0.1, 0.6]])
    chosen = _chosen(weights.repeat(250, 1).log())
    assert chosen.shape == (1000, 2)
    for column, expected in zip(chosen.T, weights.T, strict=True):
        shares = torch.bincount(column % 4, minlength=4) / 1000
        assert torch.allclose(shares, expected, atol=5e-2)


def test_cost():
    calls = []

    def energy(x):
        calls.append(len(x))
        return 0.1 * x.pow(2).sum(-1)

    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    options = {"num_samples": 50, "num_temperatures": 7, "num_moves": 11}
    ebm.log_normalizer(ebm.EnergyBased(energy, base), **options)
    pilot, there_and_back, draws = 100 * (1 + 2 * 200), 2 * 50 * (1 + 2 * 7), 50 * (1 + 11)
    assert sum(calls) == pilot + there_and_back + draws
    calls.clear()
    ebm.log_normalizer(
        ebm.EnergyBased(energy, base), sampler=ebm.HMC(0.1, num_leapfrog=3), **options
    )
    assert sum(calls) == 100 * (1 + 4 * 200) + 2 * 50 * (1 + 4 * 7) + 50 * (1 + 3 * 11)


def test_supports_and_batches():
    # exp(-x) times Gamma(2, rate): Z = (rate / (rate + 1))^2.
    rates = torch.tensor([1.0, 3.0])
    distribution = ebm.EnergyBased(lambda x: x, dist.Gamma(2.0, rates))
    truth = 2 * torch.log(rates / (rates + 1))
    for method in ("annealed", "grid"):
        result = ebm.log_normalizer(
            distribution, method=method, num_samples=500, num_temperatures=20, num_moves=20
        )
        assert result.estimate.tolist() == pytest.approx(truth.tolist(), abs=0.03)
        assert result.lower.shape == result.upper.shape == (2,)
    assert contains(result, truth)


def test_energies_that_forbid_values():
    forbidding = ebm.EnergyBased(
        lambda x: torch.where(x > 0, 0.5 * x, math.inf), dist.Laplace(0.0, 1.0)
    )
    # Half of the base, and then the integral of exp(-1.5 x).
    result = ebm.log_normalizer(forbidding, num_samples=2000, num_temperatures=10)
    assert contains(result, math.log(1 / 3))
    assert (result.log_weights == -math.inf).float().mean() == pytest.approx(0.5, abs=0.1)


def test_a_box_that_does_not_close_is_named():
    flat = ebm.EnergyBased(lambda x: 0 * x, event_shape=())
    with pytest.warns(UserWarning, match="No box closes around EnergyBased"):
        result = ebm.log_normalizer(flat, method="grid")
    assert result.upper == math.inf


class OnlySamples(dist.Normal):
    def log_prob(self, value):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("distribution", "options", "message"),
    [
        (flat_quartic(), {}, "with a base to start from, got base=None"),
        (quartic(), {"method": "magic"}, "`method` to be one of .*, got 'magic'"),
        (quartic(), {"num_samples": 0}, "`num_samples` to be an integer of at least 1, got 0"),
        (quartic(), {"num_moves": 0}, "`num_moves` to be an integer of at least 1, got 0"),
        (quartic(), {"sampler": ebm.Langevin(0.1)}, "accepts or rejects .* got Langevin"),
        (quartic(), {"sampler": ebm.KineticLangevin(0.1)}, "accepts or rejects .* got Kinetic"),
        (quartic(), {"draws": torch.zeros(5, 1)}, r"`draws` of shape .* \(\) .*got \(5, 1\)"),
        (
            quartic(),
            {"method": "importance", "draws": torch.full((5,), math.nan)},
            "numbers at `draws`, got NaN .* 5 of 5",
        ),
        (gaussian(4), {"method": "grid"}, "event of 1 to 3 dimensions .*got 4"),
        (
            ebm.EnergyBased(lambda x: x, OnlySamples(0.0, 1.0)),
            {},
            "base with sample and log_prob, got OnlySamples",
        ),
        (
            ebm.EnergyBased(lambda x: (x - 1).sqrt(), dist.Normal(0.0, 1.0)),
            {"method": "importance"},
            "numbers at draws of the base, got NaN .* of 1000 paths",
        ),
    ],
)
def test_errors(distribution, options, message):
    with pytest.raises(ValueError, match=message):
        ebm.log_normalizer(distribution, **options)


def test_importance_needs_no_density():
    distribution = ebm.EnergyBased(lambda x: 0.5 * x.square(), OnlySamples(0.0, 1.0))
    result = ebm.log_normalizer(distribution, method="importance")
    assert result.estimate == pytest.approx(-0.5 * math.log(2), abs=0.1)
    assert result.upper == math.inf
