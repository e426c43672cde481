import copy

import pyro
import pytest
import torch
from helpers.hosts.pyro import Bowl, latent_model, observed_model
from helpers.infer.persistent_chains import *  # noqa: F403
from helpers.infer.persistent_chains import Contrast, X, latent_guide, training, walking
from pyro.infer import SVI
from pyro.nn import PyroModule
from pyro.optim import Adam, AdamW

import pyro_ebm.pyro as ebm


def test_particles_share_chains_that_no_evaluation_moves(host, stock):
    class Recording(Contrast):
        def loss(self, *args, chains):
            seen.append(chains)
            assert not chains.requires_grad
            return super().loss(*args, chains=chains)

    seen = []
    run = training(host, latent_model(Bowl()), latent_guide(host), stock(), objective=Recording())
    run.step(X)
    first = run.chains("z$chains")
    for count in range(1, 4):
        run.evaluate(X)
        run.step(X)
        assert run.chains("z$chains") == pytest.approx(first + count, rel=1e-5)
    # One value of every step, for all particles.
    assert len({id(chains) for chains in seen}) == 4


def test_no_optimizer_moves_them(host):
    energy = Bowl()
    decay = AdamW({"lr": 0.05, "weight_decay": 0.5})
    guide = latent_guide(host, walking(host, stride=0.0))
    run, store = (
        training(host, latent_model(energy), guide, optimizer=decay),
        pyro.get_param_store(),
    )
    run.step(X)
    first = run.chains("z$chains")
    # As some do: every parameter in the store.
    tensors = [parameter for _, parameter in store.named_parameters()]
    everything = torch.optim.AdamW(tensors, lr=0.1, weight_decay=0.5)
    for _ in range(5):
        run.step(X)
        energy.weight.grad = torch.ones(())
        everything.step()
    assert dict(store.named_parameters())["z$chains"].grad is None
    assert (run.chains("z$chains") == first).all()
    assert energy.weight.item() < 0.3


def test_the_parameter_store_does_not_grow(host):
    run, store = training(host, latent_model(Bowl()), latent_guide(host)), pyro.get_param_store()
    run.metrics(X)
    assert "z$chains" not in store
    run.step(X)
    size = len(store._param_to_name)
    run.step(X)
    assert len(store._param_to_name) == size
    pyro.clear_param_store()
    test_attached_chains_have_no_effect_elsewhere(host)  # noqa: F405
    assert "z$chains" not in store


class Model(PyroModule):
    def __init__(self):
        super().__init__()
        self.energy = Bowl()

    def forward(self, x):
        observed_model(self.energy)(x)


class Guide(PyroModule):
    def forward(self, x):
        ebm.attach("x", chains=ebm.PersistentChains(16, (2,), sampler=ebm.Langevin(0.05)))


@pytest.mark.parametrize("is_local", [False, True])
def test_the_module_form_has_them_in_its_state(is_local):
    objective, x = ebm.ContrastiveDivergence(), torch.tensor(X, dtype=torch.float32)
    expected = SVI(Model(), Guide(), Adam({"lr": 0.0}), ebm.EnergyELBO(objective))
    losses = [expected.step(x) for _ in range(3)]
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    with pyro.settings.context(module_local_params=is_local):
        module, other = (ebm.EnergyELBO(objective)(Model(), Guide()) for _ in range(2))
        assert [module(x).item() for _ in range(3)] == pytest.approx(losses, rel=1e-6)
        other.load_state_dict(module.state_dict())
        twin = copy.deepcopy(other)
        after = [pyro.set_rng_seed(1) or form(x).item() for form in (module, other, twin)]
    assert after[0] == after[1] == after[2]
    assert "x$chains" not in pyro.get_param_store()
    # Data-parallel training would give all processes the buffers of one.
    assert not list(module.buffers())
    state = module.double().state_dict()
    assert state["chains.x$chains"].dtype == torch.float64
    assert state["chains.x$chains"].shape == (16, 2)
