"""All that recorded configurations call of ``pyro_ebm.pyro``: what is renamed, edit here.

Nothing is left to a default of the library.
"""

from dataclasses import fields

import pyro

import pyro_ebm.pyro as ebm

# --- samplers ---


def langevin(step_size, *, temperature=1.0, noise_scale=1.0):
    return ebm.Langevin(step_size, temperature=temperature, noise_scale=noise_scale)


def kinetic_langevin(step_size, *, friction):
    return ebm.KineticLangevin(step_size, friction=friction)


def mala(step_size, *, target=None, adapts=False):
    return ebm.MALA(step_size, target_accept_prob=target, adapt_mass_matrix=adapts)


def hmc(step_size, *, num_leapfrog, target=None, adapts=False):
    options = {"target_accept_prob": target, "adapt_mass_matrix": adapts}
    return ebm.HMC(step_size, num_leapfrog, **options, step_size_jitter=0.0)


def run_chains(kernel, distribution, *, num_chains, num_samples, num_warmup, thinning):
    """Draws, statistics, and what warm-up has learned."""
    chains = ebm.run_chains(
        kernel,
        distribution,
        num_chains=num_chains,
        num_samples=num_samples,
        num_warmup=num_warmup,
        thinning=thinning,
        progress_bar=False,
    )
    names = "lp", "acceptance_rate", "diverging", "step_size", "ebm_energy"
    statistics = [chains.statistics[name] for name in names]
    return [chains.samples, *statistics, chains.state.scale]


def sampler_kernel(model, kernel):
    return ebm.SamplerKernel(model, kernel)


# --- distributions and what guides declare ---


def energy_based(energy, base, *, kernel=None, num_steps=1):
    return ebm.EnergyBased(
        energy, base, sampler=kernel or langevin(0.1), num_sampler_steps=num_steps
    )


def pushforward(latent, generator, *, noise_scale=0.0):
    return ebm.Pushforward(latent, generator, noise_scale=noise_scale)


def persistent_chains(kernel, *, num_steps, num_chains, buffer_size, restart_probability):
    return ebm.PersistentChains(
        num_chains,
        (2,),
        sampler=kernel,
        num_steps=num_steps,
        buffer_size=buffer_size,
        restart_probability=restart_probability,
    )


def values_of_chains(site):
    return pyro.get_param_store()[f"{site}$chains"]


def langevin_guide(model, kernel, *, num_steps, init=None):
    return ebm.LangevinGuide(model, kernel, num_steps=num_steps, init=init)


def attach(site, **learners):
    ebm.attach(site, **learners)


def energy_elbo(objective, elbo):
    return ebm.EnergyELBO(objective, elbo, num_normalizer_samples=16)


# --- objectives ---


def losses(objective, distribution, value, **learners):
    return objective.loss(distribution, value, **learners)[0]


def energy_discrepancy(*, variance, num_samples, stabilization):
    return ebm.EnergyDiscrepancy(
        variance=variance, num_samples=num_samples, stabilization=stabilization
    )


def contrastive_divergence(kernel, *, num_steps, start, num_samples, energy_penalty):
    return ebm.ContrastiveDivergence(
        sampler=kernel,
        num_steps=num_steps,
        init=start,
        num_samples=num_samples if start == "base" else None,
        energy_penalty=energy_penalty,
    )


def exact_score_matching():
    return ebm.ScoreMatching()


def sliced_score_matching(*, num_projections):
    return ebm.SlicedScoreMatching(num_projections=num_projections)


def denoising_score_matching(*, variance):
    return ebm.DenoisingScoreMatching(variance)


def pseudo_spherical(gamma, kernel, *, num_steps, num_samples, energy_penalty):
    return ebm.PseudoSpherical(
        gamma,
        sampler=kernel,
        num_steps=num_steps,
        num_samples=num_samples,
        energy_penalty=energy_penalty,
    )


def maximum_likelihood(*, num_samples):
    return ebm.MaximumLikelihood(num_samples=num_samples)


def kale(*, form, num_samples, gradient_penalty, base_loss, safe_gradient):
    return ebm.KALE(
        form=form,
        num_samples=num_samples,
        gradient_penalty=gradient_penalty,
        base_loss=base_loss,
        safe_gradient=safe_gradient,
    )


def f_divergence(divergence, kernel, *, num_samples, **options):
    return ebm.FDivergence(divergence, sampler=kernel, num_samples=num_samples, **options)


def bidirectional_bounds(*, num_samples, **options):
    return ebm.BidirectionalBounds(num_samples=num_samples, **options)


# --- evidence ---


def numbers(record):
    found = [getattr(record, field.name) for field in fields(record)]
    return [number for number in found if number is not None]


def log_normalizer(distribution, method, *, kernel=None, **options):
    """Every number of the record that is there."""
    record = ebm.log_normalizer(distribution, method=method, sampler=kernel, **options)
    return numbers(record)


def log_marginal(model, guide, data, method, *, kernel=None, log_z, **options):
    """Every number of the record."""
    known = {"z": log_z}
    options = {"method": method, "sampler": kernel, "log_normalizers": known, **options}
    return numbers(ebm.log_marginal(model, guide, **options)(data))


def generator_bounds(distribution, generator, entropy, *, num_samples, log_sobolev_constant):
    """Every number of the record that is there."""
    record = ebm.generator_bounds(
        distribution,
        generator,
        entropy=entropy,
        num_samples=num_samples,
        log_sobolev_constant=log_sobolev_constant,
    )
    return numbers(record)


def log_det_jtj(generator, z, method, **options):
    return ebm.log_det_jtj(generator, z, method=method, **options)
