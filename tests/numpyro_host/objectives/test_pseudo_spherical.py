import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from helpers.oracles import PSEUDO_SPHERICAL_VALUES, pseudo_spherical_gradient
from jax import lax, random
from numpyro import handlers
from numpyro.infer import SVI

import pyro_ebm.numpyro as ebm
from pyro_ebm.core.infer.metrics import recorded_figures

pytestmark = pytest.mark.usefixtures("float64")

KEY = random.key(0)
X, DRAWS = (np.random.default_rng(0).normal(size=size) for size in (6, 5))
# From -1/2 down the weights have no variance.
GAMMAS = [-0.2, 0.5]
START = np.array([0.4, math.log(1.2), 3.0])


def gaussian(parameters):
    """E(x) = (x - mu)^2 / (2 s^2) + constant."""
    mu, log_scale, constant = parameters
    return lambda x: 0.5 * ((x - mu) / jnp.exp(log_scale)) ** 2 + constant


def flat(parameters):
    return ebm.EnergyBased(gaussian(parameters), event_shape=())


def loss_and_gradient(objective, parameters, x, draws, density=flat, weights=1.0):
    """The losses, and the gradient of the mean of ``weights`` times the losses."""

    def mean_loss(parameters):
        loss = objective.loss(KEY, density(parameters), x, chains=draws)
        return (weights * loss).mean(), loss

    gradient, loss = jax.jit(jax.grad(mean_loss, has_aux=True))(jnp.asarray(parameters))
    return loss, gradient


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradient_is_the_closed_form(gamma):
    noise = random.normal(KEY, (2, 40, 1000))
    x, draws, objective = noise[0] - 0.3, 0.4 + 1.2 * noise[1], ebm.PseudoSpherical(gamma)
    loss, blocks = jax.vmap(lambda x, draws: loss_and_gradient(objective, START, x, draws))(
        x, draws
    )
    assert loss.shape == (40, 1000)
    assert (jnp.abs(blocks[:, 2]) < 1e-12).all()  # A constant of the energy is no matter.
    error = blocks[:, :2].std(0) / math.sqrt(40)
    expected = jnp.array(pseudo_spherical_gradient(gamma, *START[:2]))
    assert (error < 0.02).all()
    assert (jnp.abs(blocks[:, :2].mean(0) - expected) < 4 * error).all()
    if gamma in PSEUDO_SPHERICAL_VALUES:
        assert expected[0] == pytest.approx(PSEUDO_SPHERICAL_VALUES[gamma], abs=1e-6)


def test_value():
    gamma = 0.5
    loss = ebm.PseudoSpherical(gamma).loss(KEY, flat(np.zeros(3)), X, chains=jnp.asarray(DRAWS))
    means = [np.exp(-gamma * y**2 / 2).mean() for y in (DRAWS, X)]
    np.testing.assert_allclose(loss, np.full(6, math.log(means[0] / means[1]) / gamma))


def test_a_constant_of_the_energy_changes_nothing():
    results = [
        loss_and_gradient(ebm.PseudoSpherical(0.7), START + [0, 0, constant], X, DRAWS)
        for constant in (0, 1e3)
    ]
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("scale", [1.2, 1e6])
def test_it_is_contrastive_divergence_if_all_weights_are_equal(scale):
    # Gamma near zero, or an energy that is as good as constant: value by value.
    gamma = 1e-8 if scale == 1.2 else 0.5
    arguments = (np.array([0.4, math.log(scale), 0.0]), X, DRAWS, flat, np.arange(6.0))
    loss, found = loss_and_gradient(ebm.PseudoSpherical(gamma), *arguments)
    expected_loss, expected = loss_and_gradient(ebm.ContrastiveDivergence(), *arguments)
    np.testing.assert_allclose(loss.mean(), expected_loss.mean(), atol=1e-6)
    tolerance = 1e-7 * jnp.abs(expected[:2]).max()
    np.testing.assert_allclose(found[:2], expected[:2], atol=tolerance)


def test_the_base_is_a_part_of_the_energy():
    def base(parameters):
        return dist.Normal(parameters[3], 2.0)

    def with_base(parameters):
        return ebm.EnergyBased(gaussian(parameters[:3]), base(parameters))

    def absorbed(parameters):
        energy, density = gaussian(parameters[:3]), base(parameters)
        return ebm.EnergyBased(lambda x: energy(x) - density.log_prob(x), event_shape=())

    results = [
        loss_and_gradient(ebm.PseudoSpherical(0.5), [*START, 0.3], X, DRAWS, density)
        for density in (with_base, absorbed)
    ]
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_energy_penalty():
    losses = [
        ebm.PseudoSpherical(0.5, energy_penalty=penalty).loss(
            KEY, flat(np.zeros(3)), X, chains=jnp.asarray(DRAWS)
        )
        for penalty in (0.0, 0.2)
    ]
    expected = 0.05 * (X**4 + (DRAWS**4).mean())
    np.testing.assert_allclose(losses[1] - losses[0], expected)


def observed_model(x, mask=True):
    energy = gaussian(numpyro.param("parameters", jnp.array([0.5, math.log(2.0), 0.0])))
    with numpyro.plate("data", len(x)), handlers.mask(mask=mask):
        numpyro.sample("x", ebm.EnergyBased(energy, dist.Normal(0.0, 2.0)), obs=x)


def empty_guide(x, mask=True):
    del x, mask


def test_a_gaussian_is_recovered():
    chains = ebm.PersistentChains(512, (), sampler=ebm.MALA(0.4, num_steps=3))
    loss = ebm.EnergyELBO(ebm.PseudoSpherical(0.5), num_normalizer_samples=0)
    svi = SVI(observed_model, lambda x: ebm.auxiliary("x", chains=chains), optax.adam(0.05), loss)
    x = -0.3 + 0.8 * random.normal(random.key(1), (1024,))

    def step(state, _):
        state = svi.update(state, x)[0]
        mu, log_scale, _ = svi.get_params(state)["parameters"]
        precision = jnp.exp(-2 * log_scale) + 0.25
        return state, jnp.stack([jnp.exp(-2 * log_scale) * mu / precision, precision])

    path = lax.scan(step, svi.init(KEY, x), length=200)[1]
    mean, precision = path[-100:].mean(0)
    # Over seeds they have deviations of 0.008 and 2 %.
    assert mean == pytest.approx(float(x.mean()), abs=0.032)
    assert precision == pytest.approx(float(1 / x.var()), rel=0.08)


def test_figures_of_health():
    # Energies 0, 0 and log 4 have weights 1, 1 and 1/2; those of the draws are 0, 0, 0 and log 4.
    x = np.array([0.0, 0.0, math.sqrt(2 * math.log(4.0))])
    objective, density = ebm.PseudoSpherical(0.5), flat(np.zeros(3))
    with recorded_figures() as figures:
        objective.loss(KEY, density, x, chains=jnp.array([0.0, *x]))
    assert figures["effective_values"]() == pytest.approx(2.5**2 / 2.25)
    assert figures["effective_negatives"]() == pytest.approx(3.5**2 / 3.25)
    assert figures["energy_gap"]() == pytest.approx(math.log(4.0) * (1 / 4 - 1 / 3))


def test_masked_values_have_no_gradient_but_count_in_the_weights():
    mask = jnp.arange(6) < 4
    objective = ebm.PseudoSpherical(0.5)
    chains = jnp.asarray(DRAWS)

    def guide(x, mask):
        ebm.auxiliary("x", chains=chains)

    elbo = ebm.EnergyELBO(objective, num_normalizer_samples=0)

    def emitted_loss(parameters):
        return elbo.loss(KEY, {"parameters": parameters}, observed_model, guide, X, mask)

    def kept_loss(parameters):
        density = ebm.EnergyBased(gaussian(parameters), dist.Normal(0.0, 2.0))
        # NumPyro puts a harmless value, 0, in the place of those that are masked out.
        return objective.loss(KEY, density, jnp.where(mask, X, 0.0), chains=chains)[mask].sum()

    gradients = [jax.jit(jax.grad(loss))(jnp.asarray(START)) for loss in (emitted_loss, kept_loss)]
    np.testing.assert_allclose(*gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("gamma", [-1, -2.0, 0, 0.0])
def test_gamma_out_of_range(gamma):
    with pytest.raises(ValueError, match=f"`gamma` to be above -1 and not 0, got {gamma:g}"):
        ebm.PseudoSpherical(gamma)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"gamma": math.nan}, ValueError, "`gamma` to be a finite number, got nan"),
        ({"sampler": 0.1}, TypeError, "`sampler` to have init and step, got float"),
        ({"num_steps": 0}, ValueError, "`num_steps` to be an integer of at least 1, got 0"),
        ({"energy_penalty": -1}, ValueError, "`energy_penalty` to be a number of at least 0"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ebm.PseudoSpherical(**({"gamma": 0.5} | arguments))


def test_one_base_for_all_values():
    density = ebm.EnergyBased(gaussian(np.zeros(3)), dist.Normal(jnp.zeros(3), 1.0))
    with pytest.raises(ValueError, match=r"one base for all .* of batch shape \(3,\)"):
        ebm.PseudoSpherical(0.5).loss(KEY, density, X[:3])
