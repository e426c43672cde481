"""NumPyro, as the tests of objectives see it; `pyro.py` has the same names."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import lax, random
from jax.tree_util import Partial
from numpyro import infer  # noqa: F401
from numpyro.handlers import mask  # noqa: F401
from numpyro.handlers import scale as scaling  # noqa: F401

import pyro_ebm.numpyro as ebm
from helpers.hosts.numpyro import Implicit, Walk, empty_guide, fit  # noqa: F401
from helpers.objectives.step import Step
from pyro_ebm.numpyro.objectives import jacobian as room
from pyro_ebm.numpyro.objectives.column_perturbations import kernel_on
from pyro_ebm.numpyro.objectives.generator import VariationalGenerator

ppl, xp = numpyro, jnp
stop_gradient = lax.stop_gradient
bind = Partial


def array(values):
    """Array of the default precision."""
    return jnp.asarray(np.asarray(values, float), float)


def whole(x):
    """Numbers as integers."""
    return x.astype(int)


def normal_noise(*shape, seed=0):
    """The numbers that an objective draws first."""
    return np.asarray(random.normal(random.key(seed), shape))


def random_signs(*shape, seed=0):
    """The signs that an objective draws first."""
    return np.asarray(random.rademacher(random.key(seed), shape))


def first_step(loss, model, x, guide=empty_guide):
    """Evaluate a loss outside of ``jit``, where numbers are known."""
    loss.loss(random.key(0), {}, model, guide, x)


def run_chains(sampler, distribution, **options):
    return ebm.run_chains(random.key(0), sampler, distribution, **options)


def log_normalizer(distribution, **options):
    return ebm.log_normalizer(random.key(0), distribution, **options)


def forget():
    """Do nothing: no parameter outlives a training run."""


def noise_in_guide(size):
    return random.normal(numpyro.prng_key(), (size,))


# --- steps ---


def loss_of(objective, distribution, x, *, seed=0, **attached):
    return objective.loss(random.key(seed), distribution, array(x), **attached)


def loss(*args, **options):
    """Losses of values."""
    return np.asarray(jax.jit(lambda: loss_of(*args, **options).value)())


def perturb(perturbation, columns, x):
    """Draw noise on codes once."""
    return np.asarray(kernel_on(perturbation, columns).forward(random.key(0), array(x)))


def step(objective, prior, params, x, attached=None, *, weights=1.0, seed=0):
    """Losses of ``prior(params)`` with ``attached(params)``; gradients of their weighted mean."""
    given = _arrays(params), array(x), array(weights), random.key(seed)
    (gradients, by_value), (loss, metrics) = _step(objective, prior, attached, *given)
    read = {name: float(metric) for name, metric in metrics.items()}
    return Step(np.asarray(loss), _dict_to_numpy(gradients), np.asarray(by_value), read)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _step(objective, prior, attached, params, x, weights, key):
    def mean(params, x):
        given = attached(params) if attached else {}
        loss = objective.loss(key, prior(params), x, **given)
        return (weights * loss.value).mean(), (loss.value, loss.read(given.get("weights")))

    return jax.grad(mean, (0, 1), has_aux=True)(params, x)


def blocks(objective, prior, params, x, attached=None, chains=None):
    """Steps for each of many blocks of values, and of chains: losses, and gradients by name."""

    def mean(params, key, x, given):
        given = {**given, **(attached(params) if attached else {})}
        loss = objective.loss(key, prior(params), x, **given).value
        return loss.mean(), loss

    given = {} if chains is None else {"chains": array(chains)}
    gradient = jax.vmap(jax.grad(mean, has_aux=True), (None, 0, 0, 0))
    keys = random.split(random.key(0), len(x))
    gradients, loss = jax.jit(gradient)(_arrays(params), keys, array(x), given)
    return np.asarray(loss), _dict_to_numpy(gradients)


def train(
    objective,
    prior,
    params,
    x,
    attached=None,
    *,
    num_steps,
    learning_rate=0.05,
    betas=(0.9, 0.999),
):
    """Path of the parameters under Adam, shape ``(num_steps, *parameter)``."""
    optimizer, x = optax.adam(learning_rate, *betas), array(x)

    def mean(params, key):
        given = attached(params) if attached else {}
        return objective.loss(key, prior(params), x, **given).value.mean()

    def step(carry, key):
        params, state = carry
        updates, state = optimizer.update(jax.grad(mean)(params, key), state)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    start = _arrays(params), optimizer.init(_arrays(params))
    keys = random.split(random.key(0), num_steps)
    return _dict_to_numpy(jax.jit(lambda start: lax.scan(step, start, keys)[1])(start))


def metrics(loss, model, guide, x, trained=None):
    """Metrics of site "x" of an EnergyELBO, with the parameters of a training run."""
    params = {} if trained is None else _arrays(trained.params)
    read = jax.jit(lambda params: loss.metrics(random.key(0), params, model, guide, x))
    (found,) = read(params).values()
    return {name: float(value) for name, value in found.items()}


def known_metrics(loss, model, guide, x):
    """Read metrics outside of ``jit``, where numbers are known."""
    (found,) = loss.metrics(random.key(0), {}, model, guide, x).values()
    return {name: float(value) for name, value in found.items()}


def losses(loss, model, guide, x, number):
    """Reported numbers, without training."""
    report = jax.jit(jax.vmap(lambda key: loss.loss(key, {}, model, guide, x)))
    return np.asarray(report(random.split(random.key(0), number)))


# --- generators ---


def family(distribution, generator, encoder=None, **options):
    return VariationalGenerator.of(random.key(0), distribution, generator, encoder, **options)


def log_det_jtj(generator, z, **options):
    # Compiled as a whole: an operation at a time takes longer.
    compiled = jax.jit(lambda z: ebm.log_det_jtj(random.key(0), generator, z, **options))
    return np.asarray(compiled(array(z)))


def log_det_and_gradient(generator, z, **options):
    """Log-determinants, and the gradient of their sum in the latent values."""

    def total(z):
        values = ebm.log_det_jtj(random.key(0), generator, z, **options)
        return values.sum(), values

    gradient, values = jax.jit(jax.grad(total, has_aux=True))(array(z))
    return np.asarray(values), np.asarray(gradient)


def smallest_singular_value(generator, z, **options):
    return np.asarray(room.smallest_singular_value(random.key(0), generator, array(z), **options))


def jacobian(generator, z):
    return np.asarray(room.jacobian(generator, array(z)))


def adam(learning_rate, *betas):
    return optax.adam(learning_rate, *betas)


# --- distributions ---


class GivenNormal(dist.Normal):
    """A normal that is drawn from with given noise."""

    pytree_data_fields = ("noise",)

    def sample(self, key, sample_shape=()):
        assert tuple(sample_shape) == self.noise.shape[:1]
        return self.loc + self.scale * self.noise


class GivenScored(GivenNormal):
    has_rsample = False


class Scored(dist.Normal):
    """A normal whose draws pass no gradient."""

    has_rsample = False


def given_normal(noise, loc=0.0, scale=1.0, *, has_rsample=True):
    """Normal with given noise, shape ``(N, *event)``."""
    noise = array(noise)
    family = GivenNormal if has_rsample else GivenScored
    normal = family(loc + jnp.zeros(noise.shape[1:]), scale)
    normal.noise = noise
    return normal.to_event(noise.ndim - 1)


def given_implicit(noise, loc=0.0, scale=1.0):
    return Implicit(loc, scale, lambda key, shape: array(noise))


def patch_noise(monkeypatch, noise):
    """Give the noise of generators."""
    monkeypatch.setattr(random, "normal", lambda *_: array(noise))


class GivenPerturbation:
    """Noise kernel of given results."""

    def __init__(self, forward, backward):
        self.results = forward, backward

    def forward(self, rng_key, x):
        return array(self.results[0])

    def backward(self, rng_key, y, num_samples):
        return array(self.results[1])


class GivenOffsets:
    """Noise kernel without randomness, whose copies repeat."""

    def __init__(self, offsets):
        self.offsets = array(offsets)

    def forward(self, rng_key, x):
        return x + 0.5

    def backward(self, rng_key, y, num_samples):
        index = xp.arange(num_samples) % len(self.offsets)
        return y + self.offsets[index].reshape((-1, *(1 for _ in y.shape)))


class Unsampled(dist.Distribution):
    """Has a density, no draws."""

    support = dist.constraints.real


class NoDensity(Unsampled):
    """Has draws, no density."""

    def sample(self, key, sample_shape=()):
        return jnp.zeros(sample_shape)


def _arrays(params):
    return {name: array(value) for name, value in params.items()}


def to_numpy(x):
    return np.asarray(x)


def _dict_to_numpy(tree):
    return {name: np.asarray(value) for name, value in tree.items()}
