"""What NumPyro's configurations are made of: nets, float64, a key."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from inputs import layers
from jax import Array
from recording import figures

CONFIGURATIONS: dict[str, Callable[[], list[float]]] = {}


def recorded(configuration: Callable[[Array], list[Array]], name: str | None = None) -> Callable:
    """Enter a configuration; it runs from a key, in float64, and gives floats."""

    @wraps(configuration)
    def run() -> list[float]:
        with settings():
            return figures(configuration(jax.random.key(0)))

    CONFIGURATIONS[name or configuration.__name__] = run
    return run


@contextmanager
def settings() -> Iterator[None]:
    # Compiling takes most of the time.
    quick = "jax_disable_most_optimizations"
    before = jax.config.read(quick)
    jax.config.update(quick, True)
    try:
        with jax.enable_x64(True), numpyro.validation_enabled(is_validate=True):
            yield
    finally:
        jax.config.update(quick, before)


class Net(eqx.Module):
    """A net of two hidden layers."""

    layers: list[tuple[Array, Array]]

    def __init__(self, seed: int, num_inputs: int, num_outputs: int) -> None:
        sizes = num_inputs, 8, 8, num_outputs
        self.layers = [(jnp.asarray(w), jnp.asarray(b)) for w, b in layers(seed, *sizes)]

    def __call__(self, x: Array) -> Any:
        return self.stack(x)

    def stack(self, x: Array) -> Array:
        first, second, third = self.layers
        return _linear(third, jax.nn.silu(_linear(second, jnp.tanh(_linear(first, x)))))


class Scalar(Net):
    """An energy or a critic."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, 2, 1)

    def __call__(self, x: Array) -> Array:
        return self.stack(x)[..., 0]


class Residual(Net):
    """A generator in the plane, or a decoder."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, 2, 2)

    def __call__(self, x: Array) -> Array:
        return x + 0.5 * self.stack(x)


class Encoder(Net):
    """A normal distribution in the plane for each point."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, 2, 2)

    def __call__(self, x: Array) -> dist.Distribution:
        return dist.Normal(0.6 * x + 0.3 * self.stack(x), 0.5).to_event(1)


class Gaussian(eqx.Module):
    """A base with a location and a scale that are learned."""

    loc: Array
    log_scale: Array

    def __init__(self) -> None:
        self.loc = jnp.array([0.2, -0.1])
        self.log_scale = jnp.array([0.1, 0.3])

    def __call__(self) -> dist.Distribution:
        return dist.Normal(self.loc, jnp.exp(self.log_scale)).to_event(1)


class Number(eqx.Module):
    """A number that is learned."""

    value: Array

    def __init__(self) -> None:
        self.value = jnp.array(0.2)


def standard_normal() -> dist.Distribution:
    return dist.Normal(jnp.zeros(2), 1.0).to_event(1)


def _linear(layer: tuple[Array, Array], x: Array) -> Array:
    weight, bias = layer
    return x @ weight.T + bias
