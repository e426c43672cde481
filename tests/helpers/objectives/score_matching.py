import math

import numpy as np
import pytest

from helpers import quadratic_energy, tanh_energy
from helpers.objectives.step import assert_mean

pytestmark = pytest.mark.usefixtures("float64")

METHODS = {
    "exact": lambda ebm: ebm.ScoreMatching(),
    "sliced": lambda ebm: ebm.SlicedScoreMatching(),
    "denoising": lambda ebm: ebm.DenoisingScoreMatching(0.1),
}
every_method = pytest.mark.parametrize("method", METHODS)
with_hessian = pytest.mark.parametrize("method", ["exact", "sliced"])

rng = np.random.default_rng(0)


def real(host, energy, shape, base=None):
    support = host.dist.constraints.independent(host.dist.constraints.real, len(shape))
    return host.ebm.EnergyBased(energy, base, event_shape=shape, support=support)


def rows(x):
    return x.reshape(len(x), -1)


# --- closed forms ---


def tanh_case(host, method, shape):
    """Objective, values and parameters, and the losses and gradients by hand."""
    x, arrays = tanh_energy.data(shape), tanh_energy.parameters(math.prod(shape))
    if method == "exact":
        return host.ebm.ScoreMatching(), x, arrays, tanh_energy.exact(x, arrays)
    if method == "sliced":
        num_projections = tanh_energy.NUM_PROJECTIONS
        signs = host.random_signs(num_projections, *x.shape)
        objective = host.ebm.SlicedScoreMatching(num_projections)
        return objective, x, arrays, tanh_energy.sliced(x, signs, arrays)
    noise = host.normal_noise(*x.shape)
    objective = host.ebm.DenoisingScoreMatching(tanh_energy.VARIANCE)
    return objective, x, arrays, tanh_energy.denoising(x, noise, arrays)


def check_by_hand(host, method, shape, tolerance):
    """The numbers of either host agree with those by hand, and so with the other's."""
    objective, x, arrays, (losses, gradients) = tanh_case(host, method, shape)

    def prior(p):
        base = host.dist.Normal(host.array(np.zeros(shape)), p["scale"]).to_event(len(shape))
        energy = lambda x: host.xp.tanh(rows(x) @ p["w"].T + p["b"]) @ p["v"]  # noqa: E731
        return real(host, energy, shape, base)

    found = host.step(objective, prior, arrays, x, weights=len(x))
    np.testing.assert_allclose(found.loss, losses, atol=tolerance, rtol=tolerance)
    for name, expected in gradients.items():
        np.testing.assert_allclose(found.gradients[name], expected, atol=tolerance, rtol=tolerance)
    return found


@every_method
@pytest.mark.parametrize("shape", tanh_energy.SHAPES)
def test_value_and_gradients_by_hand(host, method, shape):
    check_by_hand(host, method, shape, 1e-10)


def quadratic(host, shape):
    A = host.array(quadratic_energy.matrix(math.prod(shape)))

    def prior(p):
        return real(host, lambda x: 0.5 * p["a"] * (rows(x) @ A * rows(x)).sum(-1), shape)

    return prior


@pytest.mark.parametrize("shape", quadratic_energy.SHAPES)
def test_exact_and_sliced_losses_of_a_quadratic_energy(host, shape):
    x, params = quadratic_energy.data(shape)[:1], {"a": quadratic_energy.AMPLITUDE}
    loss, slope = quadratic_energy.exact(x)
    found = host.step(host.ebm.ScoreMatching(), quadratic(host, shape), params, x)
    np.testing.assert_allclose(found.loss, loss, atol=1e-10, rtol=0)
    np.testing.assert_allclose(found.gradients["a"], slope[0], atol=1e-10, rtol=0)
    error = 4 * quadratic_energy.sliced_error(math.prod(shape), 4000) + 1e-10
    found = host.step(host.ebm.SlicedScoreMatching(4000), quadratic(host, shape), params, x)
    np.testing.assert_allclose(found.loss, loss, atol=error * params["a"] + 1e-10, rtol=0)
    np.testing.assert_allclose(found.gradients["a"], slope[0], atol=error, rtol=0)


@pytest.mark.parametrize("shape", quadratic_energy.SHAPES)
def test_denoising_loss_of_a_quadratic_energy(host, shape):
    """Each noisy value has an amplitude of its own."""
    x = quadratic_energy.data(shape)
    num_rows, repeated = 4000 * len(x), np.tile(x, (4000, *(1 for _ in x.shape)))
    params = {"a": np.full(num_rows, quadratic_energy.AMPLITUDE)}
    objective = host.ebm.DenoisingScoreMatching(quadratic_energy.VARIANCE)
    found = host.step(
        objective, quadratic(host, shape), params, repeated.reshape(-1, *shape), weights=num_rows
    )
    expected = quadratic_energy.denoising(x)
    for draws, mean in zip((found.loss, found.gradients["a"]), expected, strict=True):
        assert_mean(draws.reshape(4000, len(x)), mean, np.inf)


def test_random_signs_are_exact_for_a_diagonal_hessian(host):
    prior, x = real(host, lambda x: (x**4).sum(-1), (16,)), rng.normal(size=(7, 16))
    sliced, exact = (host.loss(METHODS[name](host.ebm), prior, x) for name in ("sliced", "exact"))
    np.testing.assert_allclose(sliced, exact, atol=0, rtol=1e-13)


@with_hessian
def test_flat_and_linear_energies(host, method):
    objective, x = METHODS[method](host.ebm), rng.normal(size=(5, 2))
    flat = real(host, lambda x: 0 * x[:, 0], (2,))
    assert np.all(host.loss(objective, flat, x) == 0)

    def linear(p):
        return real(host, lambda x: x @ p["slope"], (2,))

    slope = np.array([1.0, -2.0])
    found = host.step(objective, linear, {"slope": slope}, x)
    np.testing.assert_allclose(found.loss, np.full(5, 2.5))
    np.testing.assert_allclose(found.gradients["slope"], slope)


# --- supports and shapes ---


def test_change_of_variables_on_a_constrained_support(host):
    def prior(p):
        support = host.dist.constraints.positive
        return host.ebm.EnergyBased(lambda x: p["rate"] * x, event_shape=(), support=support)

    x = rng.gamma(2.0, size=6)
    found = host.step(host.ebm.ScoreMatching(), prior, {"rate": 2.0}, x)
    # U(u) = rate e^u - u in u = log x.
    np.testing.assert_allclose(found.loss, 0.5 * (2 * x - 1) ** 2 - 2 * x, rtol=1e-10)
    expected = ((2 * x - 1) * x - x).mean()
    assert found.gradients["rate"] == pytest.approx(expected, rel=1e-10)


@every_method
def test_value_shared_by_batch_elements(host, method):
    """The value of one row is that of three equal ones."""
    scales = host.array([[0.5], [1.0], [2.0]])
    bases = host.dist.Normal(host.array(np.zeros((3, 2))), scales).to_event(1)
    prior, x = host.ebm.EnergyBased(lambda x: (x**4).sum(-1), bases), np.array([0.3, -0.7])
    objective = METHODS[method](host.ebm)
    shared, repeated = (host.loss(objective, prior, v) for v in (x, np.tile(x, (3, 1))))
    assert shared.shape == (3,)
    np.testing.assert_allclose(shared, repeated, rtol=1e-12)


# --- training ---


@every_method
def test_data_get_the_lower_energy(host, method):
    blobs = np.array([[1.5, 0.0], [-1.5, 0.0]])
    x = np.tile(blobs, (128, 1)) + 0.5 * rng.normal(size=(256, 2))

    def net(xp, p):
        def silu(x):
            return x / (1 + xp.exp(-x))

        return lambda x: silu(silu(x @ p["first"] + p["shift"]) @ p["second"]) @ p["third"]

    sizes = {"first": (2, 32), "shift": (32,), "second": (32, 32), "third": (32,)}
    params = {name: rng.normal(size=size) / size[0] ** 0.5 for name, size in sizes.items()}
    path = host.train(
        METHODS[method](host.ebm),
        lambda p: real(host, net(host.xp, p), (2,)),
        params,
        x,
        num_steps=80,
        learning_rate=0.01,
    )
    energy = net(np, {name: values[-1] for name, values in path.items()})
    elsewhere = np.array([[0.0, 0.0], [0.0, 1.5], [1.5, 1.5], [-1.5, -1.5], [3.0, 0.0]])
    assert energy(blobs).max() < energy(elsewhere).min() - 0.5


NUM_DATA, WRONG = 1024, 128


@pytest.mark.parametrize(
    ("objective", "elbo", "variance", "error"),
    [
        (METHODS["exact"], lambda infer: infer.Trace_ELBO(num_particles=4), 4.0, 0.006),
        (METHODS["sliced"], lambda infer: infer.TraceGraph_ELBO(), 4.0, 0.006),
        (
            lambda ebm: ebm.DenoisingScoreMatching(2.0),
            lambda infer: infer.Trace_ELBO(num_particles=2),
            6.0,
            0.01,
        ),
    ],
)
def test_precision_of_a_latent_prior(host, objective, elbo, variance, error):
    """A likelihood of variance 1 and data of variance 5; some values are wrong, and masked."""
    x = rng.normal(size=(NUM_DATA, 2))
    x[WRONG:] *= math.sqrt(5.0) / np.sqrt((x[WRONG:] ** 2).mean())
    x[:WRONG] = 100.0

    def model(x):
        precision = host.ppl.param("precision", host.array(0.3))
        prior = host.ebm.EnergyBased(lambda z: 0.5 * precision * (z**2).sum(-1), event_shape=(2,))
        with host.ppl.plate("data", NUM_DATA, subsample_size=256) as index:
            with host.mask(mask=index >= WRONG):
                z = host.ppl.sample("z", prior)
                host.ppl.sample("x", host.dist.Normal(z, 1.0).to_event(1), obs=x[index])

    def guide(x):
        """The exact posterior under a prior of variance 4."""
        with host.ppl.plate("data", NUM_DATA, subsample_size=256) as index:
            with host.mask(mask=index >= WRONG):
                posterior = host.dist.Normal(0.8 * x[index], math.sqrt(0.8)).to_event(1)
                host.ppl.sample("z", posterior)

    options = {"num_normalizer_samples": 0}
    loss = host.ebm.EnergyELBO(objective(host.ebm), elbo(host.infer), **options)
    found = host.fit(model, guide, loss, host.array(x), num_steps=120, learning_rate=0.02)
    assert found.mean("precision", 60) == pytest.approx(1 / variance, rel=4 * error)
