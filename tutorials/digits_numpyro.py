"""This tutorial gives a decoder of handwritten digits an energy-based prior, in NumPyro.

The same model is trained twice on real 8 x 8 digits, from the same weights: once with a standard
normal prior on its 16 latents, once with a prior that an energy network bends into shape. Then we
ask both how well they predict digits that they have never seen. Run it with

    python tutorials/digits_numpyro.py --output demo_output

`digits_pyro.py` is the same for Pyro; `digits_report.py` draws the pictures.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from digits_report import Evidence, read_settings, report
from jax import random
from numpyro.contrib.module import eqx_module
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from tqdm import tqdm

import pyro_ebm.numpyro as ebm
from pyro_ebm.datasets import digits
from pyro_ebm.diagnostics import to_arviz

NUM_PIXELS, NUM_LATENTS, NOISE = 64, 16, 0.15

# --- 1. The model -------------------------------------------------------------------------------


class Rows(eqx.Module):
    """A network of one value, applied to rows of values."""

    network: eqx.nn.MLP

    def __call__(self, values):
        return jax.vmap(self.network)(values)


def mlp(key, num_inputs, width, num_outputs):
    return Rows(eqx.nn.MLP(num_inputs, num_outputs, width, 2, jax.nn.silu, key=key))


class Networks(NamedTuple):
    encoder: eqx.Module
    decoder: eqx.Module
    energy: eqx.Module | None  # None: the prior is standard normal


def prior(energy):
    base = dist.Normal(jnp.zeros(NUM_LATENTS), 1.0).to_event(1)
    # Density proportional to exp(-energy(z)) * base(z): a distribution like any other.
    return base if energy is None else ebm.EnergyBased(energy, base)


def likelihood(decoder, z):
    return dist.Normal(decoder(z), NOISE).to_event(1)


def model(networks, images, batch_size=None):
    decoder, energy = eqx_module("decoder", networks.decoder), networks.energy
    if energy is not None:
        energy = eqx_module("energy", energy)
    with numpyro.plate("images", len(images), subsample_size=batch_size) as batch:
        z = numpyro.sample("z", prior(energy))
        numpyro.sample("x", likelihood(decoder, z), obs=images[batch])


# --- 2. The guide: an encoder -------------------------------------------------------------------


def posterior(encoder, images):
    loc, log_scale = jnp.split(encoder(images), 2, axis=-1)
    return dist.Normal(loc, jnp.exp(log_scale)).to_event(1)


def guide(networks, images, batch_size=None):
    encoder = eqx_module("encoder", networks.encoder)
    with numpyro.plate("images", len(images), subsample_size=batch_size) as batch:
        numpyro.sample("z", posterior(encoder, images[batch]))


# --- 3. Training: the host's SVI, with one loss that is new -------------------------------------


def train(name, networks, loss, images, settings):
    print(name)
    # The learning rate falls to zero, or the last weights would be a snapshot of a random walk.
    cosine = optax.cosine_decay_schedule(1e-3, settings.num_steps)
    svi = SVI(model, guide, optax.adam(cosine), loss)
    key = random.key(settings.seed)
    params = svi.run(key, settings.num_steps, networks, images, batch_size=128).params
    trained = {name.removesuffix("$params"): weights for name, weights in params.items()}
    return networks._replace(
        **{name: eqx.combine(trained[name], getattr(networks, name)) for name in trained}
    )


def train_both(images, settings):
    keys = random.split(random.key(settings.seed), 3)
    encoder = mlp(keys[0], NUM_PIXELS, 256, 2 * NUM_LATENTS)
    decoder = mlp(keys[1], NUM_LATENTS, 256, NUM_PIXELS)
    # Energies map (N, 16) to (N,): one number for each value.
    normal = Networks(encoder, decoder, energy=None)
    learned = Networks(encoder, decoder, energy=mlp(keys[2], NUM_LATENTS, 128, "scalar"))

    normal = train("Normal prior", normal, Trace_ELBO(), images, settings)
    # A stock ELBO cannot train an energy: it does not know the normalizing constant. Energy
    # discrepancy can, from the energies of latents and of noisy copies of them.
    objective = ebm.EnergyDiscrepancy(variance=0.25, num_samples=16)
    loss = ebm.EnergyELBO(objective, Trace_ELBO())
    return normal, train("Energy-based prior", learned, loss, images, settings)


# --- 4. Evidence on images that were never seen -------------------------------------------------


def log_likelihood(rng_key, networks, images, num_samples):
    """Importance-weighted log p(x) of each image, with the encoder as the proposal."""
    proposal, latents = posterior(networks.encoder, images), prior(networks.energy)

    @jax.jit
    def log_weight(key):
        z = proposal.sample(key)
        log_joint = latents.log_prob(z) + likelihood(networks.decoder, z).log_prob(images)
        return log_joint - proposal.log_prob(z)

    keys = tqdm(random.split(rng_key, num_samples), desc="Held-out likelihood")
    log_weights = jnp.stack([log_weight(key) for key in keys])
    return np.asarray(jax.nn.logsumexp(log_weights, axis=0)) - math.log(num_samples)


def look_at(networks, test_images, settings):
    """Results of one prior, for the report."""
    keys = random.split(random.key(settings.seed), 3)
    held_out = log_likelihood(keys[0], networks, test_images, settings.num_importance)
    latents = prior(networks.energy)
    if networks.energy is None:
        return Evidence(held_out, decode(networks, latents.sample(keys[1], (settings.num_draws,))))
    # An energy-based density is known up to its normalizing constant: estimate and bracket it.
    log_z = ebm.log_normalizer(
        keys[2],
        latents,
        num_samples=settings.num_weights,
        num_temperatures=settings.num_temperatures,
    )
    chains = ebm.run_chains(
        keys[1],
        ebm.MALA(step_size=0.1),  # a first guess, which warm-up tunes
        latents,
        num_chains=settings.num_draws,  # one draw from each chain: they are independent
        num_samples=1,
        num_warmup=settings.num_moves,
    )
    images = decode(networks, chains.samples[:, 0])
    return Evidence(held_out, images, log_z)


def decode(networks, z):
    return np.asarray(likelihood(networks.decoder, z).mean)


# --- 5. Posteriors under the trained prior: the host's NUTS -------------------------------------


def sample_posterior(networks, images, settings):
    """Draws of the latents of a few images, as ArviZ wants them."""
    mcmc = MCMC(
        NUTS(model, max_tree_depth=6),
        num_samples=settings.num_samples,
        num_warmup=settings.num_warmup,
        num_chains=settings.num_chains,
        chain_method="vectorized",
    )
    mcmc.run(random.key(settings.seed), networks, images)
    return to_arviz(mcmc, dims={"z": ["image", "latent"]}, observed_data={"x": images})


# --- 6. All of it -------------------------------------------------------------------------------


def main(argv=None):
    settings = read_settings(argv, __doc__)
    data = digits()
    train_images, test_images = map(jnp.asarray, (data.train.images, data.test.images))
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
