"""Pyro, as the tests of objectives see it; `numpyro.py` has the same names."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import infer  # noqa: F401
from pyro.poutine import mask  # noqa: F401
from pyro.poutine import scale as scaling  # noqa: F401
from torch import nn

import pyro_ebm.pyro as ebm
from helpers.hosts.pyro import Implicit, Walk, empty_guide, fit  # noqa: F401
from helpers.objectives.step import Step
from pyro_ebm.pyro.objectives import jacobian as room
from pyro_ebm.pyro.objectives.column_perturbations import kernel_on
from pyro_ebm.pyro.objectives.generator import VariationalGenerator

ppl, xp = pyro, torch


def array(values):
    """Array of the default precision."""
    return torch.tensor(np.asarray(values, float), dtype=torch.get_default_dtype())


def whole(x):
    """Numbers as integers."""
    return x.long()


def stop_gradient(x):
    return x.detach()


def bind(function, *args):
    """Function of one argument that depends on parameters."""
    return lambda x: function(*args, x)


def normal_noise(*shape, seed=0):
    """The numbers that an objective draws first."""
    pyro.set_rng_seed(seed)
    return torch.randn(shape).numpy()


def random_signs(*shape, seed=0):
    """The signs that an objective draws first."""
    pyro.set_rng_seed(seed)
    return 2 * torch.randint(2, shape).numpy() - 1


def first_step(loss, model, x, guide=empty_guide):
    """Take a step of training, without an update."""
    loss.loss_and_grads(model, guide, x)


def run_chains(sampler, distribution, **options):
    return ebm.run_chains(sampler, distribution, progress_bar=False, **options)


def log_normalizer(distribution, **options):
    return ebm.log_normalizer(distribution, **options)


def forget():
    """Clear what outlives a training run."""
    pyro.clear_param_store()


def noise_in_guide(size):
    return torch.randn(size)


# --- steps ---


def loss_of(objective, distribution, x, *, seed=0, **attached):
    pyro.set_rng_seed(seed)
    return objective.loss(distribution, array(x), **attached)


def loss(*args, **options):
    """Losses of values."""
    return to_numpy(loss_of(*args, **options).value)


def perturb(perturbation, columns, x):
    """Draw noise on codes once."""
    return to_numpy(kernel_on(perturbation, columns).forward(array(x)))


def step(objective, prior, params, x, attached=None, *, weights=1.0, seed=0):
    """Losses of ``prior(params)`` with ``attached(params)``; gradients of their weighted mean."""
    leaves = {name: nn.Parameter(array(value)) for name, value in params.items()}
    x = array(x).requires_grad_()
    pyro.set_rng_seed(seed)
    given = attached(leaves) if attached else {}
    loss = objective.loss(prior(leaves), x, **given)
    total = (array(weights) * loss.value).mean() + 0.0 * x.sum()
    inputs = [*leaves.values(), x]
    *gradients, by_value = torch.autograd.grad(
        total, inputs, allow_unused=True, materialize_grads=True
    )
    found = dict(zip(leaves, map(to_numpy, gradients), strict=True))
    read = {name: float(metric) for name, metric in loss.read(given.get("weights")).items()}
    return Step(to_numpy(loss.value), found, to_numpy(by_value), read)


def blocks(objective, prior, params, x, attached=None, chains=None):
    """Steps for each of many blocks of values, and of chains: losses, and gradients by name."""
    steps = []
    for index, block in enumerate(x):
        given = {} if chains is None else {"chains": array(chains[index])}
        steps.append(
            step(
                objective,
                prior,
                params,
                block,
                lambda p, given=given: {**given, **(attached(p) if attached else {})},
                seed=index,
            )
        )
    gradients = {name: np.stack([s.gradients[name] for s in steps]) for name in params}
    return np.stack([s.loss for s in steps]), gradients


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
    leaves = {name: nn.Parameter(array(value)) for name, value in params.items()}
    optimizer, x, path = torch.optim.Adam(leaves.values(), learning_rate, betas), array(x), []
    for _ in range(num_steps):
        optimizer.zero_grad()
        given = attached(leaves) if attached else {}
        objective.loss(prior(leaves), x, **given).value.mean().backward()
        optimizer.step()
        path.append({name: to_numpy(leaf) for name, leaf in leaves.items()})
    return {name: np.stack([at[name] for at in path]) for name in leaves}


def metrics(loss, model, guide, x, trained=None):
    """Metrics of site "x" of an EnergyELBO, with what the parameter store holds."""
    del trained
    (found,) = loss.metrics(model, guide, x).values()
    return {name: float(value) for name, value in found.items()}


known_metrics = metrics


def losses(loss, model, guide, x, number):
    """Reported numbers, without training."""
    return [loss.loss(model, guide, x) for _ in range(number)]


# --- generators ---


def family(distribution, generator, encoder=None, **options):
    return VariationalGenerator.of(distribution, generator, encoder, **options)


def log_det_jtj(generator, z, **options):
    pyro.set_rng_seed(0)
    return to_numpy(ebm.log_det_jtj(generator, array(z), **options))


def log_det_and_gradient(generator, z, **options):
    """Log-determinants, and the gradient of their sum in the latent values."""
    z = array(z).requires_grad_()
    values = ebm.log_det_jtj(generator, z, **options)
    return to_numpy(values), to_numpy(torch.autograd.grad(values.sum(), z)[0])


def smallest_singular_value(generator, z, **options):
    return to_numpy(room.smallest_singular_value(generator, array(z), **options))


def jacobian(generator, z):
    return to_numpy(room.jacobian(generator, array(z)))


def adam(learning_rate, *betas):
    return pyro.optim.Adam({"lr": learning_rate, "betas": betas})


# --- distributions ---


class GivenNormal(dist.Normal):
    """A normal that is drawn from with given noise."""

    noise: torch.Tensor

    def rsample(self, sample_shape=()):
        assert tuple(sample_shape) == tuple(self.noise.shape[:1])
        return self.loc + self.scale * self.noise

    def sample(self, sample_shape=()):
        return self.rsample(sample_shape).detach()

    def expand(self, batch_shape, _instance=None):
        return self


class GivenScored(GivenNormal):
    has_rsample = False

    def rsample(self, sample_shape=()):
        return super().rsample(sample_shape).detach()


class Scored(dist.Normal):
    """A normal whose draws pass no gradient."""

    has_rsample = False


def given_normal(noise, loc=0.0, scale=1.0, *, has_rsample=True):
    """Normal with given noise, shape ``(N, *event)``."""
    noise = array(noise)
    family = GivenNormal if has_rsample else GivenScored
    normal = family(loc + torch.zeros(noise.shape[1:], dtype=noise.dtype), scale)
    normal.noise = noise
    return normal.to_event(noise.ndim - 1)


def given_implicit(noise, loc=0.0, scale=1.0):
    return Implicit(loc, scale, lambda shape: array(noise))


def patch_noise(monkeypatch, noise):
    """Give the noise of generators."""
    monkeypatch.setattr(torch, "randn_like", lambda x: array(noise))


class GivenPerturbation:
    """Noise kernel of given results."""

    def __init__(self, forward, backward):
        self.results = forward, backward

    def forward(self, x):
        return array(self.results[0])

    def backward(self, y, num_samples):
        return array(self.results[1])


class GivenOffsets:
    """Noise kernel without randomness, whose copies repeat."""

    def __init__(self, offsets):
        self.offsets = array(offsets)

    def forward(self, x):
        return x + 0.5

    def backward(self, y, num_samples):
        index = xp.arange(num_samples) % len(self.offsets)
        return y + self.offsets[index].reshape((-1, *(1 for _ in y.shape)))


class Unsampled(dist.TorchDistribution):
    """Has a density, no draws."""

    arg_constraints = {}

    def __init__(self):
        super().__init__(validate_args=False)


class NoDensity(Unsampled):
    """Has draws, no density."""

    def sample(self, sample_shape=()):
        return torch.zeros(sample_shape)


def to_numpy(x):
    return x.detach().numpy().copy()
