"""Samplers, log Z and growth on torch."""

import warnings
from functools import partial

import ebm as ebmkit
import problems as at
import pyro.distributions as dist
import torch
import torchebm.samplers
from decoder_pyro import digits_in_svi, digits_job
from harness import (
    BY_HAND,
    COMPILED,
    COMPILED_BY_HAND,
    EBMKIT,
    IN_SVI,
    OURS,
    QUICK,
    TORCHEBM,
    Growth,
    Job,
)
from jobs_pyro import (
    Energy,
    ForTorchebm,
    array,
    bits_job,
    by_hand,
    loss_jobs,
    normal,
    of_ebmkit,
    ours_alone,
    trainer,
)
from losses_by_hand import LOSSES, langevin
from problems import CODES, LARGE, SMALL, Size

import pyro_ebm.pyro as ebm

GROUP = "a run of chains"


def sampler_jobs(size):
    energy = Energy(*size.layers).requires_grad_(False)
    start = array(at.values(size.batch, size.num_dims))
    job = partial(_job, energy, start, size.name)
    model, n, step = ForTorchebm(energy), at.NUM_LANGEVIN, at.LANGEVIN_STEP
    theirs, leapfrog = torchebm.samplers, (at.LEAPFROG_STEP, at.NUM_LEAPFROG)
    ula = theirs.LangevinDynamics(model, step_size=step, noise_scale=1.0)
    hmc = theirs.HamiltonianMonteCarlo(
        model, step_size=at.LEAPFROG_STEP, n_leapfrog_steps=at.NUM_LEAPFROG
    )
    yield job(
        f"{n} ULA steps",
        ebm.Langevin(step),
        ebmkit.LangevinDynamics(step, n),
        **{
            BY_HAND: lambda: lambda: langevin(energy, start, n),
            COMPILED_BY_HAND: lambda: partial(_compiled_langevin, energy, start, n),
            TORCHEBM: lambda: lambda: ula.sample(x=start, n_steps=n),
        },
    )
    yield job(f"{n} MALA steps", ebm.MALA(step), ebmkit.MALA(step, n))
    kinetic = ebmkit.UnderdampedLangevin(0.1, 1.0, n)
    yield job(f"{n} kinetic Langevin steps", ebm.KineticLangevin(0.1), kinetic)
    ours, n = ebm.HMC(at.LEAPFROG_STEP, num_steps=at.NUM_LEAPFROG), at.NUM_TRANSITIONS
    kit, rival = (
        ebmkit.HMC(*leapfrog, n),
        {TORCHEBM: lambda: lambda: hmc.sample(x=start, n_steps=n)},
    )
    yield job(f"{n} HMC transitions of {at.NUM_LEAPFROG}", ours, kit, num_steps=n, **rival)
    yield _replica_exchange(job)


def _replica_exchange(job):
    levels, n = (8.0, 4.0, 2.0, 1.0), at.NUM_LANGEVIN // 10
    ours = ebm.ReplicaExchange(ebm.MALA(at.LANGEVIN_STEP), temperatures=levels)
    theirs = ebmkit.MALA(at.LANGEVIN_STEP, 1)
    kit = ebmkit.ParallelTempering(theirs, levels[::-1], steps=n)
    return job(f"{n} steps of replica exchange, 4 levels", ours, kit, num_steps=n)


def _job(energy, start, network, task, sampler, kit, *, num_steps=at.NUM_LANGEVIN, **others):
    columns = {
        **others,
        OURS: lambda: partial(_run_chains, sampler, energy, start, num_steps),
        EBMKIT: lambda: lambda: kit.sample(energy, start),
    }
    if not QUICK and not isinstance(sampler, ebm.ReplicaExchange):
        columns[COMPILED] = lambda: partial(
            _run_chains, sampler, energy, start, num_steps, compile_steps=True
        )
    return Job(GROUP, task, network, columns)


def _run_chains(sampler, energy, start, num_steps, base=None, **options):
    shape = {"event_shape": start.shape[1:]} if base is None else {}
    ebm.run_chains(
        sampler,
        ebm.EnergyBased(energy, base, validate_args=False, **shape),
        num_samples=1,
        thinning=num_steps,
        init=start,
        check=False,
        progress_bar=False,
        **options,
    )


@torch.compile(dynamic=False)
def _compiled_move(energy, x, noise):
    gradient = torch.func.grad(lambda x: energy(x).sum())(x)
    return x - at.LANGEVIN_STEP * gradient + (2 * at.LANGEVIN_STEP) ** 0.5 * noise


@torch.no_grad()
def _compiled_langevin(energy, x, num_steps):
    for _ in range(num_steps):
        x = _compiled_move(energy, x, torch.randn_like(x))
    return x


def other_jobs():
    energy, base = Energy(2, 128).requires_grad_(False), normal(2, 2.0)
    prior, n = ebm.EnergyBased(energy, base), 20 if QUICK else 100
    yield Job(
        GROUP,
        "256 draws by SMC",
        SMALL.name,
        {OURS: lambda: lambda: ebm.run_smc(ebm.SMC(num_moves=20), prior, num_samples=256)},
    )
    options = {"num_samples": 64, "num_temperatures": n, "num_moves": 5}
    theirs = partial(ebmkit.ais_log_z, energy, (2,), base_scale=2.0, n_temps=n, n_chains=64)
    yield Job(
        "log Z",
        f"annealed, {n} temperatures, 64 chains",
        SMALL.name,
        {OURS: lambda: lambda: ebm.log_normalizer(prior, **options), EBMKIT: lambda: theirs},
    )
    yield _two_modes()
    yield _wide()
    codes, few = Energy(64, 128).requires_grad_(False), array(at.bits(256, 64))
    fair = dist.Bernoulli(logits=torch.zeros(64)).to_event(1)
    n = 20
    theirs = ebmkit.GibbsWithGradients(n)
    columns = {
        OURS: lambda: partial(_run_chains, ebm.GibbsWithGradients(), codes, few, n, fair),
        EBMKIT: lambda: lambda: theirs.sample(codes, few),
    }
    yield Job(GROUP, f"{n} steps of Gibbs with gradients", "64-128-128-1", columns)
    yield from _sweep()


def _sweep():
    # By ebmkit as many flips by gradients: its Gibbs needs an RBM.
    codes, n = Energy(*CODES.layers).requires_grad_(False), CODES.num_dims
    start, fair = array(at.bits(1024, n)), dist.Bernoulli(logits=torch.zeros(n)).to_event(1)
    theirs = ebmkit.GibbsWithGradients(n)
    ours = partial(partial, _run_chains, ebm.Gibbs(), codes, start, 1, fair)
    columns = {OURS: ours, EBMKIT: lambda: partial(theirs.sample, codes, start)}
    yield Job(GROUP, f"a Gibbs sweep of {n} bits, 1024 chains", CODES.name, columns)


def _wide():
    size = Size(1024, 128, 256)
    x, settings = array(at.values(size.batch, size.num_dims)), (at.VARIANCE, 64)
    objective = ebm.EnergyDiscrepancy(variance=settings[0], num_samples=settings[1])
    columns = {
        BY_HAND: partial(by_hand, size, LOSSES["energy discrepancy, 64"], x),
        OURS: partial(ours_alone, size, objective, x),
        EBMKIT: partial(of_ebmkit, size, lambda kit: kit.EnergyDiscrepancy(0.5, 64), x),
    }
    return Job("a training step", "energy discrepancy, 64", size.name, columns, quick=False)


def _two_modes():
    """Log Z, by settings whose root mean square errors over 12 seeds are .25 and .26 nats."""
    means, log_weights = array([[3.0, 3.0], [-3.0, -3.0]]), array([0.3, 0.7]).log()

    def energy(x):
        distance = (x[..., None, :] - means).square().sum(-1) / (2 * 0.3**2)
        return -torch.logsumexp(log_weights - distance, -1)

    prior = ebm.EnergyBased(energy, normal(2, 2.0))
    options = {"num_samples": 64, "num_temperatures": 20, "num_moves": 5}
    whole = lambda x: energy(x) + x.square().sum(-1) / 8  # noqa: E731
    theirs = partial(ebmkit.ais_log_z, whole, (2,), base_scale=2.0, n_temps=100, n_chains=64)

    def ours():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Of so large an error.
            ebm.log_normalizer(prior, **options)

    columns = {OURS: lambda: ours, EBMKIT: lambda: theirs}
    return Job("log Z", "two modes, to the same error", "2-d", columns)


def growths():
    chunked = partial(_step, chunk_size=4)
    columns = {OURS: _step, f"{OURS}, chunk_size=4": chunked, EBMKIT: _step_of_ebmkit}
    for axis, sizes, at_size in at.growths_of_discrepancy():
        for column, make in columns.items():
            if axis == "batch" and make is chunked:
                continue
            run = lambda n, make=make, at_size=at_size: make(*at_size(n))  # noqa: E731
            yield Growth("energy discrepancy", axis, column, sizes, run)
    yield Growth("energy discrepancy", "contexts", OURS, at.CONTEXTS, _step_given_contexts)
    yield Growth("20 MALA steps", "chains", OURS, at.CHAINS, _moves)
    particles = lambda n: digits_in_svi(array(at.images()), num_particles=n)  # noqa: E731
    yield Growth("SVI.step of a decoder", "particles", IN_SVI, at.PARTICLES, particles)


def _step_given_contexts(num_contexts):
    """A value for each context."""
    energy = Energy(16 + 4, 128)
    prior = ebm.EnergyBased(
        lambda x, context: energy(torch.cat([x, context], -1)),
        normal(16),
        context=array(at.values(num_contexts, 4)),
    )
    objective = ebm.EnergyDiscrepancy(variance=at.VARIANCE, num_samples=4)
    x = array(at.values(num_contexts, 16))
    return trainer(lambda: objective.loss(prior, x).value.mean(), energy.parameters())


def _step(num_samples, batch, num_dims, chunk_size=None):
    settings = {"num_samples": num_samples, "chunk_size": chunk_size}
    objective = ebm.EnergyDiscrepancy(variance=at.VARIANCE, **settings)
    return ours_alone(Size(num_dims, 128, batch), objective, array(at.values(batch, num_dims)))


def _step_of_ebmkit(num_samples, batch, num_dims):
    size, x = Size(num_dims, 128, batch), array(at.values(batch, num_dims))
    return of_ebmkit(size, lambda kit: kit.EnergyDiscrepancy(0.5, num_samples), x)


def _moves(num_chains):
    start, energy = array(at.values(num_chains, 2)), Energy(2, 128).requires_grad_(False)
    return lambda: _run_chains(ebm.MALA(at.LANGEVIN_STEP), energy, start, 20)


def all_jobs():
    yield digits_job()
    yield from loss_jobs(SMALL)
    yield from sampler_jobs(SMALL)
    yield from other_jobs()
    if not QUICK:
        yield from loss_jobs(LARGE)
        yield bits_job(CODES, 32)
        yield from sampler_jobs(LARGE)
