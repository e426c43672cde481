import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.hosts.pyro import normal
from pyro import poutine
from torch.distributions import biject_to

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.model.posterior import Posterior

pytestmark = pytest.mark.usefixtures("float64")

NUM_DATA, NUM_FEATURES, NUM_CHAINS = 6, 3, 4
MASK = torch.tensor([True, True, False])


def energy(z):
    return 0.3 * z.pow(4).sum(-1)


def base():
    return normal(scale=2.0)


class NoSampler(ebm.MALA):
    """Stands in where the energy-based prior itself must not be sampled."""

    def init(self, potential, position):
        raise AssertionError


def local_model(x, subsample_size=None):
    """Two latents of a datum, one of them constrained and with a plate of its own."""
    with pyro.plate("data", NUM_DATA, subsample_size, dim=-2) as index:
        z = pyro.sample("z", ebm.EnergyBased(energy, base(), sampler=NoSampler(1.0)))
        with pyro.plate("features", NUM_FEATURES, dim=-1):
            w = pyro.sample("w", dist.Gamma(2.0, 3.0))
            with poutine.mask(mask=MASK), poutine.scale(scale=0.5):
                pyro.sample("x", dist.Normal(w + z.sum(-1), 0.7), obs=x[index])


def data():
    return torch.randn(NUM_DATA, NUM_FEATURES)


def by_hand(x, z, w):
    """The two parts of the log-density of each datum, over z and log w; x without subsampling."""
    prior = base().log_prob(z)[..., 0] + (dist.Gamma(2.0, 3.0).log_prob(w) + w.log()).sum(-1)
    observed = 0.5 * (dist.Normal(w + z.sum(-1), 0.7).log_prob(x) * MASK).sum(-1)
    return prior, observed - energy(z)[..., 0]


@pytest.mark.parametrize("subsample_size", [None, 2])
def test_densities_of_each_element(subsample_size):
    x = data()
    posterior = Posterior(local_model, (x,), {"subsample_size": subsample_size})
    size = subsample_size or NUM_DATA
    assert posterior.layout.plate_shape == (size, 1)
    position = torch.randn(NUM_CHAINS, size, 1, 2 + NUM_FEATURES)
    with posterior.hidden(), pyro.plate("data", NUM_DATA, subsample_size, dim=-2) as index:
        drawn = x[index]
    prior, rest = posterior.log_densities(position)
    for chain in range(NUM_CHAINS):
        values = posterior.values(position[chain])
        expected = by_hand(drawn, values["z"], values["w"])
        torch.testing.assert_close(prior[chain, :, 0], expected[0])
        torch.testing.assert_close(rest[chain, :, 0], expected[1])
        potential = posterior.potential(position[chain])
        torch.testing.assert_close(potential[:, 0], -sum(expected))
    torch.testing.assert_close(posterior.potential(position), -(prior + rest))


def test_position_inverts_values():
    posterior = Posterior(local_model, (data(),))
    position = torch.randn(NUM_DATA, 1, 2 + NUM_FEATURES)
    values = posterior.values(position)
    assert values["z"].shape == (NUM_DATA, 1, 2)
    assert values["w"].shape == (NUM_DATA, NUM_FEATURES)
    assert (values["w"] > 0).all()
    torch.testing.assert_close(posterior.position(values), position)


def test_starts_are_draws_from_priors_and_bases():
    posterior = Posterior(local_model, (data(),))
    assert posterior.start.shape == (NUM_DATA, 1, 2 + NUM_FEATURES)
    values = posterior.layout.unpack(posterior.starts(4000))
    z, w = values["z"], values["w"].exp()
    assert z.mean().item() == pytest.approx(0.0, abs=4 * 2.0 / math.sqrt(z.numel()))
    assert z.var().item() == pytest.approx(4.0, abs=4 * 4.0 * math.sqrt(2 / z.numel()))
    assert w.mean().item() == pytest.approx(2 / 3, abs=4 * math.sqrt(2 / 9 / w.numel()))
    # No two chains, and no two data points, start alike.
    assert z.unique().numel() == z.numel()


def global_model(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_a_latent_outside_of_a_plate_ties_its_elements():
    x = torch.randn(5)
    posterior = Posterior(global_model, (x,))
    position = torch.randn(NUM_CHAINS, *posterior.layout.plate_shape, 6)
    assert posterior.layout.plate_shape == (1,)
    values = posterior.layout.unpack(position)
    loc, z = values["loc"], values["z"]
    standard = dist.Normal(0.0, 1.0)
    expected = standard.log_prob(loc[:, 0])
    expected = expected + (standard.log_prob(z - loc) + standard.log_prob(x - z)).sum(-1)
    torch.testing.assert_close(posterior.potential(position)[:, 0], -expected)


def model_with_a_site_outside(x, depends):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    penalty = z.sum() if depends else x.sum()
    pyro.factor("penalty", -penalty.square())


def test_a_site_outside_counts_if_it_depends_on_latents():
    x, standard = torch.randn(5), dist.Normal(0.0, 1.0)
    free = Posterior(model_with_a_site_outside, (x, False))
    position = torch.randn(5, 1)
    z = position[:, 0]
    log_joint = standard.log_prob(z) + standard.log_prob(x - z)
    torch.testing.assert_close(free.potential(position), -log_joint)
    tied = Posterior(model_with_a_site_outside, (x, True))
    potential = tied.potential(z[None])
    torch.testing.assert_close(potential, -log_joint.sum()[None] + z.sum().square())


def test_parameters_have_their_present_values():
    weight = torch.nn.Parameter(torch.tensor(1.0))

    def model(x):
        pyro.param("weight", weight)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", ebm.EnergyBased(lambda z: weight * z.square(), dist.Normal(0, 1)))
            pyro.sample("x", dist.Normal(weight * z, 1.0), obs=x)

    posterior = Posterior(model, (torch.zeros(3),))
    position = torch.randn(3, 1)
    before = posterior.potential(position)
    weight.data.fill_(2.0)
    torch.testing.assert_close(posterior.potential(position) - before, 2.5 * position[:, 0] ** 2)


def wrapped_model():
    """Energy priors in every wrapper, that cannot be sampled themselves."""
    prior = ebm.EnergyBased(energy, base(), sampler=NoSampler(1.0))
    shift = dist.transforms.AffineTransform(100.0, 1.0)
    moved = dist.TransformedDistribution(prior, shift)
    pyro.sample("plain", prior)
    pyro.sample("joined", prior.expand([3]).to_event(1))
    pyro.sample("moved", moved.expand([3, 1]).to_event(2))
    with pyro.plate("data", 3):
        pyro.sample("masked", prior.expand([3]).mask(MASK))
        pyro.sample("expanded", moved.expand([1]))


def test_starts_look_through_wrappers():
    values = Posterior(wrapped_model).starts(4000)
    values = Posterior(wrapped_model).layout.unpack(values)
    for name, value in values.items():
        loc = 100.0 if name in ("moved", "expanded") else 0.0
        assert value.mean().item() == pytest.approx(loc, abs=0.2), name
        assert value.std().item() == pytest.approx(2.0, rel=0.05), name


# --- refusals ---


def discrete():
    pyro.sample("k", dist.Bernoulli(0.5))


def fixed():
    pyro.sample("z", dist.Delta(torch.tensor(1.0)))


def subsampled():
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 10, subsample_size=2):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=torch.zeros(2))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (discrete, "continuous latent variables, got Bernoulli at site 'k'"),
        (fixed, "continuous latent variables, got Delta at site 'z'"),
        (subsampled, "no subsampling in plate 'data', .* 2 of 10 elements"),
        (lambda: None, "with latent variables, got none"),
    ],
)
def test_refusals(model, message):
    with pytest.raises(ValueError, match=message):
        Posterior(model)


def test_a_prior_without_base_has_no_normalized_part():
    posterior = Posterior(
        lambda: pyro.sample("z", ebm.EnergyBased(lambda z: z.square(), event_shape=()))
    )
    posterior.potential(posterior.start)
    with pytest.raises(ValueError, match="a base at energy-based site 'z', got base=None"):
        posterior.log_densities(posterior.start)


def test_supports_may_depend_on_other_latents():
    def model():
        width = pyro.sample("width", dist.Gamma(3.0, 1.0))
        pyro.sample("z", dist.Uniform(torch.zeros(()), width))

    posterior = Posterior(model)
    position = torch.randn(2)
    values = posterior.values(position)
    width, z = values["width"], values["z"]
    assert 0 < z < width
    to_z = biject_to(dist.Uniform(0.0, width).support)
    expected = dist.Gamma(3.0, 1.0).log_prob(width) + width.log() - width.log()
    expected = expected + to_z.log_abs_det_jacobian(position[1], z)
    torch.testing.assert_close(posterior.potential(position), -expected)
