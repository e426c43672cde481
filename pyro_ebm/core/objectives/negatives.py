"""Negatives: draws of the model that objectives compare with the data."""

from collections.abc import Callable
from math import inf, prod
from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.distributions.checks import check_one_distribution, is_implicit
from pyro_ebm.core.distributions.context import evaluate_both
from pyro_ebm.core.numerics import effective_sample_size
from pyro_ebm.core.objectives.loss import Objective
from pyro_ebm.core.objectives.settings import convert_fields, optional
from pyro_ebm.core.samplers.run import ShortRun
from pyro_ebm.core.samplers.settings import Source, check_source
from pyro_ebm.core.samplers.truncation import infinite_outside, move_inside

# Steps from data by default.
_STEPS_FROM_DATA = 20


class Negatives(Objective):
    """Settings of an objective that draws from the model it trains.

    Attributes:
        sampler: Kernel that moves the draws, ``SMC()`` or ``Grid()``. Default: the kernel of the
            distribution, if it has one, else ``MALA()``, whose step size follows its acceptance
            within the run (metric ``acceptance_rate``).
        num_steps: Steps from start to negative. Default: ``num_sampler_steps`` of the distribution.
        num_samples: Draws for each element of the base's batch (usually there is one). By default
            as many in all as there are values, and at least 2.
    """

    sampler: Any
    num_steps: int | None
    num_samples: int | None


def check_negatives(settings: Negatives) -> None:
    """Raise unless the settings describe draws of the model."""
    if settings.sampler is not None:
        check_source(settings.sampler)
    convert_fields(
        settings,
        num_steps=optional(check_positive_integer),
        num_samples=optional(check_positive_integer),
    )


def check_attached_chains(chains: Any, distribution: Any) -> None:
    """Raise unless attached draws have shape ``(num_chains, *event)``, and one distribution."""
    event_shape = tuple(distribution.event_shape)
    if tuple(chains.shape[1:]) != event_shape:
        raise ValueError(
            f"Expected chains of the event shape of their site, {event_shape}, got shape "
            f"{tuple(chains.shape)}."
        )
    check_one_distribution(distribution, " with attached chains")


def sampler_and_steps(
    settings: Negatives, distribution: Any, default: Any, *, from_data: bool = False
) -> tuple[Any, int]:
    """Return what moves the draws of an objective, and for how many steps."""
    own = default if isinstance(distribution.sampler, Source) else distribution.sampler
    num_steps = _STEPS_FROM_DATA if from_data else distribution.num_sampler_steps
    return settings.sampler or own, settings.num_steps or num_steps


def with_acceptance(sampler: Any, run: Any) -> ShortRun:
    """Return the draws of a run, and their acceptance if there is a target of it."""
    xp = array_namespace(run.samples)
    has_target = getattr(sampler, "target_accept_prob", None) is not None
    rate = xp.min(run.acceptance_rate) if has_target or isinstance(sampler, Source) else None
    return ShortRun(run.samples, rate)


def lowest(rates: list[Any]) -> Any:
    """Return the smallest of the acceptance rates that there are, or None."""
    known = [rate for rate in rates if rate is not None]
    return array_namespace(*known).min(array_namespace(*known).stack(known)) if known else None


def acceptance_metrics(draws: ShortRun) -> dict[str, Callable[[], Any]]:
    """Return the metric ``acceptance_rate``, if draws have one."""
    rate = draws.acceptance_rate
    return {} if rate is None else {"acceptance_rate": lambda: rate}


def number_of_draws(settings: Negatives, value: Any, model: Any) -> int:
    """Return the number of draws for each element of the batch of a base.

    ``model`` is the site's distribution without plates.
    """
    num_values = prod(value.shape) // prod(model.event_shape)
    return settings.num_samples or max(2, num_values // prod(model.batch_shape))


def draw_from_base(objective: Any, base: Any, *rng_key: Any, through: bool = False) -> Any:
    """Draw ``num_samples`` for each element of a base's batch, constants unless ``through``."""
    if base is None:
        raise ValueError("Expected a base to draw from, got base=None.")
    if through:
        return base.rsample(*rng_key, (objective.num_samples,))
    return objective._constant(base.sample(*rng_key, (objective.num_samples,)))


def points_between(
    value: Any, draws: Any, event_ndim: int, uniform: Callable[[tuple[int, ...]], Any]
) -> Any:
    """Return a random point between each value and a draw, constants, of the shape of values.

    Draws have shape ``(M, *context, *event)``, and are repeated where there are fewer than values;
    ``uniform`` draws numbers from 0 to 1 of a shape.
    """
    xp, batch_shape = array_namespace(value, draws), value.shape[: value.ndim - event_ndim]
    row_shape = batch_shape[: value.ndim - draws.ndim + 1]
    rows = xp.arange(prod(row_shape), device=device(draws)) % draws.shape[0]
    ends = xp.reshape(xp.take(draws, rows, axis=0), (*row_shape, *draws.shape[1:]))
    weights = uniform((*batch_shape, *(1,) * event_ndim))
    return weights * value + (1 - weights) * ends


def is_reparametrized(distribution: Any) -> bool:
    """Check for draws with the base's gradient, which none carry across the edge of a support."""
    base = distribution.base
    has_rsample = getattr(base, "has_rsample", False)
    return has_rsample and (is_implicit(base) or not distribution._is_truncated)


def check_base_loss(base_loss: str, base: Any) -> None:
    """Raise unless a base has the density that its loss needs."""
    if is_implicit(base) and base_loss != "generalized":
        raise ValueError(
            "Expected `base_loss` to be 'generalized' for a base without a density, "
            f"got {base_loss!r} for {base}."
        )


class Energies(NamedTuple):
    """Energies of values and of negatives.

    Attributes:
        positive_energy: Energies of the values, shape ``(*batch,)``.
        negative_energy: Energies of the negatives, shape ``(num_samples, *context)``.
        positive: Potentials of the values, energy minus log-density of the base.
        negative: Potentials of the negatives.
    """

    positive_energy: Any
    negative_energy: Any
    positive: Any
    negative: Any

    @property
    def mean_square(self) -> Any:
        """Squared energy of each value plus the mean squared energy of the negatives."""
        return mean_square(self.positive_energy, self.negative_energy)

    def metrics(self, constant: Callable[[Any], Any]) -> dict[str, Callable[..., Any]]:
        """Metrics of the energies, which a function of the host holds constant."""
        return energy_metrics(*map(constant, self[:2]))


def evaluate_energies(distribution: Any, value: Any, negatives: Any) -> Energies:
    """Evaluate energies and potentials of values and negatives, in one call of the energy.

    Values have shape ``(*batch, *event)``, negatives ``(num_samples, *context, *event)``, where
    the context broadcasts with ``batch``.
    """
    energies = scaled_energies(distribution, value, negatives)
    if distribution.base is None or is_implicit(distribution.base):
        return Energies(*energies, *energies)
    densities = [distribution._base_log_prob(x) for x in (value, negatives)]
    return Energies(*energies, energies[0] - densities[0], energies[1] - densities[1])


def scaled_energies(distribution: Any, value: Any, negatives: Any) -> tuple[Any, Any]:
    """Evaluate the energies alone; see :func:`evaluate_energies`."""
    if not distribution._is_truncated:
        return _scaled_energies(distribution, value, negatives)
    both = [move_inside(distribution, x) for x in (value, negatives)]
    energies = _scaled_energies(distribution, *(moved for _, moved in both))
    (here, _), (there, _) = both
    return infinite_outside(here, energies[0]), infinite_outside(there, energies[1])


def _scaled_energies(distribution: Any, value: Any, negatives: Any) -> tuple[Any, Any]:
    energies = evaluate_both(distribution, distribution.energy, value, negatives)
    beta = distribution.inverse_temperature
    return energies if beta == 1 else (beta * energies[0], beta * energies[1])


def mean_square(positive: Any, negative: Any) -> Any:
    """Add the mean square of negatives, over the first axis, to the square of each value."""
    xp = array_namespace(positive, negative)
    return positive**2 + xp.mean(negative**2, axis=0)


def energy_metrics(positive: Any, negative: Any) -> dict[str, Callable[..., Any]]:
    """Return the metrics ``energy_gap`` and ``energy_scale``, from energies as constants.

    Draws of infinite energy, outside of a support, do not count, nor those of a row that does not.
    """
    xp = array_namespace(positive, negative)

    def gap(counts: Any = None) -> Any:
        of_values, of_draws = count_rows(positive, negative, counts)
        return weighted_mean(negative, of_draws) - weighted_mean(positive, of_values)

    def scale(counts: Any = None) -> Any:
        counted = count_rows(positive, negative, counts)
        weights, energies = joined(counted), joined((positive, negative))
        return xp.sqrt(weighted_mean((energies - weighted_mean(energies, weights)) ** 2, weights))

    return {"energy_gap": gap, "energy_scale": scale}


def joined(pair: tuple[Any, Any]) -> Any:
    """Flatten two arrays into one."""
    xp = array_namespace(*pair)
    return xp.concat([xp.reshape(x, (-1,)) for x in pair])


def count_rows(positive: Any, negative: Any, counts: Any) -> tuple[Any, Any]:
    """Count how often each value counts, on average once, and each draw."""
    xp = array_namespace(positive, negative)
    of_draws = xp.astype(negative != inf, negative.dtype)
    if counts is None:
        return xp.ones_like(positive), of_draws
    counts = xp.broadcast_to(counts, positive.shape)
    counts = counts * (xp.sum(xp.astype(counts > 0, counts.dtype)) / xp.sum(counts))
    # Of draws for each row, that of a masked row does not count.
    own_rows = positive.ndim and tuple(negative.shape[1:]) == tuple(positive.shape)
    return counts, of_draws * counts if own_rows else of_draws


def weighted_mean(x: Any, counts: Any) -> Any:
    """Compute the mean of numbers that count as often as this."""
    # What does not count may be NaN.
    xp = array_namespace(x, counts)
    return xp.sum(xp.where(counts > 0, x, xp.zeros_like(x)) * counts) / xp.sum(counts)


def weight_metrics(log_weights: Any) -> dict[str, Callable[[], Any]]:
    """Return the metric ``effective_sample_size``, the smallest over columns of log-weights."""
    xp = array_namespace(log_weights)
    return {"effective_sample_size": lambda: xp.min(effective_sample_size(log_weights))}
