"""KALE: train an energy, and the base that it re-weighs, by draws of the base alone."""

from math import prod
from typing import Any, cast

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor

from pyro_ebm.core.checks import (
    check_choice,
    check_nonnegative,
    check_positive_integer,
    is_implicit,
)
from pyro_ebm.core.infer.metrics import record_figures
from pyro_ebm.core.objectives.kale import (
    DIRECTIONS,
    FORMS,
    check_log_normalizer,
    choose_base_loss,
    fenchel_bound,
    log_normalizer_gradient,
    log_partition,
)
from pyro_ebm.pyro.distributions.bound_energy import score_only
from pyro_ebm.pyro.objectives.negatives import (
    evaluate_both,
    record_effective_samples,
    record_energies,
)

__all__ = ["KALE"]


class KALE:
    r"""Objective that maximises the likelihood of an energy relative to its base.

    .. math::
        L = -\mathbb E_p[E] - \log \mathbb E_{p_0}[e^{-E}] \le \mathrm{KL}(p \| p_0), \qquad
        \mathrm{KL}(p \| q) = \mathrm{KL}(p \| p_0) - L, \qquad q \propto e^{-E} p_0

    Its maximum over energies is a divergence from base to data, the KL approximate lower-bound
    estimate: with smooth energies it is finite, and shrinks as the base moves onto the data, also
    where their supports are disjoint and KL is infinite. It needs draws of the base and no MCMC,
    and no density of the base. Where there is one, the loss of a value estimates its negative
    log-likelihood; where there is none, :math:`-\log p_0` is left out:

    .. math::
        \ell(x) = E(x) + \hat A - \log p_0(x), \qquad
        \hat A = \log \frac1M \sum_{m=1}^M e^{-E(y_m)}, \quad y_m \sim p_0

    Form ``"fenchel"`` has :math:`A + e^{\hat A - A} - 1 \ge \hat A` in the place of
    :math:`\hat A`, with a number A that is learned: the mean loss is then an upper bound, and its
    gradient in the energy has no bias. The guide declares A, see the example; start it near the
    log-normalizer.

    All players move in one step. The energy follows the loss, draws held constant. A follows the
    bound, or a safer direction. The base follows ``base_loss``:

    | ``"full"``: :math:`\hat A - \log p_0(x)`, the whole likelihood. Default with a density.
    | ``"likelihood"``: :math:`-\log p_0(x)`, as if there were no energy.
    | ``"generalized"``: :math:`L`, that is :math:`-\hat A`; the base meets the energy as a
      generator meets a critic. Default, and the only one, without a density.

    The gradient of :math:`\hat A` weighs draws by :math:`e^{-E(y_m)}`, and goes through them where
    the base has ``rsample``, else through :math:`\log p_0(y_m)`. A base with neither, and one
    whose parameters are constants, stays as it is.

    Traps:

    * :math:`\hat A` is low, by about half its relative variance: a Donsker-Varadhan loss is no
      bound of the negative log-likelihood. Report :func:`log_normalizer`'s bracket.
    * Only ``effective_samples`` of the draws count (a figure of health): about
      :math:`M e^{-|w|^2}` for an energy of slope w over a standard normal base. If they are few,
      the base misses data: a better base helps, more draws, a penalty.
    * The safe direction settles at :math:`-\log \mathbb E[e^{-\hat A}]`, which is lower than the
      log-normalizer. In the end switch it off, or estimate A anew.
    * :math:`e^{\hat A - A}` explodes where A lags (``normalizer_lag``, the figure of health
      :math:`A - \hat A`, is far below zero), and the safe direction where it is far above.

    With densities g, the base, and d and a number c, the energy
    :math:`E(x) = \log g(x) - \log d(x) + c`, g held constant in it, makes the model d itself: A is
    :math:`-c`, and with ``log_normalizer=lambda: -c`` the ``log_prob`` of ``EnergyBased`` is
    :math:`\log d` exactly. So the paper fits pairs of flows, with ``base_loss="likelihood"``.

    Args:
        form: ``"donsker_varadhan"`` for :math:`\hat A` or ``"fenchel"`` for its bound.
        num_base_samples: :math:`M`, draws for each element of the base's batch (usually there is
            one).
        gradient_penalty: :math:`\lambda \ge 0` of :math:`\lambda |\nabla_x E(\hat x)|^2`, at a
            uniform random point :math:`\hat x` between the value and a draw of the base. It keeps
            the energy smooth, as an implicit base needs: 0.1 to 1, more while few draws count.
        base_loss: What the base minimises, see above.
        safe_gradient: Whether A descends along :math:`e^{A - \hat A} - 1`, which is never below
            -1, in the place of the derivative :math:`1 - e^{\hat A - A}` of the bound.

    Raises:
        ValueError: If an argument is out of range; in ``loss``, if there is no base, one that
            cannot be sampled, or one without the density that ``base_loss`` needs, or if the guide
            declares no log-normalizer for the Fenchel form, or one for the other.

    Example:
        A learned log-normalizer, faster than the energy:

        >>> def guide(x):  # doctest: +SKIP
        ...     log_normalizer = pyro.param("log_normalizer", torch.tensor(0.0))
        ...     auxiliary("x", log_normalizer=log_normalizer)
        >>> def rates(name):  # doctest: +SKIP
        ...     return {"lr": 1e-2 if name == "log_normalizer" else 1e-3}
        >>> loss = EnergyELBO(KALE(form="fenchel", num_base_samples=2000))  # doctest: +SKIP
        >>> svi = SVI(model, guide, pyro.optim.Adam(rates), loss)  # doctest: +SKIP

        A flow of zuko as base, trained with its tilt:

        >>> def model(x):  # doctest: +SKIP
        ...     pyro.module("flow", flow)
        ...     pyro.module("energy", energy)
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", EnergyBased(energy, flow()), obs=x)
        >>> svi = SVI(model, lambda x: None, optimizer, EnergyELBO(KALE()))  # doctest: +SKIP

    References:
        | Generalized Energy Based Models (Arbel et al., 2021)
        | https://arxiv.org/abs/2003.05033
    """

    def __init__(
        self,
        *,
        form: str = "donsker_varadhan",
        num_base_samples: int = 1000,
        gradient_penalty: float = 0.0,
        base_loss: str | None = None,
        safe_gradient: bool = True,
    ) -> None:
        self.form = check_choice("form", form, FORMS)
        self.num_base_samples = check_positive_integer("num_base_samples", num_base_samples)
        self.gradient_penalty = check_nonnegative("gradient_penalty", gradient_penalty)
        self.base_loss = base_loss
        if base_loss is not None:
            check_choice("base_loss", base_loss, DIRECTIONS)
        self.safe_gradient = safe_gradient

    def __repr__(self) -> str:
        return (
            f"KALE(form={self.form!r}, num_base_samples={self.num_base_samples}, "
            f"gradient_penalty={self.gradient_penalty}, base_loss={self.base_loss!r})"
        )

    def loss(
        self, distribution: Any, value: Tensor, *, log_normalizer: Tensor | None = None
    ) -> Tensor:
        """Loss of each value, with gradients for energy, base and log-normalizer.

        Args:
            distribution: An energy-based distribution.
            value: Shape ``(*batch, *event)``; held constant.
            log_normalizer: A of the Fenchel form, a number or of the base's batch shape.

        Returns:
            Shape ``(*batch,)``: an estimate of the negative log-likelihood, or of
            :math:`E(x) + A` where the base has no density; plus the penalty.
        """
        base = distribution.base
        base_loss = choose_base_loss(self.base_loss, base)
        check_log_normalizer(self.form, log_normalizer, base.batch_shape)
        value, direction = value.detach(), DIRECTIONS[base_loss]
        draws, score = self._draw(base, direction)
        if log_normalizer is None:
            loss, negative = _evaluate(distribution, value, draws)
            loss = loss + log_partition(negative - score)
        else:
            loss, negative = _evaluate(distribution, value, draws.detach())
            loss = loss + self._bound(log_partition(negative), log_normalizer)
            # A call of its own, for the base weighs draws by what the bound does not.
            held = negative.detach()
            if draws.requires_grad:
                held, _ = score_only(distribution.evaluate, draws)
            loss = loss + _slope(log_partition(held - score))
        if not is_implicit(base):
            log_density = base.log_prob(value)
            learns = base_loss != "generalized"
            loss = loss - (log_density if learns else log_density.detach())
        if self.gradient_penalty:
            penalty = _squared_slope(distribution, value, draws)
            loss = loss + self.gradient_penalty * penalty
        return loss

    def _draw(self, base: Any, direction: float) -> tuple[Tensor, Tensor | float]:
        """Draws, and a score of value zero: the base feels log-partitions through either.

        Their derivatives are ``direction`` times the true ones.
        """
        shape = torch.Size((self.num_base_samples,))
        goes_through = bool(direction) and base.has_rsample
        try:
            draws = base.rsample(shape) if goes_through else base.sample(shape).detach()
        except NotImplementedError as error:
            raise ValueError(f"Expected a base that can be sampled, got {base}.") from error
        if goes_through:
            return draws.detach() + direction * _slope(draws), 0.0
        if direction and not is_implicit(base):
            return draws, direction * _slope(base.log_prob(draws))
        return draws, 0.0

    def _bound(self, partition: Tensor, log_normalizer: Tensor) -> Tensor:
        """The bound of a log-partition; what A descends along need not be its derivative."""
        constant, fixed = log_normalizer.detach(), partition.detach()
        gradient = log_normalizer_gradient(fixed, constant, safe=self.safe_gradient)
        record_figures(normalizer_lag=lambda: (constant - fixed).mean())
        return fenchel_bound(partition, constant) + gradient * _slope(log_normalizer)


def _evaluate(distribution: Any, value: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Energies of values and of draws, in one call; their figures of health."""
    positive, negative = evaluate_both(
        distribution.evaluate, value, draws, distribution.event_shape
    )
    record_energies(positive, negative)
    record_effective_samples(-negative)
    return positive, negative


def _slope(x: Tensor) -> Tensor:
    """Zero, with the gradient of x."""
    return x - x.detach()


def _squared_slope(distribution: Any, value: Tensor, draws: Tensor) -> Tensor:
    """Squared slope of the energy between each value and a draw; shape ``(*batch,)``."""
    event_dim = distribution.event_dim
    batch_shape = value.shape[: value.ndim - event_dim]
    # Draws are repeated where there are fewer than values.
    row_shape = batch_shape[: value.ndim - draws.ndim + 1]
    rows = torch.arange(prod(row_shape), device=draws.device) % len(draws)
    partners = draws.detach()[rows].reshape(*row_shape, *draws.shape[1:])
    weights = torch.rand(batch_shape + (1,) * event_dim, dtype=value.dtype, device=value.device)
    between = weights * value + (1 - weights) * partners
    # With torch.func, for a leaf of autograd would stay in the loss: one more thing to be trained.
    slope = torch.func.grad(lambda x: distribution.evaluate(x).sum())(between)
    return cast(Tensor, sum_rightmost(slope.square(), event_dim))
