"""Score matching: train an energy by its slope and curvature at the data, or at noisy data."""

import math
from typing import Any

import torch
from pyro.distributions.util import broadcast_shape
from torch import Tensor

from pyro_ebm.core.objectives.score_matching import (
    check_method,
    denoising_score_matching,
    score_matching,
)
from pyro_ebm.pyro.distributions.bound_energy import graph_nodes
from pyro_ebm.pyro.samplers.target import Potential, to_unconstrained, unconstrained_potential

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

    - *Exact* calls the energy once on D copies of each value, D being its number of coordinates.
    - *Sliced* has the same expectation from K random directions: signs (Rademacher), which have
      the lowest variance of all, none where the Hessian is diagonal. One call on K copies.
    - *Denoising* calls the energy once on noisy values, and its slope only. What is fitted is
      the density of the *noisy* data, of variance larger by :math:`t`. The published loss is
      multiplied by :math:`t` here: a flat energy has the loss D/2 whatever the variance.

    Args:
        method: ``"exact"``, ``"sliced"`` or ``"denoising"``.
        num_projections: :math:`K`, for the sliced method.
        variance: :math:`t`, the *variance* of the noise (papers give the standard deviation), for
            the denoising method, which needs it.

    Raises:
        ValueError: If an argument is out of range or does not belong to the method. In a step of
            the exact or sliced method: if the energy has a LayerNorm or InstanceNorm, whose third
            derivatives torch gets wrong. ``nn.GroupNorm(1, num_channels)`` is a LayerNorm that it
            gets right; the denoising method goes with all of them.

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

    def loss(self, distribution: Any, value: Tensor) -> Tensor:
        """Loss of each value, differentiable in the parameters of energy and base.

        Args:
            distribution: An energy-based distribution.
            value: Shape ``(*batch, *event)``; held constant.

        Returns:
            Shape ``(*batch,)``.
        """
        potential = unconstrained_potential(distribution)
        x, event_ndim = _unconstrained_rows(distribution, value)
        if self.variance is not None:
            noise = torch.randn_like(x)
            gradient = _gradient(potential, x + math.sqrt(self.variance) * noise)
            return denoising_score_matching(gradient, noise, self.variance, event_ndim)
        if self.method == "exact":
            directions = _coordinate_directions(x, event_ndim)
        else:
            directions = _random_signs(x, self.num_projections)
        gradient, products = _hessian_products(potential, x, directions)
        loss = score_matching(gradient, directions, products, event_ndim)
        _check_third_derivatives(loss)
        return loss


def _unconstrained_rows(distribution: Any, value: Tensor) -> tuple[Tensor, int]:
    """A row of its own for each batch element, or gradients would add up; and its event_ndim."""
    batch_ndim = value.ndim - distribution.event_dim
    x = to_unconstrained(distribution).inv(value).detach()
    event_shape = x.shape[batch_ndim:]
    batch_shape = broadcast_shape(value.shape[:batch_ndim], distribution.batch_shape)
    return x.expand(*batch_shape, *event_shape), len(event_shape)


def _coordinate_directions(x: Tensor, event_ndim: int) -> Tensor:
    """The basis of D coordinates, times the root of D: the mean over it is a trace."""
    event_shape = x.shape[x.ndim - event_ndim :]
    num_coordinates = math.prod(event_shape)
    basis = torch.eye(num_coordinates, dtype=x.dtype, device=x.device)
    ones = (1,) * (x.ndim - event_ndim)
    basis = basis.reshape(num_coordinates, *ones, *event_shape)
    return math.sqrt(num_coordinates) * basis.expand(num_coordinates, *x.shape)


def _random_signs(x: Tensor, num_projections: int) -> Tensor:
    coins = torch.randint(2, (num_projections, *x.shape), device=x.device)
    return (2 * coins - 1).to(x.dtype)


def _gradient(potential: Potential, x: Tensor) -> Tensor:
    return torch.func.grad(lambda x: potential(x).sum())(x)


def _hessian_products(potential: Potential, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient at ``x`` and Hessian times each direction, the energy being called once.

    By reverse over reverse: of some operations torch has no forward derivative of the reverse
    one (norm, glu), and of the determinant a wrong one. On copies of the rows, for vmap over
    directions has faults too (group norm), and asks more of a module than a larger batch does.
    """

    def slope(rows: Tensor) -> tuple[Tensor, Tensor]:
        gradient = _gradient(potential, rows)
        return (gradient * directions).sum(), gradient

    # With torch.func, for a leaf of autograd would stay in the loss: one more thing to be trained.
    products, gradient = torch.func.grad(slope, has_aux=True)(x.expand(directions.shape))
    return gradient[0], products


def _check_third_derivatives(loss: Tensor) -> None:
    """Raise where torch would give wrong gradients without a word.

    | https://github.com/pytorch/pytorch/issues/175754 (layer norm)
    | https://github.com/pytorch/pytorch/issues/186256 (batch norm; instance norm is one to torch)
    """
    for node in graph_nodes(loss):
        is_batch_norm = "BatchNorm" in node.name() and (
            getattr(node, "_saved_training", False) or getattr(node, "_saved_train", False)
        )
        if is_batch_norm or "NativeLayerNorm" in node.name():
            raise ValueError(
                "Expected an energy without LayerNorm and InstanceNorm, got "
                f"{node.name()}: torch has their third derivatives wrong. Use "
                "nn.GroupNorm(1, channels) and nn.GroupNorm(channels, channels) in their place, "
                "or method='denoising', which needs no third derivatives."
            )
