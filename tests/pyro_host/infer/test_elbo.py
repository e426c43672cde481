import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import linear_gaussian as truth
from helpers.linear_gaussian_pyro import ELBOS, Toy, run
from pyro.infer import (
    SVI,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from pyro.optim import SGD, Adam
from torch import nn

import pyro_ebm.pyro as ebm

DISCREPANCY = ebm.EnergyDiscrepancy(variance=1.0, num_negatives=4)


class Bowl(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, z):
        return self.weight * z.flatten(1).square().sum(-1)


def prior(energy):
    return ebm.EnergyBased(energy, dist.Normal(torch.zeros(2), 2.0).to_event(1))


def latent_model(energy, register=True):
    def model(x):
        if register:
            pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(energy))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    return model


def mean_field_guide(x):
    shift = pyro.param("shift", torch.zeros(2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x + shift, 0.5).to_event(1))


# --- the toy with a known answer: a part of the matrix of tests/benchmarks ---

CELLS = [(elbo, "plate") for elbo in ELBOS if elbo != "Trace x4"] + [
    ("Trace", layout) for layout in truth.LAYOUTS if layout != "plate"
]


@pytest.mark.parametrize(("elbo", "layout"), CELLS)
def test_every_stock_elbo_recovers_the_prior(elbo, layout):
    figures = run(elbo, layout, num_steps=1500, seed=1)
    assert figures["precision"] == pytest.approx(truth.PRECISION, rel=0.05)
    assert figures["loss"] == pytest.approx(truth.NEGATIVE_LOG_EVIDENCE, abs=0.05)
    assert figures["slope"] == pytest.approx(truth.SLOPE, abs=0.05)
    assert figures["scale"] == pytest.approx(truth.SCALE, abs=0.05)


def test_stock_elbo_leaves_the_energy_alone_and_warns():
    energy, x = Bowl(), torch.randn(8, 2)
    before = energy.weight.detach().clone()
    svi = SVI(latent_model(energy), mean_field_guide, Adam({"lr": 0.1}), Trace_ELBO())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(5):
            svi.step(x)
    messages = [str(w.message) for w in caught if "Nothing trains" in str(w.message)]
    assert len(messages) == 1
    assert "requires_grad_(False)" in messages[0]
    assert "EnergyELBO" in messages[0]
    assert torch.equal(energy.weight, before)


def test_an_energy_that_is_meant_to_stay_is_no_reason_to_warn():
    energy = Bowl().requires_grad_(False).eval()
    SVI(latent_model(energy), mean_field_guide, Adam({"lr": 0.1}), Trace_ELBO()).step(
        torch.randn(8, 2)
    )


# --- without an energy-based site it is the stock ELBO ---


def plain_model(x):
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, scale))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def plain_guide(x):
    slope = pyro.param("slope", torch.tensor(0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x, 0.7))


STOCK = {
    "Trace": lambda: Trace_ELBO(),
    "Trace x3": lambda: Trace_ELBO(num_particles=3),
    "Trace x3 vectorized": lambda: Trace_ELBO(num_particles=3, vectorize_particles=True),
    "TraceMeanField": lambda: TraceMeanField_ELBO(),
    "TraceGraph": lambda: TraceGraph_ELBO(),
    "TraceEnum": lambda: TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False),
    "Renyi": lambda: RenyiELBO(num_particles=2),
    "ReweightedWakeSleep": lambda: ReweightedWakeSleep(num_particles=2, max_plate_nesting=1),
}


@pytest.mark.parametrize("name", STOCK)
def test_without_energy_sites_it_is_the_stock_elbo_to_the_last_bit(name):
    def path(loss):
        pyro.clear_param_store()
        pyro.set_rng_seed(5)
        x = torch.randn(16)
        svi = SVI(plain_model, plain_guide, Adam({"lr": 0.05}), loss)
        steps = [svi.step(x) for _ in range(10)]
        return steps, svi.evaluate_loss(x), dict(pyro.get_param_store().named_parameters())

    steps, evaluated, params = path(STOCK[name]())
    ours, our_evaluated, our_params = path(ebm.EnergyELBO(DISCREPANCY, STOCK[name]()))
    assert ours == steps
    assert our_evaluated == evaluated
    for key in params:
        assert torch.equal(params[key], our_params[key])


# --- what it reports ---


def test_evaluate_loss_and_module_form_report_the_same_number():
    toy = Toy("plate")
    toy.energy.a.data.fill_(torch.tensor(0.1875).log())
    pyro.param("slope", torch.tensor(truth.SLOPE))
    pyro.param("scale", torch.tensor(truth.SCALE), constraint=dist.constraints.positive)
    loss = ebm.EnergyELBO(DISCREPANCY, Trace_ELBO(num_particles=20), num_normalizer_samples=20000)
    svi = SVI(toy.model, toy.guide, SGD({"lr": 0.0}), loss)
    expected = pytest.approx(truth.NEGATIVE_LOG_EVIDENCE, abs=0.05)
    assert svi.evaluate_loss() / truth.NUM_DATA == expected
    assert svi.step() / truth.NUM_DATA == expected
    module = loss(toy.model, toy.guide)
    value = module()
    assert value.item() / truth.NUM_DATA == expected
    value.backward()
    assert toy.energy.a.grad is not None


def test_module_form_trains_children_of_pyro_modules():
    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.energy = Bowl()

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", prior(self.energy))
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    model, x = Model(), torch.randn(16, 2)
    loss = ebm.EnergyELBO(DISCREPANCY)(model, AutoNormal(model))
    loss(x)
    before = model.energy.weight.item()
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    loss(x).backward()
    optimizer.step()
    assert model.energy.weight.item() != before


@pytest.mark.parametrize("elbo", [TraceGraph_ELBO, RenyiELBO, ReweightedWakeSleep])
def test_module_form_needs_a_differentiable_loss(elbo):
    loss = ebm.EnergyELBO(DISCREPANCY, elbo(num_particles=2))
    with pytest.raises(NotImplementedError, match=f"got {elbo.__name__}, which has none"):
        loss(nn.Module(), nn.Module())


def test_the_log_normalizer_can_be_left_out_and_touches_no_gradient():
    x = torch.randn(16, 2)

    def gradient_and_loss(num_samples):
        pyro.clear_param_store()
        pyro.set_rng_seed(2)
        energy = Bowl()
        loss = ebm.EnergyELBO(DISCREPANCY, num_normalizer_samples=num_samples)
        value = loss.loss_and_grads(latent_model(energy), mean_field_guide, x)
        return energy.weight.grad.item(), value

    (gradient, with_estimate), (same, without) = gradient_and_loss(20000), gradient_and_loss(0)
    assert gradient == same
    log_z = -torch.log1p(torch.tensor(4.0)).item()  # two dimensions, N(0, 4) times exp(-z^2 / 2)
    assert with_estimate - without == pytest.approx(16 * log_z, abs=1.0)


def test_without_a_base_it_says_what_is_left_out():
    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(energy, event_shape=(2,)), obs=x)

    energy = Bowl()
    svi = SVI(model, lambda x: None, Adam({"lr": 0.1}), ebm.EnergyELBO(DISCREPANCY))
    with pytest.warns(UserWarning, match="leaves out the log-normalizer of site 'x'"):
        svi.step(torch.randn(8, 2))


def test_known_log_normalizer_is_left_to_the_stock_elbo():
    precision = nn.Parameter(torch.tensor(3.0))

    def model(x):
        pyro.param("precision", precision)
        density = ebm.EnergyBased(
            lambda z: 0.5 * precision * z.square(),
            event_shape=(),
            log_normalizer=lambda: 0.5 * torch.log(2 * torch.pi / precision),
        )
        with pyro.plate("data", len(x)):
            pyro.sample("x", density, obs=x)

    x = torch.randn(2000) * 2.0
    svi = SVI(model, lambda x: None, Adam({"lr": 0.05}), ebm.EnergyELBO(DISCREPANCY))
    for _ in range(300):
        loss = svi.step(x)
    assert pyro.param("precision").item() == pytest.approx(1 / x.square().mean().item(), rel=0.02)
    exact = -dist.Normal(0.0, x.square().mean().sqrt()).log_prob(x).sum().item()
    assert loss == pytest.approx(exact, rel=1e-3)
    named = ebm.EnergyELBO({"x": DISCREPANCY})
    with pytest.raises(ValueError, match="Expected objectives for energy-based sites"):
        SVI(model, lambda x: None, Adam({"lr": 0.05}), named).step(x)


def test_observed_sites_are_trained_with_an_empty_guide():
    energy = Bowl()

    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", 4096, subsample_size=512) as index:
            pyro.sample("x", prior(energy), obs=x[index])

    svi = SVI(model, lambda x: None, Adam({"lr": 0.02}), ebm.EnergyELBO(DISCREPANCY))
    x = torch.randn(4096, 2)
    path = []
    for _ in range(400):
        svi.step(x)
        path.append(energy.weight.item())
    # Precision 1 = 1/4 of the base + 2 * weight.
    assert sum(path[-100:]) / 100 == pytest.approx(0.375, rel=0.06)


def test_health_can_be_read_and_touches_nothing():
    energy, x = Bowl(), torch.randn(16, 2)
    loss = ebm.EnergyELBO(DISCREPANCY)
    model = latent_model(energy)
    svi = SVI(model, mean_field_guide, Adam({"lr": 0.1}), loss)
    svi.step(x)
    before = energy.weight.item()
    health = loss.health(model, mean_field_guide, x)
    assert {site: set(figures) for site, figures in health.items()} == {"z": {"objective"}}
    objective = health["z"]["objective"]
    assert not objective.requires_grad
    z = x + 0.5 * torch.randn(2000, 16, 2) + pyro.param("shift").detach()
    with torch.no_grad():
        expected = DISCREPANCY.loss(prior(energy), z).mean().item()
    assert objective.item() == pytest.approx(expected, abs=0.6)
    assert energy.weight.item() == before
    loss.check_health(model, mean_field_guide, x)
    energy.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="z"):
        loss.check_health(model, mean_field_guide, x)


# --- what it refuses ---


def step(model, guide, objective=DISCREPANCY, elbo=None, x=None):
    x = torch.randn(8, 2) if x is None else x
    return SVI(model, guide, Adam({"lr": 0.01}), ebm.EnergyELBO(objective, elbo)).step(x)


def test_nan_names_the_site():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", prior(lambda z: z.sum(-1) * float("nan")))

    with pytest.raises(ValueError, match=r"finite energies at site 'z'"):
        step(model, mean_field_guide)


def test_energies_do_not_belong_in_guides():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", prior(Bowl().requires_grad_(False)))

    with pytest.raises(ValueError, match="EnergyBased at site 'z' of the guide"):
        step(latent_model(Bowl()), guide)
    fixed = Bowl().requires_grad_(False).eval()
    for elbo in (Trace_ELBO(), TraceMeanField_ELBO(), RenyiELBO(num_particles=2)):
        with pytest.raises(ValueError, match="Expected a guide of normalized distributions"):
            SVI(latent_model(fixed), guide, Adam({"lr": 0.1}), elbo).step(torch.randn(8, 2))


def test_energies_do_not_belong_in_mixtures():
    components = prior(Bowl()).expand([3])

    def model(x):
        with pyro.plate("data", len(x)):
            mixing = dist.Categorical(torch.ones(3))
            pyro.sample("z", dist.MixtureSameFamily(mixing, components))

    with pytest.raises(ValueError, match="normalized components of MixtureSameFamily"):
        step(model, mean_field_guide)


def test_energies_do_not_belong_under_enumerated_classes():
    energy = Bowl()

    @config_enumerate
    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            kind = pyro.sample("kind", dist.Categorical(torch.ones(3)))
            base = dist.Normal(kind.float()[..., None].expand(*kind.shape, 2), 1.0).to_event(1)
            pyro.sample("x", ebm.EnergyBased(energy, base), obs=x)

    with pytest.raises(ValueError, match="Expected every batch dimension of .*'x' to be a plate"):
        step(model, lambda x: None, elbo=TraceEnum_ELBO(max_plate_nesting=1))


def test_objectives_for_sites_that_are_not_there():
    with pytest.raises(ValueError, match=r"energy-based sites of the model \(\['z'\]\), got 'y'"):
        step(latent_model(Bowl()), mean_field_guide, objective={"y": DISCREPANCY})


def test_a_failed_step_leaves_no_gradient_behind():
    energy = Bowl()
    with pytest.raises(ValueError, match="got 'y'"):
        step(latent_model(energy), mean_field_guide, objective={"y": DISCREPANCY, "z": DISCREPANCY})
    assert energy.weight.grad is None


def test_an_energy_that_depends_on_another_latent_is_doubly_intractable():
    energy = Bowl()

    def model(x):
        pyro.module("energy", energy)
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", prior(lambda z: scale * energy(z)), obs=x)

    with pytest.raises(ValueError, match="dependence on the latent variable 'scale'"):
        step(model, AutoNormal(model))


def test_wrong_arguments():
    with pytest.raises(TypeError, match="objective with a `loss`, got float"):
        ebm.EnergyELBO(0.25)
    with pytest.raises(TypeError, match="ELBO of Pyro, got str"):
        ebm.EnergyELBO(DISCREPANCY, "Trace")
    with pytest.raises(ValueError, match="`num_normalizer_samples`"):
        ebm.EnergyELBO(DISCREPANCY, num_normalizer_samples=-1)


def test_parameters_that_no_optimizer_sees():
    with pytest.warns(UserWarning, match="No optimizer will see .*'z': weight; they are not reg"):
        step(latent_model(Bowl(), register=False), mean_field_guide)


def test_parameters_hidden_in_a_closure():
    energy = Bowl()
    with pytest.warns(UserWarning, match=r"No optimizer will see .*'z': a tensor of shape \(\)"):
        step(latent_model(lambda z: energy(z), register=False), mean_field_guide)


def test_a_name_that_the_store_holds_already():
    step(latent_model(Bowl()), mean_field_guide)
    with pytest.warns(UserWarning, match=r"clear_param_store\(\)"):
        step(latent_model(Bowl()), mean_field_guide)


def test_a_site_without_objective_is_named():
    def model(x):
        pyro.module("one", one)
        pyro.module("two", two)
        with pyro.plate("data", len(x)):
            pyro.sample("z", prior(one))
            pyro.sample("x", prior(two), obs=x)

    one, two = Bowl(), Bowl()
    with pytest.warns(UserWarning, match="'z': weight; EnergyELBO has no objective for this site"):
        step(model, mean_field_guide, objective={"x": DISCREPANCY})
    assert one.weight.item() == 0.5
    assert two.weight.item() != 0.5


# --- training that runs away ---


def observed_model(energy):
    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", prior(energy), obs=x)

    return model


def guarded_svi(energy, objective, elbo=None, learning_rate=0.1, **bounds):
    loss = ebm.EnergyELBO(objective, elbo, num_normalizer_samples=0, **bounds)
    return SVI(observed_model(energy), lambda x: None, SGD({"lr": learning_rate}), loss)


NUMBER = r"[0-9.]+(e\+[0-9]+)?"


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"max_energy_scale": 50.0}, "at most 1e+08 and energies that differ by at most 50 "),
        ({"max_loss": 500.0}, "at most 500 and energies that differ by at most 1e+06 "),
    ],
)
def test_energies_that_run_away_stop_the_training(bounds, expected):
    energy, x, path = Bowl(), torch.randn(8, 2), []
    objective = ebm.ContrastiveDivergence(sampler=ebm.MALA(0.1, num_steps=2))
    svi = guarded_svi(energy, objective, learning_rate=30.0, **bounds)

    def train():
        while len(path) < 20:
            path.append(energy.weight.item())
            svi.step(x)

    with pytest.raises(ValueError, match=rf"at site 'x', got {NUMBER} and {NUMBER}") as error:
        train()
    assert f"Expected a loss of {expected}" in str(error.value)
    assert "smaller learning rate" in str(error.value)
    assert len(path) > 1
    assert energy.weight.item() == path[-1]
    assert energy.weight.grad.item() == 0


class Exploding:
    """An objective that is out of range from its second call on."""

    def __init__(self):
        self.num_calls = 0

    def loss(self, distribution, value):
        self.num_calls += 1
        return distribution.potential(value) * 1e9 ** (self.num_calls - 1)


def test_no_gradient_of_an_earlier_particle_is_left():
    energy = Bowl()
    svi = guarded_svi(energy, Exploding(), Trace_ELBO(num_particles=2))
    with pytest.raises(ValueError, match="loss of at most 1e\\+08"):
        svi.step(torch.randn(8, 2))
    assert energy.weight.item() == 0.5
    assert energy.weight.grad.item() == 0


class Kinked(Bowl):
    """The root of zero: a number without a gradient."""

    def __init__(self):
        super().__init__()
        self.root = nn.Parameter(torch.tensor(0.0))

    def forward(self, z):
        return super().forward(z) + self.root.abs().sqrt() * z.sum(-1)


@pytest.mark.parametrize("optimizer", [SGD({"lr": 0.1}), Adam({"lr": 0.1})])
def test_gradients_that_are_no_numbers_reach_no_optimizer(optimizer):
    energy, x = Kinked(), torch.randn(8, 2)
    svi = guarded_svi(energy, DISCREPANCY)
    svi.optim = optimizer
    with pytest.raises(ValueError, match=r"NaN or infinity in \['energy\$\$\$root'\]"):
        svi.step(x)
    assert (energy.weight.item(), energy.root.item()) == (0.5, 0.0)
    assert (energy.weight.grad.item(), energy.root.grad.item()) == (0.0, 0.0)
    energy.root.data.fill_(1.0)
    svi.step(x)
    assert energy.weight.item() != 0.5


class Steep:
    """A loss of zero with a gradient whose square is no number in single precision."""

    def loss(self, distribution, value):
        energy = distribution.evaluate(value)
        return 1e25 * (energy - energy.detach())


def test_large_gradients_whose_norm_overflows_are_numbers():
    energy = Bowl()
    guarded_svi(energy, Steep(), learning_rate=1e-30).step(torch.ones(8, 2))
    assert energy.weight.item() != 0.5


def test_without_validation_nothing_is_guarded():
    energy = Bowl()
    svi = guarded_svi(energy, Exploding(), Trace_ELBO(num_particles=2))
    with pyro.validation_enabled(is_validate=False):
        svi.step(torch.randn(8, 2))
    assert energy.weight.item() != 0.5


# --- what a guide declares for an objective ---


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.height = nn.Parameter(torch.tensor(1.0))

    def forward(self, z):
        return self.height * z.sum(-1)


class WithCritic:
    """Energy is pushed up where the critic is high, and the critic towards 3."""

    def loss(self, distribution, value, *, critic):
        height = critic(value)
        energy = distribution.potential(value)
        return energy * height.detach() + (critic.height - 3.0).square()


def test_declared_learners_are_found_and_trained_by_one_step():
    critic, energy = Critic(), Bowl()

    def guide(x):
        ebm.auxiliary("z", critic=critic)
        mean_field_guide(x)

    svi = SVI(latent_model(energy), guide, Adam({"lr": 0.1}), ebm.EnergyELBO(WithCritic()))
    for _ in range(100):
        svi.step(torch.randn(8, 2))
    assert critic.height.item() == pytest.approx(3.0, abs=0.1)
    assert "z$critic$$$height" in pyro.get_param_store()


def test_declarations_are_harmless_elsewhere_and_must_fit():
    def guide(x):
        ebm.auxiliary("z", critic=Critic())
        mean_field_guide(x)

    SVI(plain_model, plain_guide, Adam({"lr": 0.1}), Trace_ELBO()).step(torch.randn(8))
    energy = Bowl().requires_grad_(False).eval()
    SVI(latent_model(energy), guide, Adam({"lr": 0.1}), Trace_ELBO()).step(torch.randn(8, 2))
    with pytest.raises(ValueError, match=r"declare nothing for .* site 'z' .*, got \['critic'\]"):
        step(latent_model(Bowl()), guide)
    with pytest.raises(ValueError, match=r"declare \['critic'\] for .* site 'z' .*, got nothing"):
        step(latent_model(Bowl()), mean_field_guide, objective=WithCritic())


def test_objectives_are_given_constant_values():
    class Watching:
        def loss(self, distribution, value):
            seen.append(value.requires_grad)
            return distribution.potential(value)

    seen = []
    step(latent_model(Bowl()), mean_field_guide, objective=Watching())
    assert seen == [False]
