"""Energy discrepancy and other objectives on columns of codes, against enumeration."""

import itertools
import math

import numpy as np
import pytest
from scipy.special import logsumexp

pytestmark = pytest.mark.usefixtures("float64")

rng = np.random.default_rng(0)

# Two columns of 3 and 2 codes, in row-major order; closed forms of `core/objectives`.
P = np.array([0.31491751, 0.12123495, 0.3348646, 0.02912338, 0.07757849, 0.12228107])
U = np.array([0.76103773, 0.12167502, 0.44386323, 0.33367433, 1.49407907, -0.20515826])
STATES = np.array(list(itertools.product(range(3), range(2))), dtype=float)


def columns(host):
    return [host.ebm.Column.nominal(3), host.ebm.Column.nominal(2)]


def table(host):
    """Any law on 3 x 2 states: E = u[state], on a uniform base."""
    log_probs = np.log([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 1e-300]])
    base = host.ebm.ColumnMarginals(columns(host), np.zeros(2), np.ones(2), log_probs)

    def prior(p):
        def energy(x):
            return p["u"][host.whole(2 * x[:, 0] + x[:, 1])]

        return host.ebm.EnergyBased(energy, base)

    return prior


def data(number):
    """Values with the frequencies of P, up to rounding."""
    counts = np.round(P * number).astype(int)
    return np.repeat(STATES, counts, axis=0)


@pytest.mark.parametrize("name", ["Uniform", "Ordinal"])
@pytest.mark.parametrize("sizes", [(2, 2), (4, 2)])
def test_frequencies_after_noise(host, name, sizes):
    """Those of the transition matrix, from every code of two columns."""
    number, perturbation = 10_000, getattr(host.ebm, name)(0.4)
    columns = tuple(map(host.ebm.Column.ordinal, sizes))
    starts = np.array(list(itertools.product(*map(range, sizes))), dtype=float)
    noisy = host.perturb(perturbation, columns, np.repeat(starts, number, 0))
    ends = noisy.reshape(len(starts), number, 2).astype(int)
    for (c, size), (start, end) in itertools.product(
        enumerate(sizes), zip(starts, ends, strict=True)
    ):
        found = np.bincount(end[:, c], minlength=size) / number
        expected = perturbation.transition_matrix(size)[int(start[c])]
        np.testing.assert_allclose(found, expected, atol=5 * 0.5 / math.sqrt(number))


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda ebm: ebm.Uniform(1.0), 0.1075722357),
        (lambda ebm: ebm.Product([ebm.Cyclic(0.5), ebm.Ordinal(0.5)]), 0.1071450245),
        (lambda ebm: ebm.MaskOne(), 0.012896569256),
        (lambda ebm: ebm.MaskOne(exact=True), 0.012896569256),
    ],
)
def test_value_by_enumeration(host, make, value):
    objective = host.ebm.EnergyDiscrepancy(
        perturbation=make(host.ebm), num_samples=64, stabilization=0.0
    )
    found = host.loss(objective, table(host)({"u": host.array(U)}), data(5000))
    error = found.std() / math.sqrt(len(found))
    assert found.mean() == pytest.approx(value, abs=4 * error + 0.02)


def test_exact_mask_one_is_pseudo_likelihood(host):
    objective = host.ebm.EnergyDiscrepancy(perturbation=host.ebm.MaskOne(exact=True))
    found = host.step(objective, table(host), {"u": U}, STATES, weights=P * 6)
    u = U.reshape(3, 2)
    log_p = [
        -2 * e - logsumexp(-u[:, int(b)]) - logsumexp(-u[int(a)])
        for e, (a, b) in zip(U, STATES, strict=True)
    ]
    np.testing.assert_allclose(2 * found.loss + math.log(6), -np.array(log_p), atol=1e-10)
    eps = 1e-5
    shifted = [
        host.loss(objective, table(host)({"u": host.array(U + s * eps * np.eye(6)[4])}), STATES) @ P
        for s in (1, -1)
    ]
    assert found.gradients["u"][4] == pytest.approx((shifted[0] - shifted[1]) / (2 * eps), abs=1e-8)


@pytest.mark.parametrize("name", ["Uniform", "Masking"])
def test_training_finds_the_law(host, name):
    objective = host.ebm.EnergyDiscrepancy(perturbation=getattr(host.ebm, name)(1.0), num_samples=4)
    path = host.train(
        objective, table(host), {"u": np.zeros(6)}, data(4000), num_steps=150, learning_rate=0.05
    )["u"][-50:].mean(0)
    fitted = np.exp(-path - logsumexp(-path))
    np.testing.assert_allclose(fitted, P, atol=0.02)


def test_mixed_event(host):
    """The closed form of a mixture with Gaussian parts, at variance .1 and time .5."""
    code = rng.choice(3, 3000, p=[0.5, 0.3, 0.2])
    centers = np.array([-1.0, 0.0, 2.0])
    x = np.stack([centers[code] + 0.5 * rng.normal(size=3000), code], -1)
    kinds = [host.ebm.Column.numeric(), host.ebm.Column.ordinal(3)]
    # A base that is flat up to a constant.
    base = host.ebm.ColumnMarginals(kinds, [0.0, 0.0], [1e3, 1.0], np.log(np.full((2, 3), 1 / 3)))

    def energy(x):
        return 0.5 * (x[:, 0] - host.array(centers)[host.whole(x[:, 1])]) ** 2

    noise = host.ebm.Product([host.ebm.GaussianPerturbation(0.1), host.ebm.Ordinal(0.5)])
    objective = host.ebm.EnergyDiscrepancy(perturbation=noise, num_samples=128, stabilization=0.0)
    found = host.loss(objective, host.ebm.EnergyBased(energy, base), x)
    error = found.std() / math.sqrt(len(found))
    assert found.mean() == pytest.approx(-0.48631058, abs=4 * error + 0.01)


def test_several_times(host):
    law, kinds = table(host)({"u": host.array(U)}), (host.ebm.Uniform(0.1), host.ebm.Uniform(1.0))
    several = host.ebm.EnergyDiscrepancy(perturbation=kinds, num_samples=32, stabilization=0.0)
    found = host.loss(several, law, data(4000))
    values = [
        host.loss(
            host.ebm.EnergyDiscrepancy(perturbation=kind, num_samples=32, stabilization=0.0),
            law,
            data(4000),
        ).mean()
        for kind in kinds
    ]
    assert found.mean() == pytest.approx(np.mean(values), abs=0.02)


def bits(host):
    base = host.dist.Bernoulli(host.array([0.5, 0.5, 0.5])).to_event(1)

    def prior(p):
        return host.ebm.EnergyBased(lambda x: -(x * p["w"]).sum(-1), base)

    return prior


OTHERS = {
    "contrastive divergence": lambda ebm: ebm.ContrastiveDivergence(num_steps=2),
    "Gibbs with gradients": lambda ebm: ebm.ContrastiveDivergence(
        sampler=ebm.GibbsWithGradients(), num_steps=6
    ),
    "maximum likelihood": lambda ebm: ebm.MaximumLikelihood(num_samples=400),
    "KALE": lambda ebm: ebm.KALE(num_samples=400),
    "noise contrast": lambda ebm: ebm.NoiseContrastive(num_samples=400),
    "pseudo-spherical": lambda ebm: ebm.PseudoSpherical(1.0, num_steps=2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_objectives_on_bits(host, name):
    x = (rng.uniform(size=(2000, 3)) < [0.2, 0.5, 0.7]).astype(float)
    has_number = name == "noise contrast"
    start = {"w": np.zeros(3)} | ({"a": 0.0} if has_number else {})
    path = host.train(
        OTHERS[name](host.ebm),
        bits(host),
        start,
        x,
        (lambda p: {"log_normalizer": p["a"]}) if has_number else None,
        num_steps=150,
        learning_rate=0.05,
    )
    weights, mean = path["w"][-50:].mean(0), x.mean(0)
    expected = np.log(mean / (1 - mean))
    np.testing.assert_allclose(weights, expected, atol=0.15)
    if has_number:
        log_z = np.log((1 + np.exp(expected)) / 2).sum()
        assert path["a"][-50:].mean() == pytest.approx(log_z, abs=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda ebm: ebm.EnergyDiscrepancy(variance=1.0), "noise on codes where the support is"),
        (lambda ebm: ebm.ScoreMatching(), "a continuous support"),
        (
            lambda ebm: ebm.EnergyDiscrepancy(perturbation=ebm.Product([ebm.Uniform(1.0)])),
            "3 kernels, one a column, got 1",
        ),
    ],
)
def test_objectives_that_do_not_fit(host, make, message):
    with pytest.raises(ValueError, match=message):
        host.loss(make(host.ebm), bits(host)({"w": host.array(np.zeros(3))}), np.ones((2, 3)))


def test_noise_on_codes_needs_codes(host):
    normal = host.ebm.EnergyBased(lambda x: 0 * x, host.dist.Normal(0.0, 1.0))
    objective = host.ebm.EnergyDiscrepancy(perturbation=host.ebm.Uniform(1.0))
    with pytest.raises(ValueError, match=r"a discrete support for Uniform\(time=1.0\)"):
        host.loss(objective, normal, np.ones(2))
