"""Adapters to the hosts, with the same names, and the settings of training that they share."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

Nets = dict[str, Any]


def load(name: str) -> Any:
    """Import the adapter of ``pyro`` or ``numpyro``."""
    return import_module(f"evidence.hosts.{name}")


@dataclass(frozen=True)
class Adam:
    """Adam of one network or of all.

    Attributes:
        rate: Learning rate at the start; it falls to zero along half a cosine.
        betas: Decays of the moments.
        weight_decay: Decoupled, as in AdamW.
        condition: Predicate on the count of steps; the network moves where it holds.
        every: Steps for each move where there is a condition.
    """

    rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    condition: Callable[[Any], Any] | None = None
    every: int = 1


@dataclass(frozen=True, eq=False)
class InferenceSettings:
    """Model, guide and loss of an ``SVI``, and its optimizers.

    Attributes:
        model: Called as ``model(nets, ...)``; networks are registered where they are looked up.
        guide: Called the same way.
        loss: ELBO.
        adam: Settings for all networks, or for each by name.
        num_steps: Number of steps over which rates fall.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    loss: Any
    adam: Adam | dict[str, Adam]
    num_steps: int

    def train(
        self, nets: Nets, blocks: Iterable[Any], *, decay: float = 0.0
    ) -> Iterator[tuple[Nets, int]]:
        """Step through blocks of batches, each of shape ``(num_steps, *batch)``.

        Steps whose loss or gradient is not finite are refused and change nothing.

        Args:
            nets: Networks at the start.
            blocks: Blocks of batches.
            decay: Decay of the moving average of weights that stands for the networks.

        Yields:
            After each block the networks, and the number of its steps that were refused.
        """
        raise NotImplementedError

    def fit(self, nets: Nets, *args: Any, **kwargs: Any) -> Nets:
        """Train for ``num_steps`` steps on the same arguments."""
        raise NotImplementedError

    def metrics(self, nets: Nets, *args: Any) -> dict[str, Any]:
        """Compute the loss's metrics, after :meth:`fit`."""
        raise NotImplementedError


def train_all(
    inference: InferenceSettings, start: Nets, blocks: Iterable[Any], **options: Any
) -> Nets:
    """Return the networks after all blocks.

    Raises:
        RuntimeError: If a step was refused.
    """
    nets = start
    for trained, refused in inference.train(start, blocks, **options):
        if refused:
            raise RuntimeError(f"Expected finite losses, got {refused} that are not.")
        nets = trained
    return nets


def fair_bits(host: Any, num_bits: int) -> Any:
    """Distribution of independent bits, as numbers."""
    columns, half = num_bits * [host.ebm.Column.nominal(2)], np.full((num_bits, 2), np.log(0.5))
    return host.ebm.ColumnMarginals(columns, np.zeros(num_bits), np.ones(num_bits), half)


def no_guide(*args: Any, **kwargs: Any) -> None:
    """Guide of a model without latent variables."""
    del args, kwargs
