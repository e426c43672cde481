"""The contract between an objective and whatever trains with it."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, ClassVar, NamedTuple, Self

Metrics = Mapping[str, Callable[..., Any]]


class Loss(NamedTuple):
    """Loss of each value, and metrics to read during training.

    Attributes:
        value: Shape ``(*batch,)``, differentiable in everything that the objective trains.
        metrics: By name, functions that return a scalar array; of no argument, or of ``counts``,
            how often each value counts, by default once. They run only when someone reads them.
            Names in use:

            | ``energy_gap``: mean energy of negatives minus mean energy of values; in energy
              discrepancy and bidirectional bounds of potentials, which include the base.
            | ``energy_scale``: standard deviation of all of these energies.
            | ``effective_sample_size``: of weighted draws, the smallest over the batch.
    """

    value: Any
    metrics: Metrics

    def read(self, counts: Any = None) -> dict[str, Any]:
        """Read all metrics, where each value counts as often as ``counts``, shape ``(*batch,)``."""
        return {
            name: metric(counts=counts) if "counts" in signature(metric).parameters else metric()
            for name, metric in self.metrics.items()
        }


class EvaluatedLoss(Loss):
    """Loss of an objective that has evaluated potentials at the values themselves.

    Attributes:
        potential: What :meth:`EnergyBased.potential` gives at the values, shape ``(*batch,)``; the
            log-density of an observed site need not be evaluated again. None if unknown.
    """

    potential: Any

    def __new__(cls, value: Any, metrics: Metrics, potential: Any = None) -> Self:
        """Make a pair that knows its potentials."""
        self = super().__new__(cls, value, metrics)
        self.potential = potential
        return self


class Objective:
    """Base of the settings of all objectives.

    Objectives are frozen dataclasses. The core's classes hold settings, checks and formulas; each
    host's class of the same name adds ``loss``. An objective of your own need not derive from
    this class: any object with such a ``loss`` will do.
    """

    # The host's function that holds an array constant.
    _constant: ClassVar[Any]

    # Whether the gradient on a batch is, on average, the mean of those on parts of it, which
    # devices take. If not, it has the bias of the draws and values of one, whatever their number.
    _is_mean_over_parts: ClassVar[Any] = True

    def loss(self, *args: Any, **attached: Any) -> Loss:
        """Compute the loss of each value, differentiable in the parameters of energy and base.

        Args:
            *args: ``(distribution, value)``, in NumPyro ``(rng_key, distribution, value)``: an
                :class:`EnergyBased` and values of shape ``(*batch, *event)``, held constant.
            **attached: Learned parts that the guide attached to the site, by name. An objective
                that compares values with each other may take ``weights`` beside them: how often
                each value counts, shape ``(*batch,)``, by masks and scales.

        Returns:
            A :class:`Loss`, or any pair of a loss and a mapping of metrics.
        """
        raise NotImplementedError(f"{type(self).__name__} is the settings half of an objective.")

    def check_energy(self, distribution: Any, value: Any, counts: Any, site: str) -> None:
        """Raise if this objective cannot train an energy; called once, at values of a site."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raise: Pyro's ``SVI`` calls its loss, which an objective alone is not."""
        raise TypeError(
            f"Expected `loss` of SVI to be an ELBO, got {self}: write EnergyELBO(objective)."
        )

    @property
    def multi_sample_guide(self) -> bool:
        """Raise: NumPyro's ``SVI`` asks this of its loss."""
        return self()
