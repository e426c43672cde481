"""Energy-based sites of a model, and checks of what objectives and guides give for them."""

import inspect
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_instance
from pyro_ebm.core.distributions.checks import check_value_shape
from pyro_ebm.core.infer.site_values import check_values, with_counted_rows
from pyro_ebm.core.numerics import as_real, effective_sample_size
from pyro_ebm.core.objectives.doubts import INSPECTED, doubts
from pyro_ebm.core.objectives.loss import EvaluatedLoss, Loss

ADVICE = (
    "If training diverged, try a smaller learning rate, more or smaller steps of the sampler "
    "that draws negatives, or a penalty on energies."
)

# The argument of `loss` that comes from the site, not from the guide.
WEIGHTS = "weights"


@dataclass
class EnergySite(ABC):
    """An energy-based site, recorded during a run of the model.

    Attributes:
        name: Name of the site.
        fn: Its distribution, with its wrappers.
        energy: Its distribution, without wrappers.
        value: Its value, held constant.
        scale: Factor on its log-density, from subsampling plates and the like.
        plates: Frames of the plates around it.
        objective: Trains it; None if nothing does.
        attached: Parts that the guide attached to it, by name.
    """

    name: str
    fn: Any
    energy: Any
    value: Any
    scale: Any
    plates: tuple[Any, ...]
    objective: Any
    attached: Mapping[str, Any]

    # Of persistent chains, after their move; None without.
    acceptance_rate = None
    # The host's gradient of a function of one array.
    _gradient: ClassVar[Callable[..., Any]]
    # Whether the host knows the number in an array, which it does not inside of `jit`.
    _is_known: ClassVar[Callable[[Any], Any]]

    def check(self) -> None:
        """Raise if the value or a part has a wrong shape or name, or a dimension is no plate."""
        check_value_shape(self.value.shape, self.fn.event_shape, f" at site {self.name!r}")
        plate_dims = {plate.dim for plate in self.plates if plate.dim is not None}
        check_plates(self.name, self._shape_of_normalizers(), plate_dims)
        if self.objective is not None:
            check_attached(self.name, self.objective.loss, self.attached)
            self._check_copies()

    def check_rows(self) -> None:
        """Raise unless rows of the energy are independent, and the objective can train it."""
        check_energy = getattr(self.objective, "check_energy", None)
        counts = self._counts()

        def check(energy: Any, value: Any) -> Any:
            if self._is_known(value) and self._is_known(counts):
                check_values(self.name, energy, value, counts)
            energy._check_rows(value, self.name)
            if check_energy is not None:
                check_energy(energy, value, counts, self.name)
            return _ones(energy, value)

        self._map(check)

    def warn_of_parts(self, num_devices: int) -> None:
        """Warn of an objective that devices train otherwise than one device with all values."""
        if num_devices > 1 and not getattr(self.objective, "_is_mean_over_parts", True):
            warnings.warn(
                f"The gradient of {self.objective} at site {self.name!r} is normalized by the "
                f"draws and values of each of {num_devices} devices, and the mean over devices "
                "has the bias of one: give each enough of them.",
                stacklevel=2,
            )

    def loss(self, *rng_key: Any) -> Loss:
        """Loss of each batch element, and metrics."""
        metrics: dict[str, Callable[..., Any]] = {}
        parts, potential = dict(self._parts()), None
        compares = WEIGHTS in keywords_of(self.objective.loss)
        counts = self._counts() if compares or self._is_masked else None
        if compares:
            parts[WEIGHTS] = counts

        def value_of(energy: Any, value: Any) -> Any:
            if self._is_masked:
                energy, value = with_counted_rows(energy, value, counts, *rng_key)
            result = self.objective.loss(*rng_key, energy, value, **parts)
            loss = as_loss(self.objective, result)
            metrics.update(loss.metrics)
            nonlocal potential
            potential = getattr(loss, "potential", None)
            return loss.value

        value, rate = self._map(value_of), self.acceptance_rate
        if rate is not None:
            metrics.setdefault("acceptance_rate", lambda: rate)
        return EvaluatedLoss(value, metrics, potential)

    def metrics(self, *rng_key: Any, num_normalizer_samples: int = 0) -> dict[str, Any]:
        """Mean of the objective over batch elements, and its metrics; warns if they are bad.

        With the effective sample size of the draws behind the reported log-normalizer.
        """
        loss = self.loss(*rng_key)
        read = loss.read(self._counts())
        if num_normalizer_samples and self.energy.base is not None:
            log_weights = self._log_weights(num_normalizer_samples, *rng_key)
            size = effective_sample_size(log_weights)
            read["effective_normalizer_samples"] = array_namespace(size).min(size)
        known = {name: float(read[name]) for name in INSPECTED if self._is_known(read.get(name))}
        for message in doubts(self.name, known, math.prod(loss.value.shape)):
            warnings.warn(message, stacklevel=3)
        ones = array_namespace(loss.value).broadcast_to(self._map(_ones), loss.value.shape)
        return {"objective": self.total(loss.value) / self.total(ones), **read}

    def _shape_of_normalizers(self) -> tuple[int, ...]:
        """Shape of the batch, in which each element has a log-normalizer."""
        return tuple(self.fn.batch_shape)

    @abstractmethod
    def total(self, per_element: Any) -> Any:
        """Sum numbers over batch elements as the host does, with scale and mask."""

    @abstractmethod
    def _map(self, function: Callable[[Any, Any], Any]) -> Any:
        """Evaluate the log-density of ``fn`` with ``function(energy, value)`` in its place."""

    @property
    def _is_masked(self) -> bool:
        """Presence of a mask: some values may not count."""
        fn = self.fn
        while hasattr(fn, "base_dist") and not hasattr(fn, "_mask"):
            fn = fn.base_dist
        return hasattr(fn, "_mask")

    @abstractmethod
    def _log_weights(self, num_samples: int, *rng_key: Any) -> Any:
        """Log-weights of draws of the base, shape ``(num_samples, *batch)``."""

    def _check_copies(self) -> None:
        """Raise where an objective would compare values that an enumerated variable transforms."""
        shape, own = tuple(self.fn.batch_shape), self._shape_of_normalizers()
        if shape != own and WEIGHTS in keywords_of(self.objective.loss):
            raise ValueError(
                "Expected an objective of one value at a time where an enumerated variable "
                f"transforms site {self.name!r}, got {self.objective}, which compares values."
            )

    def _parts(self) -> Mapping[str, Any]:
        return self.attached

    def _counts(self) -> Any:
        """Count how often the host takes each value, by masks and scales."""
        ones: list[Any] = []

        def note(energy: Any, value: Any) -> Any:
            ones.append(_ones(energy, value))
            return ones[0]

        self._map(note)
        # Whatever wraps the energy: how the sum changes with the number of one value.
        return self._gradient(lambda x: self.total(self._map(lambda *_: x)))(ones[0])


def objective_of(site: str, objective: Any) -> Any:
    """Objective of a site, or None, from one for all sites or a dictionary by site."""
    return objective.get(site) if isinstance(objective, Mapping) else objective


def check_objectives(objective: Any) -> None:
    """Raise ``TypeError`` unless this is one objective, or a dictionary of objectives."""
    for one in objective.values() if isinstance(objective, Mapping) else [objective]:
        check_instance("objective", one)
        if hasattr(one, "num_particles"):
            raise TypeError(
                f"Expected an objective, got the stock ELBO {type(one).__name__}: give it as "
                "EnergyELBO(objective, elbo)."
            )
        if not callable(getattr(one, "loss", None)):
            raise TypeError(f"Expected an objective with a `loss`, got {type(one).__name__}.")


def check_names(objective: Any, sites: Mapping[str, EnergySite], attached: Iterable[str]) -> None:
    """Raise unless objectives are for sites, and parts attached to sites with an objective."""
    for name in objective if isinstance(objective, Mapping) else ():
        if name not in sites:
            raise ValueError(
                "Expected objectives for energy-based sites of the model "
                f"({sorted(sites)}), got {name!r}."
            )
    trained = sorted(name for name, site in sites.items() if site.objective is not None)
    for name in attached:
        if name not in trained:
            raise ValueError(
                f"Expected attach(...) for sites with an objective ({trained}), got {name!r}."
            )


def refuse_attach(site: str) -> None:
    """Raise because a model attached something to a site."""
    raise ValueError(
        f"Expected attach({site!r}, ...) in the guide, got it in the model: the guide runs first."
    )


def keywords_of(loss: Callable[..., Any]) -> Mapping[str, bool]:
    """Return whether each keyword-only argument of an objective's ``loss`` is required."""
    return _keywords_of(getattr(loss, "__func__", loss))


@lru_cache(maxsize=64)
def _keywords_of(function: Callable[..., Any]) -> Mapping[str, bool]:
    # Once for each class: every step of SVI asks.
    return {
        name: parameter.default is parameter.empty
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def check_attached(site: str, loss: Callable[..., Any], attached: Iterable[str]) -> None:
    """Raise unless the guide attached the keyword-only arguments of an objective's ``loss``."""
    parts = {name: needed for name, needed in keywords_of(loss).items() if name != WEIGHTS}
    required = sorted(name for name, needed in parts.items() if needed)
    optional = sorted(parts.keys() - set(required))
    attached = set(attached)
    if not set(required) <= attached <= {*required, *optional}:
        or_not = f", and optionally {optional}," if optional else ""
        raise ValueError(
            f"Expected the guide to attach {required or 'nothing'}{or_not} to site {site!r} by "
            f"attach({site!r}, ...) for its objective, got {sorted(attached) or 'nothing'}."
        )


def check_plates(site: str, batch_shape: Iterable[int], plate_dims: Collection[int]) -> None:
    """Raise if a (negative) batch dimension of an energy-based site is no plate."""
    batch_shape = tuple(batch_shape)
    for dim in range(-len(batch_shape), 0):
        if batch_shape[dim] > 1 and dim not in plate_dims:
            raise ValueError(
                f"Expected every batch dimension of energy-based site {site!r} to be a plate, got "
                f"batch shape {batch_shape} with no plate at {dim}. An enumerated variable "
                "upstream needs the log-normalizer of each of its values; independent values "
                "belong in a plate or in to_event."
            )


def as_loss(objective: Any, result: Any) -> Loss:
    """Return the result of an objective's ``loss``; raise unless it is a value with metrics."""
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping):
        return result if isinstance(result, Loss) else Loss(*result)
    raise TypeError(
        f"Expected `loss` of {type(objective).__name__} to return Loss(value, metrics), got "
        f"{type(result).__name__}."
    )


def not_finite(site: str) -> ValueError:
    """Error of an objective whose loss is NaN or infinite."""
    return ValueError(
        f"Expected finite losses and energies at site {site!r}, got NaN or infinity. {ADVICE}"
    )


def without_base(site: str) -> str:
    """Warning about a reported loss without log-normalizer."""
    return (
        f"The reported loss leaves out the log-normalizer of site {site!r}, which has no base to "
        "estimate it from; num_normalizer_samples=0 turns this warning off."
    )


def _ones(energy: Any, value: Any) -> Any:
    value = value[(..., *(0 for _ in energy.event_shape))]
    return as_real(array_namespace(value).ones_like(value))
