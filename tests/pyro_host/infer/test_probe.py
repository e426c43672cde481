from functools import partial

import pyro
import pytest
import torch
from helpers.hosts.pyro import empty_guide, prior
from helpers.infer.probe import *  # noqa: F403
from torch import nn

import pyro_ebm.pyro as ebm


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(8), nn.Dropout(0.3)])
def test_layers_in_training_mode_are_refused(layer):
    energy = nn.Sequential(nn.Linear(2, 8), layer, nn.SiLU(), nn.Linear(8, 1), nn.Flatten(0))
    statistics = {name: buffer.clone() for name, buffer in energy.named_buffers()}
    x = torch.randn(20, 2)
    with pytest.raises(ValueError, match=r"the same number again.*evaluation mode \(`.eval\(\)`\)"):
        prior(energy.train())._check_rows(x)
    for name, buffer in energy.named_buffers():
        assert torch.equal(buffer, statistics[name])
    prior(energy.eval())._check_rows(x)


@pytest.mark.parametrize("is_function", [False, True])
def test_spectral_norm_passes_while_its_vectors_move(is_function):
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(2, 8), n_power_iterations=1)
    nn.init.normal_(layer.parametrizations.weight.original)
    energy = nn.Sequential(layer, nn.SiLU(), nn.Linear(8, 1), nn.Flatten(0))
    vectors = layer.parametrizations.weight[0]._u.clone()
    prior((lambda x: energy(x)) if is_function else energy)._check_rows(torch.randn(20, 2))
    assert torch.equal(layer.parametrizations.weight[0]._u, vectors)


def test_layers_put_back_into_training_mode_are_refused():
    energy = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1), nn.Flatten(0)).eval()
    loss, x = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=0.1)), torch.randn(20, 2)

    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", prior(lambda x: energy(x)), obs=x)

    loss.loss_and_grads(model, empty_guide, x)
    energy.train()
    with pytest.raises(ValueError, match="evaluation mode"):
        loss.loss_and_grads(model, empty_guide, x)


def closing_over(energy, scale):
    def scaled(x):
        return energy(x) * scale if scale is not None else never

    if scale is None:
        never = 0.0  # Otherwise an empty cell of the function.
    return scaled


def partial_of(energy, scale):
    return partial(lambda energy, scale, x: energy(x) * scale, energy, scale)


@pytest.mark.parametrize("scaled", [closing_over, partial_of])
def test_another_model_is_probed_by_the_same_elbo_too(scaled):
    loss, calls = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=0.1)), []
    x = torch.randn(20, 2)

    def model_of(energy):
        def model(x):
            scale = pyro.param("scale", torch.tensor(1.0))
            with pyro.plate("data", len(x)):
                pyro.sample("x", prior(scaled(energy, scale)), obs=x)

        return model

    def bowl(x):
        calls.append(len(x))
        return x.square().sum(-1)

    model, numbers = model_of(bowl), []
    for _ in range(3):
        calls.clear()
        loss.loss_and_grads(model, empty_guide, x)
        numbers.append(len(calls))
    assert numbers[0] > numbers[1] == numbers[2]
    with pytest.raises(ValueError, match="alone and among others"):
        loss.loss_and_grads(model_of(lambda x: bowl(x - x.mean(0))), empty_guide, x)
