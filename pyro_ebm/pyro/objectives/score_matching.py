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
from pyro_ebm.pyro.energies import graph_nodes
from pyro_ebm.pyro.potentials import Potential, to_unconstrained, unconstrained_potential

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
        return score_matching(gradient, directions, products, event_ndim)


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
    # Wanted under no_grad too, where values of the objective are read.
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return _derivative(potential(x).sum(), x, create_graph=create_graph)


def _hessian_products(potential: Potential, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient at ``x`` and Hessian times each direction, the energy being called once.

    By reverse over reverse: for some operations torch has no forward derivative of the reverse
    one (norm, glu), and for the determinant a wrong one. On copies of the rows, for vmap over
    directions fails at others (group norm).
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        rows = x.expand(directions.shape).detach().requires_grad_()
        total = potential(rows).sum()
        if create_graph:
            _check_third_derivatives(total)
        gradient = _derivative(total, rows, create_graph=True)
        products = _derivative((gradient * directions).sum(), rows, create_graph=create_graph)
    return gradient[0], products


def _derivative(total: Tensor, x: Tensor, *, create_graph: bool) -> Tensor:
    if not total.requires_grad:  # It depends on nothing: autograd would refuse.
        return torch.zeros_like(x)
    (derivative,) = torch.autograd.grad(total, x, create_graph=create_graph, materialize_grads=True)
    return derivative


def _check_third_derivatives(total: Tensor) -> None:
    """Raise where torch would give wrong gradients without a word.

    | https://github.com/pytorch/pytorch/issues/175754 (layer norm)
    | https://github.com/pytorch/pytorch/issues/186256 (batch norm; instance norm is one to torch)
    """
    for node in graph_nodes(total):
        is_layer_norm = node.name().startswith("NativeLayerNormBackward")
        if is_layer_norm or getattr(node, "_saved_training", False):
            raise ValueError(
                "Expected an energy without LayerNorm, InstanceNorm or BatchNorm, got "
                f"{node.name()}: torch has their third derivatives wrong. Use "
                "nn.GroupNorm(1, channels) or nn.GroupNorm(channels, channels) in the place of "
                "the first two, or method='denoising', which needs no third derivatives."
            )
