"""A Gaussian fitted to two Gaussians by f-divergences, with NumPyro.

Run: ``python tests/benchmarks/f_divergence_toy_numpyro.py``
"""

import equinox as eqx
import f_divergence_toy as settings
import jax
import jax.numpy as jnp
import numpyro
import optax
from jax import Array, lax, random
from jax.tree_util import Partial
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI
from resumable import output_path, run_cells

import pyro_ebm.numpyro as ebm


def gaussian_energy(mu: Array, sigma: Array, x: Array) -> Array:
    return 0.5 * ((x - mu) / sigma) ** 2


class Critic(eqx.Module):
    """MLP from ``(N,)`` to ``(N,)``."""

    mlp: eqx.nn.MLP

    def __init__(self, key: Array) -> None:
        width = settings.WIDTH
        self.mlp = eqx.nn.MLP("scalar", "scalar", width, 2, activation=jnp.tanh, key=key)

    def __call__(self, x: Array) -> Array:
        return jax.vmap(self.mlp)(x)


def fit(objective: ebm.FDivergence, num_steps: int, seed: int) -> dict[str, Array]:
    """Parameters of energy and critic, by name."""
    init_key, svi_key = random.split(random.key(seed))
    critic = Critic(init_key)

    def parameters() -> tuple[Array, Array]:
        return numpyro.param("mu", 0.0), numpyro.param("sigma", 1.0)

    def model(x: Array) -> None:
        energy = Partial(gaussian_energy, *parameters())
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", ebm.EnergyBased(energy, event_shape=()), obs=x)

    def guide(x: Array) -> None:
        mu, sigma = parameters()
        draws = mu + sigma * random.normal(numpyro.prng_key(), x.shape)
        ebm.auxiliary("x", critic=eqx_module("critic", critic), chains=draws)

    rate = optax.cosine_decay_schedule(settings.LEARNING_RATE, num_steps)
    optimizer = optax.adam(rate, *settings.BETAS)
    svi = SVI(model, guide, optimizer, ebm.EnergyELBO(objective, num_normalizer_samples=0))
    data = jnp.asarray(settings.batches(num_steps, seed))
    state = svi.init(svi_key, data[0])
    return svi.get_params(jax.jit(lambda state: lax.scan(svi.update, state, data)[0])(state))


def run(divergence: str, num_steps: int, seed: int) -> dict[str, float]:
    objective = ebm.FDivergence(**settings.options(divergence))
    params = fit(objective, num_steps, seed)
    return settings.compared(divergence, float(params["mu"]), abs(float(params["sigma"])))


if __name__ == "__main__":
    path = output_path("f_divergence_toy_numpyro")
    run_cells(settings.cells(), run, path, columns=settings.COLUMNS)
