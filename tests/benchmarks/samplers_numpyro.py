"""Samplers, log Z and growth on JAX, beside ``blackjax``."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import problems as at
from harness import BLACKJAX, BY_HAND, IN_SVI, OURS, QUICK, RUN_CHAINS, Growth, Job
from jax import lax, random
from jobs_numpyro import (
    KEY,
    Energy,
    bits_job,
    digits_in_svi,
    digits_job,
    loss_jobs,
    normal,
    ours_alone,
    trainer,
    waits,
)
from losses_by_hand_jax import langevin
from problems import CODES, LARGE, SMALL, Size

import pyro_ebm.numpyro as ebm

GROUP = "a run of chains"


def sampler_jobs(size):
    energy = Energy(*size.layers)
    start = jnp.asarray(at.values(size.batch, size.num_dims))
    n, step, ones = at.NUM_LANGEVIN, at.LANGEVIN_STEP, jnp.ones(size.num_dims)
    columns = {
        BY_HAND: lambda: waits(jax.jit(langevin, static_argnums=3), KEY, energy, start, n),
        BLACKJAX: partial(_blackjax_langevin, energy, start, n),
    }
    yield _job(energy, start, size, f"{n} ULA steps", ebm.Langevin(step), n, columns)
    columns = _blackjax(energy, start, n, lambda density: blackjax.mala(density, step))
    yield _job(energy, start, size, f"{n} MALA steps", ebm.MALA(step), n, columns)
    yield _job(energy, start, size, f"{n} kinetic Langevin steps", ebm.KineticLangevin(0.1), n, {})
    n, leapfrog = at.NUM_TRANSITIONS, at.LEAPFROG_STEP
    columns = _blackjax(
        energy, start, n, lambda density: blackjax.hmc(density, leapfrog, ones, at.NUM_LEAPFROG)
    )
    hmc, task = ebm.HMC(leapfrog, num_steps=at.NUM_LEAPFROG), f"{n} HMC transitions of 10"
    yield _job(energy, start, size, task, hmc, n, columns)
    exchange = ebm.ReplicaExchange(ebm.MALA(step), temperatures=(8.0, 4.0, 2.0, 1.0))
    n = at.NUM_LANGEVIN // 10
    yield _job(energy, start, size, f"{n} steps of replica exchange, 4 levels", exchange, n, {})


def _job(energy, start, size, task, sampler, num_steps, others):
    columns = {
        **others,
        OURS: lambda: _scan(sampler, energy, start, num_steps),
        RUN_CHAINS: lambda: partial(_run_chains, sampler, energy, start, num_steps),
    }
    return Job(GROUP, task, size.name, columns)


def _scan(sampler, energy, start, num_steps):
    """The sampler in a scan, as the rival is run: without what ``run_chains`` checks and keeps."""

    @jax.jit
    def run(key, energy, x):
        def step(state, key):
            return sampler.step(key, energy, state)[0], None

        return lax.scan(step, sampler.init(energy, x), random.split(key, num_steps))[0]

    return waits(run, KEY, energy, start)


def _run_chains(sampler, energy, start, num_steps, base=None):
    shape = None if base else start.shape[1:]
    chains = ebm.run_chains(
        KEY,
        sampler,
        ebm.EnergyBased(energy, base, event_shape=shape),
        num_samples=1,
        thinning=num_steps,
        init=start,
        check=False,
        progress_bar=False,
    )
    jax.block_until_ready(chains.samples)


def _blackjax(energy, start, num_steps, make):
    @jax.jit
    def run(key, energy, x):
        algorithm = make(lambda x: -energy(x))

        def step(state, key):
            return jax.vmap(algorithm.step)(random.split(key, len(x)), state)[0], None

        return lax.scan(step, jax.vmap(algorithm.init)(x), random.split(key, num_steps))[0]

    return {BLACKJAX: lambda: waits(run, KEY, energy, start)}


def _blackjax_langevin(energy, start, num_steps):
    @jax.jit
    def run(key, energy, x):
        sgld = blackjax.sgld(lambda x, _: jax.grad(lambda x: -energy(x))(x))

        def move(x, key):
            def one(key, x):
                return sgld.step(key, x, None, at.LANGEVIN_STEP)

            return jax.vmap(one)(random.split(key, len(x)), x), None

        return lax.scan(move, x, random.split(key, num_steps))[0]

    return waits(run, KEY, energy, start)


def other_jobs():
    energy, n = Energy(2, 128), 20 if QUICK else 100
    prior = ebm.EnergyBased(energy, normal(2, 2.0))
    draws = jax.jit(
        lambda key: ebm.run_smc(key, ebm.SMC(num_moves=20), prior, num_samples=256).samples
    )
    yield Job(GROUP, "256 draws by SMC", SMALL.name, {OURS: lambda: waits(draws, KEY)})
    options = {"num_samples": 64, "num_temperatures": n, "num_moves": 5}
    columns = {OURS: lambda: lambda: float(ebm.log_normalizer(KEY, prior, **options).estimate)}
    yield Job("log Z", f"annealed, {n} temperatures, 64 chains", SMALL.name, columns)
    for task, kernel, n, size in (
        ("20 steps of Gibbs with gradients", ebm.GibbsWithGradients(), 20, Size(64, 128, 256)),
        ("a Gibbs sweep of 32 bits, 1024 chains", ebm.Gibbs(), 1, Size(32, 256, 1024, 3)),
    ):
        codes, few = Energy(*size.layers), jnp.asarray(at.bits(size.batch, size.num_dims))
        fair = dist.Bernoulli(logits=jnp.zeros(size.num_dims)).to_event(1)
        columns = {RUN_CHAINS: partial(partial, _run_chains, kernel, codes, few, n, fair)}
        yield Job(GROUP, task, size.name, columns)


def growths():
    def step(num_samples, batch, num_dims, chunk_size=None):
        settings = {"num_samples": num_samples, "chunk_size": chunk_size}
        objective = ebm.EnergyDiscrepancy(variance=at.VARIANCE, **settings)
        x = jnp.asarray(at.values(batch, num_dims))
        return ours_alone(Size(num_dims, 128, batch), objective, x)

    def chains(number):
        start = jnp.asarray(at.values(number, 2))
        return _scan(ebm.MALA(at.LANGEVIN_STEP), Energy(2, 128), start, 20)

    def step_given_contexts(number):
        """A value for each context."""
        context, x = (jnp.asarray(at.values(number, d)) for d in (4, 16))
        objective = ebm.EnergyDiscrepancy(variance=at.VARIANCE, num_samples=4)

        def loss(key, energy):
            of_both = lambda x, context: energy(jnp.concatenate([x, context], -1))  # noqa: E731
            prior = ebm.EnergyBased(of_both, normal(16), context=context)
            return objective.loss(key, prior, x).value.mean()

        return trainer(loss, Energy(16 + 4, 128))

    chunked = partial(step, chunk_size=4)
    for axis, sizes, at_size in at.growths_of_discrepancy():
        for column, make in ((OURS, step), (f"{OURS}, chunk_size=4", chunked)):
            if axis == "batch" and make is chunked:
                continue
            run = lambda n, make=make, at_size=at_size: make(*at_size(n))  # noqa: E731
            yield Growth("energy discrepancy", axis, column, sizes, run)
    yield Growth("energy discrepancy", "contexts", OURS, at.CONTEXTS, step_given_contexts)
    yield Growth("20 MALA steps", "chains", OURS, at.CHAINS, chains)
    particles = lambda n: digits_in_svi(jnp.asarray(at.images()), num_particles=n)  # noqa: E731
    yield Growth("SVI.update of a decoder", "particles", IN_SVI, at.PARTICLES, particles)


def all_jobs():
    yield digits_job()
    yield from loss_jobs(SMALL)
    yield from sampler_jobs(SMALL)
    yield from other_jobs()
    if not QUICK:
        yield from loss_jobs(LARGE)
        yield bits_job(CODES, 32)
        yield from sampler_jobs(LARGE)
