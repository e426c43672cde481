import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import linear_gaussian as truth
from helpers.linear_gaussian_pyro import Toy
from pyro.infer.autoguide import AutoMultivariateNormal

import pyro_ebm.pyro as ebm

KNOWN = {"log_normalizers": {"z": 0.5 * math.log(1 / 16 / truth.PRECISION)}}
SETTINGS = {
    "importance": {"num_samples": 500},
    "annealed": {"method": "annealed", "num_samples": 100, "num_temperatures": 20},
}


def fitted_toy(layout="plate", scale=1.1):
    """The toy at its best prior, and a guide that is not quite the posterior."""
    toy = Toy(layout)
    toy.energy.a.data.fill_(math.log(truth.PRECISION - 1 / 16))
    pyro.param("slope", torch.tensor(0.7))
    pyro.param("scale", torch.tensor(scale), constraint=dist.constraints.positive)
    return toy


def exact_log_marginal(x):
    return dist.Normal(0.0, math.sqrt(1 / truth.PRECISION + 1)).log_prob(x)


def check(result, exact):
    """Errors are as large as stated, over many data points."""
    errors = (result.estimate - exact) / result.standard_error
    assert result.estimate.shape == result.standard_error.shape == exact.shape
    assert errors.mean().item() == pytest.approx(0.0, abs=4 / math.sqrt(len(errors)))
    assert errors.square().mean().item() == pytest.approx(1.0, abs=4 * math.sqrt(2 / len(errors)))


# --- exact marginal likelihoods ---


@pytest.mark.parametrize("method", SETTINGS)
def test_each_data_point_is_right_within_its_error(method):
    toy = fitted_toy()
    result = ebm.log_marginal(toy.model, toy.guide, **KNOWN, **SETTINGS[method])()
    check(result, exact_log_marginal(toy.x))
    assert result.standard_error.mean() < 0.1
    assert (result.log_normalizer_error == 0).all()


def test_untuned_kernels_and_batches_of_samples():
    toy, kernel = fitted_toy(), ebm.MALA(0.5, target_accept_prob=None)
    settings = {**SETTINGS["annealed"], "sampler": kernel, "batch_size": 30}
    result = ebm.log_marginal(toy.model, **KNOWN, **settings)()
    check(result, exact_log_marginal(toy.x))
    settings = {"num_samples": 500, "batch_size": 400}
    result = ebm.log_marginal(toy.model, toy.guide, **KNOWN, **settings)()
    check(result, exact_log_marginal(toy.x))


def test_subsampling_leaves_the_numbers_as_they_are():
    toy = fitted_toy("subsample")
    x = {}

    def model():
        with pyro.plate("data", truth.NUM_DATA, subsample_size=64) as index:
            x["drawn"] = toy.x[index]
            z = pyro.sample("z", ebm.EnergyBased(toy.energy, dist.Normal(0.0, 4.0)))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x["drawn"])

    result = ebm.log_marginal(model, **KNOWN, **SETTINGS["annealed"])()
    check(result, exact_log_marginal(x["drawn"]))


@pytest.mark.parametrize("method", SETTINGS)
def test_constrained_latents_without_energies(method):
    counts = torch.arange(12.0)

    def model():
        with pyro.plate("data", len(counts)):
            rate = pyro.sample("rate", dist.Gamma(2.0, 0.5))
            pyro.sample("x", dist.Poisson(rate), obs=counts)

    def guide():
        with pyro.plate("data", len(counts)):
            pyro.sample("rate", dist.Gamma(1.8 + counts, 1.4))

    result = ebm.log_marginal(model, guide, **SETTINGS[method])()
    check(result, dist.GammaPoisson(2.0, 0.5).log_prob(counts))
    assert (result.log_normalizer_error == 0).all()


# --- one number for all data ---


def grouped_model(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_a_latent_outside_of_the_plate():
    x = torch.randn(3)
    exact = dist.MultivariateNormal(torch.zeros(3), torch.ones(3, 3) + 2 * torch.eye(3)).log_prob(x)
    result = ebm.log_marginal(grouped_model, **SETTINGS["annealed"])(x)
    assert result.estimate.shape == ()
    assert abs(result.estimate - exact) < 4 * result.standard_error < 1.0


def test_a_guide_that_ties_data_points():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.randn(3)
    guide = AutoMultivariateNormal(model, init_scale=0.8)
    guide(x)
    exact = dist.Normal(0.0, math.sqrt(2.0)).log_prob(x).sum()
    result = ebm.log_marginal(model, guide, num_samples=4000)(x)
    assert result.estimate.shape == ()
    assert abs(result.estimate - exact) < 4 * result.standard_error < 1.0


# --- log-normalizers ---


def features_model(x, log_normalizer=None):
    """A datum has three latents of one energy-based prior; the first two of them count.

    Another latent, of no consequence, makes them one datum.
    """
    mask = torch.tensor([True, True, False])
    prior = ebm.EnergyBased(
        lambda z: 1.5 * z.square(), dist.Normal(0.0, 1.0), log_normalizer=log_normalizer
    )
    with pyro.plate("data", len(x), dim=-2):
        pyro.sample("idle", dist.Normal(0.0, 1.0))
        with pyro.plate("features", 3, dim=-1), pyro.poutine.mask(mask=mask):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_errors_of_log_normalizers_add_up():
    x = torch.randn(5, 3)
    prior = ebm.EnergyBased(lambda z: 1.5 * z.square(), dist.Normal(0.0, 1.0))
    rough = ebm.log_normalizer(prior, method="importance", num_samples=50)

    def run(log_normalizers):
        pyro.set_rng_seed(1)
        options = {"log_normalizers": log_normalizers, **SETTINGS["annealed"]}
        return ebm.log_marginal(features_model, **options)(x)

    exact, with_error = run({"z": -math.log(2)}), run({"z": rough})
    truth = dist.Normal(0.0, math.sqrt(1.25)).log_prob(x)[:, :2].sum(-1)
    assert ((exact.estimate - truth).abs() < 4 * exact.standard_error).all()
    shift = 2 * (rough.estimate + math.log(2))
    torch.testing.assert_close(with_error.estimate, exact.estimate - shift)
    common = (2 * rough.standard_error).expand(5)
    torch.testing.assert_close(with_error.log_normalizer_error, common)
    expected = (exact.standard_error**2 + common**2).sqrt()
    torch.testing.assert_close(with_error.standard_error, expected)


def test_log_normalizers_are_estimated_or_known():
    x = torch.randn(5, 3)
    truth = dist.Normal(0.0, math.sqrt(1.25)).log_prob(x)[:, :2].sum(-1)
    log_marginal = ebm.log_marginal(features_model, **SETTINGS["annealed"])
    estimated = log_marginal(x)
    assert ((estimated.estimate - truth).abs() < 4 * estimated.standard_error).all()
    assert (estimated.log_normalizer_error > 0).all()
    known = log_marginal(x, log_normalizer=lambda: -math.log(2))
    assert ((known.estimate - truth).abs() < 4 * known.standard_error).all()
    assert (known.log_normalizer_error == 0).all()


# --- warnings and errors ---


def test_few_effective_samples_trigger_a_warning():
    toy = fitted_toy(scale=0.02)
    with pytest.warns(UserWarning, match="is below 10 at .* of 512 data points"):
        ebm.log_marginal(toy.model, toy.guide, **KNOWN, num_samples=50)()


def test_options_of_the_model_are_its_own():
    def model(x, method):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, method), obs=x)

    result = ebm.log_marginal(model, **SETTINGS["annealed"])(torch.tensor(0.5), method=1.0)
    exact = dist.Normal(0.0, math.sqrt(2)).log_prob(torch.tensor(0.5))
    assert abs(result.estimate - exact) < 4 * result.standard_error < 1.0


def test_errors():
    x = torch.randn(3)
    with pytest.raises(ValueError, match="a guide for method='importance', got None"):
        ebm.log_marginal(grouped_model)
    with pytest.raises(ValueError, match="a guide with a density, got one with nothing but Delta"):
        ebm.log_marginal(grouped_model, ebm.LangevinGuide(grouped_model))(x)
    with pytest.raises(ValueError, match=r"energy-based sites of the model \(\[\]\), got 'z'"):
        ebm.log_marginal(grouped_model, method="annealed", log_normalizers={"z": 0.0})(x)
    sampler = ebm.KineticLangevin(0.1)
    with pytest.raises(ValueError, match="accepts or rejects its moves.*, got KineticLangevin"):
        ebm.log_marginal(grouped_model, method="annealed", sampler=sampler)
