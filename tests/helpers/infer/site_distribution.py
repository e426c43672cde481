import numpy as np
import pytest

X = np.random.default_rng(0).normal(size=(6, 2))


def square(x):
    return (x**2).sum(-1)


WEIGHT = 0.75


def find(host, model, site):
    """The distribution at a site; parameters are those of training where a host keeps them."""
    if host.HOST == "Pyro":
        return host.ebm.site_distribution(model, site)
    params = {"energy$params": host.Bowl(WEIGHT)}
    return host.ebm.site_distribution(model, site, params=params)


def wrapped(host):
    """A model with an energy in a plate, and one in a mask and a transform by a latent."""
    initial = host.Bowl(WEIGHT if host.HOST == "Pyro" else 0.1)

    def model(x):
        shift = host.ppl.sample("shift", host.dist.Normal(0.0, 1.0))
        energy = host.register("energy", initial)
        with host.ppl.plate("data", len(x)):
            z = host.ppl.sample("z", host.ebm.EnergyBased(energy, host.normal(scale=2.0)))
            host.ppl.sample("x", host.dist.Normal(z + shift, 1.0).to_event(1), obs=x)
            fn = host.ebm.EnergyBased(square, host.normal()).expand([len(x)])
            fn = fn.mask(host.xp.arange(len(x)) < 3)
            move = host.dist.transforms.AffineTransform(shift, 1.0)
            host.ppl.sample("y", host.dist.TransformedDistribution(fn, move), obs=x)

    return model


@pytest.mark.parametrize(("site", "weight", "scale"), [("z", WEIGHT, 2.0), ("y", 1.0, 1.0)])
def test_the_distribution_comes_by_itself(host, site, weight, scale):
    found = find(host, wrapped(host), site)(host.array(X))
    assert isinstance(found, host.ebm.EnergyBased)
    assert (tuple(found.batch_shape), tuple(found.event_shape)) == ((), (2,))
    value = host.array([[1.0, 2.0]])
    expected = host.normal(scale=scale).log_prob(value) - weight * 5
    assert float(found.log_prob(value)[0]) == pytest.approx(float(expected[0]), rel=1e-5)


def test_its_log_normalizer(host):
    keys = [] if host.HOST == "Pyro" else [host.KEY]
    prior = find(host, wrapped(host), "z")(host.array(X))
    result = host.ebm.log_normalizer(*keys, prior, method="importance", num_samples=4000)
    exact = -np.log(1 + 2 * WEIGHT * 4)
    assert abs(float(result.estimate) - exact) < 4 * float(result.standard_error) < 0.3


def test_other_sites_are_refused_by_name(host):
    for site in ("x", "shift", "typo"):
        with pytest.raises(ValueError, match=rf"of the model \(\['y', 'z'\]\), got '{site}'"):
            find(host, wrapped(host), site)(host.array(X))


@pytest.mark.parametrize("is_normalized", [False, True])
def test_a_latent_behind_it_is_refused(host, is_normalized):
    def model():
        scale = host.ppl.sample("scale", host.dist.LogNormal(0.0, 1.0))
        known = (lambda: host.xp.log(scale)) if is_normalized else None
        base = host.dist.Normal(0.0, 1.0)
        energy = host.ebm.EnergyBased(lambda x: x**2 / scale, base, log_normalizer=known)
        host.ppl.sample("x", energy)

    with pytest.raises(ValueError, match=r"dependence on the latent variables \['scale'\]"):
        find(host, model, "x")()
