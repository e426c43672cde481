import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import linear_gaussian as truth
from helpers.hosts.pyro import (
    Bowl,
    attaching,
    empty_guide,
    fit,
    latent_model,
    mean_field_guide,
    observed_model,
    prior,
)
from helpers.infer.pyro import ELBOS
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
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives.loss import Loss

DISCREPANCY = ebm.EnergyDiscrepancy(variance=1.0, num_samples=4)
X = torch.randn(8, 2, generator=torch.Generator().manual_seed(9))


def frozen():
    return Bowl().requires_grad_(False).eval()


def step(model, guide, objective=DISCREPANCY, elbo=None, x=X):
    return fit(model, guide, ebm.EnergyELBO(objective, elbo), x)


# --- the toy with a known answer ---

CELLS = [(elbo, "plate") for elbo in ELBOS] + [
    ("Trace", layout) for layout in truth.LAYOUTS if layout != "plate"
]


@pytest.mark.parametrize(("elbo", "layout"), CELLS)
def test_every_stock_elbo_recovers_the_prior(host, elbo, layout):
    results = truth.run(host, elbo, layout, num_steps=800, learning_rate=0.02, num_averaged=400)
    assert truth.is_optimal(results)


def test_a_stock_elbo_leaves_the_energy_alone_and_warns():
    energy = Bowl()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        fit(latent_model(energy), mean_field_guide, Trace_ELBO(), X, num_steps=5)
    messages = [str(w.message) for w in caught if "Nothing trains" in str(w.message)]
    assert len(messages) == 1
    assert "requires_grad_(False)" in messages[0]
    assert "EnergyELBO" in messages[0]
    assert energy.weight.item() == 0.5


def test_a_stock_elbo_does_not_warn_of_a_frozen_energy():
    fit(latent_model(frozen()), mean_field_guide, Trace_ELBO(), X)


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
def test_without_energies_it_is_the_stock_elbo_to_the_last_bit(name):
    def path(loss):
        pyro.clear_param_store()
        pyro.set_rng_seed(5)
        svi = SVI(plain_model, plain_guide, Adam({"lr": 0.05}), loss)
        steps = [svi.step(X[:, 0]) for _ in range(10)]
        return steps, svi.evaluate_loss(X[:, 0]), dict(pyro.get_param_store().named_parameters())

    steps, evaluated, params = path(STOCK[name]())
    ours, our_evaluated, our_params = path(ebm.EnergyELBO(DISCREPANCY, STOCK[name]()))
    assert ours == steps
    assert our_evaluated == evaluated
    assert all(torch.equal(params[key], our_params[key]) for key in params)


# --- the reported number ---


def test_all_forms_report_the_negative_log_evidence(host):
    toy = truth.Toy(host, precision=truth.PRECISION)
    pyro.param("slope", torch.tensor(truth.SLOPE))
    pyro.param("scale", torch.tensor(truth.SCALE), constraint=dist.constraints.positive)
    loss = ebm.EnergyELBO(DISCREPANCY, Trace_ELBO(num_particles=20), num_normalizer_samples=20000)
    svi = SVI(toy.model, toy.guide, SGD({"lr": 0.0}), loss)
    reported = svi.evaluate_loss(), svi.step(), loss(toy.model, toy.guide)().item()
    expected = pytest.approx(truth.NEGATIVE_LOG_EVIDENCE, abs=0.05)
    assert [number / truth.NUM_DATA for number in reported] == [expected] * 3


def test_the_module_form_has_the_gradients_of_a_step():
    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.energy = Bowl()

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", prior(self.energy))
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    model = Model()
    guide, loss = AutoNormal(model), ebm.EnergyELBO(DISCREPANCY)
    guide(X)
    gradients = []
    for backward in (
        lambda: loss(model, guide)(X).backward(),
        lambda: loss.loss_and_grads(model, guide, X),
    ):
        pyro.set_rng_seed(3)
        model.energy.weight.grad = None
        backward()
        gradients.append(model.energy.weight.grad)
    assert gradients[0].item() != 0
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("elbo", [TraceGraph_ELBO, RenyiELBO, ReweightedWakeSleep])
def test_the_module_form_needs_a_differentiable_loss(elbo):
    loss = ebm.EnergyELBO(DISCREPANCY, elbo(num_particles=2))
    with pytest.raises(NotImplementedError, match=f"got {elbo.__name__}, which has none"):
        loss(nn.Module(), nn.Module())


def test_the_log_normalizer_has_no_gradient():
    def gradient_and_loss(num_samples):
        pyro.clear_param_store()
        pyro.set_rng_seed(2)
        energy = Bowl()
        loss = ebm.EnergyELBO(DISCREPANCY, num_normalizer_samples=num_samples)
        value = loss.loss_and_grads(latent_model(energy), mean_field_guide, X)
        return energy.weight.grad.item(), value

    (gradient, with_estimate), (same, without) = gradient_and_loss(20000), gradient_and_loss(0)
    assert gradient == same
    log_z = -math.log1p(4.0)  # Two dimensions, N(0, 4) times exp(-z^2 / 2).
    assert with_estimate - without == pytest.approx(8 * log_z, abs=0.5)


def test_a_missing_base_leaves_the_log_normalizer_out():
    model = observed_model(Bowl(), lambda energy: ebm.EnergyBased(energy, event_shape=(2,)))
    with pytest.warns(UserWarning, match="leaves out the log-normalizer of site 'x'"):
        step(model, empty_guide)


def test_a_known_log_normalizer_is_left_to_the_stock_elbo():
    def model(x):
        precision = pyro.param("precision", torch.tensor(3.0))
        density = ebm.EnergyBased(
            lambda z: 0.5 * precision * z.square(),
            event_shape=(),
            log_normalizer=lambda: 0.5 * torch.log(2 * torch.pi / precision),
        )
        with pyro.plate("data", len(x)):
            pyro.sample("x", density, obs=x)

    x = torch.randn(2000) * 2.0
    run = fit(model, empty_guide, ebm.EnergyELBO(DISCREPANCY), x, num_steps=300)
    variance = x.square().mean()
    assert run.params["precision"] == pytest.approx(1 / variance.item(), rel=0.02)
    exact = -dist.Normal(0.0, variance.sqrt()).log_prob(x).sum().item()
    assert run.losses[-1] == pytest.approx(exact, rel=1e-3)
    with pytest.raises(ValueError, match="Expected objectives for energy-based sites"):
        step(model, empty_guide, {"x": DISCREPANCY}, x=x)


def test_observed_sites_need_no_guide():
    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x), subsample_size=512) as index:
            pyro.sample("x", prior(energy), obs=x[index])

    energy, loss = Bowl(), ebm.EnergyELBO(DISCREPANCY)
    run = fit(model, empty_guide, loss, torch.randn(4096, 2), num_steps=400, learning_rate=0.02)
    # Precision 1 = 1/4 of the base + 2 * weight.
    assert run.mean("energy.weight", 100) == pytest.approx(0.375, rel=0.06)


def test_metrics_change_nothing():
    energy, loss = Bowl(), ebm.EnergyELBO(DISCREPANCY)
    model = latent_model(energy)
    fit(model, mean_field_guide, loss, X)
    before = energy.weight.item()
    metrics = loss.metrics(model, mean_field_guide, X)
    assert metrics.keys() == {"z"}
    objective = metrics["z"]["objective"]
    assert not objective.requires_grad
    z = X + 0.5 * torch.randn(2000, 8, 2) + pyro.param("shift").detach()
    expected = DISCREPANCY.loss(prior(energy), z).value.mean().item()
    assert objective.item() == pytest.approx(expected, abs=0.6)
    assert energy.weight.item() == before


def test_repr_shows_all_settings():
    loss = ebm.EnergyELBO(DISCREPANCY, RenyiELBO(num_particles=3), num_normalizer_samples=7)
    expected = f"EnergyELBO({DISCREPANCY}, RenyiELBO(num_particles=3), num_normalizer_samples=7)"
    assert repr(loss) == expected


# --- refusals ---


def nan_model(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", prior(lambda z: z.sum(-1) * math.nan))


def mixture_model(x):
    with pyro.plate("data", len(x)):
        mixing = dist.Categorical(torch.ones(3))
        pyro.sample("z", dist.MixtureSameFamily(mixing, prior(Bowl()).expand([3])))


def doubly_intractable_model(x):
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", prior(lambda z: scale * z.square().sum(-1)), obs=x)


def attaching_model(x):
    ebm.attach("z", target=1.0)
    latent_model(Bowl())(x)


def energy_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", prior(frozen()))


LATENT = latent_model(Bowl())


@pytest.mark.parametrize(
    ("model", "guide", "objective", "message"),
    [
        (nan_model, mean_field_guide, DISCREPANCY, "finite losses and energies at site 'z'"),
        (LATENT, energy_guide, DISCREPANCY, "EnergyBased at site 'z' of the guide"),
        (mixture_model, mean_field_guide, DISCREPANCY, "components of MixtureSameFamily"),
        (
            doubly_intractable_model,
            AutoNormal(doubly_intractable_model),
            DISCREPANCY,
            "dependence on the latent variable 'scale'",
        ),
        (LATENT, mean_field_guide, {"y": DISCREPANCY}, r"the model \(\['z'\]\), got 'y'"),
        (LATENT, attaching("z", target=1.0), DISCREPANCY, r"attach nothing to site 'z'.*'target'"),
        (
            LATENT,
            attaching("typo", mean_field_guide, chains=ebm.PersistentChains(4, (2,))),
            DISCREPANCY,
            r"attach\(...\) for sites with an objective \(\['z'\]\), got 'typo'",
        ),
        (attaching_model, mean_field_guide, DISCREPANCY, r"attach\('z', ...\) in the guide, got"),
    ],
    ids=["nan", "guide", "mixture", "doubly", "objective", "unwanted", "typo", "attach in model"],
)
def test_refusals(model, guide, objective, message):
    with pytest.raises(ValueError, match=message):
        step(model, guide, objective)


@pytest.mark.parametrize("elbo", [Trace_ELBO(), TraceMeanField_ELBO(), RenyiELBO(num_particles=2)])
def test_stock_elbos_refuse_energies_in_guides(elbo):
    model = latent_model(frozen())
    with pytest.raises(ValueError, match="Expected a guide of normalized distributions"):
        fit(model, energy_guide, elbo, X)


def test_energies_under_enumerated_classes_are_refused():
    @config_enumerate
    def model(x):
        with pyro.plate("data", len(x)):
            kind = pyro.sample("kind", dist.Categorical(torch.ones(3)))
            base = dist.Normal(kind.float()[..., None].expand(*kind.shape, 2), 1.0).to_event(1)
            pyro.sample("x", ebm.EnergyBased(lambda x: x.square().sum(-1), base), obs=x)

    with pytest.raises(ValueError, match="Expected every batch dimension of .*'x' to be a plate"):
        step(model, empty_guide, elbo=TraceEnum_ELBO(max_plate_nesting=1))


def test_an_elbo_of_the_host_is_needed():
    with pytest.raises(TypeError, match="ELBO of Pyro, got str"):
        ebm.EnergyELBO(DISCREPANCY, "Trace")


# --- parameters that no optimizer updates ---


def unregistered_model(energy):
    return lambda x: latent_model(lambda z: energy(z), lambda _: prior(energy))(x)


def test_unregistered_parameters_are_named():
    with pytest.warns(UserWarning, match="No optimizer will update .*'z': weight; they are not re"):
        step(unregistered_model(Bowl()), mean_field_guide)


def test_parameters_in_a_closure_are_found():
    energy = Bowl()
    message = r"No optimizer will update .*'z': a tensor of shape \(\)"
    with pytest.warns(UserWarning, match=message):
        step(latent_model(lambda z: energy(z)), mean_field_guide)


def test_a_name_that_the_store_holds_already_is_found():
    def model(x):
        energy = Bowl()
        pyro.module("energy", energy)
        unregistered_model(energy)(x)

    step(model, mean_field_guide)
    with pytest.warns(UserWarning, match=r"clear_param_store\(\)"):
        step(model, mean_field_guide)


def test_a_site_without_objective_is_named():
    def model(x):
        pyro.module("one", one)
        pyro.module("two", two)
        with pyro.plate("data", len(x)):
            pyro.sample("z", prior(one))
            pyro.sample("x", prior(two), obs=x)

    one, two = Bowl(), Bowl()
    with pytest.warns(UserWarning, match="'z': weight; EnergyELBO has no objective for this site"):
        step(model, mean_field_guide, {"x": DISCREPANCY})
    assert one.weight.item() == 0.5
    assert two.weight.item() != 0.5


# --- losses and gradients that are not finite ---


class Exploding:
    """An objective that is infinite from its second call on."""

    def __init__(self):
        self.num_calls = 0

    def loss(self, distribution, value):
        self.num_calls += 1
        return Loss(distribution.potential(value) * math.inf ** (self.num_calls - 1), {})


class Steep:
    """A loss of zero with a gradient whose square overflows in single precision."""

    def loss(self, distribution, value):
        energy = scaled_energy(distribution, value)
        return Loss(1e25 * (energy - energy.detach()), {})


class Kinked(Bowl):
    """The root of zero has no gradient."""

    def __init__(self):
        super().__init__()
        self.root = nn.Parameter(torch.tensor(0.0))

    def forward(self, z):
        return super().forward(z) + self.root.abs().sqrt() * z.sum(-1)


def checked_svi(energy, objective, elbo=None, optimizer=None):
    loss = ebm.EnergyELBO(objective, elbo, num_normalizer_samples=0)
    return SVI(observed_model(energy), empty_guide, optimizer or SGD({"lr": 0.1}), loss)


def test_a_failed_step_leaves_no_gradient():
    energy = Bowl()
    svi = checked_svi(energy, Exploding(), Trace_ELBO(num_particles=2))
    with pytest.raises(ValueError, match="finite losses .* site 'x', .* smaller learning rate"):
        svi.step(X)
    assert energy.weight.item() == 0.5
    assert energy.weight.grad.item() == 0
    with pytest.raises(ValueError, match="got 'y'"):
        checked_svi(energy, {"y": DISCREPANCY, "x": DISCREPANCY}).step(X)
    assert energy.weight.grad.item() == 0


@pytest.mark.parametrize("optimizer", [SGD({"lr": 0.1}), Adam({"lr": 0.1})])
def test_gradients_that_are_not_finite_reach_no_optimizer(optimizer):
    energy = Kinked()
    svi = checked_svi(energy, DISCREPANCY, optimizer=optimizer)
    with pytest.raises(ValueError, match=r"NaN or infinity in \['energy\$\$\$root'\]"):
        svi.step(X)
    assert (energy.weight.item(), energy.root.item()) == (0.5, 0.0)
    assert (energy.weight.grad.item(), energy.root.grad.item()) == (0.0, 0.0)
    energy.root.data.fill_(1.0)
    svi.step(X)
    assert energy.weight.item() != 0.5


def test_finite_gradients_may_have_an_infinite_norm():
    energy = Bowl()
    checked_svi(energy, Steep(), optimizer=SGD({"lr": 1e-30})).step(torch.ones(8, 2))
    assert energy.weight.item() != 0.5


def test_without_validation_nothing_is_checked():
    energy = Bowl()
    svi = checked_svi(energy, Exploding(), Trace_ELBO(num_particles=2))
    with (
        pyro.validation_enabled(is_validate=False),
        pytest.warns(UserWarning, match="Encountered NaN"),  # Pyro's own
    ):
        svi.step(X)
    assert not math.isfinite(energy.weight.item())


# --- attached parts ---


class Matched:
    """Objective that pulls a learner to 3."""

    def loss(self, distribution, value, *, target):
        return Loss(distribution.potential(value) + (target.weight - 3.0).square(), {})


def test_attached_modules_are_trained_by_one_step():
    guide, loss = attaching("z", mean_field_guide, target=Bowl()), ebm.EnergyELBO(Matched())
    run = fit(latent_model(Bowl()), guide, loss, X, num_steps=100, learning_rate=0.1)
    assert run.params["z$target.weight"] == pytest.approx(3.0, abs=0.1)


def test_attach_has_no_effect_elsewhere():
    guide = attaching("z", mean_field_guide, target=Bowl())
    fit(latent_model(frozen()), guide, Trace_ELBO(), X)
    with pytest.raises(ValueError, match=r"attach \['target'\] to site 'z' .*, got nothing"):
        step(latent_model(Bowl()), mean_field_guide, Matched())


def test_objectives_are_given_constants():
    class Recording:
        def loss(self, distribution, value):
            seen.append(value.requires_grad)
            return Loss(distribution.potential(value), {})

    seen = []
    step(latent_model(Bowl()), mean_field_guide, Recording())
    assert seen == [False]
