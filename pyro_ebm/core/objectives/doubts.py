"""Warnings about metrics that show an objective not to be believed."""

import math
from collections.abc import Callable, Iterator, Mapping

# Among fewer values than this, one with most of the weight is no wonder.
_FEWEST_VALUES = 8

_RUNAWAY = (
    "energy and critic have run off. Train the critic at a higher learning rate, set "
    "`energy_penalty` and `critic_penalty`, or take gradient='covariance'"
)
_UNEVEN = "energies differ too much. Take `gamma` nearer to 0, or set `energy_penalty`"
_FAR = (
    "the energy has moved too far from its base. Take more draws, fit the base, or take an "
    "objective that draws by MCMC"
)
_REPORTED = (
    "the reported loss is too low, by nats that nobody knows. Report the result of "
    "log_normalizer, or raise `num_normalizer_samples`"
)
_STUCK = "draws hardly move. Leave `sampler` to the default, or take more `num_steps`"
_DIVERGED = "chains have diverged. Lower the `step_size` of the sampler or the learning rate"


def _few(size: float) -> bool:
    return size < 2


# By metric: when it is bad, how to say so, and what to do.
_DOUBTS: dict[str, tuple[Callable[[float], bool], str, str]] = {
    "energy_gap": (lambda gap: not math.isfinite(gap), "is not finite", _DIVERGED),
    "acceptance_rate": (lambda rate: rate < 0.1, "is below .1", _STUCK),
    "clipped": (lambda share: share > 0.5, "is above one half", _RUNAWAY),
    "effective_values": (_few, "is below 2", _UNEVEN),
    "effective_negatives": (_few, "is below 2", _UNEVEN),
    "effective_sample_size": (_few, "is below 2", _FAR),
    "effective_normalizer_samples": (lambda size: size < 10, "is below 10", _REPORTED),
}
INSPECTED = _DOUBTS.keys()


def doubts(site: str, metrics: Mapping[str, float], num_values: int) -> Iterator[str]:
    """Yield a message for each metric that shows the training of a site to be wrong.

    Args:
        site: Name of the sample site.
        metrics: Numbers by name.
        num_values: Number of values that the objective saw.
    """
    for metric, (holds, seen, reason) in _DOUBTS.items():
        is_judged = metric in metrics and (holds is not _few or num_values >= _FEWEST_VALUES)
        if is_judged and holds(metrics[metric]):
            # Without the number, so that Python shows it once.
            yield f"The metric `{metric}` of site {site!r} {seen}: {reason}."
