import math

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("float64")

NUM_DATA, NUM_FEATURES, NUM_CHAINS = 6, 3, 4
MASK = np.array([True, True, False])
rng = np.random.default_rng(0)
X = rng.normal(size=(NUM_DATA, NUM_FEATURES))


def energy(z):
    return 0.3 * (z**4).sum(-1)


def energy_prior(host):
    """An energy prior that must not be sampled itself."""

    class NoSampler(host.ebm.MALA):
        def init(self, potential, position):
            raise AssertionError

    return host.ebm.EnergyBased(energy, host.normal(scale=2.0), sampler=NoSampler(1.0))


def local_model(host):
    """Two latents of a datum, one of them constrained and with a plate of its own."""

    def model(x, subsample_size=None):
        with host.ppl.plate("data", NUM_DATA, subsample_size, dim=-2) as index:
            z = host.ppl.sample("z", energy_prior(host))
            with host.ppl.plate("features", NUM_FEATURES, dim=-1):
                w = host.ppl.sample("w", host.dist.Gamma(2.0, 3.0))
                with host.mask(mask=host.array(MASK)), host.scale(scale=0.5):
                    host.ppl.sample("x", host.dist.Normal(w + z.sum(-1), 0.7), obs=x[index])

    return model


def by_hand(host, x, z, w):
    """The two parts of the log-density of each datum, over z and log w; x without subsampling."""
    gamma, base = host.dist.Gamma(2.0, 3.0), host.normal(scale=2.0)
    prior = base.log_prob(z)[..., 0] + (gamma.log_prob(w) + host.xp.log(w)).sum(-1)
    observed = host.dist.Normal(w + z.sum(-1), 0.7).log_prob(x) * host.array(MASK)
    return prior, 0.5 * observed.sum(-1) - energy(z)[..., 0]


@pytest.mark.parametrize("subsample_size", [None, 2])
def test_densities_of_each_element(host, subsample_size):
    size = subsample_size or NUM_DATA

    @host.jit
    def densities(x, positions):
        posterior = host.posterior(local_model(host), x, subsample_size)
        assert posterior.layout.plate_shape == (size, 1)
        with posterior.hidden(), host.ppl.plate("data", NUM_DATA, subsample_size, dim=-2) as index:
            drawn = x[index]
        prior, rest = posterior.log_densities(positions)
        each = []
        for position in positions:
            values = posterior.values(position)
            expected = by_hand(host, drawn, values["z"], values["w"])
            each.append((posterior.potential(position), *expected))
        return prior, rest, posterior.potential(positions), each

    positions = host.array(rng.normal(size=(NUM_CHAINS, size, 1, 2 + NUM_FEATURES)))
    prior, rest, potential, each = densities(host.array(X), positions)
    for chain, (own_potential, own_prior, own_rest) in enumerate(each):
        np.testing.assert_allclose(prior[chain, :, 0], own_prior)
        np.testing.assert_allclose(rest[chain, :, 0], own_rest)
        np.testing.assert_allclose(potential[chain], own_potential)
        np.testing.assert_allclose(own_potential[:, 0], -(own_prior + own_rest))


def test_position_inverts_values_and_starts_are_draws_from_bases(host):
    @host.jit
    def evaluate(x, position):
        posterior = host.posterior(local_model(host), x)
        values = posterior.values(position)
        starts = posterior.layout.unpack(host.starts(posterior, 4000))
        return posterior.start, starts, values, posterior.position(values)

    position = host.array(rng.normal(size=(NUM_DATA, 1, 2 + NUM_FEATURES)))
    start, starts, values, again = evaluate(host.array(X), position)
    assert values["z"].shape == (NUM_DATA, 1, 2)
    assert values["w"].shape == (NUM_DATA, NUM_FEATURES)
    assert (values["w"] > 0).all()
    np.testing.assert_allclose(again, position)
    assert start.shape == position.shape
    z, w = np.asarray(starts["z"]), np.exp(np.asarray(starts["w"]))
    assert z.mean() == pytest.approx(0.0, abs=4 * 2.0 / math.sqrt(z.size))
    assert z.var() == pytest.approx(4.0, abs=4 * 4.0 * math.sqrt(2 / z.size))
    assert w.mean() == pytest.approx(2 / 3, abs=4 * math.sqrt(2 / 9 / w.size))
    # No two chains, and no two data points, start alike.
    assert np.unique(z).size == z.size


def test_starts_look_through_wrappers(host):
    def model():
        prior = energy_prior(host)
        shift = host.dist.transforms.AffineTransform(100.0, 1.0)
        moved = host.dist.TransformedDistribution(prior.expand([3]), shift)
        host.ppl.sample("plain", prior)
        host.ppl.sample("joined", prior.expand([3]).to_event(1))
        host.ppl.sample("moved", moved.expand([2, 3]).to_event(2))
        with host.ppl.plate("data", 3):
            host.ppl.sample("masked", prior.expand([3]).mask(host.array(MASK)))
            single = host.dist.TransformedDistribution(prior, shift)
            host.ppl.sample("expanded", single.expand([1]))

    @host.jit
    def starts():
        posterior = host.posterior(model)
        return posterior.layout.unpack(host.starts(posterior, 4000))

    for name, value in starts().items():
        loc = 100.0 if name in ("moved", "expanded") else 0.0
        assert float(value.mean()) == pytest.approx(loc, abs=0.2), name
        assert float(value.std()) == pytest.approx(2.0, rel=0.05), name


def test_a_latent_outside_of_a_plate_ties_its_elements(host):
    def model(x):
        loc = host.ppl.sample("loc", host.dist.Normal(0.0, 1.0))
        with host.ppl.plate("data", len(x)):
            z = host.ppl.sample("z", host.dist.Normal(loc, 1.0))
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x)

    @host.jit
    def potentials(x, positions):
        posterior, standard = host.posterior(model, x), host.dist.Normal(0.0, 1.0)
        assert posterior.layout.plate_shape == (1,)
        values = posterior.layout.unpack(positions)
        loc, z = values["loc"], values["z"]
        local = standard.log_prob(z - loc) + standard.log_prob(x - z)
        return posterior.potential(positions), -standard.log_prob(loc[:, 0]) - local.sum(-1)

    x, positions = rng.normal(size=5), rng.normal(size=(NUM_CHAINS, 1, 6))
    potential, expected = potentials(host.array(x), host.array(positions))
    np.testing.assert_allclose(potential[:, 0], expected)


def test_a_site_outside_counts_if_it_depends_on_latents(host):
    def model(x, depends):
        with host.ppl.plate("data", len(x)):
            z = host.ppl.sample("z", host.dist.Normal(0.0, 1.0))
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x)
        penalty = z.sum() if depends else x.sum()
        host.ppl.factor("penalty", -(penalty**2))

    @host.jit
    def potentials(x, z):
        free, tied = (host.posterior(model, x, depends) for depends in (False, True))
        standard = host.dist.Normal(0.0, 1.0)
        log_joint = standard.log_prob(z) + standard.log_prob(x - z)
        return free.potential(z[:, None]), tied.potential(z[None]), log_joint

    z = host.array(rng.normal(size=5))
    free, tied, log_joint = potentials(host.array(rng.normal(size=5)), z)
    np.testing.assert_allclose(free, -log_joint)
    np.testing.assert_allclose(tied, [-log_joint.sum() + z.sum() ** 2])


def test_supports_may_depend_on_other_latents(host):
    def model():
        width = host.ppl.sample("width", host.dist.Gamma(3.0, 1.0))
        host.ppl.sample("z", host.dist.Uniform(host.xp.zeros_like(width), width))

    @host.jit
    def evaluate(position):
        posterior = host.posterior(model)
        values = posterior.values(position)
        width, z = values["width"], values["z"]
        expected = host.dist.Gamma(3.0, 1.0).log_prob(width) + host.xp.log(width)
        to_z = host.biject_to(host.dist.Uniform(host.xp.zeros_like(width), width).support)
        volume = to_z.log_abs_det_jacobian(position[1], z) - host.xp.log(width)
        return width, z, posterior.potential(position), expected + volume

    width, z, potential, expected = evaluate(host.array(rng.normal(size=2)))
    assert 0 < z < width
    np.testing.assert_allclose(potential, -expected)


# --- refusals ---


def discrete(host):
    host.ppl.sample("k", host.dist.Bernoulli(host.array(0.5)))


def fixed(host):
    host.ppl.sample("z", host.dist.Delta(host.array(1.0)))


def subsampled(host):
    loc = host.ppl.sample("loc", host.dist.Normal(0.0, 1.0))
    with host.ppl.plate("data", 10, subsample_size=2):
        host.ppl.sample("x", host.dist.Normal(loc, 1.0), obs=host.array(np.zeros(2)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (discrete, "continuous latent variables, got Bernoulli.* at site 'k'"),
        (fixed, "continuous latent variables, got Delta at site 'z'"),
        (subsampled, "no subsampling in plate 'data', .* 2 of 10 elements"),
        (lambda host: None, "with latent variables, got none"),
    ],
    ids=["discrete", "fixed", "subsampled", "none"],
)
def test_refusals(host, model, message):
    with pytest.raises(ValueError, match=message):
        host.posterior(lambda: model(host))


def test_a_prior_without_base_has_no_normalized_part(host):
    prior = host.ebm.EnergyBased(lambda z: z**2, event_shape=())
    posterior = host.posterior(lambda: host.ppl.sample("z", prior))
    posterior.potential(posterior.start)
    with pytest.raises(ValueError, match="a base at energy-based site 'z', got base=None"):
        posterior.log_densities(posterior.start)
