"""Runs whose state is more than parameters: every objective in training, and every sampler."""

from functools import partial

import numpy as np

from helpers.objectives.objectives import OBJECTIVES

X = np.linspace(-2, 2, 16).reshape(8, 2)


# --- training: moments, a schedule, random numbers, and what is attached ---


def of_objective(host, name):
    """Training of an energy, with persistent chains, a critic or a generator where it needs one."""
    make, attached, *_ = OBJECTIVES[name]
    chains = persistent_chains(host, host.ebm.Langevin(0.1), buffer_size=50_000)
    critic, generator = host.MLP(seed=1), host.mlp(2, 8, 2, seed=2)
    parts = {
        "chains": lambda: chains,
        "critic": lambda: host.register("critic", critic),
        "generator": lambda: host.ebm.Pushforward(
            host.normal(), host.register("generator", generator)
        ),
    }

    def guide(x):
        del x
        host.ebm.attach("x", **{part: parts[part]() for part in attached})

    return training(host, host.observed_model(host.Bowl()), guide, make(host.ebm))


def with_chains(host, sampler):
    """Contrastive divergence by persistent chains of a sampler."""
    guide = host.attaching("x", chains=persistent_chains(host, sampler, buffer_size=50_000))
    model = host.observed_model(host.Bowl())
    return training(host, model, guide, host.ebm.ContrastiveDivergence())


def with_posterior_draws(host):
    """Contrastive divergence at a latent site, with posterior draws that outlive a step."""
    model, sampler = host.latent_model(host.Bowl()), host.ebm.Langevin(0.1)
    guide = host.ebm.LangevinGuide(model, sampler, num_steps=1, start="stored")
    guide = host.attaching("z", guide, chains=persistent_chains(host, sampler, buffer_size=5))
    return training(host, model, guide, host.ebm.ContrastiveDivergence())


def persistent_chains(host, sampler, buffer_size):
    return host.ebm.PersistentChains(
        3, (2,), sampler=sampler, num_steps=1, buffer_size=buffer_size, restart_probability=0.2
    )


def training(host, model, guide, objective):
    loss = host.ebm.EnergyELBO(objective, num_normalizer_samples=0)
    return host.Training(model, guide, loss, host.adam_with_a_schedule(0.05, 0.9))


# --- chains: positions, step sizes, scales, momenta and levels ---


def of_sampler(host, name):
    """Chains in parts, each with a warm-up that adapts the sampler further."""
    return host.ChainsInParts(SAMPLERS[name](host.ebm), host.normal())


def of_bits(host, name):
    base = host.dist.Bernoulli(host.array(np.full(4, 0.5))).to_event(1)
    return host.ChainsInParts(GIBBS[name](host.ebm), host.ebm.EnergyBased(host.Bowl(), base))


SAMPLERS = {
    "Langevin": lambda ebm: ebm.Langevin(0.1),
    "kinetic Langevin": lambda ebm: ebm.KineticLangevin(0.1),
    "MALA": lambda ebm: ebm.MALA(0.3, adapt_mass_matrix=True),
    "HMC": lambda ebm: ebm.HMC(0.3, num_steps=3, adapt_mass_matrix=True),
    "replica exchange": lambda ebm: ebm.ReplicaExchange(ebm.MALA(0.3), temperatures=(2.0, 1.0)),
}
GIBBS = {
    "Gibbs": lambda ebm: ebm.Gibbs(),
    "Gibbs with gradients": lambda ebm: ebm.GibbsWithGradients(),
}
RUNS = {
    **{name: partial(of_objective, name=name) for name in OBJECTIVES},
    "posterior draws": with_posterior_draws,
    "levels": lambda host: with_chains(host, SAMPLERS["replica exchange"](host.ebm)),
    **{name: partial(of_sampler, name=name) for name in SAMPLERS},
    **{name: partial(of_bits, name=name) for name in GIBBS},
}
