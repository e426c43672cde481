import pickle

import numpy as np
import pytest

from helpers import f_divergence_steps as steps

pytestmark = pytest.mark.usefixtures("float64")

PLAYERS = {
    "theta": steps.THETA,
    "omega": steps.OMEGA,
    "base": [steps.BASE_LOC, steps.BASE_SCALE],
}


def powers(weights):
    return lambda x: weights[0] + weights[1] * x + weights[2] * x**2


def critic_of(host, omega):
    return lambda x: powers(omega)(x) + omega[3] * host.xp.sin(x)


def prior_of(host, *, with_base=True):
    def prior(p):
        base = host.dist.Normal(*p["base"]) if with_base else None
        return host.ebm.EnergyBased(powers(p["theta"]), base, event_shape=())

    return prior


def attached_to(host):
    draws = host.array(steps.DRAWS)
    return lambda p: {"critic": critic_of(host, p["omega"]), "chains": draws}


# --- value and gradient ---


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
def test_value_and_gradients_of_all_players(host, divergence, options, expected):
    """Le Cam's is given as a function."""
    f = steps.le_cam if divergence == "le_cam" else divergence
    objective = host.ebm.FDivergence(f, **options)
    found = host.step(objective, prior_of(host), PLAYERS, steps.X, attached_to(host))
    value = steps.values(divergence, bound=expected.get("bound", np.inf))
    np.testing.assert_allclose(found.loss, value, atol=1e-12)
    gradients = steps.gradients(divergence, **expected)
    for name, by_hand in zip(PLAYERS, gradients, strict=True):
        np.testing.assert_allclose(found.gradients[name], by_hand, atol=1e-12)


def test_constants_move_between_energy_and_critic(host):
    found = []
    for shift in (0.0, 2.5):
        params = PLAYERS | {
            "theta": steps.THETA + [shift, 0, 0],
            "omega": steps.OMEGA - [shift, 0, 0, 0],
        }
        prior, objective = prior_of(host, with_base=False), host.ebm.FDivergence("gan")
        found.append(host.step(objective, prior, params, steps.X, attached_to(host)))
    np.testing.assert_allclose(found[0].loss, found[1].loss, rtol=0, atol=1e-13)
    theta = [step.gradients["theta"] for step in found]
    np.testing.assert_allclose(*theta, rtol=0, atol=1e-13)


def test_value_at_the_best_critic_is_the_divergence(host):
    """Here KL(N(0, 1) || N(1/2, 2)) = (log 2 + 1/2 + 1/8 - 1) / 2."""
    x, noise = np.random.default_rng(0).normal(size=(2, 40_000))
    draws = 0.5 + 2**0.5 * noise
    model = host.ebm.EnergyBased(lambda x: (x**2 - x) / 4, event_shape=())

    def log_ratio(x):
        return 0.5 * np.log(2) - x**2 / 2 + (x - 0.5) ** 2 / 4

    def best(x):
        return log_ratio(x) - (x**2 - x) / 4

    objective = host.ebm.FDivergence("kl")
    value = host.loss(objective, model, x, critic=best, chains=host.array(draws))
    # b = u and E_q[u] = 1: V is the mean of 1 + log u, less 1.
    expected = (1 + log_ratio(x)).mean() - np.exp(log_ratio(draws)).mean()
    assert value.mean() == pytest.approx(expected, abs=1e-12)
    exact = 0.5 * (np.log(2) + 0.5 + 0.125 - 1)
    assert value.mean() == pytest.approx(exact, abs=4 * value.std() / 200)
    found = objective.log_ratio(model, host.array(x[:100]), critic=best)
    np.testing.assert_allclose(found, log_ratio(x[:100]))


def test_metrics(host):
    objective = host.ebm.FDivergence("kl", log_ratio_bound=0.5)
    found = host.step(objective, prior_of(host), PLAYERS, steps.X, attached_to(host)).metrics
    positive, negative = steps.log_ratios()
    both = np.concatenate([positive, negative])
    assert found["log_ratio_of_data"] == pytest.approx(positive.mean())
    assert found["log_ratio_of_negatives"] == pytest.approx(negative.mean())
    assert found["mean_ratio"] == pytest.approx(np.exp(negative).mean())
    assert 0 < found["clipped"] == pytest.approx((abs(both) > 0.5).mean())
    assert found.keys() - {"energy_gap", "energy_scale"} == {
        *("log_ratio_of_data", "log_ratio_of_negatives", "mean_ratio", "clipped")
    }


def test_each_base_has_its_own_negatives(host):
    """Bases at 0 and 100: a draw of one is no draw of the other."""
    loc = np.array([0.0, 100.0])
    model = host.ebm.EnergyBased(lambda x: 0 * x, host.dist.Normal(host.array(loc), 1.0))
    objective = host.ebm.FDivergence("kl", sampler=host.ebm.MALA(0.1), num_samples=4)
    value = host.loss(objective, model, loc, critic=lambda x: 1.0 * (x > 50))
    # KL: 1 + l - mean(e^l), with l = 0 in the one context and 1 in the other.
    np.testing.assert_allclose(value, [0.0, 2.0 - np.e])


# --- training ---


def bowl(loc, scale):
    return lambda x: 0.5 * ((x - loc) / scale) ** 2


def critic_in_guide(host):
    return powers(host.ppl.param("critic", host.array(np.zeros(3))))


@pytest.mark.parametrize(
    ("divergence", "gradient"),
    [("kl", "full"), ("jensen_shannon", "covariance"), (-0.5, "full"), (steps.le_cam, "full")],
)
def test_gaussian_is_recovered(host, divergence, gradient):
    def parameters():
        return (host.ppl.param(name, host.array(0.0)) for name in ("loc", "log_scale"))

    def model(x):
        loc, log_scale = parameters()
        energy = bowl(loc, host.xp.exp(log_scale))
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("x", host.ebm.EnergyBased(energy, event_shape=()), obs=x)

    def guide(x):
        loc, log_scale = parameters()
        draws = loc + host.xp.exp(log_scale) * host.noise_in_guide(len(x))
        host.ebm.attach("x", critic=critic_in_guide(host), chains=draws)

    alpha = host.ebm.alpha_divergence
    f = alpha(divergence) if isinstance(divergence, float) else divergence
    objective = host.ebm.FDivergence(f, gradient=gradient)
    loss = host.ebm.EnergyELBO(objective, num_normalizer_samples=0)
    x = 1.0 + 1.5 * np.random.default_rng(0).normal(size=1000)
    options = {"num_steps": 400, "optimizer": host.adam(0.02, 0.5, 0.999)}
    path = host.fit(model, guide, loss, host.array(x), **options).path
    assert path["loc"][-100:].mean() == pytest.approx(x.mean(), abs=0.05)
    assert np.exp(path["log_scale"])[-100:].mean() == pytest.approx(x.std(), abs=0.05)


def test_prior_meets_the_aggregated_posterior(host):
    """x | z ~ N(z, 1), data N(0, 5): the best prior is N(0, 4), of precision 1/4."""
    x = np.random.default_rng(0).normal(size=256)
    x = (x - x.mean()) * (5**0.5 / x.std())

    def precision():
        return host.xp.exp(host.ppl.param("log_precision", host.array(0.0)))

    def model(x):
        prior = bowl(0.0, precision() ** -0.5)
        with host.ppl.plate("data", len(x)):
            base = host.dist.Normal(host.array(0.0), 4.0)
            z = host.ppl.sample("z", host.ebm.EnergyBased(prior, base))
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x)

    def guide(x):
        slope = host.ppl.param("slope", host.array(0.5))
        scale = host.xp.exp(host.ppl.param("log_scale", host.array(0.0)))
        draws = host.noise_in_guide(512) / (1 / 16 + precision()) ** 0.5
        host.ebm.attach("z", critic=critic_in_guide(host), chains=draws)
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("z", host.dist.Normal(slope * x, scale))

    elbo, objective = host.infer.Trace_ELBO(num_particles=2), host.ebm.FDivergence("jensen_shannon")
    loss = host.ebm.EnergyELBO(objective, elbo, num_normalizer_samples=0)
    options = {"num_steps": 300, "optimizer": host.adam(0.05, 0.5, 0.999)}
    path = host.fit(model, guide, loss, host.array(x), **options).path["log_precision"]
    assert (1 / 16 + np.exp(path))[-100:].mean() == pytest.approx(0.25, rel=0.06)


def test_negatives_from_a_sampler_and_from_chains(host):
    seen = []

    def watched(x):
        seen.append(len(x))
        return 0 * x

    sampler, base = host.ebm.MALA(0.5), host.dist.Normal(host.array(0.0), 1.0)
    objective = host.ebm.FDivergence("kl", sampler=sampler, num_steps=2, num_samples=30)
    prior, x = host.ebm.EnergyBased(lambda x: 0.5 * x**2, base).expand((8,)), np.ones(8)
    assert host.loss(objective, prior, x, critic=watched).shape == (8,)
    assert seen == [8 + 30]

    def model(x):
        energy = host.bind(lambda weight, x: weight * x**2, host.ppl.param("w", host.array(0.5)))
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("x", host.ebm.EnergyBased(energy, base), obs=x)

    def guide(x):
        options = {"sampler": sampler, "restart_probability": 0.1}
        chains = host.ebm.PersistentChains(10, (), **options)
        host.ebm.attach("x", critic=critic_in_guide(host), chains=chains)

    found = host.fit(model, guide, host.ebm.EnergyELBO(objective), host.array(x), num_steps=2)
    assert np.all(np.isfinite(found.losses))


# --- functions, and what does not fit ---


def test_functions_are_checked(host):
    objective = host.ebm.FDivergence(steps.le_cam)
    assert pickle.loads(pickle.dumps(objective)) == objective == host.ebm.FDivergence(steps.le_cam)
    with pytest.raises(ValueError, match="Expected f to be convex .*, got -"):
        host.ebm.FDivergence(lambda u: -((u - 1) ** 2))
    with pytest.raises(ValueError, match="Expected f to be finite, got "):
        host.ebm.FDivergence(lambda u: host.xp.log(u - 1))
    with pytest.raises(ValueError, match=r"Expected f to be elementwise, got shape \(\)"):
        host.ebm.FDivergence(lambda u: u.sum())


@pytest.mark.parametrize(
    ("draws", "message"), [(np.zeros(1), "at least 2"), (np.zeros((4, 2)), "event shape")]
)
def test_draws_that_do_not_fit(host, draws, message):
    prior = host.ebm.EnergyBased(lambda x: x**2, event_shape=())
    attached = {"critic": lambda x: 0 * x, "chains": host.array(draws)}
    with pytest.raises(ValueError, match=message):
        host.loss(host.ebm.FDivergence("kl"), prior, np.zeros(3), **attached)
