"""Digits with normal, flow and generalized energy-based priors, with NumPyro and flowjax.

Run: ``PYTHONPATH=tutorials python tests/benchmarks/generalized_digits_numpyro.py``
"""

from typing import Any, NamedTuple

import equinox as eqx
import generalized_digits as settings
import jax.numpy as jnp
import numpyro
import optax
from digits_numpyro import NUM_LATENTS, NUM_PIXELS, guide, likelihood, log_likelihood, mlp
from digits_numpyro import prior as tutorial_prior
from flowjax.distributions import StandardNormal
from flowjax.experimental.numpyro import distribution_to_numpyro, register_params
from flowjax.flows import coupling_flow
from jax import Array, random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI, Trace_ELBO
from paramax import unwrap
from resumable import output_path, run_cells

import pyro_ebm.numpyro as ebm
from pyro_ebm.datasets import digits


class Networks(NamedTuple):
    encoder: eqx.Module
    decoder: eqx.Module
    flow: Any  # None: the base is standard normal
    energy: eqx.Module | None  # None: the prior is the base


def networks_of(key: Array, prior: settings.Prior) -> Networks:
    keys = random.split(key, 4)
    encoder = mlp(keys[0], NUM_PIXELS, 256, 2 * NUM_LATENTS)
    decoder = mlp(keys[1], NUM_LATENTS, 256, NUM_PIXELS)
    energy = mlp(keys[2], NUM_LATENTS, 128, "scalar")
    options = {"flow_layers": settings.NUM_LAYERS, "nn_width": settings.FLOW_WIDTH}
    flow = coupling_flow(keys[3], base_dist=StandardNormal((NUM_LATENTS,)), **options)
    return Networks(
        encoder, decoder, flow if prior.flow else None, energy if prior.energy else None
    )


def prior_of(networks: Networks) -> Any:
    flow = networks.flow
    base = tutorial_prior(None) if flow is None else distribution_to_numpyro(flow)
    return base if networks.energy is None else ebm.EnergyBased(networks.energy, base)


def model(networks: Networks, images: Array, batch_size: int | None = None) -> None:
    learned = {"decoder": eqx_module("decoder", networks.decoder)}
    if networks.flow is not None:
        learned["flow"] = register_params("flow", networks.flow)
    if networks.energy is not None:
        learned["energy"] = eqx_module("energy", networks.energy)
    networks = networks._replace(**learned)
    with numpyro.plate("images", len(images), subsample_size=batch_size) as batch:
        z = numpyro.sample("z", prior_of(networks))
        numpyro.sample("x", likelihood(networks.decoder, z), obs=images[batch])


def train(key: Array, networks: Networks, images: Array, num_steps: int) -> Networks:
    """Fitted networks."""
    loss = Trace_ELBO()
    if networks.energy is not None:
        loss = settings.kale(ebm, loss)
    rate = optax.cosine_decay_schedule(settings.LEARNING_RATE, num_steps)
    svi = SVI(model, guide, optax.adam(rate), loss)
    size = settings.BATCH_SIZE
    params = svi.run(key, num_steps, networks, images, batch_size=size, progress_bar=False).params
    trained = {name.removesuffix("$params"): weights for name, weights in params.items()}
    return networks._replace(
        **{name: unwrap(eqx.combine(trained[name], getattr(networks, name))) for name in trained}
    )


def look_at(key: Array, networks: Networks, images: Array, **options: Any) -> dict[str, Any]:
    """Log-likelihoods of images; ``options`` are those of ``log_normalizer``."""
    score_key, log_z_key = random.split(key)
    prior, normal = prior_of(networks), tutorial_prior(None)

    def as_tilt(z: Array) -> Array:
        """The energy that makes the tutorial's normal prior this one."""
        return normal.log_prob(z) - prior.log_prob(z)

    tilted = networks._replace(energy=as_tilt)
    scores = log_likelihood(score_key, tilted, images, settings.NUM_IMPORTANCE)
    if networks.energy is None:
        return settings.figures(scores)
    # Where there is a flow, chains walk in its latent space: log Z is the same.
    walked = prior if networks.flow is None else prior.latent
    return settings.figures(scores, ebm.log_normalizer(log_z_key, walked, **options))


def run(prior: str, split: str, seed: int) -> dict[str, Any]:
    """Train on the training images, score the images of another split."""
    keys, data = random.split(random.key(seed), 3), digits()
    networks = networks_of(keys[0], settings.PRIORS[prior])
    networks = train(keys[1], networks, jnp.asarray(data.train.images), settings.NUM_STEPS)
    images = jnp.asarray(getattr(data, split).images)
    return look_at(keys[2], networks, images, **settings.LOG_Z)


if __name__ == "__main__":
    path = output_path("generalized_digits_numpyro")
    settings.report(run_cells(settings.cells(), run, path, columns=settings.COLUMNS))
