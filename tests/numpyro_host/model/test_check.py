import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from flax import nnx
from helpers.hosts.numpyro import Bowl, normal
from helpers.issues import is_only
from jax import random
from numpyro import handlers
from numpyro.contrib.module import eqx_module, nnx_module
from numpyro.infer.autoguide import AutoNormal

import pyro_ebm.numpyro as ebm

X = random.normal(random.key(0), (6, 2))
BOWL = Bowl()


def square(x):
    return (x**2).sum(-1)


# --- models without issues ---


def subsampled(x):
    energy = eqx_module("energy", BOWL)
    scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
    with numpyro.plate("data", 60, subsample_size=len(x)):
        z = numpyro.sample("z", ebm.EnergyBased(energy, normal()))
        numpyro.sample("x", dist.Normal(z, scale).to_event(1), obs=x)


def covariates(x):
    energy = nnx_module("energy", nnx.Linear(2, 1, rngs=nnx.Rngs(0)))
    slope = numpyro.param("slope", jnp.ones(2))
    with numpyro.plate("data", 60, subsample_size=len(x)) as index:
        base = dist.Normal(slope * X[index % 6], 1.0).to_event(1)
        numpyro.sample("x", ebm.EnergyBased(lambda x: energy(x)[:, 0], base), obs=x)


def conditioned(x):
    with numpyro.plate("data", len(x)):
        first = numpyro.sample("first", normal(), obs=x)
        base = dist.Normal(first, 1.0).to_event(1)
        numpyro.sample("x", ebm.EnergyBased(lambda x: square(x), base), obs=x)


def wrapped(x):
    energy = eqx_module("energy", BOWL)
    each = dist.Normal(jnp.zeros(2), 1.0)
    with numpyro.plate("data", 6):
        masked = ebm.EnergyBased(energy, normal()).mask(jnp.arange(6) < 3)
        numpyro.sample("masked", masked)
        joined = ebm.EnergyBased(lambda x: energy(x[:, None]), each).to_event(1)
        numpyro.sample("joined", joined)
    numpyro.sample("expanded", ebm.EnergyBased(energy, normal()).expand([6]).to_event(1))


def moved(x):
    shift = numpyro.sample("shift", dist.Normal(0.0, 1.0))
    move = dist.transforms.AffineTransform(shift, 1.0)
    fixed = ebm.EnergyBased(square, normal()).expand([len(x)])
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.TransformedDistribution(fixed, move), obs=x)


def normalized(x):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    energy = ebm.EnergyBased(
        lambda x: x**2 / (2 * scale**2),
        event_shape=(),
        log_normalizer=lambda: jnp.log(scale) + 0.9189,
    )
    numpyro.sample("x", energy)
    mixing = dist.Categorical(jnp.ones(3) / 3)
    numpyro.sample("mixed", dist.MixtureSameFamily(mixing, energy.expand([3])))


def frozen(x):
    numpyro.sample("z", ebm.EnergyBased(jax.device_get(BOWL), normal()))


def closure(x):
    location = jnp.ones(2)
    numpyro.sample("z", ebm.EnergyBased(lambda x: square(x - location), normal()))


def flat(x):
    numpyro.sample("wide", dist.ImproperUniform(dist.constraints.real, (), ()))


CLEAN = [subsampled, covariates, conditioned, wrapped, moved, normalized, frozen, closure, flat]


@pytest.mark.parametrize("model", CLEAN)
def test_no_issues(model):
    assert ebm.check_model(model)(X) == []


# --- doubly intractable ---


def scaled(where):
    """A model whose energy-based site depends on the latent `scale` somewhere."""

    def model(x=None):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        shift = numpyro.sample("shift", dist.Normal(scale, 1.0))
        fixed = ebm.EnergyBased(square, normal()).expand([6])
        if where == "energy":
            fn = ebm.EnergyBased(lambda x: scale * square(x), normal())
        elif where == "base":
            fn = ebm.EnergyBased(square, normal(scale=scale))
        elif where == "base of a transform":
            move = dist.transforms.AffineTransform(shift, 1.0)
            fn = ebm.EnergyBased(square, normal(scale=scale)).expand([6])
            fn = dist.TransformedDistribution(fn, move)
        elif where == "support":
            support = dist.constraints.independent(dist.constraints.greater_than(-scale), 1)
            fn = ebm.EnergyBased(square, event_shape=(2,), support=support)
        else:
            fn = fixed.mask(scale > 1) if where == "mask" else fixed
        with numpyro.plate("data", 6), handlers.scale(scale=scale if where == "scale" else 1.0):
            numpyro.sample("x", fn, obs=x)

    return model


@pytest.mark.parametrize(
    "where", ["energy", "base", "base of a transform", "support", "mask", "scale"]
)
@pytest.mark.parametrize("x", [None, X])
def test_dependence_on_another_latent(where, x):
    issues = ebm.check_model(scaled(where))(x)
    assert is_only(issues, "x", "doubly_intractable", "latent variable 'scale'")


def test_latent_weights():
    def model():
        weight = numpyro.sample("weight", dist.LogNormal(0.0, 1.0))
        numpyro.sample("x", ebm.EnergyBased(Bowl(weight), normal()))

    assert is_only(ebm.check_model(model)(), "x", "doubly_intractable")


# --- mixtures, guides, unregistered parameters ---


@pytest.mark.parametrize("wrap", [lambda fn: fn, lambda fn: fn.expand([6]).mask(jnp.ones(6) > 0)])
def test_components_of_mixtures(wrap):
    components = ebm.EnergyBased(square, normal()).expand([3])

    def model():
        mixing = dist.Categorical(jnp.ones(3) / 3)
        numpyro.sample("z", wrap(dist.MixtureSameFamily(mixing, components)))

    words = "components of MixtureSameFamily at site 'z'", "responsibilities", "put the mix"
    assert is_only(ebm.check_model(model)(), "z", "mixture", *words)


def test_a_discrete_latent_behind_an_energy():
    locs = jnp.array([-1.0, 0.0, 1.0])

    def model(x):
        mixing = dist.Categorical(jnp.ones(3) / 3)
        kind = numpyro.sample("kind", mixing, infer={"enumerate": "parallel"})
        with numpyro.plate("data", len(x)):
            energy = ebm.EnergyBased(lambda x: square(x - locs[kind]), normal())
            numpyro.sample("x", energy, obs=x)

    words = "latent variable 'kind'", "weights of its values"
    assert is_only(ebm.check_model(model)(X), "x", "mixture", *words)


def test_energies_in_a_guide():
    def guide(x):
        numpyro.sample("shift", ebm.EnergyBased(square, dist.Normal(0.0, 1.0)))

    assert is_only(ebm.check_model(moved, guide)(X), "shift", "guide", "'shift' of the guide")


def test_an_autoguide_is_not_set_up():
    guide = AutoNormal(moved)
    assert ebm.check_model(moved, guide)(X) == []
    assert guide.prototype_trace is None


@pytest.mark.parametrize(
    ("energy", "named"),
    [
        (BOWL, ": weight;"),
        (lambda x: BOWL(x), ": BOWL.weight;"),
        (jax.tree_util.Partial(lambda weight, x: weight * square(x), jnp.ones(())), ": 0.0;"),
    ],
)
def test_unregistered_energies(energy, named):
    def model(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", ebm.EnergyBased(energy, normal()), obs=x)

    assert is_only(ebm.check_model(model)(X), "x", "unregistered", named, "jax.device_get(energy)")


# --- side effects ---


def test_nothing_is_computed():
    def energy(x):
        assert isinstance(x, jax.core.Tracer)
        return square(x)

    def model(x):
        numpyro.sample("x", ebm.EnergyBased(energy, normal()))

    assert ebm.check_model(model)(X) == []
    # Also where everything is traced, as in parallel chains of MCMC.
    jax.jit(lambda x: ebm.check_model(model)(x))(X)


def test_arguments_of_the_model_reach_it():
    seen = {}
    ebm.check_model(lambda **kwargs: seen.update(kwargs))(guide=1, model=2)
    assert seen == {"guide": 1, "model": 2}
