import pickle

import pyro
import pytest
import torch
from helpers.distributions.energy_based import *  # noqa: F403
from helpers.hosts.pyro import Bowl, normal
from pyro.distributions import transforms

import pyro_ebm.pyro as ebm


def test_pickle():
    distribution = ebm.EnergyBased(Bowl(), normal())
    twin, value = pickle.loads(pickle.dumps(distribution)), distribution.sample()
    torch.testing.assert_close(twin.log_prob(value), distribution.log_prob(value))


def test_dtype():
    distribution = ebm.EnergyBased(Bowl().double(), event_shape=(3,))
    value = distribution.sample((2,))
    assert value.dtype == torch.float64
    assert distribution.log_prob(value).dtype == torch.float64


def test_draws_have_no_gradients():
    energy = Bowl()
    assert not ebm.EnergyBased(energy, normal()).sample((2,)).requires_grad
    with torch.no_grad():
        ebm.EnergyBased(energy, normal()).sample((2,))
    assert energy.weight.grad is None


def test_draws_in_inference_mode():
    energy = Bowl()

    def draw():
        pyro.set_rng_seed(0)
        shift = torch.linspace(0.5, 2.0, 4)[:, None]
        base = ebm.Pushforward(normal(), lambda z: 0.5 * z)
        conditional = ebm.EnergyBased(lambda x, c: energy(x * c), base, context=shift)
        bounded = ebm.EnergyBased(lambda x: shift[0] * x, pyro.distributions.Beta(2.0, 2.0))
        return conditional.sample((3,)), bounded.sample((3,))

    outside = draw()
    with torch.inference_mode():
        inside = draw()
        assert inside[0].is_inference()
    torch.testing.assert_close(inside, outside)


@pytest.mark.parametrize("flow", [transforms.planar, transforms.radial])
def test_flows_without_an_inverse(flow):
    latent, flow = normal(), flow(2)
    prior = ebm.EnergyBased(Bowl(), pyro.distributions.TransformedDistribution(latent, [flow]))
    for use in (prior.sample, lambda: prior.log_prob(torch.zeros(2))):
        with pytest.raises(ValueError, match=f"inverses, got .*{type(flow).__name__}.*latent"):
            use()
    assert prior.latent.sample((3,)).shape == (3, 2)
    generated = ebm.EnergyBased(Bowl(), ebm.Pushforward(latent, lambda z: flow(z)))
    assert generated.sample((3,)).shape == (3, 2)


def test_values_out_of_support():
    with pytest.raises(ValueError, match="support"):
        ebm.EnergyBased(Bowl(), normal()).log_prob(torch.full((2,), torch.nan))
    model = pyro.poutine.trace(
        lambda: pyro.sample("z", ebm.EnergyBased(lambda x: x.sum(-1) * torch.nan, normal()))
    )
    with pytest.raises(ValueError, match="z"):
        model.get_trace().compute_log_prob()


def test_half_precision_stays_in_the_network():
    energy = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Flatten(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert energy(torch.zeros(1, 2)).dtype == torch.bfloat16
        potential = ebm.EnergyBased(energy, event_shape=(2,)).potential(torch.zeros(2))
    assert potential.dtype == torch.float32
