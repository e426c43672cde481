from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.hosts.pyro import Bowl, normal
from helpers.issues import is_only
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import nn

import pyro_ebm.pyro as ebm

X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))


def square(x):
    return x.square().sum(-1)


# --- models without issues ---


def subsampled(x):
    energy = pyro.module("energy", Bowl())
    decoder_scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    with pyro.plate("data", 60, subsample_size=len(x)):
        z = pyro.sample("z", ebm.EnergyBased(energy, normal()))
        pyro.sample("x", dist.Normal(z, decoder_scale).to_event(1), obs=x)


def covariates(x):
    energy = pyro.module("energy", Bowl())
    slope = pyro.param("slope", torch.ones(2))
    with pyro.plate("data", 60, subsample_size=len(x)) as index:
        base = dist.Normal(slope * X[index % 6], 1.0).to_event(1)
        pyro.sample("x", ebm.EnergyBased(energy, base), obs=x)


def conditioned(x):
    with pyro.plate("data", len(x)):
        first = pyro.sample("first", normal(), obs=x)
        base = dist.Normal(first, 1.0).to_event(1)
        pyro.sample("x", ebm.EnergyBased(lambda x: square(x), base), obs=x)


def wrapped(x):
    energy = pyro.module("energy", Bowl())
    each = dist.Normal(torch.zeros(2), 1.0)
    with pyro.plate("data", 6):
        masked = ebm.EnergyBased(energy, normal()).mask(torch.arange(6) < 3)
        pyro.sample("masked", masked)
        joined = ebm.EnergyBased(lambda x: energy(x[:, None]), each).to_event(1)
        pyro.sample("joined", joined)
    pyro.sample("expanded", ebm.EnergyBased(energy, normal()).expand([6]).to_event(1))


def moved(x):
    shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
    move = dist.transforms.AffineTransform(shift, 1.0)
    fixed = ebm.EnergyBased(square, normal())
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.TransformedDistribution(fixed, move), obs=x)


def normalized(x):
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    energy = ebm.EnergyBased(
        lambda x: x.square() / (2 * scale**2),
        event_shape=(),
        log_normalizer=lambda: scale.log() + 0.9189,
    )
    pyro.sample("x", energy)
    mixing = dist.Categorical(torch.ones(3))
    pyro.sample("mixed", dist.MixtureSameFamily(mixing, energy.expand([3])))


def frozen(x):
    pyro.sample("z", ebm.EnergyBased(Bowl().requires_grad_(False), normal()))


class Child(PyroModule):
    def __init__(self):
        super().__init__()
        self.energy = Bowl()

    def forward(self, x):
        pyro.sample("z", ebm.EnergyBased(lambda z: self.energy(z), normal()))


def plain(x):
    pyro.sample("z", dist.Normal(0.0, 1.0))


CLEAN = [subsampled, covariates, conditioned, wrapped, moved, normalized, frozen, Child(), plain]


@pytest.mark.parametrize("model", CLEAN)
def test_no_issues(model):
    assert ebm.check_model(model)(X) == []
    assert ebm.check_model(model, AutoNormal(model))(X) == []


# --- doubly intractable ---


def scaled(where):
    """A model whose energy-based site depends on the latent `scale` somewhere."""

    def model(x=None):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        shift = pyro.sample("shift", dist.Normal(scale, 1.0))
        fixed = ebm.EnergyBased(square, normal())
        if where == "energy":
            fn = ebm.EnergyBased(lambda x: scale * square(x), normal())
        elif where == "base":
            fn = ebm.EnergyBased(square, normal(scale=scale))
        elif where == "base of a transform":
            move = dist.transforms.AffineTransform(shift, 1.0)
            fn = dist.TransformedDistribution(ebm.EnergyBased(square, normal(scale=scale)), move)
        elif where == "support":
            support = dist.constraints.independent(dist.constraints.greater_than(-scale), 1)
            fn = ebm.EnergyBased(square, event_shape=(2,), support=support)
        else:
            fn = fixed.mask(scale > 1) if where == "mask" else fixed
        with pyro.plate("data", 6), poutine.scale(scale=scale if where == "scale" else 1.0):
            pyro.sample("x", fn.expand([6]), obs=x)

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
        weight = pyro.sample("weight", dist.LogNormal(0.0, 1.0))
        energy = partial(torch.func.functional_call, Bowl(), {"weight": weight})
        pyro.sample("x", ebm.EnergyBased(energy, normal()))

    assert is_only(ebm.check_model(model)(), "x", "doubly_intractable")


# --- mixtures, guides, unregistered parameters ---


@pytest.mark.parametrize("wrap", [lambda fn: fn, lambda fn: fn.expand([6]).mask(torch.ones(6) > 0)])
def test_components_of_mixtures(wrap):
    components = ebm.EnergyBased(square, normal()).expand([3])

    def model():
        pyro.sample("z", wrap(dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), components)))

    words = "components of MixtureSameFamily at site 'z'", "responsibilities", "put the mix"
    assert is_only(ebm.check_model(model)(), "z", "mixture", *words)


def test_a_discrete_latent_behind_an_energy():
    locs = torch.tensor([-1.0, 0.0, 1.0])

    @config_enumerate
    def model(x):
        kind = pyro.sample("kind", dist.Categorical(torch.ones(3)))
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(lambda x: square(x - locs[kind]), normal()), obs=x)

    words = "latent variable 'kind'", "weights of its values"
    assert is_only(ebm.check_model(model)(X), "x", "mixture", *words)


def test_energies_in_a_guide():
    def guide(x):
        pyro.sample("shift", ebm.EnergyBased(square, dist.Normal(0.0, 1.0)))

    assert is_only(ebm.check_model(moved, guide)(X), "shift", "guide", "'shift' of the guide")


@pytest.mark.parametrize(
    ("hide", "named"),
    [(lambda energy: energy, ": weight;"), (lambda energy: lambda x: energy(x), "of shape ()")],
)
def test_unregistered_energies(hide, named):
    energy = hide(Bowl())

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(energy, normal()), obs=x)

    assert is_only(ebm.check_model(model)(X), "x", "unregistered", named, "requires_grad_(False)")


def test_a_name_that_the_store_holds_already():
    pyro.module("energy", Bowl())
    assert is_only(ebm.check_model(subsampled)(X), "z", "unregistered")


# --- side effects ---


def test_a_check_changes_nothing():
    # Its first layer writes to its buffers in every call.
    energy = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1), nn.Flatten(0)).train()
    pyro.param("before", torch.ones(()))
    guide = AutoNormal(subsampled)

    def model(x):
        pyro.module("energy", energy)
        subsampled(x)
        with pyro.plate("more", len(x)):
            pyro.sample("y", ebm.EnergyBased(energy, normal()), obs=x)

    before = {name: tensor.clone() for name, tensor in energy.state_dict().items()}
    random_state = torch.get_rng_state()
    assert ebm.check_model(model, guide)(X) == []
    assert torch.equal(torch.get_rng_state(), random_state)
    assert list(pyro.get_param_store().keys()) == ["before"]
    assert list(guide.parameters()) == []
    assert all(torch.equal(value, before[name]) for name, value in energy.state_dict().items())
    assert all(parameter.grad is None for parameter in energy.parameters())


def test_no_chain_runs():
    calls = []

    def energy(x):
        calls.append(None)
        return square(x)

    ebm.check_model(lambda: pyro.sample("x", ebm.EnergyBased(energy, normal())))()
    assert len(calls) == 1


def test_arguments_of_the_model_reach_it():
    seen = {}
    ebm.check_model(lambda **kwargs: seen.update(kwargs))(guide=1, model=2)
    assert seen == {"guide": 1, "model": 2}
