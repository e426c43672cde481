import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from helpers import f_divergence_steps as steps
from jax import lax, random
from jax.tree_util import Partial
from numpyro.infer import SVI, Trace_ELBO

import pyro_ebm.numpyro as ebm

KEY = random.key(0)


def energy(weights, x):
    """Weights times powers of a number."""
    return jnp.stack([jnp.ones_like(x), x, x**2], -1) @ weights


def critic(weights, x):
    return jnp.stack([jnp.ones_like(x), x, x**2, jnp.sin(x)], -1) @ weights


# --- value and gradient ---


def mean_loss(players, objective, with_base=True):
    theta, omega, base = players
    return objective.loss(
        KEY,
        ebm.EnergyBased(
            Partial(energy, theta), dist.Normal(*base) if with_base else None, event_shape=()
        ),
        jnp.asarray(steps.X),
        critic=Partial(critic, omega),
        chains=jnp.asarray(steps.DRAWS),
    ).mean()


def players():
    base = jnp.asarray([steps.BASE_LOC, steps.BASE_SCALE])
    return jnp.asarray(steps.THETA), jnp.asarray(steps.OMEGA), base


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("divergence", steps.TABLE)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"gradient": "covariance"}, {"covariance_only": True}),
        ({"log_ratio_bound": 0.3}, {"bound": 0.3}),
        (
            {"energy_penalty": steps.ENERGY_PENALTY, "critic_penalty": steps.CRITIC_PENALTY},
            {"penalties": True},
        ),
    ],
)
def test_gradients_of_all_players_are_those_of_the_formula(divergence, options, expected):
    found = jax.grad(mean_loss)(players(), ebm.FDivergence(divergence, **options))
    for one, by_hand in zip(found, steps.gradients(divergence, **expected), strict=True):
        np.testing.assert_allclose(one, by_hand, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_a_constant_moves_between_energy_and_critic_for_free():
    objective, found = ebm.FDivergence("jensen_shannon"), []
    for shift in (0.0, 2.5):
        theta, omega, base = players()
        shifted = (theta.at[0].add(shift), omega.at[0].add(-shift), base)
        loss, gradients = jax.value_and_grad(mean_loss)(shifted, objective, with_base=False)
        found.append((loss, gradients[0]))
    for with_shift, without in zip(*found, strict=True):
        np.testing.assert_allclose(with_shift, without, rtol=0, atol=1e-13)


def test_value_is_the_lower_bound():
    """At the best critic V is the divergence, here KL(N(0, 1) || N(1/2, 2))."""
    data_key, model_key = random.split(KEY)
    x = random.normal(data_key, (40_000,))
    draws = 0.5 + 2**0.5 * random.normal(model_key, (40_000,))
    theta = jnp.array([0.0, -0.25, 0.25])
    model = ebm.EnergyBased(Partial(energy, theta), event_shape=())

    def log_ratio(x):
        return dist.Normal(0.0, 1.0).log_prob(x) - dist.Normal(0.5, 2**0.5).log_prob(x)

    def best(x):
        return log_ratio(x) - energy(theta, x)

    objective = ebm.FDivergence("kl")
    value = objective.loss(KEY, model, x, critic=best, chains=draws)
    # b = u and E_q[u] = 1: what is left of V is the mean of 1 + log u, less 1.
    expected = (1 + log_ratio(x)).mean() - jnp.exp(log_ratio(draws)).mean()
    assert value.mean() == pytest.approx(float(expected), abs=1e-5)
    exact = 0.5 * (np.log(2) + 0.5 + 0.125 - 1)
    assert value.mean() == pytest.approx(exact, abs=4 * float(value.std()) / 200)
    ratio = objective.log_ratio(model, x[:100], critic=best)
    np.testing.assert_allclose(ratio, log_ratio(x[:100]), atol=1e-5)


def test_health_says_how_good_the_critic_is():
    loss = ebm.EnergyELBO(ebm.FDivergence("kl", log_ratio_bound=0.5))
    draws, omega = jnp.asarray(steps.DRAWS), jnp.asarray(steps.OMEGA)

    def guide(x):
        ebm.auxiliary("x", critic=Partial(critic, omega), chains=draws)

    params = {"theta": jnp.asarray(steps.THETA)}
    health = loss.health(KEY, params, observed(), guide, jnp.asarray(steps.X))
    (figures,) = health.values()
    ratio = critic(omega, draws) + energy(params["theta"], draws)
    assert figures["log_ratio_of_negatives"] == pytest.approx(float(ratio.mean()), abs=1e-5)
    assert figures["mean_ratio"] == pytest.approx(float(jnp.exp(ratio).mean()), rel=1e-5)
    assert set(figures) == {
        "objective",
        "energy_gap",
        "energy_scale",
        "log_ratio_of_data",
        "log_ratio_of_negatives",
        "mean_ratio",
        "clipped",
    }
    assert 0 < figures["clipped"] < 1


# --- training ---


def observed(base=None):
    def model(x):
        theta = numpyro.param("theta", jnp.array([0.0, 0.0, 0.5]))
        with numpyro.plate("data", len(x)):
            numpyro.sample(
                "x", ebm.EnergyBased(Partial(energy, theta), base, event_shape=()), obs=x
            )

    return model


def bowl(loc, log_scale, x):
    return 0.5 * ((x - loc) * jnp.exp(-log_scale)) ** 2


def judge():
    return Partial(energy, numpyro.param("critic", jnp.zeros(3)))


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    ("divergence", "gradient"),
    [("kl", "full"), ("jensen_shannon", "covariance"), (ebm.alpha_divergence(-0.5), "full")],
)
def test_a_gaussian_is_recovered(divergence, gradient):
    def parameters():
        return numpyro.param("loc", 0.0), numpyro.param("log_scale", 0.0)

    def model(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample(
                "x", ebm.EnergyBased(Partial(bowl, *parameters()), event_shape=()), obs=x
            )

    def guide(x):
        loc, log_scale = parameters()
        draws = loc + jnp.exp(log_scale) * random.normal(numpyro.prng_key(), x.shape)
        ebm.auxiliary("x", critic=judge(), chains=draws)

    loss = ebm.EnergyELBO(ebm.FDivergence(divergence, gradient=gradient), num_normalizer_samples=0)
    svi = SVI(model, guide, optax.adam(0.02, 0.5), loss)
    data = 1.0 + 1.5 * random.normal(KEY, (400, 500))

    def step(state, batch):
        state, _ = svi.update(state, batch)
        params = svi.get_params(state)
        return state, jnp.stack([params["loc"], jnp.exp(params["log_scale"])])

    _, path = lax.scan(step, svi.init(random.key(1), data[0]), data)
    np.testing.assert_allclose(path[-100:].mean(0), [1.0, 1.5], atol=0.05)


def test_players_have_learning_rates_of_their_own():
    def guide(x):
        ebm.auxiliary("x", critic=judge())

    rates = {"critic": optax.adam(0.0), "theta": optax.adam(0.1)}
    optimizer = optax.multi_transform(rates, lambda params: {name: name for name in params})
    objective = ebm.FDivergence("kl", sampler=ebm.MALA(0.5), num_steps=5)
    svi = SVI(observed(dist.Normal(0.0, 2.0)), guide, optimizer, ebm.EnergyELBO(objective))
    x = random.normal(KEY, (20,))
    before = svi.init(random.key(1), x)
    after = svi.get_params(svi.update(before, x)[0])
    assert (after["critic"] == svi.get_params(before)["critic"]).all()
    assert (after["theta"] != svi.get_params(before)["theta"])[1:].all()


# Linear-Gaussian: x | z ~ N(z, 1), data N(0, 5): the best prior is N(0, 4), precision 1/4.
@pytest.mark.usefixtures("optimized")
def test_a_prior_meets_the_aggregated_posterior():
    x = random.normal(KEY, (256,))
    x = (x - x.mean()) * (5**0.5 / x.std())

    def precision():
        return jnp.exp(numpyro.param("log_precision", 0.0))

    def model():
        tilt = Partial(lambda weight, z: 0.5 * weight * z**2, precision())
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", ebm.EnergyBased(tilt, dist.Normal(0.0, 4.0)))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide():
        slope, log_scale = numpyro.param("slope", 0.5), numpyro.param("log_scale", 0.0)
        noise = random.normal(numpyro.prng_key(), (512,))
        ebm.auxiliary("z", critic=judge(), chains=noise / jnp.sqrt(1 / 16 + precision()))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(slope * x, jnp.exp(log_scale)))

    objective = ebm.FDivergence("jensen_shannon")
    loss = ebm.EnergyELBO(objective, Trace_ELBO(num_particles=2), num_normalizer_samples=0)
    svi = SVI(model, guide, optax.adam(0.05, 0.5), loss)

    def step(state, _):
        state, _ = svi.update(state)
        return state, 1 / 16 + jnp.exp(svi.get_params(state)["log_precision"])

    _, path = lax.scan(step, svi.init(random.key(1)), length=300)
    assert path[-100:].mean() == pytest.approx(0.25, rel=0.06)


def test_negatives_come_from_the_sampler_of_the_site_or_from_chains():
    seen = []

    def watched(x):
        seen.append(len(x))
        return jnp.zeros(len(x))

    objective = ebm.FDivergence("kl", sampler=ebm.MALA(0.5), num_steps=2, num_negatives=30)
    distribution = ebm.EnergyBased(lambda x: 0.5 * x**2, dist.Normal(0.0, 1.0)).expand((8,))
    x = random.normal(KEY, (8,))
    assert objective.loss(KEY, distribution, x, critic=watched).shape == (8,)
    assert seen == [8 + 30]
    chains = ebm.PersistentChains(10, (), sampler=ebm.MALA(0.5), restart_probability=0.1)

    def guide(x):
        ebm.auxiliary("x", critic=judge(), chains=chains)

    loss = ebm.EnergyELBO(objective)
    svi = SVI(observed(dist.Normal(0.0, 1.0)), guide, optax.adam(0.01), loss)
    state, _ = svi.update(svi.init(random.key(1), x), x)
    assert jnp.isfinite(state.mutable_state["x$chains"]).all()


def test_each_base_has_negatives_of_its_own():
    """Bases at 0 and 100: a draw of one is no draw of the other."""
    model = ebm.EnergyBased(lambda x: 0 * x, dist.Normal(jnp.array([0.0, 100.0]), 1.0))
    objective = ebm.FDivergence("kl", sampler=ebm.MALA(0.1), num_negatives=4)
    value = objective.loss(KEY, model, jnp.array([0.0, 100.0]), critic=lambda x: 1.0 * (x > 50))
    # KL: 1 + l - mean(e^l), with l = 0 in the one context and 1 in the other.
    assert value.tolist() == pytest.approx([0.0, 2.0 - np.e], abs=1e-5)


# --- what it refuses ---


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"one of .*'jensen_shannon'.*, got 'js'"):
        ebm.FDivergence("js")
    with pytest.raises(ValueError, match="'full', 'covariance'"):
        ebm.FDivergence("kl", gradient="half")
    with pytest.raises(ValueError, match="log_ratio_bound"):
        ebm.FDivergence("kl", log_ratio_bound=0.0)
    with pytest.raises(ValueError, match="critic_penalty"):
        ebm.FDivergence("kl", critic_penalty=-1.0)
    concave = ebm.Divergence.from_function(
        "concave", lambda u: -((u - 1) ** 2), lambda u: -2 * (u - 1), lambda u: 0 * u - 2
    )
    with pytest.raises(ValueError, match="convexity"):
        ebm.FDivergence(concave)


def test_a_critic_must_be_declared_and_draws_must_fit():
    x = random.normal(KEY, (8,))
    loss = ebm.EnergyELBO(ebm.FDivergence("kl"))
    svi = SVI(observed(dist.Normal(0.0, 1.0)), lambda x: None, optax.adam(0.01), loss)
    with pytest.raises(ValueError, match=r"declare \['chains', 'critic'\] .* site 'x'"):
        svi.update(svi.init(KEY, x), x)
    distribution = ebm.EnergyBased(lambda x: x**2, event_shape=())
    for draws, complaint in [(jnp.zeros(1), "at least 2"), (jnp.zeros((4, 2)), "event shape")]:
        with pytest.raises(ValueError, match=complaint):
            ebm.FDivergence("kl").loss(
                KEY, distribution, jnp.zeros(3), critic=lambda x: 0 * x, chains=draws
            )


def test_an_objective_can_be_made_inside_jit():
    @jax.jit
    def value(theta):
        return mean_loss((theta, *players()[1:]), ebm.FDivergence("pearson"))

    assert jnp.isfinite(value(players()[0]))
