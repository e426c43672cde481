"""Digits with normal priors and with priors trained between bounds, with NumPyro and flowjax.

Run: ``PYTHONPATH=tutorials python tests/benchmarks/bounds_digits_numpyro.py``
"""

from typing import Any

import bounds_digits as settings
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from digits_numpyro import NUM_LATENTS, guide
from flowjax.distributions import StandardNormal, Transformed
from flowjax.experimental.numpyro import register_params
from flowjax.flows import coupling_flow
from generalized_digits import PRIORS, report
from generalized_digits_numpyro import Networks, look_at, model, networks_of
from jax import Array, random
from numpyro.infer import SVI, Trace_ELBO
from resumable import output_path, run_cells

import pyro_ebm.numpyro as ebm
from pyro_ebm.datasets import digits


def untrained_flow(key: Array) -> Transformed:
    """A way from latents of the generator to those of the decoder."""
    return coupling_flow(
        key,
        base_dist=StandardNormal((NUM_LATENTS,)),
        flow_layers=settings.NUM_LAYERS,
        nn_width=settings.FLOW_WIDTH,
        nn_activation=jax.nn.silu,
        invert=False,
    )


def train(
    key: Array, networks: Networks, flow: Transformed, images: Array, num_steps: int
) -> tuple[Networks, Any]:
    """Fitted networks, and parameters of the generator where there is an energy."""

    def guide_and_generator(networks: Networks, images: Array, batch_size: int) -> None:
        guide(networks, images, batch_size)
        if networks.energy is not None:
            ebm.auxiliary("z", generator=register_params("generator", flow))

    loss = Trace_ELBO()
    if networks.energy is not None:
        loss = settings.bounds(ebm, loss)
    rate = optax.cosine_decay_schedule(settings.LEARNING_RATE, num_steps)
    svi = SVI(model, guide_and_generator, optax.adam(rate, *settings.BETAS), loss)
    size = settings.BATCH_SIZE
    params = svi.run(key, num_steps, networks, images, batch_size=size, progress_bar=False).params
    generator = params.pop("generator", None)
    trained = {name.removesuffix("$params"): weights for name, weights in params.items()}
    networks = networks._replace(
        **{name: eqx.combine(trained[name], getattr(networks, name)) for name in trained}
    )
    return networks, generator


def run(prior: str, split: str, seed: int) -> dict[str, Any]:
    """Train on the training images, score the images of another split."""
    keys, data = random.split(random.key(seed), 4), digits()
    networks = networks_of(keys[0], PRIORS["tilted normal" if prior == "bounds" else prior])
    flow = untrained_flow(keys[3])
    images = jnp.asarray(data.train.images)
    networks, _ = train(keys[1], networks, flow, images, settings.NUM_STEPS)
    images = jnp.asarray(getattr(data, split).images)
    return look_at(keys[2], networks, images, **settings.LOG_Z)


if __name__ == "__main__":
    path = output_path("bounds_digits_numpyro")
    rows = run_cells(settings.cells(), run, path, columns=settings.COLUMNS)
    report(rows, settings.COMPARISONS)
