import math
from functools import partial

import arviz as az
import equinox as eqx
import flowjax.distributions as flowjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import paramax
import pytest
from flowjax.bijections import Chain, LeakyTanh, TriangularAffine
from flowjax.experimental.numpyro import distribution_to_numpyro
from flowjax.flows import coupling_flow
from helpers.hosts.numpyro import normal
from helpers.linear_generator import (
    LOG_NORMALIZER,
    NOISE_SCALE,
    NOISY_VARIANCE,
    A,
    W,
    assert_variance,
    latent_variance,
    square,
    stretch,
)
from jax import random
from numpyro.distributions.transforms import AffineTransform
from numpyro.infer import MCMC, NUTS, SVI
from numpyro.infer.autoguide import AutoNormal

import pyro_ebm.numpyro as ebm
from pyro_ebm.diagnostics import to_arviz
from pyro_ebm.numpyro.samplers.run import move_values

KEY = random.key(0)


def make_prior(inverse_temperature=1.0, *, step_size=0.5, noise_scale=0.0):
    return ebm.EnergyBased(
        square,
        ebm.Pushforward(normal((1,)), stretch, noise_scale=noise_scale),
        sampler=ebm.MALA(step_size),
        num_sampler_steps=60,
        inverse_temperature=inverse_temperature,
    )


# --- generator alone ---


@pytest.mark.parametrize(
    ("latent_shape", "event_shape"), [((), (2,)), ((3,), (2,)), ((2,), (4, 4))]
)
def test_shapes(latent_shape, event_shape):
    weight = random.normal(KEY, (math.prod(latent_shape), math.prod(event_shape)))

    def generator(z):
        return (z.reshape(len(z), -1) @ weight).reshape(len(z), *event_shape)

    pushforward = ebm.Pushforward(normal(latent_shape), generator)
    assert pushforward.event_shape == event_shape
    assert pushforward.sample(KEY, (5, 3)).shape == (5, 3, *event_shape)
    assert pushforward.expand((7,)).sample(KEY, (2,)).shape == (2, 7, *event_shape)
    assert pushforward.support.check(pushforward.sample(KEY, (5,))).all()
    prior = ebm.EnergyBased(lambda x: x.reshape(len(x), -1).sum(-1), pushforward)
    with numpyro.handlers.seed(rng_seed=0), numpyro.plate("data", 7):
        assert numpyro.sample("x", prior).shape == (7, *event_shape)


def test_gradients_of_draws():
    def mean(scale, loc):
        latent = dist.Normal(loc, 1.0).to_event(1)
        return ebm.Pushforward(latent, lambda z: scale * z).rsample(KEY, (1000,)).mean()

    gradients = jax.grad(mean, argnums=(0, 1))(2.0, jnp.ones(1))
    assert gradients[0] == pytest.approx(float(mean(2.0, jnp.ones(1))) / 2, abs=1e-5)
    assert gradients[1].item() == pytest.approx(2.0)


def test_noise():
    pushforward = ebm.Pushforward(normal((1,)), stretch, noise_scale=NOISE_SCALE)
    assert_variance(pushforward.sample(KEY, (20_000,)), NOISY_VARIANCE)


@pytest.mark.parametrize("form", ["itself", "expanded", "noiseless"])
def test_learned_noise(form):
    @jax.jit
    @partial(jax.grad, has_aux=True)
    def gradient(scale):
        source = ebm.Pushforward(normal((1,)), stretch, noise_scale=scale)
        assert source.is_implicit
        if form != "itself":
            source = source.expand((3,)) if form == "expanded" else source.noiseless
        draws = source.rsample(KEY, (20_000,))
        return (draws**2).mean(), draws

    slope, draws = gradient(0.5)
    assert_variance(draws, NOISY_VARIANCE)
    # The derivative of its square, with the error of a mean of 2 eps (x + eps / 2).
    assert slope == pytest.approx(1.0, abs=4 * (11 / 20_000) ** 0.5)


@pytest.mark.parametrize("noise_scale", [0.0, 0.5])
def test_no_density(noise_scale):
    pushforward = ebm.Pushforward(normal((1,)), stretch, noise_scale=noise_scale)
    assert pushforward.is_implicit
    with pytest.raises(NotImplementedError, match="Expected a Transform as the generator"):
        pushforward.log_prob(jnp.zeros(1))


def test_density_of_a_transform():
    pushforward = ebm.Pushforward(normal((2,)), AffineTransform(1.0, 2.0))
    value = random.normal(KEY, (5, 2))
    expected = dist.Normal(jnp.ones(2), 2.0).to_event(1).log_prob(value)
    np.testing.assert_allclose(pushforward.log_prob(value), expected, rtol=1e-5)
    assert not pushforward.is_implicit
    prior = ebm.EnergyBased(square, pushforward)
    np.testing.assert_allclose(prior.log_prob(value), expected - square(value), rtol=1e-5)


def test_bad_arguments():
    with pytest.raises(TypeError, match="`latent` to be a distribution, got str"):
        ebm.Pushforward("normal", stretch)
    with pytest.raises(TypeError, match="`generator` to be callable, got int"):
        ebm.Pushforward(normal((1,)), 3)
    with pytest.raises(ValueError, match=r"`noise_scale` to be one number, got .*\(1,\)"):
        ebm.Pushforward(normal((1,)), stretch, noise_scale=jnp.ones(1))
    with pytest.raises(ValueError, match=r"the generator to map \(N, \*latent"):
        ebm.Pushforward(normal((2,)), lambda z: jnp.concatenate([z, z]))
    positive = dist.Gamma(jnp.ones(1), 1.0).to_event(1)
    with pytest.raises(ValueError, match="a latent over all real numbers"):
        _ = ebm.Pushforward(positive, stretch, noise_scale=NOISE_SCALE).noiseless


class Stretch(eqx.Module):
    factor: jax.Array

    def __call__(self, z):
        return self.factor * z


def test_new_parameters_compile_nothing_anew():
    traces = []

    class Counted(Stretch):
        def __call__(self, z):
            traces.append(1)
            return self.factor * z

    def draw(factor):
        base = ebm.Pushforward(normal((1,)), Counted(factor), event_shape=(1,))
        return ebm.EnergyBased(square, base).sample(KEY, (3,))

    first = draw(jnp.array(1.0))
    number = len(traces)
    assert not jnp.allclose(first, draw(jnp.array(2.0)))
    assert len(traces) == number


# --- with an energy ---


def test_log_prob_is_relative_to_the_base(quartic):
    def log_prob(energy, x):
        base = ebm.Pushforward(normal((1,)), stretch)
        return ebm.EnergyBased(energy, base, inverse_temperature=3.0).log_prob(x)

    x = random.normal(KEY, (4, 1))
    np.testing.assert_allclose(log_prob(quartic, x), -3 * quartic(x), rtol=1e-6)
    with pytest.warns(UserWarning, match="Nothing trains the parameters"):
        gradients = jax.grad(lambda *args: log_prob(*args).sum(), argnums=(0, 1))(quartic, x)
    assert gradients[0].weight == 0
    np.testing.assert_allclose(gradients[1], -12 * quartic.weight * x**3, rtol=1e-5)


@pytest.mark.parametrize(("inverse_temperature", "step_size"), [(1.0, 0.5), (10.0, 0.06)])
def test_latent_sampling(inverse_temperature, step_size):
    prior = make_prior(inverse_temperature, step_size=step_size)
    expected = latent_variance(inverse_temperature)
    assert_variance(prior.latent.sample(KEY, (20_000,)), expected)
    assert_variance(prior.sample(KEY, (20_000,)), W**2 * expected)


def test_sampling_in_data_space():
    direct = ebm.EnergyBased(
        square,
        dist.Normal(jnp.zeros(1), W).to_event(1),
        sampler=ebm.MALA(0.8),
        num_sampler_steps=60,
    )
    assert_variance(direct.sample(KEY, (20_000,)), W**2 * latent_variance(1.0))


def test_noise_in_the_latent():
    prior = make_prior(noise_scale=NOISE_SCALE)
    assert prior.latent.event_shape == (2,)
    assert_variance(prior.sample(KEY, (20_000,)), NOISY_VARIANCE / (1 + A * NOISY_VARIANCE))
    estimate = ebm.log_normalizer(KEY, prior, method="grid").estimate
    assert estimate.item() == pytest.approx(-0.5 * math.log(1 + A * NOISY_VARIANCE), abs=1e-3)


def test_log_normalizer():
    prior = make_prior()
    grid = ebm.log_normalizer(KEY, prior, method="grid")
    assert grid.estimate.item() == pytest.approx(LOG_NORMALIZER, abs=1e-3)
    for method in ("annealed", "importance"):
        found = ebm.log_normalizer(KEY, prior, method=method)
        assert abs(found.estimate.item() - LOG_NORMALIZER) < 4 * found.standard_error.item()


@pytest.mark.parametrize(
    "sampler",
    [ebm.Langevin(0.1), ebm.KineticLangevin(0.2), ebm.MALA(0.3), ebm.HMC(0.4, num_steps=3)],
    ids=lambda sampler: type(sampler).__name__,
)
def test_latent_chains(sampler):
    settings = {"num_chains": 50, "num_samples": 50, "num_warmup": 50, "progress_bar": False}
    chains = ebm.run_chains(KEY, sampler, make_prior().latent, thinning=2, **settings)
    data = chains.to_arviz()
    assert az.rhat(data)["x"].max() < 1.05
    effective = az.ess(data)["x"].min().item()
    assert effective > 300
    error = latent_variance(1.0) * math.sqrt(2 / effective)
    # Beside the unadjusted kernels' own bias of two to four parts in a hundred.
    assert abs(chains.samples.var().item() - latent_variance(1.0)) < 4 * error + 0.015


def test_nuts_on_the_latent():
    kernel = NUTS(lambda: numpyro.sample("z", make_prior().latent))
    mcmc = MCMC(kernel, num_samples=200, num_warmup=50, progress_bar=False)
    mcmc.run(KEY)
    assert mcmc.get_samples()["z"].var().item() == pytest.approx(latent_variance(1.0), rel=0.5)
    assert "posterior" in to_arviz(mcmc).groups()


# --- refusals ---


def latent_model(x=None):
    with numpyro.plate("data", 3):
        z = numpyro.sample("z", make_prior())
        numpyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def guide(x):
    with numpyro.plate("data", 3):
        numpyro.sample("z", normal((1,)))


def test_latent_site_without_a_density():
    x = jnp.zeros((3, 1))
    loss = ebm.EnergyELBO(ebm.ContrastiveDivergence())
    svi = SVI(latent_model, guide, optax.adam(0.01), loss)
    state = svi.init(KEY, x)
    with pytest.raises(ValueError, match="Expected a base with a density at the latent site 'z'"):
        svi.update(state, x)
    (issue,) = ebm.check_model(latent_model)(x)
    assert (issue.site, issue.kind) == ("z", "implicit")
    with pytest.raises(NotImplementedError, match="use the latent space"):
        MCMC(NUTS(latent_model), num_samples=2, num_warmup=1, progress_bar=False).run(KEY, x)
    with pytest.raises(NotImplementedError, match="use the latent space"):
        SVI(latent_model, AutoNormal(latent_model), optax.adam(0.01), loss).init(KEY, x)


@pytest.mark.parametrize(
    "use",
    [
        lambda prior: ebm.run_chains(KEY, ebm.MALA(0.1), prior, progress_bar=False),
        lambda prior: move_values(KEY, ebm.MALA(0.1), prior, jnp.zeros((3, 1)), 1),
        lambda prior: ebm.EnergyDiscrepancy(variance=0.1).loss(KEY, prior, jnp.zeros((3, 1))),
        lambda prior: ebm.ScoreMatching().loss(KEY, prior, jnp.zeros((3, 1))),
    ],
)
def test_uses_that_need_a_density(use):
    with pytest.raises((ValueError, NotImplementedError), match="latent"):
        use(make_prior())


def test_base_without_a_latent_space():
    with pytest.raises(ValueError, match="Expected a base with a latent space"):
        _ = ebm.EnergyBased(square, normal((1,))).latent


def test_batch_of_transforms():
    transform = AffineTransform(jnp.ones((3, 1)), 1.0)
    base = dist.TransformedDistribution(normal((1,)).expand((3,)), transform)
    with pytest.raises(ValueError, match="Expected one transform for all batch elements"):
        _ = ebm.EnergyBased(square, base).latent


# --- flows ---


@pytest.fixture(scope="module")
def flow():
    # Quick to compile; the density table trains coupling flows.
    affine = TriangularAffine(jnp.array([0.5, -1.0]), jnp.array([[1.0, 0.0], [0.7, 0.5]]))
    chain = Chain([affine, LeakyTanh(2.0, (2,))])
    return paramax.unwrap(flowjax.Transformed(flowjax.StandardNormal((2,)), chain))


@pytest.mark.parametrize(
    "wrap", [lambda flow: flow, distribution_to_numpyro], ids=["flowjax", "numpyro"]
)
def test_flow_as_a_base(flow, wrap):
    prior = ebm.EnergyBased(square, wrap(flow), sampler=ebm.MALA(0.3), num_sampler_steps=100)
    value = random.normal(KEY, (5, 2))
    np.testing.assert_allclose(
        prior.log_prob(value), flow.log_prob(value) - square(value), rtol=1e-5
    )
    # Its latent has the same normalizer, and draws that the flow takes to the same moments.
    draws = flow.sample(KEY, (20_000,))
    weights = jax.nn.softmax(-square(draws))
    grid = ebm.log_normalizer(KEY, prior.latent, method="grid").estimate.item()
    importance = jax.nn.logsumexp(-square(draws)).item() - math.log(len(draws))
    assert grid == pytest.approx(importance, abs=0.04)
    expected = weights @ draws**2
    latent = prior.latent.sample(KEY, (4000,))
    moved = jax.vmap(flow.merge_transforms().bijection.transform)(latent)
    np.testing.assert_allclose((moved**2).mean(0), expected, rtol=0.15)
    assert prior.sample(KEY, (3,)).shape == (3, 2)


def test_parameters_of_a_flow(flow):
    arrays, rest = eqx.partition(flow, eqx.is_inexact_array)

    def log_prob(arrays, value, in_latent):
        prior = ebm.EnergyBased(square, eqx.combine(arrays, rest))
        return (prior.latent if in_latent else prior).log_prob(value).sum()

    value = random.normal(KEY, (3, 2))
    for in_latent in (False, True):
        with pytest.warns(UserWarning, match="Nothing trains the parameters"):
            gradients = jax.grad(log_prob, argnums=(0, 1))(arrays, value, in_latent)
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradients[0]))
        assert jnp.abs(gradients[1]).sum() > 0


@pytest.mark.parametrize("condition", [None, jnp.zeros(1), jnp.zeros((3, 1))])
def test_conditional_flow(condition):
    flow = coupling_flow(KEY, base_dist=flowjax.Normal(jnp.zeros(2)), cond_dim=1, nn_width=4)
    base = flow if condition is None else distribution_to_numpyro(flow, condition)
    with pytest.raises(ValueError, match="Expected an unconditional flow"):
        ebm.EnergyBased(square, base)
