r"""Singular values of matrices known by their products alone.

Rows are independent problems. The matrix :math:`J` of a row, shape ``(D, d)``, is given by two
functions: ``product`` maps ``(N, d)`` to ``(N, D)``, a row :math:`v` to :math:`J v`, and
``transposed`` maps ``(N, D)`` to ``(N, d)``, a row :math:`u` to :math:`J^\top u`. The hosts write
the loop around a step. :math:`J^\top J`, whose condition number is the square, is never formed.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

from pyro_ebm.core.numerics import log_positive

# Below this multiple of machine epsilon a residual counts as zero.
_ROUNDINGS = 100.0

Map = Callable[[Any], Any]


def unit(vectors: Any) -> Any:
    """Normalize vectors, shape ``(N, d)``; zeros stay zeros."""
    return _orthonormal(vectors, vectors[..., None][..., :0])[0]


def finite_matrices(matrices: Any) -> Any:
    """Mask matrices without NaN and infinity, shape ``(N, 1, 1)``; torch's SVD raises on others."""
    xp = array_namespace(matrices)
    return xp.all(xp.isfinite(matrices), axis=(1, 2), keepdims=True)


# --- the smallest singular value ---


class Descent(NamedTuple):
    """State of the search for the smallest singular value, a row for each Jacobian.

    Attributes:
        vector: Of length one, shape ``(N, d)``.
        direction: Part of the last step at a right angle to the last vector, same shape.
        image: Product of Jacobian and vector, shape ``(N, D)``.
    """

    vector: Any
    direction: Any
    image: Any


def begin_descent(product: Map, start: Any) -> Descent:
    """Start the search at any vectors, shape ``(N, d)``."""
    vector = unit(start)
    return Descent(vector, array_namespace(start).zeros_like(start), product(vector))


def descend(product: Map, transposed: Map, state: Descent) -> Descent:
    r"""Take a step of LOBPCG of block size one for :math:`J^\top J`; :math:`|J u|` never grows.

    The next :math:`u` is the best in the span of the present one, the residual
    :math:`J^\top J u - |J u|^2 u` and the last direction, at two products and a transposed one.

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
    """Smallest right singular vector of the images of an orthonormal basis with null vectors."""
    xp = array_namespace(images)
    lengths = xp.sum(basis * basis, axis=1)
    # A null vector has no image. One at a right angle to all others and longer than the first
    # keeps it out of the smallest singular vector.
    extra = 2.0 * _norm(images[..., 0])[:, None] * (1.0 - lengths)
    identity = xp.eye(basis.shape[-1], dtype=images.dtype, device=device(images))
    padded = xp.concat([images, identity * extra[:, None, :]], axis=1)
    padded = xp.where(finite_matrices(padded), padded, xp.zeros_like(padded))
    return xp.linalg.svd(padded, full_matrices=False)[2][:, -1, :]


# --- stochastic quadrature ---


class Bidiagonal(NamedTuple):
    """State of a Golub-Kahan bidiagonalization of ``k`` steps, a row for each Jacobian.

    Attributes:
        candidate: The next right vector before it is made orthonormal, shape ``(N, d)``.
        right: Orthonormal latent vectors, shape ``(N, d, k)``, zero where there are none yet.
        left: Orthonormal data vectors, shape ``(N, D, k)``.
        diagonal: Diagonal of the bidiagonal matrix, shape ``(N, k)``.
        above: Entries above the diagonal, shape ``(N, k)``; the first is the probe's length.
    """

    candidate: Any
    right: Any
    left: Any
    diagonal: Any
    above: Any


def begin_bidiagonal(probe: Any, num_data: int, num_steps: int) -> Bidiagonal:
    """Start the bidiagonalization at probes, shape ``(N, d)``."""
    xp = array_namespace(probe)
    num_values, num_latent = probe.shape
    shapes = (num_latent, num_steps), (num_data, num_steps), (num_steps,), (num_steps,)
    options = {"dtype": probe.dtype, "device": device(probe)}
    return Bidiagonal(probe, *(xp.zeros((num_values, *shape), **options) for shape in shapes))


def bidiagonalize(product: Map, transposed: Map, step: Any, state: Bidiagonal) -> Bidiagonal:
    r"""Take step number ``step``, from zero; after all of them ``J @ right == left @ bidiagonal``.

    In exact arithmetic this is Lanczos' algorithm for :math:`J^\top J`. Right vectors are made
    orthogonal to all earlier ones, which keeps the left ones orthogonal too.

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
    r"""Compute Gauss quadrature of :math:`v^\top \log(J^\top J)\, v` for a probe :math:`v`.

    .. math:: |v|^2 \sum_k Q_{1k}^2 \log s_k^2, \qquad B = P \operatorname{diag}(s)\, Q^\top

    Returns:
        The quadrature, shape ``(N,)``, and :math:`J w` for :math:`w = (J^\top J)^{-1} v`, shape
        ``(N, D)``. The derivative of :math:`2 \langle J w, J v \rangle` in its second factor is,
        on average over probes, that of :math:`\log\det J^\top J`. Both are exact after as many
        steps as dimensions; with fewer the quadrature is never below what it approximates.

    References:
        | Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature (Ubaru, Chen and Saad,
          2017)
    """
    xp = array_namespace(state.diagonal)
    num_steps = state.diagonal.shape[-1]
    options = {"dtype": state.diagonal.dtype, "device": device(state.diagonal)}
    bidiagonal = xp.eye(num_steps, **options) * state.diagonal[:, None, :]
    bidiagonal = bidiagonal + xp.eye(num_steps, k=1, **options) * state.above[:, None, :]
    finite = finite_matrices(bidiagonal)
    bidiagonal = xp.where(finite, bidiagonal, xp.zeros_like(bidiagonal))
    outer, values, inner = xp.linalg.svd(bidiagonal, full_matrices=False)
    length, first = state.above[:, 0], inner[:, :, 0]
    total = length**2 * xp.sum(first**2 * 2.0 * log_positive(values), axis=-1)
    # The remainder of a probe that has no dimension left to find must not be inverted.
    found = values > _ROUNDINGS * _epsilon(values) * xp.max(values, axis=-1, keepdims=True)
    inverse = xp.where(found, first / xp.where(found, values, xp.ones_like(values)), 0.0 * first)
    total = xp.where(finite[:, 0, 0], total, xp.full_like(total, math.nan))
    return total, length[:, None] * _combine(state.left, _combine(outer, inverse))


def _orthonormal(vectors: Any, basis: Any) -> tuple[Any, Any]:
    """Vectors ``(N, n)`` made orthonormal to a basis ``(N, n, k)``, and their lengths before that.

    Both are zero where only rounding remains.
    """
    xp = array_namespace(vectors)
    rest = vectors
    for _ in range(2):  # One pass leaves roundings that matter where little remains.
        rest = rest - _combine(basis, xp.sum(basis * rest[..., None], axis=1))
    length = _norm(rest)
    null = length <= _ROUNDINGS * _epsilon(vectors) * _norm(vectors)
    safe = xp.where(null, xp.ones_like(length), length)[:, None]
    zero = xp.zeros_like(length)
    return xp.where(null[:, None], zero[:, None], rest / safe), xp.where(null, zero, length)


def _combine(basis: Any, weights: Any) -> Any:
    """Weighted sums of vectors ``(N, n, k)``, shape ``(N, n)``."""
    return (basis @ weights[..., None])[..., 0]


def _norm(vectors: Any) -> Any:
    return array_namespace(vectors).linalg.vector_norm(vectors, axis=-1)


def _epsilon(x: Any) -> float:
    return float(array_namespace(x).finfo(x.dtype).eps)
