"""A variational decoder of images on Pyro, as in the tutorial."""

import problems as at
import pyro
import pyro.distributions as dist
import torch
from harness import BY_HAND, FUSED, IN_SVI, Job
from jobs_pyro import Energy, array, mlp, normal, numbers, trainer
from losses_by_hand import LOSSES
from pyro.infer import SVI, Trace_ELBO

import pyro_ebm.pyro as ebm


def digits_job():
    x = array(at.images())
    columns = {
        BY_HAND: lambda: _digits_by_hand(x, *_digit_networks()),
        "Pyro, normal prior": lambda: digits_in_svi(x, is_normal=True),
        IN_SVI: lambda: digits_in_svi(x),
        FUSED: lambda: digits_in_svi(x, fused=True),
    }
    return Job("a training step", "SVI.step of a variational decoder", "16-128-128-1", columns)


def _digit_networks():
    latent, pixels = at.NUM_LATENTS, at.NUM_PIXELS
    return mlp(pixels, 256, 256, 2 * latent), mlp(latent, 256, 256, pixels), Energy(latent, 128)


def _digits_by_hand(x, encoder, decoder, energy):
    def loss():
        mean, log_scale = encoder(x).chunk(2, -1)
        noise = torch.randn_like(mean)
        z = mean + log_scale.exp() * noise
        log_q = -(noise.square() / 2 + log_scale).sum(-1)
        log_p = -((x - decoder(z)).square() / (2 * 0.15**2)).sum(-1) - z.square().sum(-1) / 2
        frozen = torch.func.functional_call(energy, _detached(energy), (z,))
        prior = LOSSES["energy discrepancy, 16"](energy, z.detach(), with_base=True)
        return (log_q - log_p + frozen).sum() + len(x) * prior

    return trainer(loss, [p for net in (encoder, decoder, energy) for p in net.parameters()])


def _detached(module):
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def digits_in_svi(x, *, is_normal=False, num_particles=1, **options):
    encoder, decoder, energy = _digit_networks()
    number = next(numbers)

    def model(x):
        pyro.module(f"decoder{number}", decoder)
        base = normal(at.NUM_LATENTS)
        if not is_normal:
            pyro.module(f"energy{number}", energy)
        with pyro.plate("images", len(x)):
            z = pyro.sample("z", base if is_normal else ebm.EnergyBased(energy, base))
            pyro.sample("x", dist.Normal(decoder(z), 0.15).to_event(1), obs=x)

    def guide(x):
        pyro.module(f"encoder{number}", encoder)
        mean, log_scale = encoder(x).chunk(2, -1)
        with pyro.plate("images", len(x)):
            pyro.sample("z", dist.Normal(mean, log_scale.exp()).to_event(1))

    several = {"vectorize_particles": True, "max_plate_nesting": 1} if num_particles > 1 else {}
    elbo = Trace_ELBO(num_particles, **several)
    objective = ebm.EnergyDiscrepancy(variance=at.VARIANCE, num_samples=16)
    loss = elbo if is_normal else ebm.EnergyELBO(objective, elbo)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": at.LEARNING_RATE, **options}), loss)
    return lambda: svi.step(x)
