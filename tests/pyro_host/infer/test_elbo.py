import math
from copy import deepcopy

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import linear_gaussian as truth
from helpers.hosts.pyro import (
    Bowl,
    attaching,
    empty_guide,
    latent_model,
    mean_field_guide,
    observed_model,
    prior,
)
from helpers.infer.elbo import *  # noqa: F403
from helpers.infer.elbo import PLAIN_X, X, fit, plain_guide, plain_model, step
from pyro.infer import SVI, RenyiELBO, ReweightedWakeSleep, Trace_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from pyro.optim import SGD, Adam, SparseAdam
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives.loss import Loss

DISCREPANCY = ebm.EnergyDiscrepancy(variance=1.0, num_samples=4)


def test_without_energies_it_evaluates_as_the_stock_elbo(host, stock):
    found = []
    for loss in (stock(), ebm.EnergyELBO(DISCREPANCY, stock())):
        pyro.set_rng_seed(0)
        run = host.Training(plain_model(host), plain_guide(host), loss)
        found.append(run.evaluate(PLAIN_X))
    assert found[0] == found[1]


# --- the module form ---


def test_all_forms_report_the_negative_log_evidence(host):
    toy = truth.Toy(host, precision=truth.PRECISION, slope=truth.SLOPE, scale=truth.SCALE)
    loss = ebm.EnergyELBO(DISCREPANCY, Trace_ELBO(num_particles=20), num_normalizer_samples=20000)
    svi = SVI(toy.model, toy.guide, SGD({"lr": 0.0}), loss)
    reported = svi.evaluate_loss(), svi.step(), loss(toy.model, toy.guide)().item()
    expected = pytest.approx(truth.NEGATIVE_LOG_EVIDENCE, abs=0.05)
    assert [number / truth.NUM_DATA for number in reported] == [expected] * 3


def test_the_module_form_has_the_gradients_of_a_step(host):
    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.energy = Bowl()

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", prior(self.energy))
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    model, x = Model(), host.array(X)
    guide, loss = AutoNormal(model), ebm.EnergyELBO(DISCREPANCY)
    guide(x)
    gradients = []
    for backward in (
        lambda: loss(model, guide)(x).backward(),
        lambda: loss.loss_and_grads(model, guide, x),
    ):
        pyro.set_rng_seed(3)
        model.energy.weight.grad = None
        backward()
        gradients.append(model.energy.weight.grad)
    assert gradients[0].item() != 0
    torch.testing.assert_close(*gradients)


def test_the_module_form_inspects_a_site_once():
    class Counted(Bowl):
        num_calls = 0

        def forward(self, x):
            Counted.num_calls += 1
            return super().forward(x)

    loss = ebm.EnergyELBO(ebm.MaximumLikelihood(), num_normalizer_samples=0)
    module, counts = loss(observed_model(Counted()), empty_guide), []
    for _ in range(3):
        before = Counted.num_calls
        module(torch.as_tensor(X, dtype=torch.float32))
        counts.append(Counted.num_calls - before)
    assert counts[0] > counts[1] == counts[2]


@pytest.mark.parametrize("elbo", [TraceGraph_ELBO, RenyiELBO, ReweightedWakeSleep])
def test_the_module_form_needs_a_differentiable_loss(elbo):
    loss = ebm.EnergyELBO(DISCREPANCY, elbo(num_particles=2))
    with pytest.raises(NotImplementedError, match=f"got {elbo.__name__}, which has none"):
        loss(nn.Module(), nn.Module())


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


def checked_step(energy, objective, elbo=None, optimizer=None, x=X):
    loss = ebm.EnergyELBO(objective, elbo, num_normalizer_samples=0)
    svi = SVI(observed_model(energy), empty_guide, optimizer or SGD({"lr": 0.1}), loss)
    return svi.step(torch.as_tensor(x, dtype=torch.float32))


def test_not_a_number(host):
    model = latent_model(None, lambda _: prior(lambda z: z.sum(-1) * math.nan))
    with pytest.raises(ValueError, match="finite losses and energies at site 'z'"):
        step(host, model, mean_field_guide)


def test_a_failed_step_leaves_no_gradient():
    energy = Bowl()
    with pytest.raises(ValueError, match="finite losses .* site 'x', .* smaller learning rate"):
        checked_step(energy, Exploding(), Trace_ELBO(num_particles=2))
    assert energy.weight.item() == 0.5
    assert energy.weight.grad.item() == 0
    with pytest.raises(ValueError, match="got 'y'"):
        checked_step(energy, {"y": DISCREPANCY, "x": DISCREPANCY})
    assert energy.weight.grad.item() == 0


@pytest.mark.parametrize("optimizer", [SGD({"lr": 0.1}), Adam({"lr": 0.1})])
def test_gradients_that_are_not_finite_reach_no_optimizer(optimizer):
    energy = Kinked()
    with pytest.raises(ValueError, match=r"NaN or infinity in \['energy\$\$\$root'\]"):
        checked_step(energy, DISCREPANCY, optimizer=optimizer)
    assert (energy.weight.item(), energy.root.item()) == (0.5, 0.0)
    assert (energy.weight.grad.item(), energy.root.grad.item()) == (0.0, 0.0)
    energy.root.data.fill_(1.0)
    checked_step(energy, DISCREPANCY, optimizer=optimizer)
    assert energy.weight.item() != 0.5


def test_finite_gradients_may_have_an_infinite_norm():
    energy = Bowl()
    checked_step(energy, Steep(), optimizer=SGD({"lr": 1e-30}), x=torch.ones(8, 2))
    assert energy.weight.item() != 0.5


def test_without_validation_nothing_is_checked():
    energy = Bowl()
    with (
        pyro.validation_enabled(is_validate=False),
        pytest.warns(UserWarning, match="Encountered NaN"),  # Pyro's own
    ):
        checked_step(energy, Exploding(), Trace_ELBO(num_particles=2))
    assert not math.isfinite(energy.weight.item())


def test_sparse_gradients_are_inspected():
    class Table(nn.Embedding):
        def forward(self, x):
            return super().forward((x[:, 0] > 0).long())[:, 0]

    table, optimizer = Table(2, 1, sparse=True), SparseAdam({"lr": 0.1})
    checked_step(table, ebm.MaximumLikelihood(), optimizer=optimizer)
    table.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(ValueError, match=r"NaN or infinity in \['energy\$\$\$weight'\]"):
        checked_step(table, ebm.MaximumLikelihood(), optimizer=optimizer)


# --- attached modules, constants ---


def test_attached_modules_share_no_parameters_with_others(host):
    """To Pyro, parameters of one name are one parameter, and a root may have no name."""
    energy, critic = (PyroModule[nn.Sequential](PyroModule[Bowl]()) for _ in range(2))
    for module, weight in ((energy, 0.3), (critic, 2.0)):
        module[0].weight = PyroParam(torch.tensor(weight), dist.constraints.positive)
    guide = attaching("x", critic=critic, chains=torch.randn(50, 2))
    loss, options = ebm.EnergyELBO(ebm.FDivergence("kl")), {"optimizer": SGD({"lr": 0.0})}
    fit(host, observed_model(energy), guide, loss, num_steps=2, **options)
    copy = deepcopy(critic)
    copy[0].weight = torch.tensor(3.0)
    ebm.attach("y", critic=copy)
    found = [module(torch.ones(1, 1)).item() for module in (energy, critic, copy)]
    assert found == pytest.approx([0.3, 2.0, 3.0])
    assert {"0.weight", "x$critic.0.weight", "y$critic.0.weight"} < pyro.get_param_store().keys()


class Matched:
    """Objective that pulls a learner to 3."""

    def loss(self, distribution, value, *, target):
        assert not value.requires_grad
        return Loss(distribution.potential(value) + (target.weight - 3.0).square(), {})


def test_attached_modules_are_trained_by_one_step_from_constants(host):
    guide, loss = attaching("z", mean_field_guide, target=Bowl()), ebm.EnergyELBO(Matched())
    found = fit(host, latent_model(Bowl()), guide, loss, num_steps=100, learning_rate=0.1)
    assert found.params["z$target.weight"] == pytest.approx(3.0, abs=0.1)
