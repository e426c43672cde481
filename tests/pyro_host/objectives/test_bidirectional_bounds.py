import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import bounds_steps as steps
from helpers import linear_gaussian as truth
from helpers.linear_gaussian_pyro import Toy
from pyro.infer import SVI
from pyro.optim import Adam
from scipy.optimize import brentq
from torch import nn
from torch.distributions import AffineTransform, ComposeTransform, TanhTransform

import pyro_ebm.pyro as ebm
from pyro_ebm.core.infer.metrics import recorded_figures
from pyro_ebm.pyro.objectives.generator import Partner

pytestmark = pytest.mark.usefixtures("float64")


class GivenNoise(dist.Normal):
    """Standard normal, but its draws are given."""

    def __init__(self, draws):
        super().__init__(torch.zeros(draws.shape[1:]), 1.0)
        self.draws = torch.as_tensor(draws)

    def rsample(self, sample_shape=()):
        assert tuple(sample_shape) == tuple(self.draws.shape[:1])
        return self.draws

    def expand(self, batch_shape, _instance=None):
        return self


def given(draws):
    return GivenNoise(draws).to_event(draws.ndim - 1)


class Potential(nn.Module):
    """theta . (x, x^2 / 2) in the plane."""

    def __init__(self, theta=steps.THETA):
        super().__init__()
        self.theta = nn.Parameter(torch.as_tensor(theta))

    def forward(self, x):
        return torch.cat([x, x.square() / 2], -1) @ self.theta


class Affine(nn.Module):
    def __init__(self, matrix=steps.MATRIX, shift=steps.SHIFT):
        super().__init__()
        self.matrix = nn.Parameter(torch.as_tensor(matrix))
        self.shift = nn.Parameter(torch.as_tensor(shift))

    def forward(self, z):
        return z @ self.matrix.T + self.shift


class Encoder(nn.Module):
    def __init__(self, matrix=steps.ENCODER, scale=steps.ENCODER_SCALE):
        super().__init__()
        self.matrix = nn.Parameter(torch.as_tensor(matrix))
        self.shift = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        return dist.Normal(x @ self.matrix.T + self.shift, self.scale).to_event(1)


def leaf(value):
    return nn.Parameter(torch.tensor(value))


def pair(entropy, monkeypatch):
    """Learners of one step, and their parameters by the names of the page of numbers."""
    affine, latent = Affine(), given(steps.LATENT)
    named = {"matrix": affine.matrix, "shift": affine.shift}
    if entropy != "noise":
        return {"generator": ebm.Pushforward(latent, affine)}, named
    noise_scale, encoder = leaf(steps.NOISE_SCALE), Encoder()
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.as_tensor(steps.EPSILON))
    generator = ebm.Pushforward(latent, affine, noise_scale=noise_scale)
    named |= {"noise_scale": noise_scale}
    named |= {"encoder": encoder.matrix, "encoder_scale": encoder.scale}
    return {"generator": generator, "encoder": encoder}, named


# --- value and gradients ---


@pytest.mark.parametrize("penalty", ["log_ratio", "data"])
@pytest.mark.parametrize("entropy", steps.ENTROPIES)
def test_gradients_of_all_players_are_those_of_the_formula(entropy, penalty, monkeypatch):
    energy, (learners, named) = Potential(), pair(entropy, monkeypatch)
    objective = ebm.BidirectionalBounds(
        entropy=entropy,
        penalty=penalty,
        penalty_weight=steps.WEIGHT,
        entropy_weight=steps.ENTROPY_WEIGHT,
        num_generator_samples=5,
    )
    prior = ebm.EnergyBased(energy, event_shape=(2,))
    with recorded_figures() as figures:
        loss = objective.loss(prior, torch.as_tensor(steps.X), **learners)
    expected = steps.energy_losses(entropy, penalty, steps.THETA)
    np.testing.assert_allclose(loss.detach(), expected, atol=1e-12)
    found = torch.autograd.grad(loss.mean(), [energy.theta, *named.values()])
    np.testing.assert_allclose(found[0], steps.energy_gradient(entropy, penalty), atol=1e-12)
    by_partner = steps.partner_gradients(entropy)
    for name, gradient in zip(named, found[1:], strict=True):
        np.testing.assert_allclose(gradient, by_partner[name], atol=1e-12)
    half_square = 0.5 * (steps.slope(entropy, steps.THETA) ** 2).sum(-1).mean()
    assert figures["penalty"]().item() == pytest.approx(half_square, abs=1e-12)
    assert set(figures) == {
        *("energy_gap", "energy_scale", "lower_bound", "penalty", "effective_samples")
    }


@pytest.mark.parametrize(("excess", "acts"), [(0.01, True), (-0.01, False)])
def test_the_penalty_acts_beyond_its_threshold(excess, acts, monkeypatch):
    energy, (learners, _) = Potential(), pair("exact", monkeypatch)
    penalty = 0.5 * (steps.slope("exact", steps.THETA) ** 2).sum(-1).mean()
    options = {"penalty_weight": steps.WEIGHT, "threshold": steps.WEIGHT * penalty - excess}
    objective = ebm.BidirectionalBounds(**options, num_generator_samples=5)
    prior = ebm.EnergyBased(energy, event_shape=(2,))
    loss = objective.loss(prior, torch.as_tensor(steps.X), **learners)
    threshold = options["threshold"] if acts else np.inf
    expected = steps.energy_losses("exact", "log_ratio", steps.THETA, threshold)
    np.testing.assert_allclose(loss.detach(), expected, atol=1e-12)
    (found,) = torch.autograd.grad(loss.mean(), [energy.theta])
    expected = steps.energy_gradient("exact", "log_ratio", threshold)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_base_is_a_part_of_the_potential(monkeypatch):
    """exp(-E) N(0, I) is the same density as exp(-U), up to a constant."""
    theta = steps.THETA - np.array([0.0, 0.0, 1.0, 1.0])
    learners, named = pair("exact", monkeypatch)
    scale = leaf(1.0)
    prior = ebm.EnergyBased(Potential(theta), dist.Normal(torch.zeros(2), scale).to_event(1))
    options = {"penalty_weight": steps.WEIGHT, "entropy_weight": steps.ENTROPY_WEIGHT}
    objective = ebm.BidirectionalBounds(**options, num_generator_samples=5)
    loss = objective.loss(prior, torch.as_tensor(steps.X), **learners)
    # The constants of the base cancel between values and draws.
    expected = steps.energy_losses("exact", "log_ratio", steps.THETA)
    np.testing.assert_allclose(loss.detach(), expected, atol=1e-12)
    by_scale, by_matrix = torch.autograd.grad(loss.mean(), [scale, named["matrix"]])
    expected = steps.energy_gradient("exact", "log_ratio")[2:].sum()
    # The precision of the base is scale^-2; log Z of it drops out.
    assert by_scale.item() == pytest.approx(-2 * expected, abs=1e-12)
    np.testing.assert_allclose(by_matrix, steps.partner_gradients("exact")["matrix"], atol=1e-12)


class Curved(nn.Module):
    """A map of the plane onto itself."""

    def forward(self, z):
        return z + 0.3 * torch.tanh(z.flip(-1)) + torch.stack([0.1 * z[:, 0] ** 3, 0 * z[:, 0]], -1)


def test_slopes_of_the_log_ratio_are_its_derivatives():
    prior = ebm.EnergyBased(lambda x: (x**2 + 0.1 * x**4).sum(-1), event_shape=(2,))
    partner = Partner.of(prior, ebm.Pushforward(given(steps.LATENT), Curved()))
    latent = torch.as_tensor(steps.LATENT)
    slope, step = partner.compare(prior, latent).slope, 1e-5
    for direction in torch.eye(2):
        ends = [partner.compare(prior, latent + s * direction).log_ratio for s in (step, -step)]
        expected = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(slope @ direction, expected, rtol=0, atol=1e-8)


def test_a_transform_tells_its_volume_itself():
    """As the Jacobian would, and as a density of the values would."""
    prior = ebm.EnergyBased(lambda x: x.square().sum(-1), event_shape=(2,))
    stretch = ComposeTransform([TanhTransform(), AffineTransform(0.5, torch.tensor([2.0, -3.0]))])
    latent, told = standard_normal(), torch.as_tensor(steps.LATENT)
    flow = dist.TransformedDistribution(latent, stretch.parts)
    expected = -flow.log_prob(stretch(told))
    by_jacobian = ebm.Pushforward(latent, lambda z: stretch(z))
    for generator in (ebm.Pushforward(latent, stretch), flow, by_jacobian):
        found = Partner.of(prior, generator).compare(prior, told).log_inverse_density
        torch.testing.assert_close(found, expected)


def test_one_random_direction_would_do_and_is_noise():
    """(v . g)^2 has mean |g|^2 and variance 2 |g|^4 (methods page, T7): R needs none of it."""
    prior = ebm.EnergyBased(lambda x: (x**2 + 0.1 * x**4).sum(-1), event_shape=(2,))
    partner = Partner.of(prior, ebm.Pushforward(given(steps.LATENT), Curved()))
    latent = torch.as_tensor(steps.LATENT)
    compared = partner.compare(prior, latent)
    (without_energy,) = compared.pull((torch.zeros(5, 2), torch.ones(5)))
    directions = torch.randn(100_000, 2)
    # As published: one product with the Jacobian along v, and no transposed one.
    published = (
        torch.stack(
            [(compared.score * compared.push(axis.expand(5, 2))).sum(-1) for axis in torch.eye(2)]
        )
        - without_energy.T
    )
    along = directions @ published
    torch.testing.assert_close(along, -directions @ compared.slope.T, rtol=0, atol=1e-10)
    square = compared.slope.square().sum(-1)
    error = square * (2 / len(directions)) ** 0.5
    assert ((along.square().mean(0) - square).abs() < 4 * error).all()
    torch.testing.assert_close(along.square().var(0), 2 * square**2, rtol=0.1, atol=0)


# --- the game ---

SIGNS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
ONE_SIGN = np.array([[1.0], [-1.0]])


def field(theta, a, data_variance, **options):
    """Minus the gradients of a game of E = theta x^2 / 2 and G = a z, over all of z^2 = 1."""
    theta, a = leaf(theta), leaf(a)
    prior = ebm.EnergyBased(lambda x: theta * x.square().sum(-1) / 2, event_shape=(1,))
    generator = ebm.Pushforward(given(ONE_SIGN), lambda z: a * z)
    objective = ebm.BidirectionalBounds(num_generator_samples=2, **options)
    x = torch.as_tensor(data_variance**0.5 * ONE_SIGN)
    loss = objective.loss(prior, x, generator=generator).mean()
    return -np.array(torch.autograd.grad(loss, [theta, a]))


@pytest.mark.parametrize(
    ("weight", "eigenvalues"),
    [
        (0.0, [-0.2 - 2.227j, -0.2 + 2.227j]),
        (0.1, [-1.45 - 1.70j, -1.45 + 1.70j]),
        (1.0, [-25.2, -0.198]),
    ],
)
def test_the_penalty_damps_the_game_and_leaves_its_equilibrium(weight, eigenvalues):
    """Methods page, T11, v = 5."""
    point, step = np.array([0.2, 5**0.5]), 1e-5
    np.testing.assert_allclose(field(*point, 5.0, penalty_weight=weight), 0.0, atol=1e-12)
    columns = [
        field(*(point + d), 5.0, penalty_weight=weight)
        - field(*(point - d), 5.0, penalty_weight=weight)
        for d in step * np.eye(2)
    ]
    found = np.sort_complex(np.linalg.eigvals(np.stack(columns, -1) / (2 * step)))
    np.testing.assert_allclose(found, eigenvalues, rtol=3e-3)


@pytest.mark.parametrize(
    ("weight", "variance"), [(0.01, 1.039), (0.1, 1.306), (1.0, 2.562), (10.0, 6.844)]
)
def test_a_penalty_at_data_flattens_the_optimum(weight, variance):
    """Methods page, T11, v = 1: the model's variance where the energy is at rest."""

    def at_rest(theta):
        return field(theta, theta**-0.5, 1.0, penalty="data", penalty_weight=weight)[0]

    assert 1 / brentq(at_rest, 0.05, 2.0) == pytest.approx(variance, abs=1e-3)


@pytest.mark.parametrize(
    ("entropy", "scales"), [("exact", [1.0, 0.1]), ("smallest_singular_value", [0.14072] * 2)]
)
def test_a_generator_rests_where_its_entropy_lets_it(entropy, scales):
    """Methods page, T4: precisions 1 and 100; the bound of equal stretches wants them equal."""
    precision, matrix = torch.tensor([1.0, 100.0]), leaf(np.diag(scales).tolist())
    prior = ebm.EnergyBased(lambda x: x.square() @ precision / 2, event_shape=(2,))
    generator = ebm.Pushforward(given(SIGNS), lambda z: z @ matrix.T)
    objective = ebm.BidirectionalBounds(entropy=entropy, num_generator_samples=4)
    loss = objective.loss(prior, torch.zeros(1, 2), generator=generator)
    (gradient,) = torch.autograd.grad(loss.sum(), [matrix])
    # Equal singular values have no derivative each, but their common one is at rest.
    assert (gradient * matrix).sum().item() == pytest.approx(0.0, abs=1e-3)
    if entropy == "exact":
        torch.testing.assert_close(gradient, torch.zeros(2, 2), rtol=0, atol=1e-12)


# --- training ---


def observed(energy):
    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(energy, event_shape=(2,)), obs=x)

    return model


def standard_normal():
    return dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1)


@pytest.mark.parametrize("entropy", ["exact", "stochastic", "noise"])
def test_energy_and_generator_meet_at_the_data(entropy):
    """Precisions 2 and 1/2 around (1, 0); svi.step trains everyone that the guide declares."""
    energy, affine = Potential([0.0, 0.0, 1.0, 1.0]), Affine()
    encoder = Encoder(scale=[0.5, 0.5])

    def guide(x):
        if entropy != "noise":
            ebm.auxiliary("x", generator=ebm.Pushforward(standard_normal(), affine))
            return
        scale = pyro.param("scale", torch.tensor(0.5), constraint=dist.constraints.positive)
        generator = ebm.Pushforward(standard_normal(), affine, noise_scale=scale)
        ebm.auxiliary("x", generator=generator, encoder=encoder)

    objective = ebm.BidirectionalBounds(entropy=entropy)
    loss = ebm.EnergyELBO(objective, num_normalizer_samples=0)
    svi = SVI(observed(energy), guide, Adam({"lr": 0.03, "betas": (0.0, 0.9)}), loss)
    path, noise = [], torch.randn(2000, 2)
    noise = (noise - noise.mean(0)) / noise.std(0, correction=0)
    x = noise * torch.tensor([0.5**0.5, 2**0.5]) + torch.tensor([1.0, 0.0])
    for _ in range(400):
        svi.step(x[torch.randint(2000, (200,))])
        path.append(energy.theta.tolist())
    found = np.mean(path[-200:], axis=0)
    np.testing.assert_allclose(found, [-2.0, 0.0, 2.0, 0.5], atol=0.12)
    health = loss.health(observed(energy), guide, x)["x"]
    # One probe of a volume is noise, to which weights are sensitive.
    assert health["effective_samples"] > (0.6 if entropy == "stochastic" else 0.9) * len(x)
    assert health["penalty"] < 0.05


def test_a_prior_in_a_linear_gaussian_model_is_recovered():
    torch.set_default_dtype(torch.float32)
    toy = Toy("plate")

    def guide():
        scale = pyro.param("spread", torch.tensor(1.0))
        ebm.auxiliary("z", generator=ebm.Pushforward(dist.Normal(0.0, 1.0), lambda z: scale * z))
        toy.guide()

    loss = ebm.EnergyELBO(ebm.BidirectionalBounds(), num_normalizer_samples=0)
    svi = SVI(toy.model, guide, Adam({"lr": 0.05, "betas": (0.0, 0.9)}), loss)
    path = []
    for _ in range(400):
        svi.step()
        path.append([1 / 16 + toy.energy.a.exp().item(), pyro.param("spread").item()])
    precision, spread = np.mean(path[-200:], axis=0)
    assert precision == pytest.approx(truth.PRECISION, rel=0.02)
    assert spread == pytest.approx(truth.PRECISION**-0.5, rel=0.02)
    assert pyro.param("slope").item() == pytest.approx(truth.SLOPE, abs=0.05)
    assert pyro.param("scale").item() == pytest.approx(truth.SCALE, abs=0.05)


# --- errors ---


def test_a_small_latent_earns_a_warning():
    """Methods page, T5: the bound is one of the integral over a curve."""
    prior = ebm.EnergyBased(Potential(), event_shape=(2,))
    curve = ebm.Pushforward(given(steps.LATENT[:, :1]), lambda z: torch.cat([z, 0 * z], -1))
    with pytest.warns(UserWarning, match="1 latent dimensions makes values on a surface in 2"):
        ebm.BidirectionalBounds().loss(prior, torch.zeros(5, 2), generator=curve)


def plane(**options):
    return ebm.Pushforward(standard_normal(), Affine(), **options)


@pytest.mark.parametrize(
    ("options", "learners", "message"),
    [
        ({}, {"generator": plane(), "encoder": Encoder()}, "got entropy='exact' and one"),
        ({"entropy": "noise"}, {"generator": plane(noise_scale=0.1)}, "'noise' and none"),
        ({"entropy": "noise"}, {"generator": plane(), "encoder": Encoder()}, "with noise"),
        (
            {},
            {"generator": plane(noise_scale=0.1)},
            "with noise, .*got entropy='exact'",
        ),
        (
            {},
            {"generator": ebm.Pushforward(dist.Normal(0.0, 1.0), lambda z: z)},
            r"event shape of its site, \(2,\), got \(\)",
        ),
        ({}, {"generator": plane().expand((3,))}, r"one of batch shape \(3,\)"),
        (
            {"entropy": "noise"},
            {
                "generator": plane(noise_scale=0.1),
                "encoder": lambda x: dist.Normal(x, 1.0),
            },
            r"batch shape \(3,\) and event shape \(2,\) here, got .* of \(3, 2\) and \(\)",
        ),
    ],
)
def test_what_does_not_go_together(options, learners, message):
    prior = ebm.EnergyBased(Potential(), event_shape=(2,))
    with pytest.raises(ValueError, match=message):
        ebm.BidirectionalBounds(**options).loss(prior, torch.zeros(3, 2), **learners)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"entropy": "full"}, "`entropy` to be one of .*'exact'.*, got 'full'"),
        ({"penalty": "none"}, "`penalty` to be one of .*, got 'none'"),
        ({"penalty_weight": -1.0}, "`penalty_weight` to be a number of at least 0, got -1.0"),
        ({"threshold": -1.0}, "`threshold` to be a number of at least 0, got -1.0"),
        ({"entropy_weight": -1.0}, "`entropy_weight` to be a number of at least 0, got -1.0"),
        ({"num_generator_samples": 0}, "`num_generator_samples` to be an integer of at least 1"),
        ({"num_iterations": 0}, "`num_iterations` to be an integer of at least 1, got 0"),
        ({"num_probes": 0}, "`num_probes` to be an integer of at least 1, got 0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ebm.BidirectionalBounds(**arguments)
