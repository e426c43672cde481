"""Modes of stacked digits that a generator finds, with entropy and without, with NumPyro.

Run: ``python tests/benchmarks/mode_counting_numpyro.py [--data mnist.npz]``
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import mode_counting as settings
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import Array, lax, random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI
from planes_numpyro import Rows
from resumable import run_cells

import pyro_ebm.numpyro as ebm


class Players(NamedTuple):
    energy: Rows
    generator: Rows
    encoder: Rows


def players_of(key: Array, setting: settings.Setting, num_pixels: int) -> Players:
    def mlp(key: Array, inputs: int, outputs: int | str, final: Any = None) -> Rows:
        options = {} if final is None else {"final_activation": final}
        net = eqx.nn.MLP(
            inputs, outputs, setting.width, 2, activation=jax.nn.silu, key=key, **options
        )
        return Rows(net)

    keys = random.split(key, 3)
    return Players(
        energy=mlp(keys[0], num_pixels, "scalar"),
        generator=mlp(keys[1], setting.num_latents, num_pixels, jax.nn.sigmoid),
        encoder=mlp(keys[2], num_pixels, 2 * setting.num_latents),
    )


def inference(players: Players, setting: settings.Setting, entropy_weight: float) -> SVI:
    def model(x: Array) -> None:
        loc, scale = settings.BASE
        base = dist.Normal(jnp.full(x.shape[-1], loc), scale).to_event(1)
        with numpyro.plate("data", len(x)):
            energy = eqx_module("energy", players.energy)
            numpyro.sample("x", ebm.EnergyBased(energy, base), obs=x)

    def guide(x: Array) -> None:
        latent = dist.Normal(jnp.zeros(setting.num_latents), 1.0).to_event(1)
        generator = eqx_module("generator", players.generator)
        encoder = eqx_module("encoder", players.encoder)
        source = ebm.Pushforward(latent, generator, noise_scale=setting.noise_scale)
        ebm.auxiliary("x", generator=source, encoder=lambda x: posterior(encoder, x))

    rate = optax.cosine_decay_schedule(setting.learning_rate, setting.num_steps)
    loss = settings.loss(ebm, setting, entropy_weight)
    return SVI(model, guide, optax.adam(rate, *settings.BETAS), loss)


def posterior(encoder: Rows, x: Array) -> dist.Distribution:
    loc, log_scale = jnp.split(encoder(x), 2, axis=-1)
    return dist.Normal(loc, jnp.exp(log_scale)).to_event(1)


def train(
    images: np.ndarray, setting: settings.Setting, entropy_weight: float, seed: int
) -> tuple[Players, float]:
    """Trained players, and the share of steps whose loss was not finite."""
    init_key, noise_key, state_key = random.split(random.key(seed), 3)
    players = players_of(init_key, setting, settings.NUM_CHANNELS * images.shape[1])
    svi = inference(players, setting, entropy_weight)
    shape = setting.num_steps, setting.batch_size
    chosen, images = settings.indices(len(images), shape, seed), jnp.asarray(images)

    def batch(chosen: Array, key: Array) -> Array:
        x = images[chosen].reshape(len(chosen), -1)
        return x + setting.noise_scale * random.normal(key, x.shape)

    def step(state: Any, inputs: tuple[Array, Array]) -> tuple[Any, Array]:
        return svi.stable_update(state, batch(*inputs))

    keys = random.split(noise_key, setting.num_steps)
    inputs = jnp.asarray(chosen, dtype=jnp.int32), keys
    state = svi.init(state_key, batch(*(part[0] for part in inputs)))
    state, losses = jax.jit(lambda state, inputs: lax.scan(step, state, inputs))(state, inputs)
    params = svi.get_params(state)
    trained = (
        eqx.combine(params[f"{name}$params"], net) for name, net in players._asdict().items()
    )
    return Players(*trained), float(jnp.mean(~jnp.isfinite(losses)))


def run(
    data: str, method: str, seed: int, setting: settings.Setting | None = None
) -> dict[str, float]:
    images, setting = settings.read_images(data), setting or settings.SETTINGS[data]
    weight = settings.METHODS[method]
    players, refused = train(images.train.images, setting, weight, seed)
    z = random.normal(random.key(10_000 + seed), (settings.NUM_DRAWS, setting.num_latents))
    draws = players.generator(z)
    energies = players.energy(draws)
    return settings.figures(images, np.asarray(draws), np.asarray(energies), refused)


if __name__ == "__main__":
    arguments = settings.read_arguments("mode_counting_numpyro")
    cells = settings.cells(arguments.data)
    rows = run_cells(cells, run, arguments.output, columns=settings.COLUMNS)
    settings.print_table(rows)
