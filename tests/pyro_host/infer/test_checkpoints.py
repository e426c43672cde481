import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.hosts.pyro import (
    MLP,
    Bowl,
    attaching,
    empty_guide,
    latent_model,
    observed_model,
    prior,
)
from helpers.infer.checkpoints import *  # noqa: F403
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule
from pyro.optim import Adam, PyroLRScheduler, PyroOptim
from torch.distributions import constraints
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import lr_scheduler

import pyro_ebm.pyro as ebm

X = torch.linspace(-2, 2, 8).reshape(4, 2)


def start_again(seed=0):
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)


def resumes(make, path, num_steps=3):
    """Whether a run goes on from a file as it does without; ``make`` gives state and step."""
    start_again()
    state, step = make()
    for _ in range(num_steps):
        step()
    ebm.save_checkpoint(path, state)
    expected = [step() for _ in range(2)], stored()
    start_again(1)
    state, step = make()
    step()
    ebm.load_checkpoint(path, state)
    return ([step() for _ in range(2)], stored()) == expected


def stored():
    return {name: value.tolist() for name, value in pyro.get_param_store().items()}


def svi_on(model, guide=empty_guide, optimizer=None, objective=None):
    loss = ebm.EnergyELBO(objective or ebm.EnergyDiscrepancy(variance=0.5))
    return SVI(model, guide, optimizer or Adam({"lr": 0.05}), loss)


def gaussian(constraint=constraints.positive, size=()):
    def model(x):
        scale = pyro.param("scale", torch.ones(size), constraint=constraint)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, scale).expand([2]).to_event(1), obs=x)

    return SVI(model, empty_guide, Adam({"lr": 0.05}), Trace_ELBO())


# --- what a run has ---


def test_buffers_of_modules(tmp_path):
    """Spectral norm goes on with its vectors, batch norm with its means."""

    def make():
        energy = MLP()
        energy.net[0] = spectral_norm(energy.net[0])
        critic = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))

        def guide(x):
            pyro.module("critic", critic)(x)

        svi = svi_on(observed_model(energy), guide)
        modules.append((energy, critic))
        return {"svi": svi, "energy": energy, "critic": critic}, lambda: svi.step(X)

    modules = []
    assert resumes(make, tmp_path / "run")
    (energy, critic), (other_energy, other_critic) = modules
    assert critic[0].running_mean.tolist() == other_critic[0].running_mean.tolist()
    assert critic[0].num_batches_tracked.item() == 5
    one, two = (e.net[0].parametrizations.weight[0]._u for e in (energy, other_energy))
    assert one.tolist() == two.tolist()


def test_forgotten_buffers_are_named(tmp_path):
    """A module inside of a model's function, whose buffers would not be saved."""
    energy = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))

    def head(x):
        return energy(x)

    def model(x):
        pyro.module("net", energy)
        pyro.sample("z", dist.Normal(head(x), 1.0).to_event(2))

    svi = SVI(model, model, Adam({"lr": 0.05}), Trace_ELBO())
    svi.step(X)
    with pytest.raises(ValueError, match=r"module 'energy' of the model, whose buffers change"):
        ebm.save_checkpoint(tmp_path / "run", {"svi": [svi]})
    ebm.save_checkpoint(tmp_path / "run", (svi, energy))
    # What no state_dict has is no state.
    energy.register_buffer("positions", torch.ones(3), persistent=False)
    ebm.save_checkpoint(tmp_path / "run", (svi, energy))
    energy.eval()
    ebm.save_checkpoint(tmp_path / "run", svi)


def test_the_module_form_with_an_optimizer_of_torch(tmp_path):
    """Parameters and chains are those of a module."""

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.energy = Bowl()

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", prior(self.energy), obs=x)

    class Guide(PyroModule):
        def forward(self, x):
            ebm.attach("x", chains=chains)

    def make():
        elbo = ebm.EnergyELBO(ebm.ContrastiveDivergence())(Model(), Guide())
        optimizer = torch.optim.Adam(elbo.parameters(), lr=0.05)
        rate = lr_scheduler.CosineAnnealingLR(optimizer, 10)

        def step():
            optimizer.zero_grad()
            loss = elbo(X)
            loss.backward()
            optimizer.step()
            rate.step()
            return loss.item(), [value.tolist() for value in elbo.state_dict().values()]

        return (elbo, optimizer, rate), step

    chains = ebm.PersistentChains(3, (2,), sampler=ebm.Langevin(0.1), num_steps=1)
    with pyro.settings.context(module_local_params=True):
        assert resumes(make, tmp_path / "run")
        # Nothing has been trained: the optimizer has no moments yet.
        start_again()
        elbo, optimizer, rate = make()[0]
        with pytest.raises(ValueError, match=r"state\[0\]\['chains.x\$chains'\].*first step"):
            ebm.load_checkpoint(tmp_path / "run", (elbo, optimizer, rate))
        assert optimizer.state_dict()["state"] == {}


def test_an_optimizer_before_its_first_step(tmp_path):
    """It has no moments yet, and gets those of the file."""

    def make():
        return torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))], lr=0.1)

    optimizer, other = make(), make()
    (param,) = optimizer.param_groups[0]["params"]
    param.grad = torch.ones(3)
    optimizer.step()
    ebm.save_checkpoint(tmp_path / "run", optimizer)
    ebm.load_checkpoint(tmp_path / "run", other)
    moments, others = (o.state_dict()["state"][0] for o in (optimizer, other))
    assert {name: moments[name].tolist() for name in moments} == {
        name: others[name].tolist() for name in others
    }
    wrong = torch.optim.AdamW([torch.nn.Parameter(torch.ones(4))])
    match = r"state.state\[0\].exp_avg to be an array of shape \(4,\).*, got .*\(3,\)"
    with pytest.raises(ValueError, match=match):
        ebm.load_checkpoint(tmp_path / "run", wrong)
    # The other way round.
    ebm.save_checkpoint(tmp_path / "run", make())
    ebm.load_checkpoint(tmp_path / "run", optimizer)
    assert optimizer.state_dict()["state"] == {}


@pytest.mark.parametrize("count", [2, 4])
def test_an_optimizer_that_skips_steps(tmp_path, count):
    """Before and after the first step that it takes."""

    def make():
        optimizer = PyroOptim(
            ebm.step_when(torch.optim.Adam), {"lr": 0.1, "condition": lambda k: k % 3 == 2}
        )
        svi = svi_on(observed_model(Bowl()), optimizer=optimizer)
        return svi, lambda: svi.step(X)

    assert resumes(make, tmp_path / "run", count)


SCHEDULERS = {
    "MultiStepLR": {"milestones": [1, 2, 2, 4]},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 9},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 2, "cycle_momentum": False},
    "LambdaLR": {"lr_lambda": lambda k: 0.9**k},
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(tmp_path, name):
    def make():
        options = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.05}, **SCHEDULERS[name]}
        optimizer = PyroLRScheduler(getattr(lr_scheduler, name), options)
        svi = svi_on(observed_model(Bowl()), optimizer=optimizer)

        def step():
            loss = svi.step(X)
            optimizer.step()
            (rate,) = optimizer.optim_objs.values()
            return loss, rate.get_last_lr()

        return svi, step

    assert resumes(make, tmp_path / "run")


def test_a_plateau_and_a_generator(tmp_path):
    """Infinity among the numbers of a scheduler; a generator of one's own."""

    def make():
        param, generator = torch.nn.Parameter(torch.ones(2)), torch.Generator()
        optimizer = torch.optim.SGD([param], lr=1.0)
        plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)

        def step():
            noise = torch.rand((), generator=generator).item()
            plateau.step(noise)
            return noise, plateau.get_last_lr()

        return [optimizer, plateau, generator], step

    assert resumes(make, tmp_path / "run")


def test_generators_of_the_process(tmp_path):
    def draw():
        return torch.randn(2).tolist(), np.random.randn(), random.gauss(0.0, 1.0)

    # An odd number of normal draws leaves one to come.
    draw()
    ebm.save_checkpoint(tmp_path / "run", None)
    expected = [draw(), draw()]
    ebm.load_checkpoint(tmp_path / "run", None)
    assert [draw(), draw()] == expected


def test_constrained_parameters(tmp_path):
    svi = gaussian()
    svi.step(X)
    ebm.save_checkpoint(tmp_path / "run", svi)
    expected, value = pyro.param("scale").item(), svi.step(X)
    leaf = dict(pyro.get_param_store().named_parameters())["scale"]
    assert ebm.load_checkpoint(tmp_path / "run", svi) is svi
    assert pyro.param("scale").item() == expected
    # The tensor is the one that modules and optimizers know.
    assert dict(pyro.get_param_store().named_parameters())["scale"] is leaf
    assert svi.step(X) == value


def test_other_devices_are_warned_of(tmp_path, monkeypatch):
    """A file of two CUDA devices, on a machine with one."""
    states = {i: torch.full((16,), i, dtype=torch.uint8) for i in range(2)}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(states))
    monkeypatch.setattr(torch.cuda, "get_rng_state", states.__getitem__)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, i: states.update({i: state}))
    ebm.save_checkpoint(tmp_path / "run", None)
    states[1] += 1
    ebm.load_checkpoint(tmp_path / "run", None)
    assert [int(state[0]) for state in states.values()] == [0, 1]
    del states[1]
    states[0] += 1
    with pytest.warns(
        UserWarning, match=r"same CUDA devices .*\['rng.cuda\[1\]'\] stay as they are"
    ):
        ebm.load_checkpoint(tmp_path / "run", None)
    assert [int(state[0]) for state in states.values()] == [0]
    ebm.save_checkpoint(tmp_path / "run", None)
    states[1] = states[0] + 5
    with pytest.warns(UserWarning, match="same CUDA devices"):
        ebm.load_checkpoint(tmp_path / "run", None)
    assert [int(state[0]) for state in states.values()] == [0, 5]


# --- what is refused ---


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda: gaussian(constraints.greater_than(1e-3)),
            r"params\['scale'\].constraint to be 'GreaterThan\(lower_bound=0.001\)', got "
            r"'GreaterThan\(lower_bound=0.0\)'",
        ),
        (lambda: gaussian(size=2), r"params\['scale'\] to be an array of shape \(2,\)"),
        (
            lambda: svi_on(observed_model(Bowl())),
            r"params\['energy\$\$\$weight'\], params\['energy\$\$\$weight'\].constraint, .*more in",
        ),
    ],
)
def test_another_model_of_pyro_is_refused(tmp_path, make, match):
    svi = gaussian()
    svi.step(X)
    ebm.save_checkpoint(tmp_path / "run", svi)
    start_again()
    svi = make()
    svi.step(X)
    before = stored(), torch.get_rng_state().tolist(), str(svi.optim.get_state())
    with pytest.raises(ValueError, match=match):
        ebm.load_checkpoint(tmp_path / "run", svi)
    assert (stored(), torch.get_rng_state().tolist(), str(svi.optim.get_state())) == before


def test_a_run_without_a_step_is_advised(tmp_path):
    svi = gaussian()
    svi.step(X)
    ebm.save_checkpoint(tmp_path / "run", svi)
    start_again()
    with pytest.raises(ValueError, match=r"got params\['scale'\].*after its first step: load then"):
        ebm.load_checkpoint(tmp_path / "run", gaussian())
    assert stored() == {}


def test_an_energy_alone_is_loaded_once_it_is_in_the_store(tmp_path):
    energy, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    pyro.module("energy", energy)
    ebm.save_checkpoint(tmp_path / "run", {"energy": energy})
    start_again()
    with pytest.raises(ValueError, match=r"To use a trained energy elsewhere, .*by pyro\.module"):
        ebm.load_checkpoint(tmp_path / "run", {"energy": other})
    pyro.module("energy", other)
    ebm.load_checkpoint(tmp_path / "run", {"energy": other})
    assert torch.equal(other.weight, energy.weight)


def test_an_optimizer_of_a_cleared_store_is_refused(tmp_path):
    svi = gaussian()
    svi.step(X)
    pyro.clear_param_store()
    with pytest.raises(ValueError, match=r"no longer there: use a new optimizer after"):
        ebm.save_checkpoint(tmp_path / "run", svi)


def test_nothing_changes_where_an_object_refuses_its_state(tmp_path):
    """The last object fails after all others have their new states."""

    class Stubborn:
        def state_dict(self):
            return {"a": 1}

        def load_state_dict(self, state):
            raise RuntimeError(f"not {state}")

    svi = svi_on(latent_model(Bowl()), guide_of_latents())
    svi.step(X)
    ebm.save_checkpoint(tmp_path / "run", [svi, Stubborn()])
    svi.step(X)
    before = stored(), torch.get_rng_state().tolist(), str(svi.optim.get_state())
    with pytest.raises(ValueError, match="Expected a state that fits this run"):
        ebm.load_checkpoint(tmp_path / "run", [svi, Stubborn()])
    assert (stored(), torch.get_rng_state().tolist(), str(svi.optim.get_state())) == before


def guide_of_latents():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("shift", x), 1.0).to_event(1))

    return attaching("z", guide)


def test_broken_random_numbers_are_refused(tmp_path):
    ebm.save_checkpoint(tmp_path / "run", None)
    parts = hostile_files.Parts.of((tmp_path / "run").read_bytes())  # noqa: F405
    parts.data = bytes(len(parts.data))
    (tmp_path / "run").write_bytes(parts.packed())
    before = torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())
    with pytest.raises(ValueError, match="Expected a state that fits this run"):
        ebm.load_checkpoint(tmp_path / "run", None)
    after = torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())
    assert after == before
