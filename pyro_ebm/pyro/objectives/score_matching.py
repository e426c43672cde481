"""Score matching with Pyro: exact, sliced and denoising."""

import math
from typing import Any, cast

import torch
from pyro.distributions.util import broadcast_shape
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack

from pyro_ebm.core.objectives import score_matching as core
from pyro_ebm.core.objectives.loss import EvaluatedLoss, Loss, Objective
from pyro_ebm.pyro.distributions.bound_energy import kept_buffers, shadowed
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.distributions.graph import graph_nodes
from pyro_ebm.pyro.samplers.target import Position, Potential, Target


class _BySecondDerivatives(Objective):
    @torch.no_grad()
    def check_energy(
        self, distribution: EnergyBased, value: Tensor, counts: Tensor, site: str
    ) -> None:
        with kept_buffers(distribution.energy), shadowed(distribution._drawn):
            target = Target.of(distribution)
            core.check_gradient(
                distribution, target, value, counts, _derivatives, _fixed_signs, site
            )


class ScoreMatching(_BySecondDerivatives, core.ScoreMatching):
    """Exact score matching; one call of the energy, and D products with its Hessian.

    The first step raises for energies with LayerNorm or InstanceNorm: torch has their third
    derivatives wrong. See :class:`pyro_ebm.core.objectives.score_matching.ScoreMatching`.

    Example:
        >>> import torch
        >>> from pyro_ebm.pyro.distributions.energy_based import EnergyBased
        >>> bowl = EnergyBased(lambda x: x.square().sum(-1), event_shape=(3,))
        >>> ScoreMatching().loss(bowl, torch.ones(1, 3)).value.detach()  # |2 x|^2 / 2 - 2 D
        tensor([0.])
    """

    def loss(self, distribution: EnergyBased, value: Tensor) -> Loss:
        target, x, event_ndim = _unconstrained_rows(distribution, value)
        event_shape = tuple(x.shape[x.ndim - event_ndim :])
        identity = torch.eye(math.prod(event_shape), dtype=x.dtype, device=x.device)
        directions = core.coordinate_directions(identity, x.ndim - event_ndim, event_shape)
        return _along(directions.expand(len(identity), *x.shape), target, x, event_ndim)


class SlicedScoreMatching(_BySecondDerivatives, core.SlicedScoreMatching):
    """Sliced score matching; one call of the energy, and K products with its Hessian.

    The same layers are refused as by exact score matching.
    See :class:`pyro_ebm.core.objectives.score_matching.SlicedScoreMatching`.

    Example:
        >>> import torch
        >>> from pyro_ebm.pyro.distributions.energy_based import EnergyBased
        >>> bowl = EnergyBased(lambda x: x.square().sum(-1), event_shape=(3,))
        >>> SlicedScoreMatching(2).loss(bowl, torch.zeros(1, 3)).value.detach()  # No variance here.
        tensor([-6.])
    """

    def loss(self, distribution: EnergyBased, value: Tensor) -> Loss:
        target, x, event_ndim = _unconstrained_rows(distribution, value)
        coins = torch.randint(2, (self.num_projections, *x.shape), device=x.device)
        return _along((2 * coins - 1).to(x.dtype), target, x, event_ndim)


class DenoisingScoreMatching(core.DenoisingScoreMatching):
    """Denoising score matching; takes energies with any layers.

    See :class:`pyro_ebm.core.objectives.score_matching.DenoisingScoreMatching`.

    Example:
        >>> import torch
        >>> from pyro_ebm.pyro.distributions.energy_based import EnergyBased
        >>> flat = EnergyBased(lambda x: 0 * x, event_shape=())
        >>> DenoisingScoreMatching(0.1).loss(flat, torch.zeros(5)).value.shape
        torch.Size([5])
    """

    def loss(self, distribution: EnergyBased, value: Tensor) -> Loss:
        target, x, event_ndim = _unconstrained_rows(distribution, value)
        noise = torch.randn_like(x)
        gradient = _gradient(target.potential, x + math.sqrt(self.variance) * noise)
        loss = core.denoising_score_matching(gradient, noise, self.variance, event_ndim)
        return Loss(loss, {})


def _unconstrained_rows(distribution: EnergyBased, value: Tensor) -> tuple[Target, Tensor, int]:
    """Target, positions and number of event dimensions; a row for each batch element.

    Shared rows would add up gradients.
    """
    target = Target.of(distribution)
    batch_ndim = value.ndim - distribution.event_dim
    x = target.position(value).detach()
    event_shape = x.shape[batch_ndim:]
    batch_shape = broadcast_shape(value.shape[:batch_ndim], distribution.batch_shape)
    return target, x.expand((*batch_shape, *event_shape)), len(event_shape)


def _along(directions: Tensor, target: Target, x: Tensor, event_ndim: int) -> Loss:
    potential, gradient, products = _derivatives(target.potential, x, directions)
    loss = core.score_matching(gradient, directions, products, event_ndim)
    _check_third_derivatives(loss)
    return EvaluatedLoss(loss, {}, potential if target.is_unconstrained else None)


def _gradient(potential: Potential, x: Tensor) -> Tensor:
    if peek_interpreter_stack() is not None:
        return torch.func.grad(lambda x: potential(x).sum())(x)
    with torch.enable_grad():
        inside = Position.of(x)
        gradient = _derivative(potential(inside), inside)
    return gradient if torch.is_grad_enabled() else gradient.detach()


def _derivatives(
    potential: Potential, x: Tensor, directions: Tensor
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Potential and gradient at ``x``, and Hessian times each direction, by one call of the energy.

    By reverse over reverse: torch has no forward derivative of the reverse one for some operations
    (norm, glu), and a wrong one for the determinant. One direction after another: on copies of the
    rows each direction costs a call of the energy too, and vmap over directions has faults (group
    norm). Inside of a transform of ``torch.func`` the potential is None.
    """
    if peek_interpreter_stack() is not None:
        gradient, pull = cast(Any, torch.func.vjp(lambda rows: _gradient(potential, rows), x))
        return None, gradient, torch.stack([pull(vector)[0] for vector in directions])
    with torch.enable_grad():
        inside = Position.of(x)
        value = potential(inside)
        gradient = _derivative(value, inside)
        products = torch.stack([_derivative(gradient * vector, inside) for vector in directions])
    if torch.is_grad_enabled():
        return value, gradient, products
    return value.detach(), gradient.detach(), products.detach()


def _derivative(result: Tensor, inside: Tensor) -> Tensor:
    if not result.requires_grad:
        return torch.zeros_like(inside)
    return torch.autograd.grad(result.sum(), inside, create_graph=True, materialize_grads=True)[0]


def _fixed_signs(shape: tuple[int, ...], like: Tensor) -> Tensor:
    # From a generator of its own: a check must not change what a seed gives.
    coins = torch.randint(2, shape, generator=torch.Generator().manual_seed(0))
    return (2 * coins - 1).to(like)


def _check_third_derivatives(loss: Tensor) -> None:
    """Raise where torch would silently compute wrong gradients.

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
                "nn.GroupNorm(1, channels) and nn.GroupNorm(channels, channels) instead, or "
                "DenoisingScoreMatching, which needs no third derivatives."
            )
