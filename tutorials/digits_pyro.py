"""This tutorial gives a decoder of handwritten digits an energy-based prior, in Pyro.

The same model is trained twice on real 8 x 8 digits, from the same weights: once with a standard
normal prior on its 16 latents, once with a prior that an energy network bends into shape. Then we
ask both how well they predict digits that they have never seen. Run it with

    python tutorials/digits_pyro.py --output demo_output

`digits_numpyro.py` is the same for NumPyro; `digits_report.py` draws the pictures.
"""

import copy
import math
import warnings
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from digits_report import Evidence, read_settings, report
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.optim import CosineAnnealingLR
from torch import nn
from tqdm import trange

import pyro_ebm.pyro as ebm
from pyro_ebm.datasets import digits
from pyro_ebm.diagnostics import to_arviz

NUM_PIXELS, NUM_LATENTS, NOISE = 64, 16, 0.15

# --- 1. The model -------------------------------------------------------------------------------


def mlp(num_inputs, width, num_outputs):
    hidden = [nn.Linear(num_inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]
    return nn.Sequential(*hidden, nn.Linear(width, num_outputs))


class Networks(NamedTuple):
    encoder: nn.Module
    decoder: nn.Module
    energy: nn.Module | None  # None: the prior is standard normal


def prior(energy):
    base = dist.Normal(torch.zeros(NUM_LATENTS), 1.0).to_event(1)
    # Density proportional to exp(-energy(z)) * base(z): a distribution like any other.
    return base if energy is None else ebm.EnergyBased(energy, base)


def likelihood(decoder, z):
    return dist.Normal(decoder(z), NOISE).to_event(1)


def model(networks, images, batch_size=None):
    pyro.module("decoder", networks.decoder)
    if networks.energy is not None:
        pyro.module("energy", networks.energy)
    with pyro.plate("images", len(images), subsample_size=batch_size) as batch:
        z = pyro.sample("z", prior(networks.energy))
        pyro.sample("x", likelihood(networks.decoder, z), obs=images[batch])


# --- 2. The guide: an encoder -------------------------------------------------------------------


def posterior(encoder, images):
    loc, log_scale = encoder(images).chunk(2, dim=-1)
    return dist.Normal(loc, log_scale.exp()).to_event(1)


def guide(networks, images, batch_size=None):
    pyro.module("encoder", networks.encoder)
    with pyro.plate("images", len(images), subsample_size=batch_size) as batch:
        pyro.sample("z", posterior(networks.encoder, images[batch]))


# --- 3. Training: the host's SVI, with one loss that is new -------------------------------------


def train(name, networks, loss, images, settings):
    # Both runs start with an empty parameter store and the same seed.
    pyro.clear_param_store()
    pyro.set_rng_seed(settings.seed)
    # The learning rate falls to zero, or the last weights would be a snapshot of a random walk.
    cosine = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 1e-3}}
    scheduler = CosineAnnealingLR({**cosine, "T_max": settings.num_steps})
    svi = SVI(model, guide, scheduler, loss)
    bar = trange(settings.num_steps, desc=name)
    for step in bar:
        value = svi.step(networks, images, batch_size=128)
        scheduler.step()
        if step % 100 == 0:
            bar.set_postfix_str(f"loss per image {value / len(images):.1f}")


def train_both(images, settings):
    pyro.set_rng_seed(settings.seed)
    encoder, decoder = mlp(NUM_PIXELS, 256, 2 * NUM_LATENTS), mlp(NUM_LATENTS, 256, NUM_PIXELS)
    # Energies map (N, 16) to (N,): one number for each value.
    energy = nn.Sequential(mlp(NUM_LATENTS, 128, 1), nn.Flatten(start_dim=0))
    normal = Networks(encoder, decoder, energy=None)
    learned = Networks(copy.deepcopy(encoder), copy.deepcopy(decoder), energy)

    train("Normal prior", normal, Trace_ELBO(), images, settings)
    # A stock ELBO cannot train an energy: it does not know the normalizing constant. Energy
    # discrepancy can, from the energies of latents and of noisy copies of them.
    objective = ebm.EnergyDiscrepancy(variance=0.25, num_samples=16)
    train(
        "Energy-based prior",
        learned,
        ebm.EnergyELBO(objective, Trace_ELBO()),
        images,
        settings,
    )
    return normal, learned


# --- 4. Evidence on images that were never seen -------------------------------------------------


@torch.no_grad()
def log_likelihood(networks, images, num_samples):
    """Importance-weighted log p(x) of each image, with the encoder as the proposal."""
    proposal, latents = posterior(networks.encoder, images), prior(networks.energy)
    log_weights = []
    for _ in trange(num_samples, desc="Held-out likelihood"):
        z = proposal.sample()
        log_joint = latents.log_prob(z) + likelihood(networks.decoder, z).log_prob(images)
        log_weights.append(log_joint - proposal.log_prob(z))
    return torch.logsumexp(torch.stack(log_weights), dim=0).numpy() - math.log(num_samples)


def look_at(networks, test_images, settings):
    """Results of one prior, for the report."""
    pyro.set_rng_seed(settings.seed)
    held_out = log_likelihood(networks, test_images, settings.num_importance)
    latents = prior(networks.energy)
    if networks.energy is None:
        return Evidence(held_out, decode(networks, latents.sample((settings.num_draws,))))
    # An energy-based density is known up to its normalizing constant: estimate and bracket it.
    log_z = ebm.log_normalizer(
        latents, num_samples=settings.num_weights, num_temperatures=settings.num_temperatures
    )
    chains = ebm.run_chains(
        ebm.MALA(step_size=0.1),  # a first guess, which warm-up tunes
        latents,
        num_chains=settings.num_draws,  # one draw from each chain: they are independent
        num_samples=1,
        num_warmup=settings.num_moves,
    )
    images = decode(networks, chains.samples[:, 0])
    return Evidence(held_out, images, log_z)


@torch.no_grad()
def decode(networks, z):
    return likelihood(networks.decoder, z).mean.numpy()


# --- 5. Posteriors under the trained prior: the host's NUTS -------------------------------------


def sample_posterior(networks, images, settings):
    """Draws of the latents of a few images, as ArviZ wants them."""
    pyro.set_rng_seed(settings.seed)
    for network in (networks.decoder, networks.energy):
        network.requires_grad_(False).eval()  # only the latents are unknown now
    with warnings.catch_warnings():
        # With fewer cores than chains, Pyro warns that they run one after the other.
        warnings.filterwarnings("ignore", "num_chains=.* is more than available_cpu")
        mcmc = MCMC(
            NUTS(model, max_tree_depth=6),
            num_samples=settings.num_samples,
            warmup_steps=settings.num_warmup,
            num_chains=settings.num_chains,
        )
    mcmc.run(networks, images)
    return to_arviz(mcmc, dims={"z": ["image", "latent"]}, observed_data={"x": images})


# --- 6. All of it -------------------------------------------------------------------------------


def main(argv=None):
    settings = read_settings(argv, __doc__)
    data = digits()
    train_images, test_images = map(torch.from_numpy, (data.train.images, data.test.images))
    normal, learned = train_both(train_images, settings)
    report(
        settings,
        data,
        normal=look_at(normal, test_images, settings),
        learned=look_at(learned, test_images, settings),
        posterior=sample_posterior(learned, test_images[:2], settings),
    )


if __name__ == "__main__":
    main()
