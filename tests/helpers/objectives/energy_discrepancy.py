import math

import numpy as np
import pytest

from helpers import shared_noise
from helpers.oracles import (
    FITTED_PRECISIONS,
    GAUSSIAN_VALUES,
    gaussian_discrepancy,
    gaussian_discrepancy_gradient,
)

pytestmark = pytest.mark.usefixtures("float64")

rng = np.random.default_rng(0)


def quadratic(host, shape, base=None):
    """E = a |x|^2 / 2 as a function of parameters."""

    def prior(p):
        def energy(x):
            return 0.5 * p["a"] * (x.reshape(len(x), -1) ** 2).sum(-1)

        return host.ebm.EnergyBased(energy, base, event_shape=shape)

    return prior


# The log of a mean of M terms is low by half their relative variance over M (Jensen), which grows
# exponentially with dimension and variance: in 16 dimensions the noise is small.
@pytest.mark.parametrize(
    ("shape", "parameters"),
    [((1,), parameters) for parameters in GAUSSIAN_VALUES]
    + [((2,), (2.0, 1.0, 0.5)), ((1, 2, 2), (3.0, 0.5, 0.04)), ((16,), (1.0, 1.0, 0.1))],
)
def test_value_and_gradient_are_the_closed_form(host, shape, parameters):
    a, sigma2, t = parameters
    dims, num_data = math.prod(shape), 4000 // math.prod(shape)
    objective = host.ebm.EnergyDiscrepancy(variance=t, num_samples=256, stabilization=0.0)
    x = math.sqrt(sigma2) * rng.normal(size=(num_data, *shape))
    found = host.step(objective, quadratic(host, shape), {"a": a}, x)
    error = found.loss.std() / math.sqrt(num_data)
    exact = dims * gaussian_discrepancy(*parameters)
    assert found.loss.mean() == pytest.approx(exact, abs=4 * error + 0.01 * dims)
    exact = dims * gaussian_discrepancy_gradient(*parameters)
    assert found.gradients["a"] == pytest.approx(exact, abs=0.03 * dims + 4 * error)


@pytest.mark.parametrize(("parameters", "value"), GAUSSIAN_VALUES.items())
def test_closed_form_has_the_stated_values(parameters, value):
    assert gaussian_discrepancy(*parameters) == pytest.approx(value, abs=1e-12)


def fitted(host, objective, prior, params, x, **options):
    """Mean of the last third of the steps of the one parameter."""
    (path,) = host.train(objective, prior, params, x, **options).values()
    return path[-(len(path) // 3) :].mean()


def fitted_precision(host, **settings):
    """Of data N(0, 1)."""
    x = rng.normal(size=(4096, 1))
    x = (x - x.mean()) / x.std()
    objective = host.ebm.EnergyDiscrepancy(**settings)
    options = {"num_steps": 450, "learning_rate": 0.02}
    return fitted(host, objective, quadratic(host, (1,)), {"a": 1.2}, x, **options)


@pytest.mark.once
@pytest.mark.parametrize("num_samples", [1, 4, 16])
def test_precision_is_unbiased_at_stabilization_one(host, num_samples, optimized):
    found = fitted_precision(host, variance=1.0, num_samples=num_samples)
    assert found == pytest.approx(1.0, abs=0.05)


@pytest.mark.once
@pytest.mark.parametrize(("stabilization", "variance"), FITTED_PRECISIONS)
def test_bias_of_other_stabilizations(host, stabilization, variance):
    found = fitted_precision(host, variance=variance, num_samples=1, stabilization=stabilization)
    assert found == pytest.approx(FITTED_PRECISIONS[stabilization, variance], rel=0.05)


@pytest.mark.once
def test_weights_of_a_well_separated_mixture(host, optimized):
    x = rng.normal(size=(4096, 1)) + 5.0 - 10.0 * (np.arange(4096)[:, None] % 5 == 0)

    def prior(p):
        def energy(x):
            low, high = (-0.5 * (x[:, 0] - mode) ** 2 for mode in (-5.0, 5.0))
            log_weight = -host.xp.logaddexp(0 * p["logit"], -p["logit"])
            return -host.xp.logaddexp(log_weight + low, log_weight - p["logit"] + high)

        return host.ebm.EnergyBased(energy, event_shape=(1,))

    objective = host.ebm.EnergyDiscrepancy(variance=32.0, num_samples=16)
    logit = fitted(host, objective, prior, {"logit": 0.0}, x, num_steps=200)
    assert 1 / (1 + math.exp(-logit)) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(("num_samples", "stabilization"), [(16, 1.0), (4, 0.5), (8, 0.0)])
def test_constant_energy(host, num_samples, stabilization):
    settings = {"num_samples": num_samples, "stabilization": stabilization}
    flat = host.ebm.EnergyBased(lambda x: x[:, 0] * 0 + 3.0, event_shape=(2,))
    loss = host.loss(host.ebm.EnergyDiscrepancy(variance=1.0, **settings), flat, np.ones((5, 2)))
    expected = math.log((num_samples + stabilization) / num_samples)
    np.testing.assert_allclose(loss, np.full(5, expected))


def test_base_is_part_of_the_potential(host, optimized):
    """Data N(0, 1/2) over a base N(0, 1): the energy must add precision 1, not 2."""
    x = math.sqrt(0.5) * rng.normal(size=(4096, 1))
    base = host.dist.Normal(host.array([0.0]), 1.0).to_event(1)
    objective = host.ebm.EnergyDiscrepancy(variance=0.5, num_samples=8)
    options = {"num_steps": 500, "learning_rate": 0.02}
    found = fitted(host, objective, quadratic(host, (1,), base), {"a": 0.2}, x, **options)
    assert found == pytest.approx(1 / (x**2).mean() - 1, abs=0.05)


def test_constrained_support(host, optimized):
    """Gamma(3, 1) as an energy over the flat measure on the half line, its rate learned."""

    def prior(p):
        return host.ebm.EnergyBased(
            lambda x: p["rate"] * x - 2.0 * host.xp.log(x),
            event_shape=(),
            support=host.dist.constraints.positive,
        )

    x = np.random.default_rng(1).gamma(3.0, size=4096)
    objective = host.ebm.EnergyDiscrepancy(variance=0.5, num_samples=8)
    options = {"num_steps": 400, "learning_rate": 0.02}
    found = fitted(host, objective, prior, {"rate": 2.0}, x, **options)
    assert found == pytest.approx(3 / x.mean(), abs=0.06)


def check_shared_noise(host, tolerance):
    """The numbers by hand, for given noise."""

    def prior(p):
        base = host.dist.Normal(host.array(np.zeros(3)), shared_noise.BASE_SCALE).to_event(1)
        return host.ebm.EnergyBased(lambda x: host.xp.tanh(x @ p["w"].T + p["b"]) @ p["v"], base)

    kernel = host.GivenPerturbation(shared_noise.Y, shared_noise.NEGATIVES)
    objective = host.ebm.EnergyDiscrepancy(
        num_samples=shared_noise.NUM_SAMPLES,
        stabilization=shared_noise.STABILIZATION,
        perturbation=kernel,
    )
    params = {"w": shared_noise.W, "b": shared_noise.B, "v": shared_noise.V}
    found = host.step(objective, prior, params, shared_noise.X)
    tolerances = {"atol": tolerance, "rtol": tolerance}
    np.testing.assert_allclose(found.loss, shared_noise.losses(), **tolerances)
    assert found.metrics == pytest.approx(shared_noise.metrics(), rel=10 * tolerance)
    for name, expected in shared_noise.gradients().items():
        np.testing.assert_allclose(found.gradients[name], expected, **tolerances)
    return found


def test_value_and_gradients_by_hand(host):
    check_shared_noise(host, 1e-12)


# Six copies: in two chunks of unequal size, and one by one.
@pytest.mark.parametrize(("chunk_size", "stabilization"), [(4, 0.5), (1, 0.0)])
def test_chunks(host, chunk_size, stabilization):
    """Value, gradient and metrics are those of all copies at once."""

    def step(objective):
        prior, x = quadratic(host, (2,)), np.linspace(-1, 1, 10).reshape(5, 2)
        return host.step(objective, prior, {"a": 1.3}, x)

    offsets = np.linspace(-1, 2, chunk_size)
    kernels = [host.GivenOffsets(offsets), host.GivenOffsets(2 * offsets)]
    settings = {"perturbation": kernels, "num_samples": 6, "stabilization": stabilization}
    whole = step(host.ebm.EnergyDiscrepancy(**settings))
    found = step(host.ebm.EnergyDiscrepancy(**settings, chunk_size=chunk_size))
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-12)
    np.testing.assert_allclose(found.gradients["a"], whole.gradients["a"], rtol=1e-12)
    assert found.metrics == pytest.approx(whole.metrics, rel=1e-12)


def test_each_chunk_has_noise_of_its_own(host):
    line = host.ebm.EnergyBased(lambda x: x, event_shape=())
    objective = host.ebm.EnergyDiscrepancy(variance=1.0, num_samples=2, chunk_size=1)
    metrics = host.loss_of(objective, line, np.zeros(1)).read()
    # The standard deviation of 0, a and a.
    of_twins = abs(float(metrics["energy_gap"])) * math.sqrt(2) / 3
    assert float(metrics["energy_scale"]) != pytest.approx(of_twins, rel=1e-3)


def test_a_chunk_outside_of_the_support_counts_as_zero_terms(host):
    def prior(p):
        interval = host.dist.constraints.interval(0.0, 10.0)
        base = host.dist.Normal(host.array(0.0), 1.0)
        return host.ebm.EnergyBased(lambda x: p["a"] * x, base, support=interval)

    kernel = host.GivenOffsets([0.1, -50.0])
    for chunk_size in (None, 1):
        settings = {"perturbation": kernel, "num_samples": 2, "chunk_size": chunk_size}
        found = host.step(host.ebm.EnergyDiscrepancy(**settings), prior, {"a": 1.0}, np.ones(3))
        assert np.isfinite(found.gradients["a"]).all()
