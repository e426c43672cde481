import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from flax import nnx
from jax import random
from numpyro import handlers
from numpyro.contrib.module import eqx_module, nnx_module
from numpyro.infer.autoguide import AutoNormal

import pyro_ebm.numpyro as ebm

X = random.normal(random.key(0), (6, 2))


class Bowl(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return self.weight * (x**2).sum(-1)


BOWL = Bowl(jnp.array(0.5))


def square(x):
    return (x**2).sum(-1)


def normal(loc=0.0, scale=1.0):
    return dist.Normal(jnp.zeros(2) + loc, scale).to_event(1)


# --- models that are fine ---


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
        base = normal(slope * X[index % 6])
        numpyro.sample("x", ebm.EnergyBased(lambda x: energy(x)[:, 0], base), obs=x)


def observed_before(x):
    with numpyro.plate("data", len(x)):
        first = numpyro.sample("first", normal(), obs=x)
        numpyro.sample("x", ebm.EnergyBased(lambda x: square(x), normal(first)), obs=x)


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


def constant_in_a_function(x):
    location = jnp.ones(2)
    numpyro.sample("z", ebm.EnergyBased(lambda x: square(x - location), normal()))


def flat(x):
    numpyro.sample("wide", dist.ImproperUniform(dist.constraints.real, (), ()))


@pytest.mark.parametrize(
    "model",
    [
        subsampled,
        covariates,
        observed_before,
        wrapped,
        moved,
        normalized,
        frozen,
        constant_in_a_function,
        flat,
    ],
)
def test_a_clean_model_gives_an_empty_list(model):
    assert ebm.check_model(model, X) == []


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
        elif where == "mask":
            fn = fixed.mask(scale > 1)
        else:
            fn = fixed
        with numpyro.plate("data", 6), handlers.scale(scale=scale if where == "scale" else 1.0):
            numpyro.sample("x", fn, obs=x)

    return model


@pytest.mark.parametrize(
    "where", ["energy", "base", "base of a transform", "support", "mask", "scale"]
)
@pytest.mark.parametrize("x", [None, X])
def test_a_dependence_on_another_latent(where, x):
    (finding,) = ebm.check_model(scaled(where), x)
    assert finding[:2] == ("x", "doubly_intractable")
    for part in ("latent variable 'scale'", "silently wrong", "Give `log_normalizer`"):
        assert part in finding.message


def test_weights_that_are_latent():
    def model():
        weight = numpyro.sample("weight", dist.LogNormal(0.0, 1.0))
        numpyro.sample("x", ebm.EnergyBased(Bowl(weight), normal()))

    assert [finding[:2] for finding in ebm.check_model(model)] == [("x", "doubly_intractable")]


# --- mixtures ---


@pytest.mark.parametrize("wrap", [lambda fn: fn, lambda fn: fn.expand([6]).mask(jnp.ones(6) > 0)])
def test_energies_as_components_of_a_mixture(wrap):
    components = ebm.EnergyBased(square, normal()).expand([3])

    def model():
        mixing = dist.Categorical(jnp.ones(3) / 3)
        numpyro.sample("z", wrap(dist.MixtureSameFamily(mixing, components)))

    (finding,) = ebm.check_model(model)
    assert finding[:2] == ("z", "mixture")
    for part in ("components of MixtureSameFamily at site 'z'", "responsibilities", "put the mix"):
        assert part in finding.message


def test_a_discrete_latent_that_selects_an_energy():
    locs = jnp.array([-1.0, 0.0, 1.0])

    def model(x):
        mixing = dist.Categorical(jnp.ones(3) / 3)
        kind = numpyro.sample("kind", mixing, infer={"enumerate": "parallel"})
        with numpyro.plate("data", len(x)):
            energy = ebm.EnergyBased(lambda x: square(x - locs[kind]), normal())
            numpyro.sample("x", energy, obs=x)

    (finding,) = ebm.check_model(model, X)
    assert finding[:2] == ("x", "mixture")
    assert "latent variable 'kind'" in finding.message
    assert "weights of its values" in finding.message


# --- guides ---


def test_energies_in_a_guide():
    def guide(x):
        numpyro.sample("shift", ebm.EnergyBased(square, dist.Normal(0.0, 1.0)))

    (finding,) = ebm.check_model(moved, X, guide=guide)
    assert finding[:2] == ("shift", "guide")
    assert "'shift' of the guide" in finding.message
    assert "Use it in the model" in finding.message


def test_an_autoguide_is_not_set_up():
    guide = AutoNormal(moved)
    assert ebm.check_model(moved, X, guide=guide) == []
    assert guide.prototype_trace is None


# --- parameters that no optimizer sees ---


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

    (finding,) = ebm.check_model(model, X)
    assert finding[:2] == ("x", "unregistered")
    assert named in finding.message
    assert "jax.device_get(energy)" in finding.message


# --- what a check costs ---


def test_nothing_is_computed():
    def energy(x):
        assert isinstance(x, jax.core.Tracer)
        return square(x)

    def model(x):
        numpyro.sample("x", ebm.EnergyBased(energy, normal()))

    assert ebm.check_model(model, X) == []
    # Where everything is traced anyway, as MCMC in parallel is.
    jax.jit(lambda x: ebm.check_model(model, x))(X)
