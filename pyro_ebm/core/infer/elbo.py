"""Settings of the ELBO that trains energies."""

from dataclasses import KW_ONLY, dataclass
from typing import Any

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.infer.energy_sites import check_objectives


@dataclass(repr=False, eq=False)
class EnergyELBO:
    r"""A loss for ``SVI`` that trains energies, and everything that a stock ELBO trains.

    The stock ELBO runs on the model as it is. At each energy-based site it gets an extra factor
    whose value is zero and whose gradient is minus that of the objective's loss. The host applies
    plates, subsampling, masks and particles to it as usual, and importance weights do not change.
    Without energy-based sites this *is* the stock ELBO, to the last bit.

    The returned loss is the stock loss plus :math:`\log \hat Z` of each site, an estimate of the
    negative ELBO. :math:`\log \hat Z` comes from draws of the site's base. It has no gradient, and
    is too low on average, by many nats if the energy has moved far from its base in many
    dimensions. Use the loss to follow training only, and report the result of ``log_normalizer``.
    Optimizers with a line search compare losses (``Minimize`` of NumPyro, ``strong_wolfe`` of
    LBFGS): here they stop at wrong parameters without an error, above all without log Z.

    ``metrics(...)`` takes the arguments of ``loss`` and returns a dictionary for each site:
    ``"objective"``, the mean of the objective over batch elements; the objective's own metrics,
    such as ``"energy_gap"``; and ``"effective_normalizer_samples"``, the effective sample size of
    :math:`\log \hat Z`. It runs model and guide once more, with fresh noise, and changes nothing.
    Outside ``jit`` it warns if a metric shows that training cannot be trusted. ``MetricsRecorder``
    records the metrics during training.

    Args:
        objective: Trains the energies, for example ``EnergyDiscrepancy(variance=0.25)``; or a
            dictionary of objectives by site.
        elbo: The stock ELBO. Default: ``Trace_ELBO()``.
        num_normalizer_samples: Draws for :math:`\log \hat Z`; 0 leaves it out of the loss.

    Raises:
        TypeError: If an objective has no ``loss``, or ``elbo`` is no ELBO of the host.
        ValueError: At the first step: if an objective is given for a site that is not there, a
            guide samples an energy-based distribution, a site's energy depends on another latent
            variable, a batch dimension of a site is no plate, or the guide attaches the wrong
            parts. At any step, while the host validates: if a loss is not finite.
    """

    objective: Any
    elbo: Any = None
    _: KW_ONLY
    num_normalizer_samples: int = 128

    def __post_init__(self) -> None:
        check_objectives(self.objective)
        check_positive_integer("num_normalizer_samples", self.num_normalizer_samples, minimum=0)

    def __repr__(self) -> str:
        elbo = f"{type(self.elbo).__name__}(num_particles={self.elbo.num_particles})"
        return (
            f"{type(self).__name__}({self.objective!r}, {elbo}, "
            f"num_normalizer_samples={self.num_normalizer_samples})"
        )
