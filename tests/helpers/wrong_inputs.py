"""Wrong inputs, and what the error must name; each error says what was expected and what came."""

import math
import warnings

import numpy as np
import pytest

# --- settings ---


def bowl(x):
    return 0.5 * x**2


def energy_based(host, **options):
    options = {"base": host.dist.Normal(host.array(0.0), 1.0), **options}
    return host.ebm.EnergyBased(options.pop("energy", bowl), **options)


DISTRIBUTIONS = {
    "class of a sampler": (lambda h: energy_based(h, sampler=h.ebm.MALA), "`sampler`"),
    "number as sampler": (lambda h: energy_based(h, sampler=0.1), "`sampler`"),
    "no steps": (lambda h: energy_based(h, num_sampler_steps=0), "`num_sampler_steps`"),
    "half a step": (lambda h: energy_based(h, num_sampler_steps=2.5), "`num_sampler_steps`"),
    "Boolean steps": (lambda h: energy_based(h, num_sampler_steps=True), "`num_sampler_steps`"),
    "negative beta": (lambda h: energy_based(h, inverse_temperature=-1), "`inverse_temperature`"),
    "infinite beta": (
        lambda h: energy_based(h, inverse_temperature=math.inf),
        "`inverse_temperature`",
    ),
    "beta as an array": (
        lambda h: energy_based(h, inverse_temperature=h.array(2.0)),
        "lambda x: beta * energy(x)",
    ),
    "energy is no function": (lambda h: energy_based(h, energy=3.0), "`energy`"),
    "energy of two arguments": (lambda h: energy_based(h, energy=lambda x, y: x + y), "`energy`"),
    "energy without context": (
        lambda h: energy_based(h, context=h.array(np.zeros(3))),
        "`energy`",
    ),
    "no shape": (lambda h: energy_based(h, base=None), "`event_shape`"),
    "number as shape": (lambda h: energy_based(h, base=None, event_shape=2), "`event_shape`"),
    "fractions as shape": (
        lambda h: energy_based(h, base=None, event_shape=(2.5,)),
        "`event_shape`",
    ),
    "negative shape": (lambda h: energy_based(h, base=None, event_shape=(-1,)), "`event_shape`"),
    "two shapes": (lambda h: energy_based(h, event_shape=(2,)), "`event_shape`"),
    "base is no distribution": (lambda h: energy_based(h, base=1.0), "`base`"),
    "class of a base": (lambda h: energy_based(h, base=h.dist.Normal), "`base`"),
    "log-normalizer is a number": (
        lambda h: energy_based(h, log_normalizer=3.0),
        "log_normalizer`",
    ),
    "text as context": (
        lambda h: energy_based(h, energy=lambda x, c: x, context="male"),
        "`context`",
    ),
    "context without a batch": (
        lambda h: energy_based(h, energy=lambda x, c: x, context=h.array(1.0)),
        "`context`",
    ),
    "context of another batch": (
        lambda h: energy_based(
            h,
            energy=lambda x, c: x,
            base=h.dist.Normal(h.array(np.zeros(3)), 1.0),
            context=h.array(np.zeros(4)),
        ),
        "`context`",
    ),
    "negative dimensions of a context": (
        lambda h: energy_based(
            h, energy=lambda x, c: x, context=h.array(np.zeros(3)), context_batch_ndims=-1
        ),
        "`context_batch_ndims`",
    ),
    "latent is no distribution": (lambda h: h.ebm.Pushforward(1.0, lambda z: z), "`latent`"),
    "generator is no function": (
        lambda h: h.ebm.Pushforward(h.dist.Normal(h.array(0.0), 1.0), 2.0),
        "`generator`",
    ),
    "negative noise": (
        lambda h: h.ebm.Pushforward(
            h.dist.Normal(h.array(0.0), 1.0), lambda z: z, noise_scale=-1.0
        ),
        "`noise_scale`",
    ),
}


def pairs(host, energy=lambda theta, x: theta * x, base=None, **options):
    normal = host.dist.Normal(host.array(0.0), 1.0)
    base = host.ebm.Joint(theta=normal, x=normal) if base is None else base
    return host.ebm.EnergyBased(energy, base, **options)


def part(host):
    return host.dist.Normal(host.array(0.0), 1.0)


JOINTS = {
    "one part": (lambda h: h.ebm.Joint(theta=part(h)), "two parts"),
    "part is no distribution": (lambda h: h.ebm.Joint(theta=part(h), x=1.0), "`x`"),
    "discrete part": (lambda h: h.ebm.Joint(theta=part(h), x=h.dist.Poisson(1.0)), "continuous"),
    "part without a density": (
        lambda h: h.ebm.Joint(theta=part(h), x=h.ebm.Pushforward(part(h), lambda z: z)),
        "maps to unconstrained space",
    ),
    "batches of parts": (
        lambda h: h.ebm.Joint(theta=part(h).expand((2,)), x=part(h).expand((3,))),
        "batch shapes",
    ),
    "missing value": (lambda h: pairs(h).base.join(x=h.array(1.0)), "['theta', 'x']"),
    "value of another shape": (
        lambda h: h.ebm.Joint(a=vector(h)["base"], x=part(h)).join(
            a=h.array([1.0]), x=h.array(1.0)
        ),
        "for 'a'",
    ),
    "energy of one vector": (lambda h: pairs(h, bowl), "function of theta and x alone"),
    "condition without parts": (
        lambda h: energy_based(h).conditional(theta=h.array(1.0)),
        "on a Joint",
    ),
    "condition on nothing": (lambda h: pairs(h).conditional(), "some to be left"),
    "condition on all": (
        lambda h: pairs(h).conditional(theta=h.array(1.0), x=h.array(1.0)),
        "some to be left",
    ),
    "condition on another part": (lambda h: pairs(h).conditional(phi=h.array(1.0)), "['phi']"),
    "condition of another shape": (
        lambda h: h.ebm.EnergyBased(
            lambda a, x: x, h.ebm.Joint(a=vector(h)["base"], x=part(h))
        ).conditional(a=h.array([1.0])),
        "for 'a'",
    ),
    "condition beside a context": (
        lambda h: pairs(h, lambda t, x, c: t, context=h.array([1.0])).conditional(x=h.array(1.0)),
        "without `context`",
    ),
}
OBJECTIVES = {
    "neither variance nor kernel": (lambda h: h.ebm.EnergyDiscrepancy(), "`variance`"),
    "no variance": (lambda h: h.ebm.EnergyDiscrepancy(variance=0.0), "`variance`"),
    "NaN as variance": (lambda h: h.ebm.EnergyDiscrepancy(variance=math.nan), "`variance`"),
    "text as variance": (lambda h: h.ebm.EnergyDiscrepancy(variance="1"), "`variance`"),
    "no copies": (lambda h: h.ebm.EnergyDiscrepancy(variance=1, num_samples=0), "`num_samples`"),
    "negative stabilization": (
        lambda h: h.ebm.EnergyDiscrepancy(variance=1, stabilization=-1),
        "`stabilization`",
    ),
    "kernel without noise": (lambda h: h.ebm.EnergyDiscrepancy(perturbation=1), "`perturbation`"),
    "class of a kernel": (
        lambda h: h.ebm.EnergyDiscrepancy(perturbation=h.ebm.GaussianPerturbation),
        "`perturbation`",
    ),
    "no noise": (lambda h: h.ebm.GaussianPerturbation(0.0), "`variance`"),
    "unknown start": (lambda h: h.ebm.ContrastiveDivergence(init="prior"), "`init`"),
    "list as start": (lambda h: h.ebm.ContrastiveDivergence(init=["data"]), "`init`"),
    "class of a kernel for draws": (
        lambda h: h.ebm.ContrastiveDivergence(sampler=h.ebm.HMC),
        "`sampler`",
    ),
    "number of draws from data": (
        lambda h: h.ebm.ContrastiveDivergence(num_samples=3),
        "init='base'",
    ),
    "population from data": (
        lambda h: h.ebm.ContrastiveDivergence(sampler=h.ebm.SMC()),
        "init and step",
    ),
    "no steps of draws": (lambda h: h.ebm.ContrastiveDivergence(num_steps=0), "`num_steps`"),
    "negative penalty": (
        lambda h: h.ebm.ContrastiveDivergence(energy_penalty=-1),
        "`energy_penalty`",
    ),
    "gamma 0": (lambda h: h.ebm.PseudoSpherical(0), "`gamma`"),
    "gamma -1": (lambda h: h.ebm.PseudoSpherical(-1), "`gamma`"),
    "unknown divergence": (lambda h: h.ebm.FDivergence("kullback"), "`f`"),
    "number as divergence": (lambda h: h.ebm.FDivergence(3), "`f`"),
    "unknown gradient": (lambda h: h.ebm.FDivergence("kl", gradient="half"), "`gradient`"),
    "negative bound": (lambda h: h.ebm.FDivergence("kl", log_ratio_bound=-1), "`log_ratio_bound`"),
    "infinite alpha": (lambda h: h.ebm.alpha_divergence(math.inf), "`alpha`"),
    "unknown form": (lambda h: h.ebm.KALE(form="other"), "`form`"),
    "Boolean penalty": (
        lambda h: h.ebm.PseudoSpherical(0.5, energy_penalty=True),
        "`energy_penalty`",
    ),
    "no draws of a base": (lambda h: h.ebm.KALE(num_samples=0), "`num_samples`"),
    "unknown loss of a base": (lambda h: h.ebm.KALE(base_loss="other"), "`base_loss`"),
    "loss of noise": (lambda h: h.ebm.NoiseContrastive(base_loss="full"), "`base_loss`"),
    "unknown entropy": (lambda h: h.ebm.BidirectionalBounds(entropy="other"), "`entropy`"),
    "unknown penalty": (lambda h: h.ebm.BidirectionalBounds(penalty="other"), "`penalty`"),
    "no projections": (lambda h: h.ebm.SlicedScoreMatching(0), "`num_projections`"),
    "no noise at data": (lambda h: h.ebm.DenoisingScoreMatching(0), "`variance`"),
    "half a draw": (lambda h: h.ebm.MaximumLikelihood(num_samples=1.5), "`num_samples`"),
}
KERNELS = {
    "no step": (lambda h: h.ebm.Langevin(0.0), "`step_size`"),
    "no temperature": (lambda h: h.ebm.Langevin(0.1, temperature=0.0), "`temperature`"),
    "no friction": (lambda h: h.ebm.KineticLangevin(0.1, friction=0.0), "`friction`"),
    "certain acceptance": (lambda h: h.ebm.MALA(target_accept_prob=1.0), "`target_accept_prob`"),
    "exchange of biased kernels": (
        lambda h: h.ebm.ReplicaExchange(h.ebm.Langevin(0.1)),
        "accepts or rejects",
    ),
    "exchange of exchanges": (
        lambda h: h.ebm.ReplicaExchange(h.ebm.ReplicaExchange(h.ebm.MALA())),
        "accepts or rejects",
    ),
    "class of a kernel to exchange": (lambda h: h.ebm.ReplicaExchange(h.ebm.MALA), "`kernel`"),
    "temperatures that rise": (
        lambda h: h.ebm.ReplicaExchange(h.ebm.MALA(), temperatures=(1, 2)),
        "`temperatures`",
    ),
    "one number as temperatures": (
        lambda h: h.ebm.ReplicaExchange(h.ebm.MALA(), temperatures=2.0),
        "`temperatures`",
    ),
    "no leapfrog": (lambda h: h.ebm.HMC(0.1, num_steps=0), "`num_steps`"),
    "no chains": (lambda h: h.ebm.PersistentChains(0, ()), "`num_chains`"),
    "negative noise scale": (lambda h: h.ebm.Langevin(0.1, noise_scale=-1.0), "`noise_scale`"),
    "text as step": (lambda h: h.ebm.MALA("0.1"), "`step_size`"),
    "half a persistent step": (
        lambda h: h.ebm.PersistentChains(9, (), num_steps=0.5),
        "`num_steps`",
    ),
    "number as shape of chains": (lambda h: h.ebm.PersistentChains(9, 2), "`event_shape`"),
    "small buffer": (lambda h: h.ebm.PersistentChains(9, (), buffer_size=8), "`buffer_size`"),
    "restarts above 1": (
        lambda h: h.ebm.PersistentChains(9, (), restart_probability=2.0),
        "`restart_probability`",
    ),
    "class of persistent kernel": (
        lambda h: h.ebm.PersistentChains(9, (), sampler=h.ebm.MALA),
        "`sampler`",
    ),
}

# --- training ---

SMALL = np.linspace(-1.0, 1.0, 8)


def trained(
    host, data=SMALL, energy=bowl, objective=None, in_model=None, in_guide=None, law=(), **parts
):
    """Take a first step with data at site "x"."""
    objective = objective or host.ebm.EnergyDiscrepancy(variance=0.5)
    loss = host.ebm.EnergyELBO(objective)
    data = host.array(data) if isinstance(data, np.ndarray) else data

    def model(x):
        if in_model:
            host.ebm.attach(in_model, critic=bowl)
        weight = host.ppl.param("weight", host.array(1.0))
        with host.ppl.plate("data", len(x)):
            bound = lambda *args: weight * energy(*args)  # noqa: E731
            host.ppl.sample("x", energy_based(host, energy=bound, **dict(law)), obs=x)

    def guide(x):
        if in_guide:
            host.ebm.attach(in_guide, critic=bowl)
        if parts:
            host.ebm.attach("x", **parts)

    host.first_step(loss, model, data, guide)


def vector(host, size=3):
    return {"base": host.dist.Normal(host.array(np.zeros(size)), 1.0).to_event(1)}


def unit(host):
    return {"base": host.dist.Beta(host.array(2.0), 2.0)}


def elbo(host, *args, **options):
    return host.ebm.EnergyELBO(*args, **options)


TRAINING = {
    "class of an objective": (lambda h: elbo(h, h.ebm.ScoreMatching), "the class ScoreMatching"),
    "stock ELBO as objective": (lambda h: elbo(h, h.infer.Trace_ELBO()), "objective"),
    "class of a stock ELBO": (
        lambda h: elbo(h, h.ebm.ScoreMatching(), h.infer.Trace_ELBO),
        "`elbo`",
    ),
    "negative draws": (
        lambda h: elbo(h, h.ebm.ScoreMatching(), num_normalizer_samples=-1),
        "`num_normalizer_samples`",
    ),
    "objective of another site": (
        lambda h: trained(h, objective={"y": h.ebm.ScoreMatching()}),
        "'y'",
    ),
    "objective as the loss of SVI": (
        lambda h: h.fit(h.empty_guide, h.empty_guide, h.ebm.ScoreMatching()),
        "EnergyELBO(objective)",
    ),
    "text as objective": (lambda h: elbo(h, "score matching"), "objective"),
    "class of an objective by site": (
        lambda h: elbo(h, {"x": h.ebm.ScoreMatching}),
        "the class ScoreMatching",
    ),
    "infinite data": (lambda h: trained(h, np.where(SMALL > 0, SMALL, np.inf)), "site 'x'"),
    "NaN in data": (lambda h: trained(h, np.where(SMALL > 0, SMALL, np.nan)), "site 'x'"),
    "list of values": (lambda h: trained(h, SMALL.tolist()), "at site 'x', got list"),
    "values of another shape": (
        lambda h: trained(h, np.zeros((8, 2)), law=vector(h)),
        "(3,) at site 'x'",
    ),
    "energy of another shape": (
        lambda h: trained(
            h, np.zeros((8, 3)), lambda x: (x @ h.array(np.ones((2, 1))))[:, 0], law=vector(h)
        ),
        "site 'x' to take values of shape (8, 3)",
    ),
    "values on the edge": (
        lambda h: trained(h, np.array([0.0, 0.5, 1.0]), law=unit(h)),
        "site 'x' in the interior of the support",
    ),
    "values outside under score matching": (
        lambda h: trained(h, SMALL, law=unit(h), objective=h.ebm.ScoreMatching()),
        "site 'x' in the interior of the support",
    ),
    "NaN in a context": (
        lambda h: trained(
            h, energy=lambda x, c: x * c, law={"context": h.array(np.where(SMALL > 0, 1, np.nan))}
        ),
        "`context` at site 'x' of numbers, got NaN in 4 of 8",
    ),
    "complex energies": (lambda h: trained(h, energy=lambda x: x + 1j), "site 'x' to give real"),
    "critic is missing": (lambda h: trained(h, objective=h.ebm.FDivergence("kl")), "'critic'"),
    "chains of another shape": (
        lambda h: trained(
            h, objective=h.ebm.ContrastiveDivergence(), chains=h.array(np.zeros((4, 2)))
        ),
        "chains",
    ),
    "weights from the guide": (
        lambda h: trained(h, objective=h.ebm.PseudoSpherical(0.5), weights=h.array(SMALL)),
        "'weights'",
    ),
    "attached in the model": (lambda h: trained(h, in_model="x"), "attach('x'"),
    "attached to another site": (lambda h: trained(h, in_guide="y"), "'y'"),
    "attached for nothing": (lambda h: trained(h, in_guide="x"), "'critic'"),
    "column of energies": (lambda h: trained(h, energy=lambda x: x[:, None]), "the energy"),
    "sum of energies": (lambda h: trained(h, energy=lambda x: (x**2).sum()), "the energy"),
    "infinite energies": (lambda h: trained(h, energy=lambda x: x * math.inf), "site 'x'"),
    "mean over rows": (lambda h: trained(h, energy=lambda x: x - x.mean()), "site 'x'"),
    "absolute value under score matching": (
        lambda h: trained(h, energy=lambda x: abs(x + 1), objective=h.ebm.ScoreMatching()),
        "site 'x'",
    ),
}

# --- chains and evidence ---


def normal(host):
    return host.dist.Normal(host.array(0.0), 1.0)


EVIDENCE = {
    "run with arguments swapped": (
        lambda h: h.run_chains(energy_based(h), h.ebm.MALA(0.1)),
        "`sampler`",
    ),
    "class of a kernel to run": (
        lambda h: h.run_chains(h.ebm.MALA, energy_based(h)),
        "`sampler`",
    ),
    "population of one": (lambda h: h.ebm.SMC(num_particles=1), "`num_particles`"),
    "population without moves": (lambda h: h.ebm.SMC(num_moves=0), "`num_moves`"),
    "grid of one cell": (lambda h: h.ebm.Grid(num_intervals=1), "`num_intervals`"),
    "grid without moves": (lambda h: h.ebm.Grid(num_moves=0), "`num_moves`"),
    "chains by a population": (
        lambda h: h.run_chains(h.ebm.SMC(), energy_based(h)),
        "init and step",
    ),
    "modes to look for": (
        lambda h: h.run_chains(h.ebm.MALA(0.1), vector(h)["base"], check=h.array([[1.0], [2.0]])),
        "`check`",
    ),
    "run on a number": (lambda h: h.run_chains(h.ebm.MALA(0.1), 3.0), "`distribution`"),
    "no draws": (
        lambda h: h.run_chains(h.ebm.MALA(0.1), normal(h), num_samples=0),
        "`num_samples`",
    ),
    "negative warm-up": (
        lambda h: h.run_chains(h.ebm.MALA(0.1), normal(h), num_warmup=-1),
        "`num_warmup`",
    ),
    "no thinning": (lambda h: h.run_chains(h.ebm.MALA(), normal(h), thinning=0), "`thinning`"),
    "start of another shape": (
        lambda h: h.run_chains(h.ebm.MALA(0.1), normal(h), init=h.array(np.zeros((4, 2)))),
        "`init`",
    ),
    "start of no chains": (
        lambda h: h.run_chains(h.ebm.MALA(0.1), normal(h), init=[]),
        "`init` of shape (num_chains, *batch, *event)",
    ),
    "text as start": (lambda h: h.run_chains(h.ebm.MALA(), normal(h), init="base"), "`init`"),
    "complex start": (lambda h: h.run_chains(h.ebm.MALA(), normal(h), init=[1j]), "`init`"),
    "log-normalizer of a normal": (lambda h: h.log_normalizer(normal(h)), "`distribution`"),
    "log-normalizer of a class": (lambda h: h.log_normalizer(h.ebm.EnergyBased), "`distribution`"),
    "text as draws": (lambda h: h.log_normalizer(energy_based(h), draws="x"), "`draws`"),
    "energy that does not take draws": (
        lambda h: h.log_normalizer(
            energy_based(h, energy=lambda x: x @ h.array(np.ones(2)), **vector(h)),
            draws=np.zeros((5, 3)),
        ),
        "to take values of shape (5, 3)",
    ),
    "no exact draws": (lambda h: h.log_normalizer(energy_based(h), draws=[]), "`draws`"),
    "NaN energies in chains": (
        lambda h: h.log_normalizer(energy_based(h, energy=lambda x: x * math.nan)),
        "draws of the base",
    ),
    "run on a class": (lambda h: h.run_chains(h.ebm.MALA(0.1), h.dist.Normal), "`distribution`"),
    "unknown method": (lambda h: h.log_normalizer(energy_based(h), method="best"), "`method`"),
    "list as method": (lambda h: h.log_normalizer(energy_based(h), method=["grid"]), "`method`"),
    "no draws of the base": (
        lambda h: h.log_normalizer(energy_based(h), num_samples=0),
        "`num_samples`",
    ),
    "no moves": (
        lambda h: h.log_normalizer(energy_based(h), num_moves=0),
        "`num_moves`",
    ),
    "no temperatures": (
        lambda h: h.log_normalizer(energy_based(h), num_temperatures=0),
        "`num_temperatures`",
    ),
}
CASES = {**DISTRIBUTIONS, **JOINTS, **OBJECTIVES, **KERNELS, **TRAINING, **EVIDENCE}


def test_number_of_cases():
    parts = (DISTRIBUTIONS, JOINTS, OBJECTIVES, KERNELS, TRAINING, EVIDENCE)
    print(f"{len(CASES)} wrong inputs")
    assert 100 <= len(CASES) == sum(map(len, parts))


@pytest.mark.parametrize("name", CASES)
def test_wrong_input(host, name):
    check_is_named(host, *CASES[name])


def check_is_named(host, call, named):
    """Check that a call raises an error with what was expected, what came, and a name."""
    with pytest.raises((TypeError, ValueError)) as raised:
        call(host)
    message = str(raised.value)
    assert message.startswith("Expected ")
    assert " got " in message
    assert named in message


def test_values_that_were_not_joined(host):
    """A likely mistake: raw pairs are vectors of the right shape, and a Joint is over all reals."""
    parts = host.ebm.Joint(share=host.dist.Uniform(host.array(0.0), 2.0), x=normal(host))
    share, x = np.random.default_rng(0).uniform(0.1, 1.9, (2, 64))
    settings = {"energy": lambda share, x: share * x**2, "law": {"base": parts}}
    with pytest.warns(UserWarning, match=r"site 'x' from `base.join\(share, x\)`.* 'share'"):
        trained(host, np.stack([share, x], -1), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(host, parts.join(share=host.array(share), x=host.array(x)), **settings)
