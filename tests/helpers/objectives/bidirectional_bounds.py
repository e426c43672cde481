import numpy as np
import pytest
from scipy.optimize import brentq

from helpers import bounds_steps as steps

pytestmark = pytest.mark.usefixtures("float64")


def potential(theta):
    """theta . (x, x^2 / 2) in the plane."""
    return lambda x: x @ theta[:2] + x**2 @ theta[2:] / 2


def in_plane(host, base=None):
    return lambda p: host.ebm.EnergyBased(potential(p["theta"]), base, event_shape=(2,))


def affine(p):
    return lambda z: z @ p["matrix"].T + p["shift"]


def standard_normal(host):
    return host.dist.Normal(host.array(np.zeros(2)), 1.0).to_event(1)


def parts(host, entropy, latent, p):
    """Generator, and encoder for noise, of parameters by the names of the page of numbers."""
    if entropy != "noise":
        return {"generator": host.ebm.Pushforward(latent, affine(p))}

    def encoder(x):
        return host.dist.Normal(x @ p["encoder"].T, p["encoder_scale"]).to_event(1)

    generator = host.ebm.Pushforward(latent, affine(p), noise_scale=p["noise_scale"])
    return {"generator": generator, "encoder": encoder}


# --- value and gradients ---


def one_step(host, entropy="exact", prior=None, params=None, **options):
    objective = host.ebm.BidirectionalBounds(
        entropy=entropy,
        penalty_weight=steps.WEIGHT,
        entropy_weight=steps.ENTROPY_WEIGHT,
        num_samples=5,
        **options,
    )
    latent = host.given_normal(steps.LATENT)
    params = {"theta": steps.THETA, **steps.players(entropy), **(params or {})}
    prior = prior or in_plane(host)
    attached = lambda p: parts(host, entropy, latent, p)  # noqa: E731
    return host.step(objective, prior, params, steps.X, attached)


@pytest.mark.parametrize("penalty", ["log_ratio", "data"])
@pytest.mark.parametrize("entropy", steps.ENTROPIES)
def test_gradients_of_all_players(host, entropy, penalty, monkeypatch):
    host.patch_noise(monkeypatch, steps.EPSILON)
    found = one_step(host, entropy, penalty=penalty)
    expected = steps.energy_losses(entropy, penalty, steps.THETA)
    np.testing.assert_allclose(found.loss, expected, atol=1e-12)
    expected = {"theta": steps.energy_gradient(entropy, penalty)}
    expected |= steps.generator_gradients(entropy)
    for name, gradient in found.gradients.items():
        np.testing.assert_allclose(gradient, expected[name], atol=1e-12)
    half_square = 0.5 * (steps.slope(entropy, steps.THETA) ** 2).sum(-1).mean()
    assert found.metrics["penalty"] == pytest.approx(half_square, abs=1e-12)
    assert found.metrics.keys() - {"penalty"} == {
        *("energy_gap", "energy_scale", "lower_bound", "effective_sample_size")
    }


@pytest.mark.parametrize(("surplus", "acts"), [(0.01, True), (-0.01, False)])
def test_penalty_acts_above_its_threshold(host, surplus, acts):
    penalty = 0.5 * (steps.slope("exact", steps.THETA) ** 2).sum(-1).mean()
    threshold = steps.WEIGHT * penalty - surplus
    found = one_step(host, threshold=threshold)
    threshold = threshold if acts else np.inf
    expected = steps.energy_losses("exact", "log_ratio", steps.THETA, threshold)
    np.testing.assert_allclose(found.loss, expected, atol=1e-12)
    expected = steps.energy_gradient("exact", "log_ratio", threshold)
    np.testing.assert_allclose(found.gradients["theta"], expected, atol=1e-12)


def test_base_is_part_of_the_potential(host):
    """exp(-E) N(0, I) is the same density as exp(-U), up to a constant."""

    def prior(p):
        base = host.dist.Normal(host.array(np.zeros(2)), p["scale"]).to_event(1)
        return host.ebm.EnergyBased(potential(p["theta"]), base)

    theta = steps.THETA - np.array([0.0, 0.0, 1.0, 1.0])
    found = one_step(host, prior=prior, params={"theta": theta, "scale": 1.0})
    # The constants of the base cancel between values and draws.
    expected = steps.energy_losses("exact", "log_ratio", steps.THETA)
    np.testing.assert_allclose(found.loss, expected, atol=1e-12)
    expected = steps.energy_gradient("exact", "log_ratio")[2:].sum()
    # The precision of the base is scale^-2; log Z of it drops out.
    assert found.gradients["scale"] == pytest.approx(-2 * expected, abs=1e-12)
    expected = steps.generator_gradients("exact")["matrix"]
    np.testing.assert_allclose(found.gradients["matrix"], expected, atol=1e-12)


# --- draws of a generator ---


def curved_family(host):
    """An energy, a map of the plane onto itself, and latent values."""

    def generator(z):
        first, second = z[:, 0], z[:, 1]
        bent = first + 0.3 * host.xp.tanh(second) + 0.1 * first**3
        return host.xp.stack([bent, second + 0.3 * host.xp.tanh(first)], -1)

    prior = host.ebm.EnergyBased(lambda x: (x**2 + 0.1 * x**4).sum(-1), event_shape=(2,))
    source = host.ebm.Pushforward(host.given_normal(steps.LATENT), generator)
    return prior, host.family(prior, source), generator


def test_slopes_of_the_log_ratio_are_its_derivatives(host):
    prior, family, _ = curved_family(host)
    slope, step = np.asarray(family.compare(prior, host.array(steps.LATENT)).ratio_gradient), 1e-5
    for direction in np.eye(2):
        moved = [host.array(steps.LATENT + s * direction) for s in (step, -step)]
        ends = [np.asarray(family.compare(prior, latent).log_ratio) for latent in moved]
        np.testing.assert_allclose(slope @ direction, (ends[0] - ends[1]) / (2 * step), atol=1e-8)


def test_volume_of_a_transform(host):
    """From the transform, from the Jacobian, and from a density of the values."""
    prior = host.ebm.EnergyBased(lambda x: (x**2).sum(-1), event_shape=(2,))
    transforms = host.dist.transforms
    squash = [
        transforms.SigmoidTransform(),
        transforms.AffineTransform(host.array(0.5), host.array([2.0, -3.0])),
    ]
    composed = transforms.ComposeTransform(squash)
    latent, z = standard_normal(host), host.array(steps.LATENT)
    flow = host.dist.TransformedDistribution(latent, squash)
    expected = -flow.log_prob(composed(z))
    by_jacobian = host.ebm.Pushforward(latent, lambda z: composed(z))
    for generator in (host.ebm.Pushforward(latent, composed), flow, by_jacobian):
        draws = host.family(prior, generator).compare(prior, z)
        np.testing.assert_allclose(draws.neg_log_density, expected, rtol=1e-9)


def test_one_random_direction_is_noise(host):
    """(v . g)^2 has mean |g|^2 and variance 2 |g|^4 (methods page, T7): R needs none of it."""
    prior, family, generator = curved_family(host)
    draws = family.compare(prior, host.array(steps.LATENT))
    (without_energy,) = draws.pull((host.array(np.zeros((5, 2))), host.array(np.ones(5))))
    slope, gradient = np.asarray(draws.ratio_gradient), host.to_numpy(draws.gradient)
    # As published: one product with the Jacobian along v, and no transposed one.
    jacobians = host.jacobian(generator, steps.LATENT)
    published = np.einsum("ni,nij->nj", gradient, jacobians) - host.to_numpy(without_energy)
    directions = np.random.default_rng(1).normal(size=(100_000, 2))
    along = directions @ published.T
    np.testing.assert_allclose(along, -directions @ slope.T, atol=1e-10)
    square = (slope**2).sum(-1)
    error = square * (2 / len(directions)) ** 0.5
    np.testing.assert_array_less(abs((along**2).mean(0) - square), 4 * error)
    np.testing.assert_allclose((along**2).var(0), 2 * square**2, rtol=0.1)


# --- the game ---

SIGNS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
ONE_SIGN = np.array([[1.0], [-1.0]])


def field_of(host, data_variance, **options):
    """Minus the gradients of a game of E = theta x^2 / 2 and G = a z, over all of z^2 = 1."""
    objective = host.ebm.BidirectionalBounds(num_samples=2, **options)
    latent = host.given_normal(ONE_SIGN)

    def prior(p):
        energy = lambda x: p["theta"] * (x**2).sum(-1) / 2  # noqa: E731
        return host.ebm.EnergyBased(energy, event_shape=(1,))

    def attached(p):
        return {"generator": host.ebm.Pushforward(latent, lambda z: p["a"] * z)}

    def field(point):
        params = dict(zip(("theta", "a"), point, strict=True))
        x = data_variance**0.5 * ONE_SIGN
        found = host.step(objective, prior, params, x, attached).gradients
        return -np.array([found[name] for name in params])

    return field


@pytest.mark.parametrize(
    ("weight", "eigenvalues"),
    [
        (0.0, [-0.2 - 2.227j, -0.2 + 2.227j]),
        (0.1, [-1.45 - 1.70j, -1.45 + 1.70j]),
        (1.0, [-25.2, -0.198]),
    ],
)
def test_penalty_damps_the_game_and_keeps_its_equilibrium(host, weight, eigenvalues):
    """Methods page, T11, v = 5."""
    field = field_of(host, 5.0, penalty_weight=weight)
    point, step = np.array([0.2, 5**0.5]), 1e-5
    np.testing.assert_allclose(field(point), 0.0, atol=1e-12)
    columns = [field(point + shift) - field(point - shift) for shift in step * np.eye(2)]
    found = np.sort_complex(np.linalg.eigvals(np.stack(columns, -1) / (2 * step)))
    np.testing.assert_allclose(found, eigenvalues, rtol=3e-3)


@pytest.mark.parametrize(
    ("weight", "variance"), [(0.01, 1.039), (0.1, 1.306), (1.0, 2.562), (10.0, 6.844)]
)
def test_penalty_at_data_flattens_the_optimum(host, weight, variance):
    """Methods page, T11, v = 1: the model's variance where the energy is at rest."""
    field = field_of(host, 1.0, penalty="data", penalty_weight=weight)
    rest = brentq(lambda theta: field([theta, theta**-0.5])[0], 0.05, 2.0)
    assert 1 / rest == pytest.approx(variance, abs=1e-3)


@pytest.mark.parametrize(
    ("entropy", "scales"), [("exact", [1.0, 0.1]), ("smallest_singular_value", [0.14072] * 2)]
)
def test_where_a_generator_rests(host, entropy, scales):
    """Methods page, T4: precisions 1 and 100; the bound of equal scales makes them equal."""
    precision, latent = host.array([1.0, 100.0]), host.given_normal(SIGNS)

    def prior(p):
        return host.ebm.EnergyBased(lambda x: x**2 @ precision / 2, event_shape=(2,))

    def attached(p):
        return {"generator": host.ebm.Pushforward(latent, lambda z: z @ p["matrix"].T)}

    objective = host.ebm.BidirectionalBounds(entropy=entropy, num_samples=4)
    matrix = np.diag(scales)
    found = host.step(objective, prior, {"matrix": matrix}, np.zeros((1, 2)), attached)
    gradient = found.gradients["matrix"]
    # Equal singular values have no derivative each, but their common one is at rest.
    assert (gradient * matrix).sum() == pytest.approx(0.0, abs=1e-3)
    if entropy == "exact":
        np.testing.assert_allclose(gradient, 0.0, atol=1e-12)


# --- errors ---


def plane(host, **options):
    return host.ebm.Pushforward(standard_normal(host), lambda z: z, **options)


def encoder(host):
    return lambda x: host.dist.Normal(x, 1.0).to_event(1)


def test_small_latent_triggers_a_warning(host):
    """Methods page, T5: the bound is one of the integral over a curve."""
    curve = host.ebm.Pushforward(
        host.given_normal(steps.LATENT[:, :1]),
        lambda z: host.xp.stack([z[:, 0], 0 * z[:, 0]], -1),
    )
    prior = in_plane(host)({"theta": host.array(steps.THETA)})
    with pytest.warns(UserWarning, match="1 latent dimensions makes values on a surface in 2"):
        host.loss(host.ebm.BidirectionalBounds(), prior, np.zeros((5, 2)), generator=curve)


@pytest.mark.parametrize(
    ("entropy", "attached", "message"),
    [
        ("exact", lambda h: {"generator": plane(h), "encoder": encoder(h)}, "'exact' and one"),
        ("noise", lambda h: {"generator": plane(h, noise_scale=0.1)}, "'noise' and none"),
        ("noise", lambda h: {"generator": plane(h), "encoder": encoder(h)}, "with noise"),
        ("exact", lambda h: {"generator": plane(h, noise_scale=0.1)}, "with noise, .*'exact'"),
        (
            "exact",
            lambda h: {
                "generator": h.ebm.Pushforward(h.dist.Normal(h.array(0.0), 1.0), lambda z: z)
            },
            r"event shape of its site, \(2,\), got \(\)",
        ),
        (
            "exact",
            lambda h: {"generator": plane(h).expand((3,))},
            r"one of batch shape \(3,\)",
        ),
        (
            "noise",
            lambda h: {
                "generator": plane(h, noise_scale=0.1),
                "encoder": lambda x: h.dist.Normal(x, 1.0),
            },
            r"batch shape \(3,\) and event shape \(2,\) here, got .* of \(3, 2\) and \(\)",
        ),
    ],
)
def test_generators_and_encoders_that_do_not_fit(host, entropy, attached, message):
    objective = host.ebm.BidirectionalBounds(entropy=entropy)
    prior = in_plane(host)({"theta": host.array(steps.THETA)})
    with pytest.raises(ValueError, match=message):
        host.loss(objective, prior, np.zeros((3, 2)), **attached(host))
