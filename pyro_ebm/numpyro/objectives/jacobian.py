"""How a generator stretches volume: log-determinants and singular values of its Jacobians."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from pyro_ebm.core.numerics import log_positive
from pyro_ebm.core.objectives import jacobian as core
from pyro_ebm.core.objectives import krylov
from pyro_ebm.numpyro.distributions.bound_energy import score_only

__all__ = ["jacobian", "log_det_jtj", "smallest_singular_value"]

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
    r"""Log-determinants of :math:`J^\top J`, twice the logarithm of how volume is stretched.

    .. math::
        \log p_x(G(z)) = \log p_z(z) - \tfrac12 \log\det J^\top J, \qquad
        J = \partial G / \partial z, \qquad \log\det J^\top J = 2 \sum_i \log s_i

    With :math:`s_1 \le \dots \le s_d` the singular values of :math:`J`, the methods are:

    - ``"exact"``: all of J, and a QR or LU factorization. Minus infinity where J has lost rank.
    - ``"smallest_singular_value"``: :math:`2 d \log s_1`, a *lower bound*, with equality only
      where all singular values are equal. With ``num_iterations`` LOBPCG steps, which need
      products with J and never J itself, :math:`s_1` is over-estimated and the result is *no
      bound of either sign*. Take 784 dimensions from 128, with singular values from 1 to 1/100,
      and halve everything: the truth is -294.7 and the bound -589.5; two steps give -257.6, above
      both, and a hundred steps -558.7. The result is finite where J has lost rank.
    - ``"stochastic"``: Lanczos quadrature for random signs, by products too. *No bound of a single
      draw*, which scatters (by 21 in the case above, with one probe). With as many iterations as
      latent dimensions, its mean over probes is exact. With fewer it lies above the truth on
      average, as Gauss quadrature of a logarithm does: there by 31 with 8 iterations, by 12 with
      16 and by 2.3 with 32. It is finite where J has lost rank.

    Gradients go to ``z`` and to whatever the generator depends on, and are right to first order
    only. Those of a smallest singular value hold its singular vector constant, which is exact
    where the vector is. Those of ``"stochastic"`` are not of the value drawn, but have that of
    the log-determinant as their mean, with as many iterations as latent dimensions.

    Args:
        rng_key: Key; may be None for a method without randomness (``"exact"``, or without
            ``num_iterations`` the smallest singular value).
        generator: Maps ``(N, d)`` to ``(N, D)``, :math:`d \le D`, a row by itself and without
            randomness.
        z: Shape ``(N, d)``.
        method: See above.
        num_iterations: Steps of LOBPCG (default: none, but a singular value decomposition) or of
            Lanczos (default: 32); more Lanczos steps than ``d`` are never taken.
        num_probes: Random vectors a row, for ``"stochastic"``.

    Returns:
        Shape ``(N,)``.

    Raises:
        ValueError: If the arguments do not go together, or the generator gives anything but one
            vector for each latent one, of no fewer dimensions.

    Example:
        >>> import jax.numpy as jnp
        >>> stretch = jnp.array([[2.0, 0.0], [1.0, 0.5]])
        >>> log_det_jtj(None, lambda z: z @ stretch, jnp.zeros((1, 2))).tolist()
        [0.0]

    References:
        | Bounds All Around: Training Energy-Based Models with Bidirectional Bounds (Geng, Wang,
          Gao, Frellsen and Hauberg, 2021)
        | https://arxiv.org/abs/2111.00929
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
    """Smallest singular values of the Jacobians of a generator.

    With ``num_iterations``, those are LOBPCG steps from a random start, and the result is never
    below the true value. It does not grow with more steps. See :func:`log_det_jtj`.

    Args:
        rng_key: Key of the random start; may be None without ``num_iterations``.
        generator: Maps ``(N, d)`` to ``(N, D)``, a row by itself and without randomness.
        z: Shape ``(N, d)``.
        num_iterations: Of LOBPCG; zero or more. Default: a singular value decomposition.

    Returns:
        Shape ``(N,)``, with gradients of first order in ``z`` and in whatever the generator
        depends on.

    Raises:
        ValueError: As :func:`log_det_jtj`.
    """
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
    """Jacobians of a generator.

    Args:
        generator: Maps ``(N, d)`` to ``(N, D)``, a row by itself and without randomness.
        z: Shape ``(N, d)``.

    Returns:
        Shape ``(N, D, d)``.

    Raises:
        ValueError: As :func:`log_det_jtj`.
    """
    _, num_latent = core.check_latent(z)
    core.check_shapes(z.shape, jax.eval_shape(generator, z).shape)

    def column(direction: Array) -> Array:
        return jax.jvp(generator, (z,), (jnp.broadcast_to(direction, z.shape),))[1]

    return jax.vmap(column, out_axes=-1)(jnp.eye(num_latent, dtype=z.dtype))


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
    """What is generated, J v and u J as functions of v and u; all constants."""

    def constant(z: Array) -> Array:
        return score_only(generator, z)[0]

    value, product = jax.linearize(constant, lax.stop_gradient(z))
    core.check_shapes(z.shape, value.shape)
    transpose = jax.linear_transpose(product, z)
    return value, product, lambda vectors: transpose(vectors)[0]


def _inner(generator: Function, z: Array, left: Array, right: Array) -> Array:
    """Rows of u J v for constant vectors, with gradients."""
    return (left * jax.jvp(generator, (z,), (right,))[1]).sum(-1)


def _needed(rng_key: Array | None) -> Array:
    if rng_key is None:
        raise ValueError("Expected `rng_key` for a method that draws random vectors, got None.")
    return rng_key
