import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from helpers import quadratic_energy, tanh_energy
from jax import lax, random
from numpyro import handlers
from numpyro.contrib.module import eqx_module
from numpyro.distributions import constraints
from numpyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO

import pyro_ebm.numpyro as ebm

pytestmark = pytest.mark.usefixtures("float64")

EXACT = ebm.ScoreMatching("exact")
SLICED = ebm.ScoreMatching("sliced")
METHODS = {
    "exact": EXACT,
    "sliced": SLICED,
    "denoising": ebm.ScoreMatching("denoising", variance=0.1),
}
KEY = random.key(1)


def real(energy, shape, base=None):
    support = constraints.independent(constraints.real, len(shape))
    return ebm.EnergyBased(energy, base, event_shape=shape, support=support)


def flat(x):
    return x.reshape(len(x), -1)


# --- closed forms ---


def objective_and_loss_by_hand(method, x, arrays):
    num_projections = tanh_energy.NUM_PROJECTIONS
    if method == "exact":
        return EXACT, tanh_energy.exact(x, arrays)
    if method == "sliced":
        objective = ebm.ScoreMatching("sliced", num_projections=num_projections)
        signs = random.rademacher(KEY, (num_projections, *x.shape))
        return objective, tanh_energy.sliced(x, jax.device_get(signs), arrays)
    objective = ebm.ScoreMatching("denoising", variance=tanh_energy.VARIANCE)
    noise = random.normal(KEY, x.shape)
    return objective, tanh_energy.denoising(x, jax.device_get(noise), arrays)


@pytest.mark.parametrize(
    ("method", "shape"),
    [("exact", shape) for shape in tanh_energy.SHAPES]
    + [(method, shape) for method in ("sliced", "denoising") for shape in [(16,), (1, 2, 2)]],
)
def test_value_and_gradients_are_those_by_hand(method, shape):
    x, arrays = tanh_energy.data(shape), tanh_energy.parameters(math.prod(shape))
    objective, (losses, gradients) = objective_and_loss_by_hand(method, x, arrays)

    def loss(net):
        base = dist.Normal(jnp.zeros(shape), net["scale"]).to_event(len(shape))
        prior = real(lambda x: jnp.tanh(flat(x) @ net["w"].T + net["b"]) @ net["v"], shape, base)
        loss = objective.loss(KEY, prior, jnp.asarray(x))
        return loss.sum(), loss

    evaluate = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, found), slopes = evaluate(jax.tree.map(jnp.asarray, arrays))
    assert jnp.allclose(found, losses, atol=1e-10, rtol=1e-10)
    for name, gradient in gradients.items():
        assert jnp.allclose(slopes[name], gradient, atol=1e-10, rtol=1e-10)


def quadratic(amplitude, shape):
    A = jnp.asarray(quadratic_energy.matrix(math.prod(shape)))
    return real(lambda x: 0.5 * amplitude * (flat(x) @ A * flat(x)).sum(-1), shape)


@pytest.mark.parametrize("shape", quadratic_energy.SHAPES)
def test_losses_of_a_quadratic_energy(shape):
    x = quadratic_energy.data(shape)
    sliced = ebm.ScoreMatching("sliced", num_projections=4000)
    denoising = ebm.ScoreMatching("denoising", variance=quadratic_energy.VARIANCE)

    @jax.jit
    def losses_and_gradients(a):
        """Of each value; of each noisy one, which has an amplitude of its own."""
        amplitudes = jnp.full((4000, len(x)), a)
        repeated = jnp.broadcast_to(x, (4000, *x.shape))

        def loss(objective, a, x):
            return objective.loss(KEY, quadratic(a, shape), x)

        return *(
            jax.jvp(lambda a, objective=objective: loss(objective, a, x), (a,), (1.0,))
            for objective in (EXACT, sliced)
        ), jax.jvp(
            lambda a: loss(denoising, a.ravel(), repeated),
            (amplitudes,),
            (jnp.ones_like(amplitudes),),
        )

    exact, sliced, denoised = losses_and_gradients(quadratic_energy.AMPLITUDE)
    bound = 4 * quadratic_energy.sliced_error(math.prod(shape), 4000) + 1e-10
    for found, expected in zip(exact, quadratic_energy.exact(x), strict=True):
        assert jnp.allclose(found, expected, atol=1e-10, rtol=0)
    for found, expected in zip(sliced, quadratic_energy.exact(x), strict=True):
        assert jnp.allclose(found, expected, atol=bound * quadratic_energy.AMPLITUDE, rtol=0)
    for draws, expected in zip(denoised, quadratic_energy.denoising(x), strict=True):
        error = draws.std(0) / math.sqrt(4000)
        assert (abs(draws.mean(0) - expected) < 4 * error).all()


def test_one_random_sign_vector_gives_the_trace_of_a_diagonal_hessian():
    prior, x = real(lambda x: (x**4).sum(-1), (16,)), random.normal(KEY, (7, 16))
    losses = jax.jit(lambda x: [method.loss(KEY, prior, x) for method in (SLICED, EXACT)])
    sliced, exact = losses(x)
    assert jnp.allclose(sliced, exact, atol=0, rtol=1e-13)


class Convolutional(eqx.Module):
    kernel: jax.Array
    weight: jax.Array

    def __call__(self, x):
        hidden = lax.conv_general_dilated(x, self.kernel, (1, 1), "SAME")
        return flat(jax.nn.softplus(hidden)) @ self.weight


def convolutional():
    kernel_key, weight_key = random.split(random.key(4))
    return Convolutional(random.normal(kernel_key, (4, 1, 3, 3)), random.normal(weight_key, (24,)))


def loss_by_hessians(potential, x):
    """Exact losses from the full Hessian of each value by itself."""

    def loss(row):
        def energy(flat_row):
            return potential(flat_row.reshape((1, *row.shape)))[0]

        gradient = jax.grad(energy)(row.ravel())
        return 0.5 * (gradient**2).sum() - jnp.trace(jax.hessian(energy)(row.ravel()))

    return jax.vmap(loss)(x)


def test_convolutional_energies():
    x = random.normal(KEY, (3, 1, 2, 3))

    def total(loss):
        return jax.jit(jax.value_and_grad(lambda net: loss(real(net, (1, 2, 3))).sum()))(
            convolutional()
        )

    found = total(lambda prior: EXACT.loss(KEY, prior, x))
    expected = total(lambda prior: loss_by_hessians(prior.potential, x))
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    assert all(jnp.allclose(*pair, atol=1e-10, rtol=1e-10) for pair in pairs)


@pytest.mark.parametrize("method", ["exact", "sliced"])
def test_flat_and_linear_energies(method):
    x = random.normal(KEY, (5, 2))

    @jax.jit
    @jax.value_and_grad
    def linear(slope):
        return METHODS[method].loss(KEY, real(lambda x: x @ slope, (2,)), x).mean()

    slope = jnp.array([1.0, -2.0])
    loss, gradient = linear(slope)
    assert loss == pytest.approx(2.5)
    assert jnp.allclose(gradient, slope)
    assert (METHODS[method].loss(KEY, real(lambda x: jnp.zeros(len(x)), (2,)), x) == 0).all()


# --- supports, shapes, calls ---


def test_change_of_variables_on_a_constrained_support():
    x = random.gamma(KEY, 2.0, (6,))

    def loss(rate):
        prior = ebm.EnergyBased(lambda x: rate * x, event_shape=(), support=constraints.positive)
        loss = EXACT.loss(KEY, prior, x)
        return loss.sum(), loss

    (_, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(2.0)
    # U(u) = rate e^u - u in u = log x.
    assert jnp.allclose(found, 0.5 * (2 * x - 1) ** 2 - 2 * x, rtol=1e-10)
    assert gradient == pytest.approx(float(((2 * x - 1) * x - x).sum()), rel=1e-10)


def test_a_support_of_fewer_dimensions_than_its_values():
    prior = ebm.EnergyBased(lambda x: x[:, 0] ** 2, dist.Dirichlet(jnp.array([2.0, 3.0, 4.0])))
    x = prior.base.sample(KEY, (3,))
    bijection = dist.biject_to(prior.support)

    def potential(u):
        simplex = bijection(u)
        return prior.potential(simplex) - bijection.log_abs_det_jacobian(u, simplex)

    expected = jax.jit(lambda x: loss_by_hessians(potential, bijection.inv(x)))(x)
    found = jax.jit(lambda x: EXACT.loss(KEY, prior, x))(x)
    assert jnp.allclose(found, expected, rtol=1e-10)


def test_discrete_supports_are_refused():
    prior = ebm.EnergyBased(lambda x: x, dist.Poisson(3.0))
    with pytest.raises(ValueError, match="Expected a continuous support"):
        EXACT.loss(KEY, prior, jnp.ones(2))


@pytest.mark.parametrize("method", METHODS)
def test_a_value_that_all_batch_elements_share(method):
    bases = dist.Normal(jnp.zeros((3, 2)), jnp.array([[0.5], [1.0], [2.0]])).to_event(1)
    prior, x = ebm.EnergyBased(lambda x: (x**4).sum(-1), bases), jnp.array([0.3, -0.7])
    loss = jax.jit(lambda x: METHODS[method].loss(KEY, prior, x))
    shared, repeated = loss(x), loss(jnp.broadcast_to(x, (3, 2)))
    assert shared.shape == (3,)
    assert jnp.allclose(shared, repeated, rtol=1e-12)


@pytest.mark.parametrize(
    "objective",
    [EXACT, ebm.ScoreMatching("sliced", num_projections=3), METHODS["denoising"]],
)
def test_one_call_of_the_energy_and_no_gradient_to_the_value(objective):
    calls = []

    def energy(x):
        calls.append(x.shape)
        return (x**4).sum((1, 2, 3))

    prior, value = real(energy, (1, 2, 3)), random.normal(KEY, (2, 4, 1, 2, 3))

    @jax.jit
    def loss_and_tangent(value):
        return jax.jvp(lambda value: objective.loss(KEY, prior, value), (value,), (value,))

    loss, tangent = loss_and_tangent(value)
    assert loss.shape == (2, 4)
    assert calls == [(8, 1, 2, 3)]
    assert (tangent == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_single_precision_stays_single(method):
    prior = real(lambda x: (x**4).sum(-1), (2,))
    x = jnp.ones((3, 2), jnp.float32)
    loss = jax.eval_shape(lambda x: METHODS[method].loss(KEY, prior, x), x)
    assert loss.dtype == jnp.float32


def test_what_does_not_go_together():
    with pytest.raises(ValueError, match="`variance` to be a positive number, got None"):
        ebm.ScoreMatching("denoising")
    with pytest.raises(ValueError, match="`variance` with method='denoising' only, got 0.1"):
        ebm.ScoreMatching("sliced", variance=0.1)
    with pytest.raises(ValueError, match="`num_projections` with method='sliced' only, got 2"):
        ebm.ScoreMatching(num_projections=2)


def test_it_says_what_it_does():
    assert repr(ebm.ScoreMatching()) == "ScoreMatching('exact')"
    assert repr(SLICED) == "ScoreMatching('sliced', num_projections=1)"
    assert repr(METHODS["denoising"]) == "ScoreMatching('denoising', variance=0.1)"


# --- training ---


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("method", ["sliced", "denoising"])
def test_data_get_the_lower_energy(method):
    blobs = jnp.array([[1.5, 0.0], [-1.5, 0.0]])
    x = jnp.tile(blobs, (128, 1)) + 0.5 * random.normal(KEY, (256, 2))
    net = eqx.nn.MLP(2, "scalar", 32, 2, jax.nn.silu, key=random.key(0))
    arrays, rest = eqx.partition(net, eqx.is_array)
    optimizer = optax.adam(0.01)

    def energy(arrays):
        return jax.vmap(eqx.combine(arrays, rest))

    def step(carry, key):
        arrays, state = carry
        gradient = jax.grad(
            lambda arrays: METHODS[method].loss(key, real(energy(arrays), (2,)), x).mean()
        )(arrays)
        update, state = optimizer.update(gradient, state)
        return (optax.apply_updates(arrays, update), state), None

    start = arrays, optimizer.init(arrays)
    (arrays, _), _ = jax.jit(lambda: lax.scan(step, start, random.split(KEY, 80)))()
    elsewhere = jnp.array([[0.0, 0.0], [0.0, 1.5], [1.5, 1.5], [-1.5, -1.5], [3.0, 0.0]])
    assert energy(arrays)(blobs).max() < energy(arrays)(elsewhere).min() - 0.5


class Bowl(eqx.Module):
    precision: jax.Array

    def __call__(self, z):
        return 0.5 * self.precision * (z**2).sum(-1)


NUM_DATA, WRONG = 1024, 128


def svi_model(x):
    """A prior N(0, 1 / precision) under a likelihood of variance 1; some values are wrong."""
    prior = ebm.EnergyBased(eqx_module("energy", Bowl(jnp.array(0.3))), event_shape=(2,))
    with numpyro.plate("data", NUM_DATA, subsample_size=256) as index:
        with handlers.mask(mask=index >= WRONG):
            z = numpyro.sample("z", prior)
            numpyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x[index])


def svi_guide(x):
    """The exact posterior under a prior of variance 4."""
    with numpyro.plate("data", NUM_DATA, subsample_size=256) as index:
        with handlers.mask(mask=index >= WRONG):
            numpyro.sample("z", dist.Normal(0.8 * x[index], math.sqrt(0.8)).to_event(1))


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    ("objective", "elbo", "variance", "error"),
    [
        (EXACT, Trace_ELBO(num_particles=4), 4.0, 0.006),
        (ebm.ScoreMatching("denoising", variance=2.0), TraceGraph_ELBO(2), 6.0, 0.01),
    ],
)
def test_svi_recovers_the_precision_of_a_latent_prior(objective, elbo, variance, error):
    x = random.normal(random.key(2), (NUM_DATA, 2))
    x = math.sqrt(5.0) * x / jnp.sqrt((x[WRONG:] ** 2).mean())
    x = x.at[:WRONG].set(100.0)
    loss = ebm.EnergyELBO(objective, elbo, num_normalizer_samples=0)
    svi = SVI(svi_model, svi_guide, optax.adam(0.02), loss)

    def step(state, _):
        state = svi.update(state, x)[0]
        return state, svi.get_params(state)["energy$params"].precision

    _, path = jax.jit(lambda x: lax.scan(step, svi.init(random.key(0), x), length=120))(x)
    assert path[-60:].mean() == pytest.approx(1 / variance, rel=4 * error)
