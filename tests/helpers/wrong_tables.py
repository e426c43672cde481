"""Wrong inputs of discrete and mixed events, and what the error must name."""

import numpy as np
import pytest

from helpers.wrong_inputs import bowl, check_is_named, normal

BITS = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
TABLE = np.array([[0.3, 1.0, 2.0], [-0.4, 0.0, 0.0], [0.1, 1.0, 3.0], [1.2, 0.0, 1.0]])


def columns(host):
    return [host.ebm.Column.numeric(), host.ebm.Column.nominal(2), host.ebm.Column.cyclic(4)]


def marginals(host):
    return host.ebm.ColumnMarginals.fit(columns(host), TABLE)


def bits(host):
    return host.dist.Bernoulli(host.array(np.full(3, 0.5))).to_event(1)


def bit_energy(x):
    return (1.0 * x).sum(-1)


def energy_based(host, base=bits, energy=bit_energy, **options):
    return host.ebm.EnergyBased(energy, base(host), **options)


def first_step(host, objective, base=marginals, data=TABLE, energy=bit_energy, **parts):
    def model(x):
        weight = host.ppl.param("weight", host.array(1.0))
        with host.ppl.plate("data", len(x)):
            prior = energy_based(host, base, lambda x: weight * energy(x))
            host.ppl.sample("x", prior, obs=x)

    def guide(x):  # noqa: ARG001
        if parts:
            host.ebm.attach("x", **parts)

    host.first_step(host.ebm.EnergyELBO(objective), model, host.array(data), guide)


def discrepancy(host, perturbation, **options):
    first_step(host, host.ebm.EnergyDiscrepancy(perturbation=perturbation), **options)


def bit_constraint(host):
    return bits(host).support


COLUMNS = {
    "one code": (lambda h: h.ebm.Column.nominal(1), "`size`"),
    "circle of two": (lambda h: h.ebm.Column.cyclic(2), "`size`"),
    "fraction of a size": (lambda h: h.ebm.Column.ordinal(2.5), "`size`"),
    "size of numbers": (lambda h: h.ebm.Column("numeric", 4), "`size`"),
    "unknown kind": (lambda h: h.ebm.Column("binary", 2), "`kind`"),
    "class as a column": (lambda h: h.ebm.ColumnMarginals.fit([h.ebm.Column], TABLE), "`columns`"),
    "sizes as columns": (lambda h: h.ebm.ColumnMarginals.fit([0, 2, 4], TABLE), "`columns`"),
    "columns that do not add up": (
        lambda h: h.ebm.ColumnMarginals.fit(columns(h)[:2], TABLE),
        "`data` of shape (N, 2)",
    ),
    "code out of range": (
        lambda h: h.ebm.ColumnMarginals.fit(columns(h), TABLE + [0, 1, 0]),
        "row 0",
    ),
    "negative code": (lambda h: h.ebm.ColumnMarginals.fit(columns(h), TABLE - [0, 0, 1]), "row 1"),
    "code with a fraction": (
        lambda h: h.ebm.ColumnMarginals.fit(columns(h), TABLE + 0.5),
        "row 0",
    ),
    "no rows": (lambda h: h.ebm.ColumnMarginals.fit(columns(h), TABLE[:0]), "`data`"),
    "numbers alone": (
        lambda h: h.ebm.ColumnMarginals.fit([h.ebm.Column.numeric()], TABLE[:, :1]),
        "column of codes",
    ),
    "parameters of another size": (
        lambda h: h.ebm.ColumnMarginals(columns(h), np.zeros(2), np.ones(3), np.zeros((3, 4))),
        "`loc`",
    ),
}
NOISE = {
    "negative time": (lambda h: h.ebm.Uniform(-1.0), "`time`"),
    "text as time": (lambda h: h.ebm.Ordinal("1"), "`time`"),
    "infinite time": (lambda h: h.ebm.Cyclic(np.inf), "`time`"),
    "product of masks": (lambda h: h.ebm.Product([h.ebm.Masking(0.5)]), "`kernels`"),
    "product of times": (lambda h: h.ebm.Product([0.5, 0.5]), "`kernels`"),
    "too few kernels": (lambda h: discrepancy(h, h.ebm.Product([h.ebm.Uniform(1.0)])), "3 kernels"),
    "walk on a number": (
        lambda h: discrepancy(h, h.ebm.Product([h.ebm.Uniform(1.0)] * 3)),
        "column 0",
    ),
    "one walk for a table": (lambda h: discrepancy(h, h.ebm.Ordinal(1.0)), "column 0"),
    "Gaussian noise on a code": (
        lambda h: discrepancy(h, h.ebm.Product([h.ebm.GaussianPerturbation(0.1)] * 3)),
        "column 1",
    ),
    "variance of bits": (
        lambda h: first_step(h, h.ebm.EnergyDiscrepancy(variance=0.1), bits, BITS),
        "GaussianPerturbation",
    ),
    "circle of bits": (
        lambda h: discrepancy(h, h.ebm.Cyclic(1.0), base=bits, data=BITS),
        "3 codes or more",
    ),
    "masks on a number": (lambda h: discrepancy(h, h.ebm.Masking(0.5)), "codes alone"),
    "mask-one on a number": (lambda h: discrepancy(h, h.ebm.MaskOne(exact=True)), "codes alone"),
    "noise of codes on numbers": (
        lambda h: discrepancy(h, h.ebm.Uniform(1.0), base=normal, data=BITS[:, 0], energy=bowl),
        "discrete support",
    ),
}
EVENTS = {
    "score of bits": (
        lambda h: first_step(h, h.ebm.ScoreMatching(), bits, BITS),
        "continuous support",
    ),
    "bits of another size": (
        lambda h: first_step(h, h.ebm.MaximumLikelihood(), bits, BITS[:, :2]),
        "site 'x'",
    ),
    "twos as bits": (
        lambda h: first_step(h, h.ebm.MaximumLikelihood(), bits, 2 * BITS),
        "site 'x'",
    ),
    "rows with fractions": (
        lambda h: first_step(h, h.ebm.MaximumLikelihood(), data=TABLE + 0.5),
        "4 of 4 (row 0: 1.5 in column 1)",
    ),
    "NaN in a table": (
        lambda h: first_step(h, h.ebm.MaximumLikelihood(), data=TABLE * [np.nan, 1, 1]),
        "site 'x'",
    ),
    "base of one value": (
        lambda h: h.run_chains(h.ebm.Gibbs(), h.dist.Categorical(h.array([1.0]))),
        "a base with two values or more",
    ),
    "bits without a base": (
        lambda h: h.ebm.EnergyBased(bit_energy, event_shape=(3,), support=bit_constraint(h)),
        "`base`",
    ),
    "bits on a normal base": (
        lambda h: energy_based(h, normal, bowl, support=bit_constraint(h)),
        "`support`",
    ),
    "real numbers on a base of bits": (
        lambda h: energy_based(h, support=normal(h).support),
        "`support`",
    ),
    "other codes than the base's": (
        lambda h: energy_based(h, support=marginals(h).support),
        "`support`",
    ),
    "column of a classifier": (
        lambda h: h.ebm.code_probabilities(energy_based(h), h.array(BITS), 3),
        "3 columns",
    ),
    "classifier of a number": (
        lambda h: h.ebm.code_probabilities(energy_based(h, marginals), h.array(TABLE), 0),
        "numeric",
    ),
    "conditional of a table": (
        lambda h: energy_based(h, marginals).conditional(x=h.array(1.0)),
        "base.marginal(others)",
    ),
}
SAMPLERS = {
    "class of a numeric kernel": (lambda h: h.ebm.Gibbs(h.ebm.MALA), "`numeric`"),
    "numbers by unadjusted moves": (
        lambda h: h.ebm.GibbsWithGradients(h.ebm.Langevin(0.1)),
        "accepts or rejects",
    ),
    "HMC on bits": (lambda h: h.run_chains(h.ebm.HMC(), energy_based(h)), "Gibbs()"),
    "exchange of HMC on bits": (
        lambda h: h.run_chains(h.ebm.ReplicaExchange(h.ebm.HMC()), energy_based(h)),
        "Gibbs()",
    ),
    "Gibbs on numbers": (lambda h: h.run_chains(h.ebm.Gibbs(), normal(h)), "MALA or HMC"),
    "exchange of Gibbs on numbers": (
        lambda h: h.run_chains(h.ebm.ReplicaExchange(h.ebm.Gibbs()), normal(h)),
        "MALA or HMC",
    ),
    "bits to start from": (
        lambda h: h.run_chains(h.ebm.Gibbs(), energy_based(h), init=h.array(BITS[:, :2])),
        "`init`",
    ),
    "enumeration of numbers": (
        lambda h: h.log_normalizer(energy_based(h, marginals), method="enumeration"),
        "discrete",
    ),
}
CASES = {**COLUMNS, **NOISE, **EVENTS, **SAMPLERS}


def test_number_of_cases():
    print(f"{len(CASES)} wrong inputs of discrete events")
    assert 40 <= len(CASES) == sum(map(len, (COLUMNS, NOISE, EVENTS, SAMPLERS)))


@pytest.mark.parametrize("name", CASES)
def test_wrong_table(host, name):
    check_is_named(host, *CASES[name])
