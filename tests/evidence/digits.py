"""Decoder of handwritten digits with a prior over its latents; the tutorials' networks and guide.

``nets`` has ``encoder`` and ``decoder``, a ``flow`` where the prior's base is one, and an
``energy`` where the prior is tilted.
"""

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from evidence.hosts import Nets
from evidence.measures import mean_and_error

NUM_PIXELS, NUM_LATENTS, NOISE = 64, 16, 0.15


def networks(host: Any, *, energy: bool = False, encoder: bool = True) -> Nets:
    nets = {"encoder": host.mlp(NUM_PIXELS, 2 * NUM_LATENTS, 256)} if encoder else {}
    nets["decoder"] = host.mlp(NUM_LATENTS, NUM_PIXELS, 256)
    return nets | ({"energy": host.mlp(NUM_LATENTS, None, 128)} if energy else {})


def base(host: Any, nets: Nets) -> Any:
    return host.flow_distribution(nets["flow"]) if "flow" in nets else host.normal(NUM_LATENTS)


def prior(host: Any, nets: Nets) -> Any:
    tilted = "energy" in nets
    return host.ebm.EnergyBased(nets["energy"], base(host, nets)) if tilted else base(host, nets)


def likelihood(host: Any, decoder: Any, z: Any) -> Any:
    return host.dist.Normal(decoder(z), NOISE).to_event(1)


def posterior(host: Any, encoder: Any, images: Any) -> Any:
    parameters = encoder(images)
    loc, log_scale = parameters[..., :NUM_LATENTS], parameters[..., NUM_LATENTS:]
    return host.dist.Normal(loc, array_namespace(loc).exp(log_scale)).to_event(1)


def model(host: Any) -> Any:
    def model(nets: Nets, images: Any, batch_size: int | None = None) -> None:
        with host.plate("images", len(images), subsample_size=batch_size) as batch:
            z = host.sample("z", prior(host, nets))
            host.sample("x", likelihood(host, nets["decoder"], z), obs=images[batch])

    return model


def guide(host: Any) -> Any:
    def guide(nets: Nets, images: Any, batch_size: int | None = None) -> None:
        with host.plate("images", len(images), subsample_size=batch_size) as batch:
            host.sample("z", posterior(host, nets["encoder"], images[batch]))

    return guide


def log_likelihood(host: Any, nets: Nets, images: np.ndarray, num_samples: int) -> np.ndarray:
    """Importance-weighted log p(x) of each image, without log Z; the encoder is the proposal."""

    def log_weight(nets: Nets, images: Any, noise: Any) -> Any:
        proposal = posterior(host, nets["encoder"], images)
        z = proposal.base_dist.loc + proposal.base_dist.scale * noise
        log_joint = prior(host, nets).log_prob(z)
        log_joint = log_joint + likelihood(host, nets["decoder"], z).log_prob(images)
        return log_joint - proposal.log_prob(z)

    total, draws = -np.inf, host.draw(host.normal(NUM_LATENTS), num_samples * len(images))
    for noise in draws.reshape(num_samples, len(images), NUM_LATENTS):
        log_weights = host.evaluate(log_weight, nets, images, noise).astype(np.float64)
        total = np.logaddexp(total, log_weights)
    return total - math.log(num_samples)


def log_z(host: Any, nets: Nets, **options: Any) -> tuple[float, float]:
    """Log-normalizer of the prior and its standard error; zero without an energy."""
    if "energy" not in nets:
        return 0.0, 0.0
    tilted = prior(host, nets)
    # Where there is a flow, chains walk in its latent space: log Z is the same.
    result = host.log_normalizer(tilted.latent if "flow" in nets else tilted, **options)
    return float(result.estimate), float(result.standard_error)


def gain(scores: np.ndarray, error: float, others: np.ndarray, other_error: float) -> list[float]:
    """Paired gain in nats an image, and its standard error with those of log Z."""
    return mean_and_error(scores - others, error, other_error)
