"""Log-determinants and singular values of a generator's Jacobians, with JAX."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from pyro_ebm.core.numerics import log_positive
from pyro_ebm.core.objectives import jacobian as core
from pyro_ebm.core.objectives import krylov
from pyro_ebm.numpyro.distributions.bound_energy import frozen_in_parameters

Function = Callable[[Array], Array]


def log_det_jtj(
    rng_key: Array | None,
    generator: Function,
    z: Array,
    *,
    method: str = "exact",
    num_iterations: int | None = None,
    num_probes: int = 1,
) -> Array:
    r"""Compute :math:`\log\det J^\top J` of a generator at each latent value.

    :mod:`pyro_ebm.core.objectives.jacobian` explains methods, gradients and arguments; the key may
    be None for a method without randomness.

    Raises:
        ValueError: For a wrong shape, or arguments that do not go together.

    Example:
        >>> from jax import numpy as jnp
        >>> print(log_det_jtj(None, lambda z: 3.0 * z, jnp.zeros((1, 2))).round(4))  # 4 log 3
        [4.3944]
    """
    _, num_latent = core.check_latent(z)
    num_iterations = core.check_method(method, num_iterations, num_probes, num_latent)
    if method == "exact":
        return core.log_det(jacobian(generator, z))
    if method == "stochastic":
        key = _needed(rng_key)
        return _stochastic(key, generator, z, num_iterations or num_latent, num_probes)
    value = smallest_singular_value(rng_key, generator, z, num_iterations=num_iterations)
    return 2.0 * num_latent * log_positive(value)


def smallest_singular_value(
    rng_key: Array | None, generator: Function, z: Array, *, num_iterations: int | None = None
) -> Array:
    core.check_latent(z)
    if num_iterations is None:
        return core.smallest(jacobian(generator, z))
    _, product, transposed = _products(generator, z)
    start = krylov.begin_descent(product, random.normal(_needed(rng_key), z.shape, z.dtype))
    state = lax.fori_loop(
        0, num_iterations, lambda _, state: krylov.descend(product, transposed, state), start
    )
    left = krylov.unit(product(state.vector))
    return _inner(generator, z, left, state.vector)


def jacobian(generator: Function, z: Array) -> Array:
    _, num_latent = core.check_latent(z)
    core.check_shapes(z.shape, jax.eval_shape(generator, z).shape)

    def column(direction: Array) -> Array:
        return jax.jvp(generator, (z,), (jnp.broadcast_to(direction, z.shape),))[1]

    return jnp.moveaxis(for_each(column, jnp.eye(num_latent, dtype=z.dtype)), 0, -1)


def for_each(function: Function, vectors: Array) -> Array:
    """Apply a linear function to vectors one by one, eight in a piece of compiled code.

    Under ``vmap`` the products of a batch of rows with several vectors each, and the gradients of
    these products, are up to eight times slower on a processor.
    """
    _, products = lax.scan(
        lambda _, vector: (None, function(vector)), None, vectors, unroll=min(8, len(vectors))
    )
    return products


def _stochastic(
    rng_key: Array, generator: Function, z: Array, num_steps: int, num_probes: int
) -> Array:
    rows = jnp.tile(z, (num_probes, 1))
    probe = random.rademacher(rng_key, rows.shape, z.dtype)
    image, product, transposed = _products(generator, rows)
    state = lax.fori_loop(
        0,
        num_steps,
        lambda step, state: krylov.bidiagonalize(product, transposed, step, state),
        krylov.begin_bidiagonal(probe, image.shape[1], num_steps),
    )
    value, slope = krylov.quadrature(state)
    change = 2.0 * _inner(generator, rows, slope, probe)
    total = value + change - lax.stop_gradient(change)
    return total.reshape(num_probes, -1).mean(0)


def _products(generator: Function, z: Array) -> tuple[Array, Function, Function]:
    """Return G(z), and the functions v -> J v and u -> u J; all constants."""

    def constant(z: Array) -> Array:
        return frozen_in_parameters(generator, z)[0]

    value, product = jax.linearize(constant, lax.stop_gradient(z))
    core.check_shapes(z.shape, value.shape)
    transpose = jax.linear_transpose(product, z)
    return value, product, lambda vectors: transpose(vectors)[0]


def _inner(generator: Function, z: Array, left: Array, right: Array) -> Array:
    """Compute u J v for each row of constant vectors, with gradients."""
    return (left * jax.jvp(generator, (z,), (right,))[1]).sum(-1)


def _needed(rng_key: Array | None) -> Array:
    if rng_key is None:
        raise ValueError("Expected `rng_key` for a method that draws random vectors, got None.")
    return rng_key
