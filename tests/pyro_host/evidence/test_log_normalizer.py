import math
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from helpers import normalizers as known
from helpers.hosts.pyro import Bowl, normal
from pyro.distributions import constraints

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.evidence.annealing import resample

MIXTURE, NETWORK, QUARTIC = known.LOG_Z_MIXTURE, known.LOG_Z_NETWORK, known.LOG_Z_QUARTIC


def quartic():
    return ebm.EnergyBased(known.quartic, dist.Normal(0.0, 1.0))


def flat_quartic():
    return ebm.EnergyBased(lambda x: x.pow(2) / 2 + x.pow(4) / 4, event_shape=())


def on_wide_base(energy, arrays, shape):
    constants = (torch.as_tensor(x, dtype=torch.float32) for x in arrays)
    return ebm.EnergyBased(
        partial(energy, *constants),
        dist.Normal(torch.zeros(shape), known.BASE_SCALE).to_event(1),
    )


def mixture(num_dims, batch_shape=()):
    arrays = known.centers(num_dims), known.offsets(num_dims)
    return on_wide_base(known.mixture, arrays, (*batch_shape, num_dims))


def exact_draws(num_draws, num_dims):
    return torch.as_tensor(known.exact_draws(num_draws, num_dims, seed=0), dtype=torch.float32)


def contains(result, truth):
    return bool(((result.lower < truth) & (truth < result.upper)).all())


@pytest.mark.parametrize(
    ("num_dims", "num_samples", "num_temperatures", "sampler"),
    [(2, 200, 30, ebm.MALA(1.0)), (16, 300, 100, ebm.MALA(1e-3)), (64, 400, 1000, None)],
)
def test_brackets_contain_the_truth(num_dims, num_samples, num_temperatures, sampler):
    options = {"num_samples": num_samples, "num_temperatures": num_temperatures}
    result = ebm.log_normalizer(mixture(num_dims), sampler=sampler, **options)
    assert contains(result, MIXTURE)
    assert result.upper - result.lower < 1
    assert abs(result.estimate - MIXTURE) < 4 * result.standard_error
    assert result.log_weights.shape == result.reverse_log_weights.shape == (num_samples,)


def test_brackets_and_errors_over_many_runs():
    # The elements of a batch are runs of their own.
    result = ebm.log_normalizer(mixture(2, (60,)), num_samples=200, num_temperatures=30)
    assert result.estimate.shape == (60,)
    assert (result.lower < MIXTURE).sum() >= 56
    assert (result.upper > MIXTURE).sum() >= 56
    scores = (result.estimate - MIXTURE) / result.standard_error
    assert 0.7 < scores.square().mean().sqrt() < 1.35
    assert (result.upper - result.lower).median() < 0.4
    assert (result.estimate[1:] != result.estimate[:-1]).all()


@pytest.mark.parametrize("method", ["annealed", "importance", "grid"])
def test_quartic(method):
    result = ebm.log_normalizer(quartic(), method=method, num_temperatures=20)
    assert contains(result, QUARTIC)
    assert result.estimate == pytest.approx(QUARTIC, abs=0.05)
    assert result.standard_error < 0.05


def test_grid_needs_no_base():
    truth = QUARTIC + 0.5 * math.log(2 * math.pi)
    assert truth == pytest.approx(0.66024, abs=1e-5)
    result = ebm.log_normalizer(flat_quartic(), method="grid")
    assert contains(result, truth)
    assert result.upper - result.lower < 1e-3
    far = ebm.EnergyBased(
        lambda x: 50 * (x - 30).square().sum(-1),
        event_shape=(2,),
        support=constraints.independent(constraints.positive, 1),
    )
    result = ebm.log_normalizer(far, method="grid")
    assert result.estimate == pytest.approx(math.log(math.pi / 50), abs=1e-3)


def test_network_annealed_and_on_a_grid():
    network = on_wide_base(known.network, (known.W, known.B, known.V), (2,))
    grid = ebm.log_normalizer(network, method="grid")
    assert contains(grid, NETWORK)
    assert grid.upper - grid.lower < 1e-3
    annealed = ebm.log_normalizer(network, num_samples=400, num_temperatures=50, num_moves=50)
    assert contains(annealed, grid.estimate)
    assert annealed.upper - annealed.lower < 0.8


@pytest.mark.parametrize(
    "options", [{"num_temperatures": 2}, {"sampler": ebm.MALA(1e-6, target_accept_prob=None)}]
)
def test_a_bad_run_widens_the_bracket_and_warns(options):
    with pytest.warns(UserWarning, match=r"log Z of EnergyBased\(.* is \d\.\d of 200"):
        result = ebm.log_normalizer(mixture(16), num_samples=200, **options)
    assert contains(result, MIXTURE)
    assert result.upper == result.standard_error == math.inf


def test_exact_draws_bound_from_above_in_any_case():
    with (
        pytest.warns(UserWarning, match="too few to rely on"),
        pytest.warns(UserWarning, match="only known to lie between .* nats apart"),
    ):
        result = ebm.log_normalizer(
            mixture(16), num_samples=200, num_temperatures=2, draws=exact_draws(200, 16)
        )
    assert contains(result, MIXTURE)
    assert 1 < result.upper - result.lower < math.inf
    assert abs(result.estimate - MIXTURE) < 2 * result.standard_error < math.inf
    result = ebm.log_normalizer(mixture(2), method="importance", draws=exact_draws(1000, 2))
    assert contains(result, MIXTURE)
    assert result.upper - result.lower < 1


def test_chains_that_are_stuck_are_named():
    stuck = ebm.MALA(1e3, target_accept_prob=None)
    options = {"num_samples": 200, "num_temperatures": 5, "sampler": stuck}
    with pytest.warns(UserWarning, match=r"MALA\(step_size=1000.* accepted 0.0% of the moves"):
        ebm.log_normalizer(ebm.EnergyBased(Bowl(1.5), normal()), **options)


def test_weights_are_unbiased_whatever_the_schedule():
    result = ebm.log_normalizer(quartic(), num_samples=50_000, num_temperatures=2, num_moves=1)
    weights = (result.log_weights - QUARTIC).exp()
    assert abs(weights.mean() - 1) < 4 * weights.std() / math.sqrt(50_000)
    inverse = (QUARTIC - result.reverse_log_weights).exp()
    assert abs(inverse.mean() - 1) < 6 * inverse.std() / math.sqrt(50_000)
    assert weights.std() > 0.05


def test_resampling_follows_the_weights():
    weights = torch.tensor([[0.0, 0.3], [0.7, 0.1], [0.2, 0.0], [0.1, 0.6]])
    chosen = resample(weights.repeat(250, 1).log())
    assert chosen.shape == (1000, 2)
    for column, expected in zip(chosen.T, weights.T, strict=True):
        shares = torch.bincount(column % 4, minlength=4) / 1000
        assert torch.allclose(shares, expected, atol=5e-2)


def test_cost():
    calls = []

    def energy(x):
        calls.append(len(x))
        return 0.1 * x.pow(2).sum(-1)

    distribution = ebm.EnergyBased(energy, normal())
    options = {"num_samples": 50, "num_temperatures": 7, "num_moves": 11}
    ebm.log_normalizer(distribution, **options)
    pilot, there_and_back, draws = 100 * (1 + 2 * 200), 2 * 50 * (1 + 2 * 7), 50 * (1 + 11)
    assert sum(calls) == pilot + there_and_back + draws
    calls.clear()
    ebm.log_normalizer(distribution, sampler=ebm.HMC(0.1, num_steps=3), **options)
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


def test_a_density_without_a_box_is_named():
    flat = ebm.EnergyBased(lambda x: 0 * x, event_shape=())
    with pytest.warns(UserWarning, match="No box encloses EnergyBased"):
        result = ebm.log_normalizer(flat, method="grid")
    assert result.upper == math.inf


@pytest.mark.parametrize(
    ("distribution", "options", "message"),
    [
        (flat_quartic(), {}, "with a base to start from, got base=None"),
        (quartic(), {"sampler": ebm.Langevin(0.1)}, "accepts or rejects .* got Langevin"),
        (quartic(), {"draws": torch.zeros(5, 1)}, r"`draws` of shape .* \(\) .*got \(5, 1\)"),
        (
            quartic(),
            {"method": "importance", "draws": torch.full((5,), math.nan)},
            "numbers at `draws`, got NaN .* 5 of 5",
        ),
        (mixture(4), {"method": "grid"}, "event of 1 to 3 dimensions .*got 4"),
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


class OnlySamples(dist.Normal):
    def log_prob(self, value):
        raise NotImplementedError


def test_importance_needs_no_density():
    distribution = ebm.EnergyBased(lambda x: 0.5 * x.square(), OnlySamples(0.0, 1.0))
    with pytest.raises(ValueError, match="base with sample and log_prob, got OnlySamples"):
        ebm.log_normalizer(distribution)
    result = ebm.log_normalizer(distribution, method="importance")
    assert result.estimate == pytest.approx(-0.5 * math.log(2), abs=0.1)
    assert result.upper == math.inf
