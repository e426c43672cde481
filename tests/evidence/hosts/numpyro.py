"""Adapter of the experiments to NumPyro; ``pyro.py`` has the same names.

Networks are equinox modules on rows, flows are flowjax's. Networks that are trained together are a
dictionary by name, and a model or guide registers each of them where it looks it up. Random keys
follow from one that :func:`seed` sets.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from flowjax.bijections import (
    Affine,
    Chain,
    Coupling,
    Flip,
    Invert,
    RationalQuadraticSpline,
    Scan,
)
from flowjax.distributions import StandardNormal, Transformed
from flowjax.experimental.numpyro import distribution_to_numpyro, register_params
from flowjax.flows import coupling_flow
from jax import Array, lax, random
from jax.tree_util import Partial
from numpyro import distributions as dist
from numpyro import factor, handlers, infer, param, plate, sample
from numpyro.contrib.module import eqx_module
from paramax import non_trainable, unwrap

import pyro_ebm.numpyro as ebm
from evidence.hosts import Adam, InferenceSettings
from pyro_ebm.numpyro.distributions import importance
from pyro_ebm.numpyro.objectives.generator import VariationalGenerator

__all__ = ["dist", "ebm", "factor", "infer", "param", "plate", "sample"]

NAME = "numpyro"
PACKAGES = ("jax", "numpyro", "equinox", "flowjax", "optax")

bind = Partial
frozen = copied = lambda nets: nets


# --- random numbers and arrays ---


_keys = [random.key(0)]


def seed(number: int) -> None:
    _keys[0] = random.key(number)


def _next_key() -> Array:
    _keys[0], key = random.split(_keys[0])
    return key


def noise(shape: tuple[int, ...]) -> Array:
    return random.normal(numpyro.prng_key(), shape)


def array(x: Any) -> Array:
    return jnp.asarray(x)


def evaluate(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in compiled form; arrays of the result become NumPy's."""
    args = tuple(array(x) if isinstance(x, np.ndarray) else x for x in args)
    return jax.tree.map(np.asarray, _compiled(function, *args))


@eqx.filter_jit
def _compiled(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gradient of a sum in the first argument."""
    return jax.grad(lambda *args: function(*args).sum())


@contextmanager
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


# --- networks and distributions ---


# All weights are drawn in one compiled program.
_made = eqx.filter_jit(lambda network, *args, **options: network(*args, **options))


class Rows(eqx.Module):
    """Network of one point, applied to rows of points."""

    net: Callable[[Array], Array]

    def __call__(self, x: Array) -> Array:
        return jax.vmap(self.net)(x)


def mlp(
    num_inputs: int | None,
    num_outputs: int | None,
    width: int,
    depth: int = 2,
    *,
    activation: str = "silu",
    final: str | None = None,
) -> Rows:
    sizes = (num_inputs or "scalar", num_outputs or "scalar", width, depth)
    options = {} if final is None else {"final_activation": getattr(jax.nn, final)}
    activation = getattr(jax.nn, activation)
    return Rows(_made(eqx.nn.MLP, *sizes, activation=activation, key=_next_key(), **options))


def convolutional(side: int, num_outputs: int, channels: tuple[int, ...] = (32, 64, 64)) -> Rows:
    """Convolutions on rows of square images; all but the first halve the sides."""
    layers: list[Any] = [eqx.nn.Lambda(lambda x: x.reshape(1, side, side))]
    for index, (before, after) in enumerate(zip((1, *channels), channels, strict=False)):
        options = {"stride": min(index + 1, 2), "padding": 1, "key": _next_key()}
        layers += [eqx.nn.Conv2d(before, after, 3, **options), eqx.nn.Lambda(jax.nn.silu)]
    num_features = channels[-1] * (side // 2 ** (len(channels) - 1)) ** 2
    layers += [eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(num_features, num_outputs, key=_next_key())]
    return Rows(eqx.nn.Sequential(layers))


def deconvolutional(num_inputs: int, side: int, channels: tuple[int, ...] = (64, 64, 32)) -> Rows:
    """Rows of square images by convolutions; all but the last double the sides."""
    small, silu = side // 2 ** (len(channels) - 1), eqx.nn.Lambda(jax.nn.silu)
    layers: list[Any] = [
        eqx.nn.Linear(num_inputs, channels[0] * small**2, key=_next_key()),
        eqx.nn.Lambda(lambda x: x.reshape(channels[0], small, small)),
    ]
    for pair in pairwise(channels):
        options = {"stride": 2, "padding": 1, "key": _next_key()}
        layers += [silu, eqx.nn.ConvTranspose2d(*pair, 4, **options)]
    last = eqx.nn.Conv2d(channels[-1], 1, 3, padding=1, key=_next_key())
    return Rows(eqx.nn.Sequential([*layers, silu, last, eqx.nn.Lambda(jnp.ravel)]))


class Formula(eqx.Module):
    """Function of named parameters and an array, written for arrays of either host."""

    function: Callable[..., Any] = eqx.field(static=True)
    values: Mapping[str, Array] = eqx.field(converter=lambda x: jax.tree.map(jnp.asarray, x))

    def __call__(self, value: Array) -> Array:
        return self.function(self.values, value)


def flow(
    num_dims: int, *, num_layers: int, width: int, depth: int = 1, activation: str = "relu"
) -> Transformed:
    """Affine coupling layers that move one half after the other, as zuko's do.

    ``coupling_flow`` permutes at random; of eleven columns some would then hardly ever move.
    """
    options = {"nn_width": width, "nn_depth": depth, "untransformed_dim": num_dims // 2}

    def layer(key: Array) -> Chain:
        coupling = Coupling(
            key,
            transformer=Affine(),
            dim=num_dims,
            nn_activation=getattr(jax.nn, activation),
            **options,
        )
        return Chain([coupling, Flip((num_dims,))])

    layers = eqx.filter_vmap(layer)(random.split(_next_key(), num_layers))
    return Transformed(StandardNormal((num_dims,)), Invert(Scan(layers)))


def generator_flow(
    num_dims: int, *, num_layers: int, width: int, knots: int | None = None, interval: float = 5.0
) -> Transformed:
    transformer = knots and RationalQuadraticSpline(knots=knots, interval=interval)
    return coupling_flow(
        _next_key(),
        base_dist=StandardNormal((num_dims,)),
        flow_layers=num_layers,
        nn_width=width,
        nn_activation=jax.nn.silu,
        invert=False,
        **({"transformer": transformer} if transformer else {}),
    )


def flow_density(flow: Transformed) -> Transformed:
    return flow


def held(flow: Transformed) -> Transformed:
    return unwrap(non_trainable(flow))


def flow_distribution(flow: Transformed) -> dist.Distribution:
    return distribution_to_numpyro(flow)


def normal(num_dims: int, loc: float = 0.0, scale: float = 1.0) -> dist.Distribution:
    return dist.Normal(jnp.full(num_dims, loc), scale).to_event(1)


def pushforward(latent: Any, generator: Any, **options: Any) -> Any:
    if isinstance(generator, Transformed):
        return generator
    return ebm.Pushforward(latent, generator, **options)


# --- training ---


class Registered(dict):
    """Networks whose parameters are registered where they are looked up."""

    def __getitem__(self, name: str) -> Any:
        net = super().__getitem__(name)
        if isinstance(net, Transformed):
            return register_params(name, net)
        return eqx_module(name, net) if isinstance(net, eqx.Module) else numpyro.param(name, net)


def registering(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda nets, *args, **kwargs: function(Registered(nets), *args, **kwargs)


class Inference(InferenceSettings):
    """SVI with optax's optimizers, compiled once: keep it for all seeds."""

    @cached_property
    def svi(self) -> infer.SVI:
        model, guide = registering(self.model), registering(self.guide)
        if isinstance(self.adam, Adam):
            optimizer = _optimizer(self.adam, self.num_steps)
        else:
            each = {name: _optimizer(adam, self.num_steps) for name, adam in self.adam.items()}
            optimizer = optax.multi_transform(each, _labels)
        return infer.SVI(model, guide, optimizer, self.loss)

    def train(self, nets, blocks, *, decay=0.0):
        state = average = None
        for block in map(array, blocks):
            if state is None:
                state = _started(self.svi, _next_key(), nets, block[0])
                average = self.svi.get_params(state)
            state, average, losses = _advance(self.svi, state, average, nets, block, decay)
            yield _trained(nets, average), int(jnp.sum(~jnp.isfinite(losses)))

    def fit(self, nets, *args, **kwargs):
        _next_key()  # Spent in the runs that are on record.
        state = _started(self.svi, _next_key(), nets, *args, **kwargs)
        state, params = _run(self.svi, state, self.num_steps, nets, *args, **kwargs)
        # Frozen, but for this record of the last run.
        self.__dict__["params"] = params | (state.mutable_state or {})
        return _trained(nets, params)

    def metrics(self, nets, *args):
        model, guide = registering(self.model), registering(self.guide)
        metrics = self.loss.metrics
        return _compiled(metrics, _next_key(), self.params, model, guide, nets, *args)


def _optimizer(adam: Adam, num_steps: int) -> optax.GradientTransformation:
    # A schedule inside of a mask counts the network's own moves.
    schedule = optax.cosine_decay_schedule(adam.rate, num_steps // adam.every)
    adamw = optax.adamw(schedule, *adam.betas, weight_decay=adam.weight_decay)
    return adamw if adam.condition is None else optax.conditionally_mask(adamw, adam.condition)


@eqx.filter_jit
def _started(svi: infer.SVI, key: Array, nets: Any, *args: Any, **kwargs: Any) -> Any:
    return svi.init(key, nets, *args, **kwargs)


@eqx.filter_jit
def _run(
    svi: infer.SVI, state: Any, num_steps: int, nets: Any, *args: Any, **kwargs: Any
) -> tuple[Any, Any]:
    def step(state: Any, _: None) -> tuple[Any, None]:
        return svi.update(state, nets, *args, **kwargs)[0], None

    state, _ = lax.scan(step, state, length=num_steps)
    return state, svi.get_params(state)


@eqx.filter_jit
def _advance(
    svi: infer.SVI, state: Any, average: Any, nets: Any, block: Array, decay: float
) -> tuple[Any, Any, Array]:
    def step(carry: tuple[Any, Any], batch: Array) -> tuple[tuple[Any, Any], Array]:
        state, loss = svi.stable_update(carry[0], nets, batch)
        average = optax.incremental_update(svi.get_params(state), carry[1], 1 - decay)
        return (state, average), loss

    (state, average), losses = lax.scan(step, (state, average), block)
    return state, average, losses


def _labels(params: dict[str, Any]) -> dict[str, str]:
    return {name: name.removesuffix("$params") for name in params}


def _trained(nets: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    learned = {name.removesuffix("$params"): value for name, value in params.items()}
    modules = {name for name, net in nets.items() if isinstance(net, eqx.Module)}
    return nets | {
        name: unwrap(eqx.combine(value, nets[name])) if name in modules else value
        for name, value in learned.items()
    }


# --- the package's functions, without random keys ---


def draw(distribution: Any, num_samples: int) -> np.ndarray:
    return np.asarray(distribution.sample(_next_key(), (num_samples,)))


def call(guide: Any, *args: Any) -> dict[str, Any]:
    key = _next_key()
    return eqx.filter_jit(lambda *args: handlers.seed(guide, key)(*args))(*args)


def importance_log_weights(distribution: Any, num_samples: int) -> Array:
    return importance.importance_log_weights(_next_key(), distribution, num_samples)


def nuts(model: Callable, *args: np.ndarray, num_draws: int, num_chains: int) -> Any:
    options = {"num_samples": num_draws, "num_warmup": num_draws, "num_chains": num_chains}
    mcmc = infer.MCMC(infer.NUTS(model), **options, chain_method="vectorized", progress_bar=False)
    mcmc.run(_next_key(), *map(array, args))
    return ebm.to_arviz(mcmc)


def check_conditional(joint: Any, **draws: np.ndarray) -> Any:
    check = ebm.check_conditional(joint)
    return check(_next_key(), **{name: array(x) for name, x in draws.items()})


def simulation_based_calibration(prior: Any, simulator: Any, *args: Any, **options: Any) -> Any:
    def simulate(key: Array, theta: Array) -> Array:
        return simulator(theta, random.normal(key, theta.shape))

    return ebm.simulation_based_calibration(_next_key(), prior, simulate, *args, **options)


def log_normalizer(distribution: Any, **options: Any) -> Any:
    return ebm.log_normalizer(_next_key(), distribution, **options)


def run_smc(sampler: Any, distribution: Any, **options: Any) -> Any:
    return ebm.run_smc(_next_key(), sampler, distribution, **options)


def log_marginal(model: Callable, guide: Any, *args: Any, **options: Any) -> Any:
    return ebm.log_marginal(model, guide, **options)(_next_key(), *args)


def log_ratios(model: ebm.EnergyBased, generator: Any, latent: Any) -> tuple[np.ndarray, ...]:
    key = _next_key()
    draws = _compare(key, model, generator, latent)
    return tuple(np.asarray(x) for x in draws)


@eqx.filter_jit
def _compare(key: Array, model: Any, generator: Any, latent: Any) -> tuple[Array, ...]:
    partner = VariationalGenerator.of(key, model, generator)
    z = partner.draw(key, latent) if isinstance(latent, int) else jnp.asarray(latent)
    draws = partner.compare(model, z)
    return draws.value, draws.log_ratio, draws.ratio_gradient
