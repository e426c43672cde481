"""KALE: likelihood of an energy relative to its base, which need not have a density."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_choice, check_nonnegative, check_positive_integer
from pyro_ebm.core.distributions.checks import is_implicit
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.numerics import log_mean_exp, sum_event
from pyro_ebm.core.objectives.loss import EvaluatedLoss, Objective
from pyro_ebm.core.objectives.negatives import (
    check_base_loss,
    energy_metrics,
    is_reparametrized,
    scaled_energies,
    weight_metrics,
)
from pyro_ebm.core.objectives.settings import convert_fields

# Sign with which a base descends along the log-partition.
DIRECTIONS = {"full": 1.0, "generalized": -1.0, "likelihood": 0.0}

# Larger exponents are cut: a log-normalizer that lags so far behind is wrong in any case.
_LARGEST_EXPONENT = 30.0


@dataclass(frozen=True, kw_only=True)
class KALE(Objective):
    r"""Objective that maximizes the likelihood of an energy relative to its base.

    .. math::
        L = -\mathbb E_p[E] - \log \mathbb E_{p_0}[e^{-E}] \le \mathrm{KL}(p \| p_0), \qquad
        \mathrm{KL}(p \| q) = \mathrm{KL}(p \| p_0) - L, \qquad q \propto e^{-E} p_0

    Its maximum over energies is a divergence from base to data, the KL approximate lower-bound
    estimate: with smooth energies it is finite, and shrinks as the base moves onto the data, even
    where their supports are disjoint and KL is infinite. It needs draws of the base, but neither
    MCMC nor a density of the base. With a density, the loss of a value estimates its negative
    log-likelihood; without, :math:`-\log p_0` is left out:

    .. math::
        \ell(x) = E(x) + \hat A - \log p_0(x), \qquad
        \hat A = \log \frac1M \sum_{m=1}^M e^{-E(y_m)}, \quad y_m \sim p_0

    Form ``"fenchel"`` replaces :math:`\hat A` by :math:`A + e^{\hat A - A} - 1 \ge \hat A` with a
    learned number A, attached as ``log_normalizer`` (a scalar, or of the base's batch shape): the
    mean loss is then an upper bound, and its gradient in the energy is unbiased. Start A near the
    log-normalizer and give it a larger learning rate than the energy.

    All players move in one step. The energy follows the loss, draws held constant. A follows the
    bound, or a safer direction. The base follows ``base_loss``:

    | ``"full"``: :math:`\hat A - \log p_0(x)`, the whole likelihood. Default with a density.
    | ``"likelihood"``: :math:`-\log p_0(x)`, as if there were no energy.
    | ``"generalized"``: :math:`L`, that is :math:`-\hat A`; the base plays against the energy as
      a generator plays against a critic. Default, and the only choice, without a density.

    The gradient of :math:`\hat A` weighs draws by :math:`e^{-E(y_m)}`, and goes through them where
    the base has ``rsample`` and no wider support, else through :math:`\log p_0(y_m)`. A base with
    neither, and one whose parameters are constants, stays as it is.

    Traps:

    * :math:`\hat A` is low, by about half its relative variance: a Donsker-Varadhan loss does not
      bound the negative log-likelihood. Report the bracket of :func:`log_normalizer`. Processes
      that average their gradients have each their own :math:`\hat A`; A they share.
    * Only ``effective_sample_size`` (a metric) of the draws carry weight: about
      :math:`M e^{-|w|^2}` for an energy of gradient w over a standard normal base. If they are few,
      the base misses data: use a better base, more draws, or a penalty.
    * The safe direction settles at :math:`-\log \mathbb E[e^{-\hat A}]`, which is lower than the
      log-normalizer. Near the end switch it off, or estimate A anew.
    * :math:`e^{\hat A - A}` explodes where A lags (the metric ``normalizer_lag``,
      :math:`A - \hat A`, is far below zero), and the safe direction where it is far above.

    With densities g, the base, and d and a number c, the energy
    :math:`E(x) = \log g(x) - \log d(x) + c`, g held constant in it, makes the model d itself: A is
    :math:`-c`, and with ``log_normalizer=lambda: -c`` the ``log_prob`` of ``EnergyBased`` is
    :math:`\log d` exactly. This is how the paper fits pairs of flows, with
    ``base_loss="likelihood"``.

    Args:
        form: ``"donsker_varadhan"`` for :math:`\hat A` or ``"fenchel"`` for its bound.
        num_samples: :math:`M`, draws for each element of the base's batch (usually there is one).
        gradient_penalty: :math:`\lambda \ge 0` of :math:`\lambda |\nabla_x E(\hat x)|^2`, at a
            uniform random point :math:`\hat x` between the value and a draw of the base. It keeps
            the energy smooth, as an implicit base needs: 0.1 to 1, more while few draws count.
        base_loss: Loss of the base, see above.
        safe_gradient: Whether A descends along :math:`e^{A - \hat A} - 1`, which is never below
            -1, instead of the derivative :math:`1 - e^{\hat A - A}` of the bound.

    Raises:
        ValueError: If an argument is out of range; in ``loss``, if there is no base, one that
            cannot be sampled, or one without the density that ``base_loss`` needs, or if a
            log-normalizer is missing for the Fenchel form, or attached for the other.

    References:
        | Generalized Energy Based Models (Arbel et al., 2021), https://arxiv.org/abs/2003.05033
    """

    # The host's function that evaluates another one with its parameters held constant.
    _frozen: ClassVar[Any]
    # The host's gradient of a function of one array.
    _gradient: ClassVar[Any]
    # The host's class of shapes.
    _shape: ClassVar[Any] = tuple

    form: str = "donsker_varadhan"
    num_samples: int = 1000
    gradient_penalty: float = 0.0
    base_loss: str | None = None
    safe_gradient: bool = True

    def __post_init__(self) -> None:
        check_choice("form", self.form, ("donsker_varadhan", "fenchel"))
        if self.base_loss is not None:
            check_choice("base_loss", self.base_loss, DIRECTIONS)
        convert_fields(self, num_samples=check_positive_integer, gradient_penalty=check_nonnegative)

    @property
    def _is_mean_over_parts(self) -> bool:
        return self.form == "fenchel"

    def _draw(self, distribution: Any, log_normalizer: Any, *rng_key: Any) -> tuple[Any, Any, bool]:
        """Draws of the base, a term of value zero, and whether the draws have the base's gradient.

        Else the zero has that of their log-density. The base follows its direction times the
        gradient of the log-partition, through one of the two.
        """
        base, constant = distribution.base, self._constant
        direction = DIRECTIONS[choose_base_loss(self.base_loss, base)]
        check_log_normalizer(self.form, log_normalizer, base.batch_shape)
        through = bool(direction) and is_reparametrized(distribution)
        try:
            draw = base.rsample if through else base.sample
            draws = draw(*rng_key, self._shape((self.num_samples,)))
        except NotImplementedError as error:
            raise ValueError(f"Expected a base that can be sampled, got {base}.") from error
        fixed, zero = constant(draws), 0.0
        if through:
            return fixed + direction * (draws - fixed), zero, through
        if direction and not is_implicit(base):
            log_density = base.log_prob(fixed)
            zero = direction * (log_density - constant(log_density))
        return fixed, zero, through

    def _loss(
        self,
        distribution: Any,
        value: Any,
        draws: Any,
        zero: Any,
        log_normalizer: Any,
        *,
        through: bool,
    ) -> EvaluatedLoss:
        """Loss without penalty, with metrics.

        The base is trained ``through`` draws or by ``zero``, which has their density's gradient.
        """
        base, constant = distribution.base, self._constant
        evaluated = draws if log_normalizer is None else constant(draws)
        potential, negative = scaled_energies(distribution, value, evaluated)
        metrics = self._metrics(potential, negative)
        if log_normalizer is None:
            loss = potential + log_partition(negative - zero)
        else:
            partition = log_partition(negative)
            lag = constant(log_normalizer - partition)
            metrics["normalizer_lag"] = lambda: array_namespace(lag).mean(lag)
            loss = potential + self._bound(partition, log_normalizer)
            # The base weighs draws otherwise than the bound does.
            negative = constant(negative)
            if through:
                negative, _ = self._frozen(partial(scaled_energy, distribution), draws)
            of_base = log_partition(negative - zero)
            loss = loss + (of_base - constant(of_base))
        if not is_implicit(base):
            log_density = base.log_prob(value)
            potential = potential - log_density
            is_learned = choose_base_loss(self.base_loss, base) != "generalized"
            loss = loss - (log_density if is_learned else constant(log_density))
        return EvaluatedLoss(loss, metrics, potential)

    def _bound(self, partition: Any, log_normalizer: Any) -> Any:
        """Bound of a log-partition, with the gradient in A that was set."""
        fixed, lagging = self._constant(log_normalizer), self._constant(partition)
        gradient = log_normalizer_gradient(lagging, fixed, safe=self.safe_gradient)
        return fenchel_bound(partition, fixed) + gradient * (log_normalizer - fixed)

    def _penalized(self, found: EvaluatedLoss, distribution: Any, between: Any) -> EvaluatedLoss:
        """Add the penalty on the energy's gradient at these points, one for each value."""

        def total(x: Any) -> Any:
            return array_namespace(x).sum(scaled_energy(distribution, x))

        penalty = sum_event(self._gradient(total)(between) ** 2, distribution.event_dim)
        loss = found.value + self.gradient_penalty * penalty
        return EvaluatedLoss(loss, found.metrics, found.potential)

    def _metrics(self, positive: Any, negative: Any) -> dict[str, Callable[..., Any]]:
        positive, negative = self._constant(positive), self._constant(negative)
        return {**energy_metrics(positive, negative), **weight_metrics(-negative)}


def log_partition(energies: Any) -> Any:
    r"""Estimate the log-normalizer of an energy relative to its base, from M draws of the base.

    .. math:: \hat A = \log \frac1M \sum_{m=1}^M e^{-E(y_m)}, \qquad y_m \sim p_0

    It is low on average (Jensen's inequality), its exponential is unbiased. Its gradient weighs
    draws by ``softmax(-energies)``. The Donsker-Varadhan loss :math:`E(x) + \hat A` has the mean
    :math:`-L` over data p, with :math:`L \le \mathrm{KL}(p \| p_0)` and equality for
    :math:`E = -\log p / p_0`.

    Energies :math:`E(y_m)` have shape ``(M, *context)``, the result ``(*context,)``.
    """
    return log_mean_exp(-energies)


def fenchel_bound(log_partition: Any, log_normalizer: Any) -> Any:
    r"""Bound a log-partition from above, linearly in its exponential.

    .. math:: \hat A \le A + e^{\hat A - A} - 1

    Tight at :math:`A = \hat A`. Its mean over independent draws is its value at the exact
    log-partition. In place of :math:`\hat A` it gives a loss of mean :math:`-F`, and
    :math:`L - F = (A - \hat A) + e^{\hat A - A} - 1 \ge 0`.

    All have shape ``(*context,)``, A may be a number. An exponent above 30 counts as 30, and
    passes no gradient.
    """
    xp = array_namespace(log_partition)
    return log_normalizer + xp.expm1(_capped(log_partition - log_normalizer))


def log_normalizer_gradient(log_partition: Any, log_normalizer: Any, *, safe: bool) -> Any:
    r"""Compute the direction that a log-normalizer A descends along.

    The derivative :math:`g = 1 - e^{\hat A - A}` of :func:`fenchel_bound` in A; or, ``safe``,

    .. math:: \frac{g}{1 - g} = e^{A - \hat A} - 1

    which has the same root and is at least -1 where A lags behind and g explodes. Averaged over
    noisy :math:`\hat A`, the first is zero at :math:`A = \log \mathbb E[e^{\hat A}]`, the exact
    log-partition, and the second at :math:`A = -\log \mathbb E[e^{-\hat A}]`, which is lower.

    All have shape ``(*context,)``, A may be a number. Exponents above 30 count as 30.
    """
    xp = array_namespace(log_partition)
    lag = log_partition - log_normalizer
    return xp.expm1(_capped(-lag)) if safe else -xp.expm1(_capped(lag))


def choose_base_loss(base_loss: str | None, base: Any) -> str:
    """Return the loss of a base: the setting, or a default by whether it has a density.

    Raises:
        ValueError: If there is no base, or no density where one is needed.
    """
    if base is None:
        raise ValueError("Expected a base to draw from, got base=None.")
    if base_loss is None:
        return "generalized" if is_implicit(base) else "full"
    check_base_loss(base_loss, base)
    return base_loss


def check_log_normalizer(form: str, log_normalizer: Any, context: tuple[int, ...]) -> None:
    """Raise unless a log-normalizer is attached for the Fenchel form, and for it alone.

    It is a number, or of the shape ``context``, the base's batch shape.
    """
    if (log_normalizer is None) == (form == "fenchel"):
        raise ValueError(
            "Expected a log-normalizer, attach(site, log_normalizer=...) in the guide, for "
            f"form='fenchel' and for no other, got form={form!r} and "
            f"{'none' if log_normalizer is None else 'one'}."
        )
    shape = tuple(getattr(log_normalizer, "shape", ()))
    if shape not in {(), tuple(context)}:
        raise ValueError(
            "Expected `log_normalizer` to be a number or to have the batch shape of the base, "
            f"{tuple(context)}, got shape {shape}."
        )


def _capped(exponent: Any) -> Any:
    xp = array_namespace(exponent)
    return xp.clip(exponent, max=_LARGEST_EXPONENT)
