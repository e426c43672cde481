"""JAX samplers side by side: bare JAX, this package and ``blackjax``.

Run: ``make benchmark``
"""

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax, random
from speed import (
    LEAPFROG_STEP,
    NUM_CHAINS,
    NUM_DIMS,
    NUM_LEAPFROG,
    NUM_STEPS,
    NUM_TRANSITIONS,
    STEP_SIZE,
    compare,
    layers,
    starts,
)

import pyro_ebm.numpyro as ebm


class Energy(eqx.Module):
    layers: list

    def __call__(self, x):
        hidden = x
        for weight, bias in self.layers[:-1]:
            hidden = jax.nn.silu(hidden @ weight.T + bias)
        weight, bias = self.layers[-1]
        return (hidden @ weight.T + bias)[..., 0] + (x**2).sum(-1) / 8.0


energy = Energy([(jnp.asarray(weight), jnp.asarray(bias)) for weight, bias in layers()])
start, key = jnp.asarray(starts()), random.key(0)


def ours(sampler, num_steps):
    def run():
        chains = ebm.run_chains(
            key,
            sampler,
            ebm.EnergyBased(energy, event_shape=start.shape[1:]),
            num_samples=1,
            thinning=num_steps,
            init=start,
            progress_bar=False,
        )
        jax.block_until_ready(chains.samples)

    return run


def ours_alone(sampler, num_steps):
    """The sampler in a scan, as the rival is run: without what `run_chains` checks and keeps."""

    @jax.jit
    def run(x, key):
        def step(state, key):
            return sampler.step(key, energy, state)[0], None

        return lax.scan(step, sampler.init(energy, x), random.split(key, num_steps))[0]

    return lambda: jax.block_until_ready(run(start, key))


def log_density(x):
    return -energy(x)


@jax.jit
def _bare_langevin(x, key):
    def move(x, key):
        gradient = jax.grad(lambda x: energy(x).sum())(x)
        noise = random.normal(key, x.shape)
        return x - STEP_SIZE * gradient + (2 * STEP_SIZE) ** 0.5 * noise, None

    return lax.scan(move, x, random.split(key, NUM_STEPS))[0]


def blackjax_chains(algorithm, num_steps):
    @jax.jit
    def run(x, key):
        def step(state, key):
            return jax.vmap(algorithm.step)(random.split(key, NUM_CHAINS), state)[0], None

        return lax.scan(step, jax.vmap(algorithm.init)(x), random.split(key, num_steps))[0]

    return lambda: jax.block_until_ready(run(start, key))


@jax.jit
def _blackjax_langevin(x, key):
    sgld = blackjax.sgld(lambda x, _: jax.grad(log_density)(x))

    def move(x, key):
        keys = random.split(key, NUM_CHAINS)
        return jax.vmap(lambda key, x: sgld.step(key, x, None, STEP_SIZE))(keys, x), None

    return lax.scan(move, x, random.split(key, NUM_STEPS))[0]


def main():
    inverse_mass = jnp.ones(NUM_DIMS)
    compare(
        "100 ULA steps",
        {
            "bare jax": lambda: jax.block_until_ready(_bare_langevin(start, key)),
            "pyro_ebm": ours_alone(ebm.Langevin(STEP_SIZE), NUM_STEPS),
            "pyro_ebm, run_chains": ours(ebm.Langevin(STEP_SIZE), NUM_STEPS),
            "blackjax": lambda: jax.block_until_ready(_blackjax_langevin(start, key)),
        },
        reference="blackjax",
    )
    compare(
        "100 MALA steps",
        {
            "pyro_ebm": ours_alone(ebm.MALA(STEP_SIZE), NUM_STEPS),
            "pyro_ebm, run_chains": ours(ebm.MALA(STEP_SIZE), NUM_STEPS),
            "blackjax": blackjax_chains(blackjax.mala(log_density, STEP_SIZE), NUM_STEPS),
        },
        reference="blackjax",
    )
    hmc = blackjax.hmc(log_density, LEAPFROG_STEP, inverse_mass, NUM_LEAPFROG)
    compare(
        "10 HMC transitions of 10 leapfrog steps",
        {
            "pyro_ebm": ours_alone(ebm.HMC(LEAPFROG_STEP, num_steps=NUM_LEAPFROG), NUM_TRANSITIONS),
            "pyro_ebm, run_chains": ours(
                ebm.HMC(LEAPFROG_STEP, num_steps=NUM_LEAPFROG), NUM_TRANSITIONS
            ),
            "blackjax": blackjax_chains(hmc, NUM_TRANSITIONS),
        },
        reference="blackjax",
    )


if __name__ == "__main__":
    main()
