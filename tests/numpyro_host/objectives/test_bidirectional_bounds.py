import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from helpers import bounds_steps as steps
from helpers import linear_gaussian as truth
from helpers.linear_gaussian_numpyro import Toy
from jax import lax, random
from jax.tree_util import Partial
from numpyro.distributions.transforms import AffineTransform, ComposeTransform, SigmoidTransform
from numpyro.infer import SVI
from scipy.optimize import brentq

import pyro_ebm.numpyro as ebm
from pyro_ebm.core.infer.metrics import recorded_figures
from pyro_ebm.numpyro.objectives.generator import Partner

KEY = random.key(0)


class GivenNoise(dist.Normal):
    """Standard normal, but its draws are given."""

    pytree_data_fields = ("draws",)

    def __init__(self, draws):
        super().__init__(jnp.zeros(draws.shape[1:]), 1.0)
        self.draws = jnp.asarray(draws)

    def sample(self, key, sample_shape=()):
        assert tuple(sample_shape) == self.draws.shape[:1]
        return self.draws


def given(draws):
    return GivenNoise(draws).to_event(draws.ndim - 1)


def potential(theta, x):
    """theta . (x, x^2 / 2) in the plane."""
    return jnp.concatenate([x, x**2 / 2], -1) @ theta


def affine(params, z):
    return z @ params["matrix"].T + params["shift"]


def encode(params, x):
    mean = x @ params["encoder"].T + params.get("encoder_shift", 0.0)
    return dist.Normal(mean, params["encoder_scale"]).to_event(1)


def learners_of(entropy, params):
    latent, generator = given(steps.LATENT), Partial(affine, params)
    if entropy != "noise":
        return {"generator": ebm.Pushforward(latent, generator)}
    generator = ebm.Pushforward(latent, generator, noise_scale=params["noise_scale"])
    return {"generator": generator, "encoder": Partial(encode, params)}


def in_plane(theta, base=None):
    return ebm.EnergyBased(Partial(potential, jnp.asarray(theta)), base, event_shape=(2,))


# --- value and gradients ---


def one_step(entropy, theta=steps.THETA, base=None, **options):
    """Losses, their mean's gradients in theta and in the partner, and the penalty R."""
    objective = ebm.BidirectionalBounds(
        entropy=entropy,
        penalty_weight=steps.WEIGHT,
        entropy_weight=steps.ENTROPY_WEIGHT,
        num_generator_samples=5,
        **options,
    )

    @jax.jit
    def run(theta, partner, scale):
        def mean_loss(theta, partner, scale):
            prior = in_plane(theta, base and base(scale))
            with recorded_figures() as figures:
                learners = learners_of(entropy, partner)
                losses = objective.loss(KEY, prior, jnp.asarray(steps.X), **learners)
            assert {"energy_gap", "energy_scale", "lower_bound", "effective_samples"} < set(figures)
            return losses.mean(), (losses, figures["penalty"]())

        return jax.grad(mean_loss, argnums=(0, 1, 2), has_aux=True)(theta, partner, scale)

    partner = {name: jnp.asarray(value) for name, value in steps.players(entropy).items()}
    gradients, (losses, penalty) = run(jnp.asarray(theta), partner, jnp.ones(()))
    return losses, gradients, penalty


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("penalty", ["log_ratio", "data"])
@pytest.mark.parametrize("entropy", steps.ENTROPIES)
def test_gradients_of_all_players_are_those_of_the_formula(entropy, penalty, monkeypatch):
    monkeypatch.setattr(random, "normal", lambda *_: jnp.asarray(steps.EPSILON))
    losses, (by_theta, by_partner, _), half_square = one_step(entropy, penalty=penalty)
    expected = steps.energy_losses(entropy, penalty, steps.THETA)
    np.testing.assert_allclose(losses, expected, atol=1e-12)
    np.testing.assert_allclose(by_theta, steps.energy_gradient(entropy, penalty), atol=1e-12)
    for name, expected in steps.partner_gradients(entropy).items():
        np.testing.assert_allclose(by_partner[name], expected, atol=1e-12)
    expected = 0.5 * (steps.slope(entropy, steps.THETA) ** 2).sum(-1).mean()
    assert half_square == pytest.approx(expected, abs=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("excess", "acts"), [(0.01, True), (-0.01, False)])
def test_the_penalty_acts_beyond_its_threshold(excess, acts):
    penalty = 0.5 * (steps.slope("exact", steps.THETA) ** 2).sum(-1).mean()
    threshold = steps.WEIGHT * penalty - excess
    losses, (by_theta, *_), _ = one_step("exact", threshold=threshold)
    threshold = threshold if acts else np.inf
    expected = steps.energy_losses("exact", "log_ratio", steps.THETA, threshold)
    np.testing.assert_allclose(losses, expected, atol=1e-12)
    expected = steps.energy_gradient("exact", "log_ratio", threshold)
    np.testing.assert_allclose(by_theta, expected, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_a_base_is_a_part_of_the_potential():
    """exp(-E) N(0, I) is the same density as exp(-U), up to a constant."""
    theta = steps.THETA - np.array([0.0, 0.0, 1.0, 1.0])

    def base(scale):
        return dist.Normal(jnp.zeros(2), scale).to_event(1)

    losses, (_, by_partner, by_scale), _ = one_step("exact", theta, base)
    # The constants of the base cancel between values and draws.
    expected = steps.energy_losses("exact", "log_ratio", steps.THETA)
    np.testing.assert_allclose(losses, expected, atol=1e-12)
    expected = steps.energy_gradient("exact", "log_ratio")[2:].sum()
    # The precision of the base is scale^-2; log Z of it drops out.
    assert by_scale == pytest.approx(-2 * expected, abs=1e-12)
    expected = steps.partner_gradients("exact")["matrix"]
    np.testing.assert_allclose(by_partner["matrix"], expected, atol=1e-12)


def curved(z):
    """A map of the plane onto itself."""
    bent = jnp.stack([0.1 * z[:, 0] ** 3, jnp.zeros(len(z))], -1)
    return z + 0.3 * jnp.tanh(z[:, ::-1]) + bent


def curved_pair():
    prior = ebm.EnergyBased(lambda x: (x**2 + 0.1 * x**4).sum(-1), event_shape=(2,))
    return prior, Partner.of(KEY, prior, ebm.Pushforward(given(steps.LATENT), curved))


@pytest.mark.usefixtures("float64")
def test_slopes_of_the_log_ratio_are_its_derivatives():
    prior, partner = curved_pair()
    log_ratio = jax.jit(lambda latent: partner.compare(prior, latent).log_ratio)
    latent, step = jnp.asarray(steps.LATENT), 1e-5
    slope = partner.compare(prior, latent).slope
    for direction in jnp.eye(2):
        ends = [log_ratio(latent + s * direction) for s in (step, -step)]
        np.testing.assert_allclose(slope @ direction, (ends[0] - ends[1]) / (2 * step), atol=1e-8)


@pytest.mark.usefixtures("float64")
def test_a_transform_tells_its_volume_itself():
    """As the Jacobian would, and as a density of the values would."""
    prior = ebm.EnergyBased(lambda x: (x**2).sum(-1), event_shape=(2,))
    scale = AffineTransform(0.5, jnp.array([2.0, -3.0]))
    stretch = ComposeTransform([SigmoidTransform(), scale])
    latent, told = standard_normal(), jnp.asarray(steps.LATENT)
    flow = dist.TransformedDistribution(latent, stretch.parts)
    expected = -flow.log_prob(stretch(told))
    by_jacobian = ebm.Pushforward(latent, lambda z: stretch(z))
    for generator in (ebm.Pushforward(latent, stretch), flow, by_jacobian):
        found = Partner.of(KEY, prior, generator).compare(prior, told).log_inverse_density
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.usefixtures("float64")
def test_one_random_direction_would_do_and_is_noise():
    """(v . g)^2 has mean |g|^2 and variance 2 |g|^4 (methods page, T7): R needs none of it."""
    prior, partner = curved_pair()
    compared = partner.compare(prior, jnp.asarray(steps.LATENT))
    (without_energy,) = compared.pull((jnp.zeros((5, 2)), jnp.ones(5)))
    directions = random.normal(random.key(1), (100_000, 2))
    # As published: one product with the Jacobian along v, and no transposed one.
    images = [compared.push(jnp.broadcast_to(axis, (5, 2))) for axis in jnp.eye(2)]
    published = jnp.stack([(compared.score * image).sum(-1) for image in images])
    along = directions @ (published - without_energy.T)
    np.testing.assert_allclose(along, -directions @ compared.slope.T, atol=1e-10)
    square = (compared.slope**2).sum(-1)
    error = square * (2 / len(directions)) ** 0.5
    assert (jnp.abs((along**2).mean(0) - square) < 4 * error).all()
    np.testing.assert_allclose((along**2).var(0), 2 * square**2, rtol=0.1)


# --- the game ---

SIGNS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
ONE_SIGN = np.array([[1.0], [-1.0]])


def field_of(data_variance, **options):
    """Minus the gradients of a game of E = theta x^2 / 2 and G = a z, over all of z^2 = 1."""
    objective = ebm.BidirectionalBounds(num_generator_samples=2, **options)

    @jax.jit
    @jax.grad
    def gradient(players):
        theta, a = players
        prior = ebm.EnergyBased(lambda x: theta * (x**2).sum(-1) / 2, event_shape=(1,))
        generator = ebm.Pushforward(given(ONE_SIGN), lambda z: a * z)
        x = jnp.asarray(data_variance**0.5 * ONE_SIGN)
        return objective.loss(KEY, prior, x, generator=generator).mean()

    return lambda players: -np.asarray(gradient(jnp.asarray(players)))


@pytest.mark.usefixtures("float64")
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
    point, step, field = np.array([0.2, 5**0.5]), 1e-5, field_of(5.0, penalty_weight=weight)
    np.testing.assert_allclose(field(point), 0.0, atol=1e-12)
    columns = [field(point + shift) - field(point - shift) for shift in step * np.eye(2)]
    found = np.sort_complex(np.linalg.eigvals(np.stack(columns, -1) / (2 * step)))
    np.testing.assert_allclose(found, eigenvalues, rtol=3e-3)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("weight", "variance"), [(0.01, 1.039), (0.1, 1.306), (1.0, 2.562), (10.0, 6.844)]
)
def test_a_penalty_at_data_flattens_the_optimum(weight, variance):
    """Methods page, T11, v = 1: the model's variance where the energy is at rest."""
    field = field_of(1.0, penalty="data", penalty_weight=weight)
    rest = brentq(lambda theta: field(np.array([theta, theta**-0.5]))[0], 0.05, 2.0)
    assert 1 / rest == pytest.approx(variance, abs=1e-3)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("entropy", "scales"), [("exact", [1.0, 0.1]), ("smallest_singular_value", [0.14072] * 2)]
)
def test_a_generator_rests_where_its_entropy_lets_it(entropy, scales):
    """Methods page, T4: precisions 1 and 100; the bound of equal stretches wants them equal."""
    precision, matrix = jnp.array([1.0, 100.0]), jnp.diag(jnp.array(scales))
    prior = ebm.EnergyBased(lambda x: x**2 @ precision / 2, event_shape=(2,))
    objective = ebm.BidirectionalBounds(entropy=entropy, num_generator_samples=4)

    def loss(matrix):
        generator = ebm.Pushforward(given(SIGNS), lambda z: z @ matrix.T)
        return objective.loss(KEY, prior, jnp.zeros((1, 2)), generator=generator).sum()

    gradient = jax.grad(loss)(matrix)
    # Equal singular values have no derivative each, but their common one is at rest.
    assert (gradient * matrix).sum() == pytest.approx(0.0, abs=1e-3)
    if entropy == "exact":
        np.testing.assert_allclose(gradient, 0.0, atol=1e-12)


# --- training ---


def train(svi, num_steps, *args):
    """Means of the parameters over the last half of the steps."""

    def step(state, _):
        state, _ = svi.update(state, *args)
        return state, svi.get_params(state)

    _, path = jax.jit(lambda state: lax.scan(step, state, length=num_steps))(svi.init(KEY, *args))
    return jax.tree.map(lambda leaf: leaf[num_steps // 2 :].mean(0), path)


def standard_normal():
    return dist.Normal(jnp.zeros(2), 1.0).to_event(1)


@pytest.mark.parametrize("entropy", ["exact", "stochastic", "noise"])
def test_energy_and_generator_meet_at_the_data(entropy, optimized):
    """Precisions 2 and 1/2 around (1, 0); SVI trains everyone that the guide declares."""

    def model(x):
        theta = numpyro.param("theta", jnp.array([0.0, 0.0, 1.0, 1.0]))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", in_plane(theta), obs=x)

    def guide(x):
        generator = Partial(affine, numpyro.param("generator", steps.GENERATOR))
        if entropy != "noise":
            ebm.auxiliary("x", generator=ebm.Pushforward(standard_normal(), generator))
            return
        scale = numpyro.param("scale", 0.5, constraint=dist.constraints.positive)
        start = {"encoder": steps.ENCODER, "encoder_shift": jnp.zeros(2)}
        start |= {"encoder_scale": jnp.array([0.5, 0.5])}
        generator = ebm.Pushforward(standard_normal(), generator, noise_scale=scale)
        encoder = Partial(encode, numpyro.param("encoder", start))
        ebm.auxiliary("x", generator=generator, encoder=encoder)

    objective = ebm.BidirectionalBounds(entropy=entropy)
    loss = ebm.EnergyELBO(objective, num_normalizer_samples=0)
    noise = random.normal(random.key(2), (200, 2))
    noise = (noise - noise.mean(0)) / noise.std(0)
    x = noise * jnp.array([0.5**0.5, 2**0.5]) + jnp.array([1.0, 0.0])
    params = train(SVI(model, guide, optax.adam(0.03, b1=0.0, b2=0.9), loss), 400, x)
    np.testing.assert_allclose(params["theta"], [-2.0, 0.0, 2.0, 0.5], atol=0.12)
    health = jax.jit(lambda params: loss.health(KEY, params, model, guide, x)["x"])(params)
    # One probe of a volume is noise, to which weights are sensitive.
    assert health["effective_samples"] > (0.6 if entropy == "stochastic" else 0.9) * len(x)
    assert health["penalty"] < 0.05


def test_a_prior_in_a_linear_gaussian_model_is_recovered(optimized):
    toy = Toy("plate")

    def guide():
        spread = numpyro.param("spread", 1.0)
        generator = ebm.Pushforward(dist.Normal(), lambda z: spread * z, event_shape=())
        ebm.auxiliary("z", generator=generator)
        toy.guide()

    loss = ebm.EnergyELBO(ebm.BidirectionalBounds(), num_normalizer_samples=0)
    params = train(SVI(toy.model, guide, optax.adam(0.05, b1=0.0, b2=0.9), loss), 400)
    assert 1 / 16 + jnp.exp(params["a"]) == pytest.approx(truth.PRECISION, rel=0.02)
    assert params["spread"] == pytest.approx(truth.PRECISION**-0.5, rel=0.02)
    assert params["slope"] == pytest.approx(truth.SLOPE, abs=0.05)
    assert params["scale"] == pytest.approx(truth.SCALE, abs=0.05)


# --- errors ---


def test_a_small_latent_earns_a_warning():
    """Methods page, T5: the bound is one of the integral over a curve."""
    curve = ebm.Pushforward(
        given(steps.LATENT[:, :1]), lambda z: jnp.concatenate([z, jnp.zeros_like(z)], -1)
    )
    with pytest.warns(UserWarning, match="1 latent dimensions makes values on a surface in 2"):
        ebm.BidirectionalBounds().loss(
            KEY, in_plane(steps.THETA), jnp.zeros((5, 2)), generator=curve
        )


def plane(**options):
    return ebm.Pushforward(standard_normal(), lambda z: z, **options)


def identity_encoder(x):
    return dist.Normal(x, 1.0).to_event(1)


@pytest.mark.parametrize(
    ("options", "learners", "message"),
    [
        ({}, {"generator": plane(), "encoder": identity_encoder}, "got entropy='exact' and one"),
        ({"entropy": "noise"}, {"generator": plane(noise_scale=0.1)}, "'noise' and none"),
        ({"entropy": "noise"}, {"generator": plane(), "encoder": identity_encoder}, "with noise"),
        ({}, {"generator": plane(noise_scale=0.1)}, "with noise, .*got entropy='exact'"),
        (
            {},
            {"generator": ebm.Pushforward(dist.Normal(), lambda z: z)},
            r"event shape of its site, \(2,\), got \(\)",
        ),
        ({}, {"generator": plane().expand((3,))}, r"one of batch shape \(3,\)"),
        (
            {"entropy": "noise"},
            {"generator": plane(noise_scale=0.1), "encoder": lambda x: dist.Normal(x, 1.0)},
            r"batch shape \(3,\) and event shape \(2,\) here, got .* of \(3, 2\) and \(\)",
        ),
    ],
)
def test_what_does_not_go_together(options, learners, message):
    objective = ebm.BidirectionalBounds(**options)
    with pytest.raises(ValueError, match=message):
        objective.loss(KEY, in_plane(steps.THETA), jnp.zeros((3, 2)), **learners)


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
