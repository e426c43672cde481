import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers.hosts.numpyro import normal
from jax import random
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import biject_to

import pyro_ebm.numpyro as ebm
from pyro_ebm.numpyro.model.posterior import Posterior

pytestmark = pytest.mark.usefixtures("float64")

NUM_DATA, NUM_FEATURES, NUM_CHAINS = 6, 3, 4
MASK = np.array([True, True, False])
KEY = random.key(0)


def energy(z):
    return 0.3 * (z**4).sum(-1)


def base():
    return normal(scale=2.0)


class NoSampler(ebm.MALA):
    """Stands in where the energy-based prior itself must not be sampled."""

    def init(self, potential, position):
        raise AssertionError


def local_model(x, subsample_size=None):
    """Two latents of a datum, one of them constrained and with a plate of its own."""
    with numpyro.plate("data", NUM_DATA, subsample_size, dim=-2) as index:
        z = numpyro.sample("z", ebm.EnergyBased(energy, base(), sampler=NoSampler(1.0)))
        with numpyro.plate("features", NUM_FEATURES, dim=-1):
            w = numpyro.sample("w", dist.Gamma(2.0, 3.0))
            with handlers.mask(mask=MASK), handlers.scale(scale=0.5):
                numpyro.sample("x", dist.Normal(w + z.sum(-1), 0.7), obs=x[index])


def data():
    return random.normal(random.key(5), (NUM_DATA, NUM_FEATURES))


def by_hand(x, z, w):
    """The two parts of the log-density of each datum, over z and log w; x without subsampling."""
    log_volume = jnp.log(w)
    prior = base().log_prob(z)[..., 0] + (dist.Gamma(2.0, 3.0).log_prob(w) + log_volume).sum(-1)
    observed = 0.5 * (dist.Normal(w + z.sum(-1), 0.7).log_prob(x) * MASK).sum(-1)
    return prior, observed - energy(z)[..., 0]


@jax.jit
def densities(x, positions):
    """Of one posterior under subsampling: ours with chains, ours of each chain, and by hand."""
    posterior = Posterior(KEY, local_model, (x,), {"subsample_size": 2})
    with posterior.hidden(), numpyro.plate("data", NUM_DATA, 2, dim=-2) as index:
        drawn = x[index]
    prior, rest = posterior.log_densities(positions)
    values = jax.vmap(posterior.values)(positions)
    expected = jax.vmap(by_hand, in_axes=(None, 0, 0))(drawn, values["z"], values["w"])
    each = jax.vmap(posterior.potential)(positions)
    return (prior, rest, posterior.potential(positions)), each, expected


def test_densities_of_each_element():
    positions = random.normal(KEY, (NUM_CHAINS, 2, 1, 2 + NUM_FEATURES))
    (prior, rest, potential), each, expected = densities(data(), positions)
    np.testing.assert_allclose(prior[..., 0], expected[0])
    np.testing.assert_allclose(rest[..., 0], expected[1])
    np.testing.assert_allclose(potential[..., 0], -sum(expected))
    np.testing.assert_allclose(potential, each)


@jax.jit
def starts_and_round_trip(x, position):
    posterior = Posterior(KEY, local_model, (x,))
    values = posterior.values(position)
    starts = posterior.starts(random.key(1), 4000)
    return posterior.start, posterior.layout.unpack(starts), values, posterior.position(values)


def test_position_inverts_values_and_starts_are_draws_from_bases():
    position = random.normal(KEY, (NUM_DATA, 1, 2 + NUM_FEATURES))
    start, starts, values, again = starts_and_round_trip(data(), position)
    assert values["z"].shape == (NUM_DATA, 1, 2)
    assert values["w"].shape == (NUM_DATA, NUM_FEATURES)
    assert (values["w"] > 0).all()
    np.testing.assert_allclose(again, position)
    assert start.shape == position.shape
    z, w = np.asarray(starts["z"]), np.exp(starts["w"])
    assert z.mean() == pytest.approx(0.0, abs=4 * 2.0 / math.sqrt(z.size))
    assert z.var() == pytest.approx(4.0, abs=4 * 4.0 * math.sqrt(2 / z.size))
    assert w.mean() == pytest.approx(2 / 3, abs=4 * math.sqrt(2 / 9 / w.size))
    # No two chains, and no two data points, start alike.
    assert np.unique(z).size == z.size


def global_model(x):
    loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(loc, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_a_latent_outside_of_a_plate_ties_its_elements():
    @jax.jit
    def potentials(x, positions):
        posterior = Posterior(KEY, global_model, (x,))
        values = posterior.layout.unpack(positions)
        loc, z = values["loc"], values["z"]
        standard = dist.Normal(0.0, 1.0)
        local = standard.log_prob(z - loc) + standard.log_prob(x - z)
        return posterior.potential(positions), -standard.log_prob(loc[:, 0]) - local.sum(-1)

    x, positions = random.normal(KEY, (5,)), random.normal(KEY, (NUM_CHAINS, 1, 6))
    potential, expected = potentials(x, positions)
    np.testing.assert_allclose(potential[:, 0], expected)


def model_with_a_site_outside(x, depends):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)
    penalty = z.sum() if depends else x.sum()
    numpyro.factor("penalty", -(penalty**2))


def test_a_site_outside_counts_if_it_depends_on_latents():
    @jax.jit
    def potentials(x, z):
        free = Posterior(KEY, model_with_a_site_outside, (x, False))
        tied = Posterior(KEY, model_with_a_site_outside, (x, True))
        standard = dist.Normal(0.0, 1.0)
        log_joint = standard.log_prob(z) + standard.log_prob(x - z)
        return free.potential(z[:, None]), tied.potential(z[None]), log_joint

    z = random.normal(random.key(1), (5,))
    free, tied, log_joint = potentials(random.normal(KEY, (5,)), z)
    np.testing.assert_allclose(free, -log_joint)
    np.testing.assert_allclose(tied, [-log_joint.sum() + z.sum() ** 2])


def test_parameters_come_from_outer_handlers():
    def model(x):
        weight = numpyro.param("weight", 1.0)
        with numpyro.plate("data", len(x)):
            prior = ebm.EnergyBased(lambda z: weight * z**2, dist.Normal(0.0, 1.0))
            z = numpyro.sample("z", prior)
            numpyro.sample("x", dist.Normal(weight * z, 1.0), obs=x)

    @jax.jit
    def potential(position, **params):
        with handlers.substitute(data=params):
            return Posterior(KEY, model, (jnp.zeros(3),)).potential(position)

    position = random.normal(KEY, (3, 1))
    difference = potential(position, weight=2.0) - potential(position)
    np.testing.assert_allclose(difference, 2.5 * position[:, 0] ** 2)


def wrapped_model():
    """Energy priors in every wrapper, that cannot be sampled themselves."""
    prior = ebm.EnergyBased(energy, base(), sampler=NoSampler(1.0))
    shift = dist.transforms.AffineTransform(100.0, 1.0)
    numpyro.sample("plain", prior)
    numpyro.sample("joined", prior.expand([3]).to_event(1))
    moved = dist.TransformedDistribution(prior.expand([3]), shift)
    numpyro.sample("moved", moved.expand([2, 3]).to_event(2))
    with numpyro.plate("data", 3):
        numpyro.sample("masked", prior.expand([3]).mask(MASK))
        numpyro.sample("expanded", dist.TransformedDistribution(prior, shift).expand([1]))
    scan(lambda carry, _: (carry, numpyro.sample("steps", prior)), 0.0, jnp.arange(2))


@jax.jit
def wrapped_starts():
    posterior = Posterior(KEY, wrapped_model)
    return posterior.layout.unpack(posterior.starts(random.key(1), 4000))


def test_starts_look_through_wrappers():
    for name, value in wrapped_starts().items():
        loc = 100.0 if name in ("moved", "expanded") else 0.0
        assert value.mean() == pytest.approx(loc, abs=0.2), name
        assert value.std() == pytest.approx(2.0, rel=0.05), name


# --- refusals ---


def discrete():
    numpyro.sample("k", dist.Bernoulli(0.5))


def fixed():
    numpyro.sample("z", dist.Delta(jnp.array(1.0)))


def subsampled():
    loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", 10, subsample_size=2):
        numpyro.sample("x", dist.Normal(loc, 1.0), obs=jnp.zeros(2))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (discrete, "continuous latent variables, got Bernoulli.* at site 'k'"),
        (fixed, "continuous latent variables, got Delta at site 'z'"),
        (subsampled, "no subsampling in plate 'data', .* 2 of 10 elements"),
        (lambda: None, "with latent variables, got none"),
    ],
)
def test_refusals(model, message):
    with pytest.raises(ValueError, match=message):
        Posterior(KEY, model)


def test_a_prior_without_base_has_no_normalized_part():
    posterior = Posterior(
        KEY, lambda: numpyro.sample("z", ebm.EnergyBased(lambda z: z**2, event_shape=()))
    )
    posterior.potential(posterior.start)
    with pytest.raises(ValueError, match="a base at energy-based site 'z', got base=None"):
        posterior.log_densities(posterior.start)


def test_supports_may_depend_on_other_latents():
    def model():
        width = numpyro.sample("width", dist.Gamma(3.0, 1.0))
        numpyro.sample("z", dist.Uniform(0.0, width))

    @jax.jit
    def evaluate(position):
        posterior = Posterior(KEY, model)
        values = posterior.values(position)
        width, z = values["width"], values["z"]
        expected = dist.Gamma(3.0, 1.0).log_prob(width) + jnp.log(width) - jnp.log(width)
        to_z = biject_to(dist.Uniform(0.0, width).support)
        expected = expected + to_z.log_abs_det_jacobian(position[1], z)
        return width, z, posterior.potential(position), expected

    width, z, potential, expected = evaluate(random.normal(KEY, (2,)))
    assert 0 < z < width
    np.testing.assert_allclose(potential, -expected)
