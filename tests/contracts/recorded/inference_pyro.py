"""Samplers and evidence with Pyro."""

import api_pyro as api
import pyro
import pyro.distributions as dist
import torch
from host_pyro import Encoder, Gaussian, Net, Residual, Scalar, recorded, standard_normal
from inputs import DATA, points
from pyro.infer import MCMC


def tilted(**options):
    return api.energy_based(Scalar(1), Gaussian()(), **options)


def generated(**options):
    base = api.pushforward(standard_normal(), Residual(2))
    return api.energy_based(Scalar(1), base, **options)


# --- samplers ---


def chains(kernel, num_warmup):
    options = {"num_chains": 3, "num_samples": 5, "num_warmup": num_warmup, "thinning": 2}
    return api.run_chains(kernel, tilted(), **options)


@recorded
def langevin():
    return chains(api.langevin(0.1, temperature=0.8, noise_scale=0.9), 5)


@recorded
def kinetic_langevin():
    return chains(api.kinetic_langevin(0.3, friction=1.5), 5)


@recorded
def mala():
    return chains(api.mala(0.1, target=0.574, adapts=True), 40)


@recorded
def hmc():
    return chains(api.hmc(0.02, num_leapfrog=3, target=0.95, adapts=True), 20)


@recorded
def sample():
    """Draws where the base has a density, and where it is a pushforward."""
    by_langevin = tilted(kernel=api.langevin(0.1), num_steps=6)
    by_mala = generated(kernel=api.mala(0.2), num_steps=6)
    return [by_langevin.sample((4,)), by_mala.sample((4,))]


@recorded
def sampler_kernel():
    """Draws and statistics of a short run of Pyro's MCMC."""

    def model(x):
        rate = pyro.sample("rate", dist.Gamma(3.0, 2.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", tilted())
            pyro.sample("x", dist.Normal(z, rate).to_event(1), obs=x)

    kernel = api.sampler_kernel(model, api.mala(0.01, target=0.574, adapts=True))
    mcmc = MCMC(kernel, num_samples=8, warmup_steps=20, disable_progbar=True)
    mcmc.run(torch.tensor(DATA[:3]))
    draws, told = mcmc.get_samples(), mcmc.diagnostics()["sample stats"]["chain 0"]
    names = "lp", "acceptance_rate", "step_size"
    return [draws["z"], draws["rate"], *(told[name] for name in names)]


# --- evidence ---


@recorded
def log_normalizer_importance():
    draws = torch.tensor(points(7, 20, 2))
    return api.log_normalizer(tilted(), "importance", num_samples=40, draws=draws)


@recorded
def log_normalizer_annealed():
    options = {"num_samples": 30, "num_temperatures": 6, "num_moves": 4}
    kernel = api.mala(0.3, target=0.574)
    return api.log_normalizer(tilted(), "annealed", kernel=kernel, **options)


@recorded
def log_normalizer_grid():
    """Where the base has a density, and where it is a pushforward."""
    options = {"method": "grid", "num_samples": 50}
    records = [api.log_normalizer(prior, **options) for prior in (tilted(), generated())]
    return [number for record in records for number in record]


def observed(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", tilted())
        pyro.sample("x", dist.Normal(z, 0.7).to_event(1), obs=x)


def encoded(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", Encoder(5)(x))


@recorded
def log_marginal_importance():
    options = {"log_z": 0.3, "num_samples": 60, "batch_size": 20}
    return api.log_marginal(observed, encoded, torch.tensor(DATA[:3]), "importance", **options)


@recorded
def log_marginal_annealed():
    options = {"log_z": 0.3, "num_samples": 60, "num_temperatures": 6, "batch_size": 30}
    kernel, x = api.mala(0.2, target=0.574), torch.tensor(DATA[:3])
    return api.log_marginal(observed, None, x, "annealed", kernel=kernel, **options)


@recorded
def generator_bounds():
    generator = api.pushforward(standard_normal(), Residual(4))
    options = {"num_samples": 40, "log_sobolev_constant": 0.8}
    return api.generator_bounds(tilted(), generator, "exact", **options)


# --- Jacobians ---


def log_det_jtj(method, **options):
    """Values, and gradients in the latent."""
    z = torch.tensor(points(8, 4, 3)).requires_grad_()
    result = api.log_det_jtj(Net(9, 3, 5), z, method, **options)
    return [result, *torch.autograd.grad(result.sum(), z)]


@recorded
def log_det_jtj_exact():
    return log_det_jtj("exact")


@recorded
def log_det_jtj_stochastic():
    return log_det_jtj("stochastic", num_iterations=3, num_probes=2)


@recorded
def log_det_jtj_smallest_singular_value():
    return log_det_jtj("smallest_singular_value", num_iterations=3)
