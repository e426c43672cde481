"""Settings of the ELBO that trains energies."""

from dataclasses import KW_ONLY, dataclass
from typing import Any

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.infer.energy_sites import check_objectives


@dataclass(repr=False, eq=False)
class EnergyELBO:
    r"""A loss for ``SVI`` that trains energies, and all that a stock ELBO of the host trains.

    The stock ELBO runs on the model as it is. At each energy-based site, a factor of value zero is
    added whose gradient is minus the gradient of the objective's loss: the host applies plates,
    subsampling, masks and particles to it, and importance weights do not change. Without
    energy-based sites this *is* the stock ELBO, to the last bit.

    The reported number is the stock loss plus :math:`\log \hat Z` of each site, an estimate of the
    negative ELBO. :math:`\log \hat Z` comes from draws of the site's base; it is low on average and
    has no gradient. When an energy has moved far from its base, in many dimensions, few draws count
    and it is low by many nats: read the number as a trend then, and report the result of
    ``log_normalizer``.

    ``metrics(...)``, with the arguments of ``loss``, returns by site the mean of the objective over
    batch elements, ``"objective"``, the objective's metrics, for example ``"energy_gap"``, and
    ``"effective_normalizer_samples"``, how many of the draws behind :math:`\log \hat Z` count. It
    runs model and guide once more, with fresh noise, and changes nothing. Outside of ``jit`` it
    warns of metrics that show an objective not to be believed. ``MetricsRecorder`` keeps them over
    training.

    Args:
        objective: Trains the energies, for example ``EnergyDiscrepancy(variance=0.25)``; or a
            dictionary of objectives by site.
        elbo: The stock ELBO. Default: ``Trace_ELBO()``.
        num_normalizer_samples: Draws for :math:`\log \hat Z`; 0 leaves it out of the number.

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
