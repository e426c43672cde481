import numpy as np
import pytest

from helpers.issues import is_only

X = np.random.default_rng(0).normal(size=(6, 2))


def square(x):
    return (x**2).sum(-1)


def uniform(host):
    return host.dist.Categorical(host.array(np.ones(3) / 3))


# --- models without issues ---


def subsampled(host):
    def model(x):
        energy = host.register("energy", host.Bowl())
        positive = host.dist.constraints.positive
        scale = host.ppl.param("scale", host.array(1.0), constraint=positive)
        with host.ppl.plate("data", 60, subsample_size=len(x)):
            z = host.ppl.sample("z", host.ebm.EnergyBased(energy, host.normal()))
            host.ppl.sample("x", host.dist.Normal(z, scale).to_event(1), obs=x)

    return model


def covariates(host):
    def model(x):
        energy = host.register("energy", host.Bowl())
        slope = host.ppl.param("slope", host.array(np.ones(2)))
        with host.ppl.plate("data", 60, subsample_size=len(x)) as index:
            base = host.dist.Normal(slope * x[index % 6], 1.0).to_event(1)
            host.ppl.sample("x", host.ebm.EnergyBased(energy, base), obs=x)

    return model


def conditioned(host):
    def model(x):
        with host.ppl.plate("data", len(x)):
            first = host.ppl.sample("first", host.normal(), obs=x)
            base = host.dist.Normal(first, 1.0).to_event(1)
            host.ppl.sample("x", host.ebm.EnergyBased(lambda x: square(x), base), obs=x)

    return model


def wrapped(host):
    def model(x):
        energy = host.register("energy", host.Bowl())
        each = host.dist.Normal(host.array(np.zeros(2)), 1.0)
        with host.ppl.plate("data", 6):
            masked = host.ebm.EnergyBased(energy, host.normal()).mask(host.xp.arange(6) < 3)
            host.ppl.sample("masked", masked)
            joined = host.ebm.EnergyBased(lambda x: energy(x[:, None]), each).to_event(1)
            host.ppl.sample("joined", joined)
        expanded = host.ebm.EnergyBased(energy, host.normal()).expand([6]).to_event(1)
        host.ppl.sample("expanded", expanded)

    return model


def moved(host):
    def model(x):
        shift = host.ppl.sample("shift", host.dist.Normal(0.0, 1.0))
        move = host.dist.transforms.AffineTransform(shift, 1.0)
        fixed = host.ebm.EnergyBased(square, host.normal()).expand([len(x)])
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("x", host.dist.TransformedDistribution(fixed, move), obs=x)

    return model


def normalized(host):
    def model(x):
        scale = host.ppl.sample("scale", host.dist.LogNormal(0.0, 1.0))
        energy = host.ebm.EnergyBased(
            lambda x: x**2 / (2 * scale**2),
            event_shape=(),
            log_normalizer=lambda: host.xp.log(scale) + 0.9189,
        )
        host.ppl.sample("x", energy)
        mixture = host.dist.MixtureSameFamily(uniform(host), energy.expand([3]))
        host.ppl.sample("mixed", mixture)

    return model


def frozen(host):
    energy = host.frozen(host.Bowl())
    return lambda x: host.ppl.sample("z", host.ebm.EnergyBased(energy, host.normal()))


def closure(host):
    def model(x):
        location = host.array(np.ones(2))
        energy = host.ebm.EnergyBased(lambda x: square(x - location), host.normal())
        host.ppl.sample("z", energy)

    return model


def plain(host):
    return lambda x: host.ppl.sample("z", host.dist.Normal(0.0, 1.0))


CLEAN = [subsampled, covariates, conditioned, wrapped, moved, normalized, frozen, closure, plain]


@pytest.mark.parametrize("make_model", CLEAN)
def test_no_issues(host, make_model):
    model, x = make_model(host), host.array(X)
    assert host.ebm.check_model(model)(x) == []
    assert host.ebm.check_model(model, host.infer.autoguide.AutoNormal(model))(x) == []


# --- doubly intractable ---


def scaled(host, where):
    """A model whose energy-based site depends on the latent `scale` somewhere."""

    def model(x=None):
        scale = host.ppl.sample("scale", host.dist.LogNormal(0.0, 1.0))
        shift = host.ppl.sample("shift", host.dist.Normal(scale, 1.0))
        fn = host.ebm.EnergyBased(square, host.normal()).expand([6])
        if where == "energy":
            fn = host.ebm.EnergyBased(lambda x: scale * square(x), host.normal())
        elif where == "base":
            fn = host.ebm.EnergyBased(square, host.normal(scale=scale))
        elif where == "base of a transform":
            move = host.dist.transforms.AffineTransform(shift, 1.0)
            fn = host.ebm.EnergyBased(square, host.normal(scale=scale)).expand([6])
            fn = host.dist.TransformedDistribution(fn, move)
        elif where == "support":
            constraints = host.dist.constraints
            support = constraints.independent(constraints.greater_than(-scale), 1)
            fn = host.ebm.EnergyBased(square, event_shape=(2,), support=support)
        elif where == "mask":
            fn = fn.mask(scale > 1)
        with host.ppl.plate("data", 6), host.scale(scale=scale if where == "scale" else 1.0):
            host.ppl.sample("x", fn, obs=x)

    return model


@pytest.mark.parametrize(
    "where", ["energy", "base", "base of a transform", "support", "mask", "scale"]
)
@pytest.mark.parametrize("is_observed", [False, True])
def test_dependence_on_another_latent(host, where, is_observed):
    x = host.array(X) if is_observed else None
    issues = host.ebm.check_model(scaled(host, where))(x)
    assert is_only(issues, "x", "doubly_intractable", "latent variable 'scale'")


def test_latent_weights(host):
    def model():
        weight = host.ppl.sample("weight", host.dist.LogNormal(0.0, 1.0))
        host.ppl.sample("x", host.ebm.EnergyBased(host.with_weight(weight), host.normal()))

    assert is_only(host.ebm.check_model(model)(), "x", "doubly_intractable")


# --- mixtures, guides, unregistered parameters ---


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_components_of_mixtures(host, is_wrapped):
    def model():
        components = host.ebm.EnergyBased(square, host.normal()).expand([3])
        mixture = host.dist.MixtureSameFamily(uniform(host), components)
        if is_wrapped:
            mixture = mixture.expand([6]).mask(host.xp.ones(6) > 0)
        host.ppl.sample("z", mixture)

    words = "components of MixtureSameFamily at site 'z'", "responsibilities", "put the mix"
    assert is_only(host.ebm.check_model(model)(), "z", "mixture", *words)


def test_a_folded_energy_is_a_mixture(host):
    def model(**options):
        tilted = host.ebm.EnergyBased(lambda x: 0.3 * x, host.dist.Normal(0.0, 1.0), **options)
        host.ppl.sample("x", host.dist.FoldedDistribution(tilted), obs=host.array(0.7))

    words = "components of FoldedDistribution at site 'x'", "gradients"
    assert is_only(host.ebm.check_model(model)(), "x", "mixture", *words)
    with pytest.raises(ValueError, match="components of FoldedDistribution at site 'x'"):
        host.loss_and_gradients(host.ebm.EnergyELBO({}), model, host.empty_guide)
    assert host.ebm.check_model(model)(log_normalizer=lambda: 0.3**2 / 2) == []


def test_a_discrete_latent_behind_an_energy(host):
    locs = host.array([-1.0, 0.0, 1.0])

    def model(x):
        kind = host.ppl.sample("kind", uniform(host), infer={"enumerate": "parallel"})
        with host.ppl.plate("data", len(x)):
            energy = host.ebm.EnergyBased(lambda x: square(x - locs[kind]), host.normal())
            host.ppl.sample("x", energy, obs=x)

    words = "latent variable 'kind'", "weights of its values"
    assert is_only(host.ebm.check_model(model)(host.array(X)), "x", "mixture", *words)


def test_energies_in_a_guide(host):
    def guide(x):
        host.ppl.sample("shift", host.ebm.EnergyBased(square, host.dist.Normal(0.0, 1.0)))

    issues = host.ebm.check_model(moved(host), guide)(host.array(X))
    assert is_only(issues, "shift", "guide", "'shift' of the guide")


@pytest.mark.parametrize("is_hidden", [False, True])
def test_unregistered_energies(host, is_hidden):
    energy = host.Bowl()

    def model(x):
        hidden = (lambda x: energy(x)) if is_hidden else energy
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("x", host.ebm.EnergyBased(hidden, host.normal()), obs=x)

    words = f": {host.HIDDEN if is_hidden else 'weight'};", host.FREEZING
    assert is_only(host.ebm.check_model(model)(host.array(X)), "x", "unregistered", *words)


def test_arguments_of_the_model_reach_it(host):
    seen = {}
    host.ebm.check_model(lambda **kwargs: seen.update(kwargs))(guide=1, model=2)
    assert seen == {"guide": 1, "model": 2}
