"""Digits with a normal prior and with priors trained by f-divergences, with NumPyro.

Run: ``PYTHONPATH=tutorials python tests/benchmarks/f_divergence_digits_numpyro.py``
"""

import math
from typing import Any

import equinox as eqx
import f_divergence_digits as settings
import jax.numpy as jnp
import optax
from digits_numpyro import (
    NUM_LATENTS,
    NUM_PIXELS,
    Networks,
    guide,
    log_likelihood,
    mlp,
    model,
    prior,
)
from jax import Array, random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI, Trace_ELBO
from resumable import output_path, run_cells

import pyro_ebm.numpyro as ebm
from pyro_ebm.datasets import digits


def train(
    rng_key: Array, networks: Networks, images: Array, prior_name: str
) -> tuple[Networks, float]:
    """Fitted networks; the mean ratio of data to model on draws, 1 for a good critic."""
    init_key, run_key, health_key = random.split(rng_key, 3)
    loss, critic = Trace_ELBO(), mlp(init_key, NUM_LATENTS, 128, "scalar")
    sampler = ebm.Langevin(settings.STEP_SIZE, settings.NUM_LANGEVIN)
    chains = ebm.PersistentChains(settings.NUM_CHAINS, (NUM_LATENTS,), sampler=sampler)

    def guide_with_critic(*args: Any, **kwargs: Any) -> None:
        guide(*args, **kwargs)
        if networks.energy is not None:
            ebm.auxiliary("z", critic=eqx_module("critic", critic), chains=chains)

    if networks.energy is not None:
        objective = ebm.FDivergence(prior_name, **settings.OBJECTIVE)
        loss = ebm.EnergyELBO(objective, loss, num_normalizer_samples=0)
    rate = optax.cosine_decay_schedule(settings.LEARNING_RATE, settings.NUM_STEPS)
    svi = SVI(model, guide_with_critic, optax.adam(rate), loss)
    arguments, size = (networks, images), settings.BATCH_SIZE
    result = svi.run(run_key, settings.NUM_STEPS, *arguments, batch_size=size, progress_bar=False)
    trained = {name.removesuffix("$params"): weights for name, weights in result.params.items()}
    trained.pop("critic", None)
    fitted = networks._replace(
        **{name: eqx.combine(trained[name], getattr(networks, name)) for name in trained}
    )
    if networks.energy is None:
        return fitted, math.nan
    param_map = result.params | result.state.mutable_state
    health = loss.health(health_key, param_map, model, guide_with_critic, *arguments)
    return fitted, float(health["z"]["mean_ratio"])


def run(prior_name: str, split: str, seed: int) -> dict[str, Any]:
    """Train on the training images, score the images of another split."""
    keys = random.split(random.key(seed), 6)
    encoder = mlp(keys[0], NUM_PIXELS, 256, 2 * NUM_LATENTS)
    energy = None if prior_name == "normal" else mlp(keys[2], NUM_LATENTS, 128, "scalar")
    networks = Networks(encoder, mlp(keys[1], NUM_LATENTS, 256, NUM_PIXELS), energy)
    data = digits()
    networks, mean_ratio = train(keys[3], networks, jnp.asarray(data.train.images), prior_name)
    images, log_z, log_z_error = jnp.asarray(getattr(data, split).images), 0.0, 0.0
    scores = log_likelihood(keys[4], networks, images, settings.NUM_IMPORTANCE)
    if energy is not None:
        normalizer = ebm.log_normalizer(keys[5], prior(networks.energy), **settings.LOG_Z)
        log_z, log_z_error = float(normalizer.estimate), float(normalizer.standard_error)
    return settings.figures(scores - log_z, log_z, log_z_error, mean_ratio)


if __name__ == "__main__":
    path = output_path("f_divergence_digits_numpyro")
    settings.report(run_cells(settings.cells(), run, path, columns=settings.COLUMNS))
