"""Latent variables of any shapes as one vector for each element of their common plates."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.numerics import expand_left

Shape = tuple[int, ...]


@dataclass(frozen=True)
class PlateLayout:
    """Places of the values of several sites in one array of positions.

    A position has shape ``(*chains, *plate_shape, size)``: chains and plate elements are
    independent of each other, and the values of one element are one vector. Batch dimensions that
    are not in ``plate_shape`` become part of that vector.

    Args:
        plate_shape: Sizes of the common plates, one entry for each batch dimension that any site
            has; 1 where a dimension is no common plate.
        batch_shapes: Batch shape of each site, at most as long as ``plate_shape``.
        event_shapes: Event shape of each site, in the same order.
    """

    plate_shape: Shape
    batch_shapes: Mapping[str, Shape]
    event_shapes: Mapping[str, Shape]

    @classmethod
    def sharing(
        cls,
        plate_dims: Collection[int],
        depth: int,
        batch_shapes: Mapping[str, Shape],
        shapes: Mapping[str, Shape],
    ) -> "PlateLayout":
        """Make the layout of sites with common plates, of negative dimensions ``plate_dims``.

        ``depth`` batch dimensions are kept apart; ``shapes`` are those of the sites' values.
        """
        any_batch_shape = next(iter(batch_shapes.values()))
        plate_shape = [any_batch_shape[dim] if dim in plate_dims else 1 for dim in range(-depth, 0)]
        event_shapes = {name: shapes[name][len(batch) :] for name, batch in batch_shapes.items()}
        return cls(tuple(plate_shape), batch_shapes, event_shapes)

    def pack(self, values: Mapping[str, Any]) -> Any:
        """Join the values of all sites in one array, shape ``(*chains, *plate_shape, size)``.

        Values have shape ``(*batch_shape, *event_shape)``; or with ``chains`` in front of a batch
        shape that is padded with ones from the left.
        """
        xp = array_namespace(*values.values())
        parts = []
        for name, event_shape in self.event_shapes.items():
            padded, own = self._dims(name)
            value = values[name]
            num_chain_dims = max(value.ndim - len(event_shape) - len(padded), 0)
            chains = tuple(value.shape[:num_chain_dims])
            value = xp.reshape(value, chains + padded + event_shape)
            for axis in own:
                value = xp.moveaxis(value, axis + num_chain_dims, -1)
                value = xp.expand_dims(value, axis=axis + num_chain_dims)
            parts.append(xp.reshape(value, (*chains, *self.plate_shape, self._size(name))))
        return xp.concat(parts, axis=-1)

    def unpack(self, position: Any) -> dict[str, Any]:
        """Values of all sites at a position; the inverse of :meth:`pack`."""
        xp = array_namespace(position)
        chains = tuple(position.shape[: position.ndim - len(self.plate_shape) - 1])
        values, start = {}, 0
        for name, event_shape in self.event_shapes.items():
            padded, own = self._dims(name)
            stop = start + self._size(name)
            own_shape = tuple(padded[axis] for axis in own)
            shape = chains + self.plate_shape + event_shape + own_shape
            value = xp.reshape(position[..., start:stop], shape)
            for axis in reversed(own):
                value = xp.squeeze(value, axis=axis + len(chains))
                value = xp.moveaxis(value, -1, axis + len(chains))
            batch_shape = chains + padded if chains else self.batch_shapes[name]
            values[name] = xp.reshape(value, batch_shape + event_shape)
            start = stop
        return values

    def total(self, log_densities: Any) -> Any:
        """Sum over the dimensions that are no common plate; they stay with size 1.

        From shape ``(*chains, *batch_shape)`` to one that broadcasts with
        ``(*chains, *plate_shape)``.
        """
        xp = array_namespace(log_densities)
        depth = len(self.plate_shape)
        padded = expand_left(log_densities, depth)
        axes = tuple(axis - depth for axis, size in enumerate(self.plate_shape) if size == 1)
        return xp.sum(padded, axis=axes, keepdims=True) if axes else padded

    def sum_over_others(self, numbers: Any, plate_dims: Collection[int]) -> Any:
        """Sum over all batch dimensions but the given plates; nothing else is left.

        From shape ``(*chains, *batch_shape)``, batch shape padded with ones, to
        ``(*chains, *plates)``.
        """
        xp = array_namespace(numbers)
        others = tuple(d for d in range(-len(self.plate_shape), 0) if d not in plate_dims)
        return xp.sum(numbers, axis=others) if others else numbers

    def _dims(self, name: str) -> tuple[Shape, list[int]]:
        """Pad the batch shape of a site, and find its axes that are no common plate."""
        batch_shape = self.batch_shapes[name]
        padded = (1,) * (len(self.plate_shape) - len(batch_shape)) + batch_shape
        sizes = zip(padded, self.plate_shape, strict=True)
        return padded, [axis for axis, (own, shared) in enumerate(sizes) if own != shared]

    def _size(self, name: str) -> int:
        padded, own = self._dims(name)
        return prod(self.event_shapes[name]) * prod(padded[axis] for axis in own)
