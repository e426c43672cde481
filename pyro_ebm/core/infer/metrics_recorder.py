"""Metrics of objectives over training."""

from collections.abc import Mapping
from math import nan
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_positive_integer


class MetricsRecorder:
    """Metrics of every trained site over training.

    Call it after each step, with the arguments of the step. Every ``every`` calls it evaluates the
    ``metrics`` of the ``EnergyELBO``, which runs model and guide once more, and keeps the numbers
    on the device. The run goes on as without it. Print it to see the last ones.

    Args:
        svi: With an ``EnergyELBO`` as its loss.
        every: Number of steps from one evaluation to the next.

    Attributes:
        steps: Numbers of the steps after which metrics were read, from 1.

    Raises:
        TypeError: If the loss is no ``EnergyELBO``.
        ValueError: If ``every`` is no positive integer.
    """

    def __init__(self, every: int) -> None:
        self.every = check_positive_integer("every", every)
        self.steps: list[int] = []
        self._num_steps = 0
        self._read: list[Mapping[str, Mapping[str, Any]]] = []

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Metrics by site and name, arrays of shape ``(len(steps),)``.

        NaN stands where a reading had no such site, as in a sequential plate that is subsampled.
        """
        known: dict[str, dict[str, Any]] = {}
        for read in self._read:
            for site, found in read.items():
                known.setdefault(site, {}).update(found)
        return {site: self._over_steps(site, last) for site, last in known.items()}

    def __str__(self) -> str:
        if not self._read:
            return f"no metrics after {self._num_steps} steps"
        sites = [
            f"{site}: " + ", ".join(f"{name} {float(found[name]):.3f}" for name in found)
            for site, found in self._read[-1].items()
        ]
        return f"after step {self.steps[-1]}, " + "; ".join(sites)

    def _is_due(self) -> bool:
        """Count a step; whether metrics are to be read after it."""
        self._num_steps += 1
        return self._num_steps % self.every == 0

    def _keep(self, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        self.steps.append(self._num_steps)
        self._read.append(metrics)

    def _over_steps(self, site: str, last: Mapping[str, Any]) -> dict[str, Any]:
        missing = {name: nan * x for name, x in last.items()}
        rows = [{**missing, **read.get(site, {})} for read in self._read]
        found = {name: [row[name] for row in rows] for name in last}
        return {name: array_namespace(*xs).stack(xs) for name, xs in found.items()}


def check_elbo(loss: Any, expected: type) -> Any:
    """Raise ``TypeError`` unless this is an ELBO that has metrics; return it."""
    if not isinstance(loss, expected):
        raise TypeError(
            f"Expected `svi` with an EnergyELBO as its loss, got {type(loss).__name__}."
        )
    return loss
