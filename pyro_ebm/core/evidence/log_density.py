"""Normalized log-densities of held-out values."""

from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.evidence.log_marginal import LogMarginal
from pyro_ebm.core.evidence.log_normalizer import LogNormalizer


def log_density(distribution: Any, value: Any, log_normalizer: LogNormalizer) -> LogMarginal:
    r"""Evaluate :math:`\log p(x)` of an energy-based distribution, with the error of its log Z.

    The value is ``distribution.normalized(log_normalizer).log_prob(value)``, which has no error.

    Args:
        distribution: An energy-based distribution.
        value: Held-out values, shape ``(*sample, *batch, *event)``.
        log_normalizer: Result of ``log_normalizer``.

    Raises:
        TypeError: If ``log_normalizer`` is another number.
    """
    if not isinstance(log_normalizer, LogNormalizer):
        raise TypeError(
            "Expected a result of log_normalizer(distribution), got "
            f"{type(log_normalizer).__name__}: a number without an error goes into "
            "`distribution.normalized(...).log_prob(value)`."
        )
    density = distribution.normalized(log_normalizer).log_prob(value)
    zeros = array_namespace(density).zeros_like(density)
    error = zeros + log_normalizer.standard_error
    return LogMarginal(density, error, zeros + log_normalizer.effective_sample_size, error)
