import pyro
import pytest
import torch
from helpers.hosts.pyro import Bowl, latent_model
from helpers.infer.persistent_chains import *  # noqa: F403
from helpers.infer.persistent_chains import Contrast, X, latent_guide, training, walking
from pyro.optim import AdamW


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
