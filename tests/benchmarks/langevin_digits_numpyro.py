"""Digits with a normal and with an energy-based prior, short-run Langevin for an encoder.

Run: ``PYTHONPATH=tutorials python tests/benchmarks/langevin_digits_numpyro.py``
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import langevin_digits as settings
import numpyro
import numpyro.distributions as dist
import optax
from digits_numpyro import NUM_LATENTS, NUM_PIXELS, Networks, mlp, model, prior
from jax import Array, random
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO
from resumable import output_path, run_cells

import pyro_ebm.numpyro as ebm
from pyro_ebm.datasets import digits


def train(rng_key: Array, networks: Networks, images: Array) -> Networks:
    """Networks fitted with a guide that has no parameters."""
    guide = ebm.LangevinGuide(model, ebm.Langevin(settings.STEP_SIZE, settings.NUM_LANGEVIN))
    loss = Trace_ELBO()
    if networks.energy is not None:
        objective = ebm.EnergyDiscrepancy(variance=settings.VARIANCE)
        loss = ebm.EnergyELBO(objective, Trace_ELBO())
    rate = optax.cosine_decay_schedule(settings.LEARNING_RATE, settings.NUM_TRAINING)
    svi = SVI(model, guide, optax.adam(rate), loss)
    size = settings.BATCH_SIZE
    result = svi.run(
        rng_key, settings.NUM_TRAINING, networks, images, batch_size=size, progress_bar=False
    )
    trained = {name.removesuffix("$params"): w for name, w in result.params.items()}
    return networks._replace(
        **{name: eqx.combine(trained[name], getattr(networks, name)) for name in trained}
    )


def fitted_posteriors(rng_key: Array, networks: Networks, images: Array) -> Any:
    """Guide with a normal distribution of its own for each image, fitted to its posterior."""
    chains = ebm.LangevinGuide(frozen, ebm.Langevin(settings.STEP_SIZE / 2, num_steps=300))
    start = jax.jit(lambda key: handlers.seed(chains, key)(networks, images)["z"])(rng_key)
    narrow = 0.1 * jnp.tile(jnp.eye(NUM_LATENTS), (len(images), 1, 1))
    lower = dist.constraints.scaled_unit_lower_cholesky

    def guide(networks, images, widened=1.0):
        loc = numpyro.param("loc", start)
        tril = numpyro.param("tril", narrow, constraint=lower)
        with numpyro.plate("images", len(images)):
            numpyro.sample("z", dist.MultivariateNormal(loc, scale_tril=widened * tril))

    rate = optax.cosine_decay_schedule(settings.FITTING_RATE, settings.NUM_FITTING)
    svi = SVI(frozen, guide, optax.adam(rate), Trace_ELBO())
    result = svi.run(rng_key, settings.NUM_FITTING, networks, images, progress_bar=False)
    fitted = handlers.substitute(guide, data=result.params)
    return lambda networks, images: fitted(networks, images, settings.WIDENED)


# The model with the weights that it is handed, which are no parameters any more.
frozen = handlers.block(model, hide_fn=lambda site: site["type"] == "param")


def run(prior_name: str, split: str, seed: int) -> dict[str, Any]:
    """Train on the training images, score the images of another split."""
    keys = random.split(random.key(seed), 7)
    energy = None if prior_name == "normal" else mlp(keys[1], NUM_LATENTS, 128, "scalar")
    networks = Networks(None, mlp(keys[0], NUM_LATENTS, 256, NUM_PIXELS), energy)
    data = digits()
    networks = train(keys[2], networks, jnp.asarray(data.train.images))
    images, known, log_z, log_z_error = jnp.asarray(getattr(data, split).images), {}, 0.0, 0.0
    if energy is not None:
        known["z"] = ebm.log_normalizer(keys[3], prior(networks.energy), **settings.LOG_Z)
        log_z, log_z_error = float(known["z"].estimate), float(known["z"].standard_error)
    guide = fitted_posteriors(keys[4], networks, images)
    importance = ebm.log_marginal(
        keys[5], frozen, guide, networks, images, log_normalizers=known,
        num_samples=settings.NUM_IMPORTANCE, batch_size=settings.IMPORTANCE_BATCH,
    )  # fmt: skip
    few = images[: settings.NUM_ANNEALED_IMAGES]
    annealed = ebm.log_marginal(
        keys[6], frozen, None, networks, few, log_normalizers=known, **settings.ANNEALING
    )
    return settings.figures(importance, annealed, log_z, log_z_error)


if __name__ == "__main__":
    path = output_path("langevin_digits_numpyro")
    settings.report(run_cells(settings.cells(), run, path, columns=settings.COLUMNS))
