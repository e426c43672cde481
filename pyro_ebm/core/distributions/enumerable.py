"""Enumeration of one code, for the host's own sums over discrete variables."""

from typing import Any

from array_api_compat import array_namespace


class Enumerable:
    """Distribution whose values the host can enumerate where its base is over one code."""

    base: Any
    batch_shape: Any
    event_shape: Any

    @property
    def has_enumerate_support(self) -> bool:
        """Enumeration by the host: of a base over one code."""
        return not self.event_shape and bool(getattr(self.base, "has_enumerate_support", False))

    def enumerate_support(self, expand: bool = True) -> Any:  # noqa: FBT001, FBT002
        """List all codes, shape ``(num_codes, *batch)``, or ones for ``batch`` without ``expand``.

        Raises:
            NotImplementedError: If the base has events, or values that are no codes.
        """
        if not self.has_enumerate_support:
            raise NotImplementedError(
                f"Expected a base over one code where the host enumerates, got {self.base}: draw "
                "the codes of an event in the guide, with TraceGraph_ELBO, or by "
                "SamplerKernel(model, Gibbs())."
            )
        values = self.base.enumerate_support(expand=False)
        xp, num_codes = array_namespace(values), values.shape[0]
        values = xp.reshape(values, (num_codes, *(1,) * len(self.batch_shape)))
        return xp.broadcast_to(values, (num_codes, *self.batch_shape)) if expand else values
