r"""How a generator stretches volume: arithmetic on its Jacobians, given whole or as products.

A generator maps latent values ``(N, d)`` to data ``(N, D)``, each row by itself, with Jacobians
:math:`J`, one a row. ``product`` maps ``(N, d)`` to ``(N, D)``, a row :math:`v` to :math:`J v`;
``transposed`` maps ``(N, D)`` to ``(N, d)``, a row :math:`u` to :math:`J^\top u`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

from pyro_ebm.core.checks import check_choice, check_positive_integer

__all__ = [
    "METHODS",
    "Bidiagonal",
    "Descent",
    "begin_bidiagonal",
    "begin_descent",
    "bidiagonalize",
    "check_latent",
    "check_method",
    "check_shapes",
    "descend",
    "log_det",
    "log_positive",
    "quadrature",
    "smallest",
    "unit",
]

METHODS = ("exact", "smallest_singular_value", "stochastic")

# Steps of a quadrature of which the number is not given, where there are as many dimensions.
_NUM_STEPS = 32
# A vector that loses all but so many roundings of itself lies in the span of the others.
_ROUNDINGS = 100.0

Map = Callable[[Any], Any]


def check_latent(z: Any) -> tuple[int, int]:
    """Number and dimension of latent values; raise unless these are the axes of ``z``."""
    if z.ndim != 2:
        raise ValueError(f"Expected latent values of shape (N, d), got shape {tuple(z.shape)}.")
    return tuple(z.shape)


def check_shapes(latent_shape: Any, data_shape: Any) -> None:
    """Raise unless a generator may have a Jacobian of full rank at each of its latent values."""
    num_values, num_latent = latent_shape
    if len(data_shape) != 2 or data_shape[0] != num_values:
        raise ValueError(
            f"Expected the generator to map ({num_values}, {num_latent}) to ({num_values}, D), "
            f"got shape {tuple(data_shape)}."
        )
    if num_latent > data_shape[1]:
        raise ValueError(
            "Expected a generator with at most as many latent as data dimensions, got "
            f"{num_latent} and {data_shape[1]}."
        )


def check_method(method: Any, num_iterations: Any, num_probes: Any, num_latent: int) -> int | None:
    """Number of iterations of a method; raise unless the arguments go together.

    Returns:
        None where there are none to choose; for ``"stochastic"`` never more than dimensions.
    """
    check_choice("method", method, METHODS)
    check_positive_integer("num_probes", num_probes)
    if num_iterations is not None:
        if method == "exact":
            raise ValueError(
                "Expected no `num_iterations` for method 'exact', which does not iterate, got "
                f"{num_iterations!r}."
            )
        minimum = 1 if method == "stochastic" else 0
        check_positive_integer("num_iterations", num_iterations, minimum=minimum)
    if method == "stochastic":
        return min(num_latent, num_iterations or _NUM_STEPS)
    return num_iterations


def log_det(jacobian: Any) -> Any:
    r"""Logarithm of :math:`\det J^\top J`, without forming that product.

    It would square the condition number. Where :math:`J` has lost rank the result is minus
    infinity, with a gradient of zero.

    Args:
        jacobian: Shape ``(N, D, d)``.

    Returns:
        Shape ``(N,)``.
    """
    xp = array_namespace(jacobian)
    num_data, num_latent = jacobian.shape[1:]
    constants = {"dtype": jacobian.dtype, "device": device(jacobian)}
    degenerate = _log_volume(jacobian) == -math.inf
    # A gradient of infinity times zero would be NaN: such rows are exchanged beforehand.
    identity = xp.eye(num_data, num_latent, **constants)
    log_volume = _log_volume(xp.where(degenerate[:, None, None], identity, jacobian))
    return xp.where(degenerate, xp.full_like(log_volume, -math.inf), 2.0 * log_volume)


def _log_volume(jacobian: Any) -> Any:
    xp = array_namespace(jacobian)
    if jacobian.shape[1] == jacobian.shape[2]:
        return xp.linalg.slogdet(jacobian)[1]
    triangle = xp.linalg.qr(jacobian)[1]
    return xp.sum(xp.log(xp.abs(xp.linalg.diagonal(triangle))), axis=-1)


def smallest(jacobian: Any) -> Any:
    """Smallest singular values, shape ``(N,)``, of Jacobians of shape ``(N, D, d)``."""
    return array_namespace(jacobian).linalg.svdvals(jacobian)[:, -1]


def log_positive(x: Any) -> Any:
    """Logarithm of what should be above zero, of the smallest such number where it is not."""
    xp = array_namespace(x)
    return xp.log(xp.maximum(x, xp.full_like(x, _tiny(x))))


def unit(vectors: Any) -> Any:
    """Vectors of length one, shape ``(N, d)``; zero where they were."""
    return _orthonormal(vectors, vectors[..., None][..., :0])[0]


# --- the smallest singular value ---


class Descent(NamedTuple):
    """State of the search for the smallest singular value, a row for each Jacobian.

    Attributes:
        vector: Of length one, shape ``(N, d)``.
        direction: From where it came, likewise.
        image: The product of Jacobian and vector, shape ``(N, D)``.
    """

    vector: Any
    direction: Any
    image: Any


def begin_descent(product: Map, start: Any) -> Descent:
    """Begin at any vectors, shape ``(N, d)``."""
    vector = unit(start)
    return Descent(vector, array_namespace(start).zeros_like(start), product(vector))


def descend(product: Map, transposed: Map, state: Descent) -> Descent:
    r"""One step of LOBPCG of block size one for :math:`J^\top J`; :math:`|J u|` never grows.

    The next :math:`u` is the best in the span of this one, of the residual
    :math:`J^\top J u - |J u|^2 u` and of the last direction. That takes two products and a
    transposed one; :math:`J^\top J` is never formed, which would square the condition number.

    References:
        | Toward the Optimal Preconditioned Eigensolver (Knyazev, 2001)
    """
    xp = array_namespace(state.vector)
    known = state.vector[..., None]
    residual, _ = _orthonormal(transposed(state.image), known)
    pair = xp.concat([known, residual[..., None]], axis=-1)
    direction, _ = _orthonormal(state.direction, pair)
    basis = xp.concat([pair, direction[..., None]], axis=-1)
    images = xp.stack([state.image, product(residual), product(direction)], axis=-1)
    weights = _smallest_right_vector(images, basis)
    others = xp.concat([xp.zeros_like(weights[:, :1]), weights[:, 1:]], axis=-1)
    new = Descent(_combine(basis, weights), _combine(basis, others), _combine(images, weights))
    # Neither NaN nor, where the image is zero already, a null vector.
    kept = (_norm(new.vector) > 0.5) & xp.all(xp.isfinite(new.image), axis=-1)
    return Descent(*(xp.where(kept[:, None], n, old) for n, old in zip(new, state, strict=True)))


def _smallest_right_vector(images: Any, basis: Any) -> Any:
    """Of the images of an orthonormal basis of which some vectors may be null."""
    xp = array_namespace(images)
    lengths = xp.sum(basis * basis, axis=1)
    # A null vector has no image. Longer than the first one's, and at a right angle to all, it
    # has no part in the smallest.
    fence = 2.0 * _norm(images[..., 0])[:, None] * (1.0 - lengths)
    identity = xp.eye(basis.shape[-1], dtype=images.dtype, device=device(images))
    fenced = xp.concat([images, identity * fence[:, None, :]], axis=1)
    # torch would raise, for all rows, where one has diverged.
    fenced = xp.where(xp.isfinite(fenced), fenced, xp.zeros_like(fenced))
    return xp.linalg.svd(fenced, full_matrices=False)[2][:, -1, :]


# --- stochastic quadrature ---


class Bidiagonal(NamedTuple):
    """State of a Golub-Kahan bidiagonalization of ``k`` steps, a row for each Jacobian.

    Attributes:
        candidate: What the next right vector is made of, shape ``(N, d)``.
        right: Orthonormal latent vectors, shape ``(N, d, k)``, zero where there are none yet.
        left: Orthonormal data vectors, shape ``(N, D, k)``.
        diagonal: Of the bidiagonal matrix, shape ``(N, k)``.
        above: Above the diagonal, shape ``(N, k)``; the first entry is the length of the probe.
    """

    candidate: Any
    right: Any
    left: Any
    diagonal: Any
    above: Any


def begin_bidiagonal(probe: Any, num_data: int, num_steps: int) -> Bidiagonal:
    """Begin at probes, shape ``(N, d)``."""
    xp = array_namespace(probe)
    num_values, num_latent = probe.shape
    shapes = (num_latent, num_steps), (num_data, num_steps), (num_steps,), (num_steps,)
    options = {"dtype": probe.dtype, "device": device(probe)}
    return Bidiagonal(probe, *(xp.zeros((num_values, *shape), **options) for shape in shapes))


def bidiagonalize(product: Map, transposed: Map, step: Any, state: Bidiagonal) -> Bidiagonal:
    r"""The next step, number ``step`` from zero; after all, ``J @ right == left @ bidiagonal``.

    In exact arithmetic this is Lanczos' algorithm for :math:`J^\top J`, whose condition number is
    the square. Right vectors are made orthogonal to all before, which keeps the left ones so too.

    References:
        | Calculating the Singular Values and Pseudo-Inverse of a Matrix (Golub and Kahan, 1965)
        | Low-Rank Matrix Approximation Using the Lanczos Bidiagonalization Process (Simon and Zha,
          2000)
    """
    xp = array_namespace(state.candidate)
    steps = xp.arange(state.right.shape[-1], device=device(state.right))
    here, before = (steps == step), xp.astype(steps == step - 1, state.left.dtype)
    right, above = _orthonormal(state.candidate, state.right)
    image = product(right) - above[:, None] * (state.left @ before)
    left, diagonal = _orthonormal(image, state.left[..., :0])
    return Bidiagonal(
        transposed(left),
        xp.where(here, right[..., None], state.right),
        xp.where(here, left[..., None], state.left),
        xp.where(here, diagonal[:, None], state.diagonal),
        xp.where(here, above[:, None], state.above),
    )


def quadrature(state: Bidiagonal) -> tuple[Any, Any]:
    r"""Gauss quadrature of :math:`v^\top \log(J^\top J)\, v` for a probe :math:`v`, and its slope.

    .. math:: |v|^2 \sum_k Q_{1k}^2 \log s_k^2, \qquad B = P \operatorname{diag}(s)\, Q^\top

    Returns:
        The quadrature, shape ``(N,)``, and :math:`J w` for :math:`w = (J^\top J)^{-1} v`, shape
        ``(N, D)``. With :math:`w` held constant, the derivative of :math:`2 \langle J w, J v
        \rangle` in its second factor is, over probes, that of :math:`\log\det J^\top J`. Both are
        exact after as many steps as dimensions.

    References:
        | Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature (Ubaru, Chen and Saad,
          2017)
    """
    xp = array_namespace(state.diagonal)
    num_steps = state.diagonal.shape[-1]
    options = {"dtype": state.diagonal.dtype, "device": device(state.diagonal)}
    bidiagonal = xp.eye(num_steps, **options) * state.diagonal[:, None, :]
    bidiagonal = bidiagonal + xp.eye(num_steps, k=1, **options) * state.above[:, None, :]
    outer, values, inner = xp.linalg.svd(bidiagonal, full_matrices=False)
    length, first = state.above[:, 0], inner[:, :, 0]
    total = length**2 * xp.sum(first**2 * 2.0 * log_positive(values), axis=-1)
    # What is left of a probe where there are no more dimensions to find is not to be inverted.
    found = values > _ROUNDINGS * _epsilon(values) * xp.max(values, axis=-1, keepdims=True)
    inverse = xp.where(found, first / xp.where(found, values, xp.ones_like(values)), 0.0 * first)
    return total, length[:, None] * _combine(state.left, _combine(outer, inverse))


def _orthonormal(vectors: Any, basis: Any) -> tuple[Any, Any]:
    """Vectors ``(N, n)`` without what a basis ``(N, n, k)`` spans: of length one, and how long.

    Where nothing is left but rounding, both are zero.
    """
    xp = array_namespace(vectors)
    rest = vectors
    for _ in range(2):  # Once leaves roundings that matter where little is left.
        rest = rest - _combine(basis, xp.sum(basis * rest[..., None], axis=1))
    length = _norm(rest)
    null = length <= _ROUNDINGS * _epsilon(vectors) * _norm(vectors)
    safe = xp.where(null, xp.ones_like(length), length)[:, None]
    zero = xp.zeros_like(length)
    return xp.where(null[:, None], zero[:, None], rest / safe), xp.where(null, zero, length)


def _combine(basis: Any, weights: Any) -> Any:
    """Of vectors ``(N, n, k)`` with weights ``(N, k)``, shape ``(N, n)``."""
    return (basis @ weights[..., None])[..., 0]


def _norm(vectors: Any) -> Any:
    return array_namespace(vectors).linalg.vector_norm(vectors, axis=-1)


def _epsilon(x: Any) -> float:
    return float(array_namespace(x).finfo(x.dtype).eps)


def _tiny(x: Any) -> float:
    return float(array_namespace(x).finfo(x.dtype).smallest_normal)
