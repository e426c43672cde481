"""Score matching: train an energy by its slope and curvature at the data, or at noisy data."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from pyro_ebm.core.objectives.score_matching import (
    check_method,
    denoising_score_matching,
    score_matching,
)
from pyro_ebm.numpyro.samplers.target import (
    Potential,
    to_unconstrained,
    unconstrained_potential,
    value_and_gradient,
)

__all__ = ["ScoreMatching"]


class ScoreMatching:
    r"""Objective that matches the slope of the energy to that of the data's log-density.

    .. math::
        \text{exact:}\quad & \tfrac12 |\nabla U(x)|^2 - \mathrm{tr}\, \nabla^2 U(x) \\
        \text{sliced:}\quad & \tfrac12 |\nabla U(x)|^2
            - \frac1K \sum_{k=1}^K v_k^\top \nabla^2 U(x)\, v_k \\
        \text{denoising:}\quad & \tfrac12 \big| \sqrt t\, \nabla U(\tilde x) - \xi \big|^2,
            \qquad \tilde x = x + \sqrt t\, \xi

    Here :math:`U = E - \log p_0`, over unconstrained space where the support is constrained: the
    log-determinant of the change of variables is a part of it. Energy and base are trained
    together. No MCMC and no log-normalizer; but a slope tells little of how much of the data is
    in each of several distant modes.

    - *Exact* costs as much as D directions, D being the number of coordinates of a value.
    - *Sliced* has the same expectation from K random directions: signs (Rademacher), which have
      the lowest variance of all, none where the Hessian is diagonal.
    - *Denoising* calls the energy once on noisy values, and its slope only. What is fitted is
      the density of the *noisy* data, of variance larger by :math:`t`. The published loss is
      multiplied by :math:`t` here: a flat energy has the loss D/2 whatever the variance.

    Args:
        method: ``"exact"``, ``"sliced"`` or ``"denoising"``.
        num_projections: :math:`K`, for the sliced method.
        variance: :math:`t`, the *variance* of the noise (papers give the standard deviation), for
            the denoising method, which needs it.

    Raises:
        ValueError: If an argument is out of range or does not belong to the method.

    References:
        | Estimation of Non-Normalized Statistical Models by Score Matching (Hyvarinen, 2005)
        | A Connection Between Score Matching and Denoising Autoencoders (Vincent, 2011)
        | Sliced Score Matching: A Scalable Approach to Density and Score Estimation
          (Song et al., 2019)
        | https://arxiv.org/abs/1905.07088
    """

    def __init__(
        self, method: str = "exact", *, num_projections: int = 1, variance: float | None = None
    ) -> None:
        check_method(method, num_projections, variance)
        self.method = method
        self.num_projections = num_projections
        self.variance = variance

    def __repr__(self) -> str:
        options = {
            "exact": "",
            "sliced": f", num_projections={self.num_projections}",
            "denoising": f", variance={self.variance}",
        }
        return f"ScoreMatching({self.method!r}{options[self.method]})"

    def loss(self, rng_key: Array, distribution: Any, value: Array) -> Array:
        """Loss of each value, differentiable in the parameters of energy and base.

        Args:
            rng_key: Random key; the exact method draws nothing.
            distribution: An energy-based distribution.
            value: Shape ``(*batch, *event)``; held constant.

        Returns:
            Shape ``(*batch,)``.
        """
        potential = unconstrained_potential(distribution)
        x, event_ndim = _unconstrained_rows(distribution, value)
        if self.variance is not None:
            noise = random.normal(rng_key, x.shape, x.dtype)
            _, gradient = value_and_gradient(potential, x + math.sqrt(self.variance) * noise)
            return denoising_score_matching(gradient, noise, self.variance, event_ndim)
        if self.method == "exact":
            directions = _coordinate_directions(x, event_ndim)
        else:
            directions = random.rademacher(rng_key, (self.num_projections, *x.shape), x.dtype)
        gradient, products = _hessian_products(potential, x, directions)
        return score_matching(gradient, directions, products, event_ndim)


def _unconstrained_rows(distribution: Any, value: Array) -> tuple[Array, int]:
    """A row of its own for each batch element, or gradients would add up; and its event_ndim."""
    batch_ndim = value.ndim - distribution.event_dim
    x = lax.stop_gradient(to_unconstrained(distribution).inv(value))
    event_shape = x.shape[batch_ndim:]
    batch_shape = jnp.broadcast_shapes(value.shape[:batch_ndim], distribution.batch_shape)
    return jnp.broadcast_to(x, (*batch_shape, *event_shape)), len(event_shape)


def _coordinate_directions(x: Array, event_ndim: int) -> Array:
    """The basis of D coordinates, times the root of D: the mean over it is a trace."""
    event_shape = x.shape[x.ndim - event_ndim :]
    num_coordinates = math.prod(event_shape)
    ones = (1,) * (x.ndim - event_ndim)
    basis = jnp.eye(num_coordinates, dtype=x.dtype)
    basis = basis.reshape((num_coordinates, *ones, *event_shape))
    return math.sqrt(num_coordinates) * jnp.broadcast_to(basis, (num_coordinates, *x.shape))


def _hessian_products(potential: Potential, x: Array, directions: Array) -> tuple[Array, Array]:
    """Gradient at ``x`` and Hessian times each direction, the energy being called once.

    By forward over reverse; vmap goes over the linear part alone.
    """
    gradient_of = jax.grad(lambda x: potential(x).sum())
    gradient, times_hessian = jax.linearize(gradient_of, x)
    return gradient, jax.vmap(times_hessian)(directions)
