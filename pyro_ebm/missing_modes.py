"""Mass of a density where no chain has been."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.cluster.vq import kmeans2, vq

from pyro_ebm._arrays import to_numpy
from pyro_ebm.core.samplers.target import HasPotential

# Numbers of cells, and starts of k-means for each.
_CELLS, _STARTS = (2, 4, 8), 4
# A cell is missed if chains have less than this part of its share, and so many ancestors found it.
_PART, _FEWEST_ANCESTORS = 0.1, 5
# Share of the mass that is worth a warning: every mode that was missed in trials held more.
_MUCH = 0.05
# Shorter runs are not looked at, and fewer effective ancestors judge nobody.
_FEWEST_DRAWS, _FEWEST_EFFECTIVE = 1000, 10
# Elements of a batch, and draws of chains, that are looked at.
_MOST_ELEMENTS, _MOST_DRAWS = 16, 4000


class Reference(NamedTuple):
    """Draws with the right weights of modes.

    Attributes:
        samples: Shape `(M, *own, *event)`.
        ancestors: Numbers of the independent draws that they descend from, shape `(M, *own)`.
        source: What they are.
    """

    samples: np.ndarray
    ancestors: np.ndarray
    source: str


def missing_mass(draws: Any, reference: Any, ancestors: Any = None) -> float:
    """Estimate the share of a density's mass that draws of chains have missed.

    Cells of the reference are found by k-means, for 2, 4 and 8 cells. Those count in which the
    draws have less than a tenth of the reference's share; the largest sum of the three is returned.
    It finds modes that are missing, not wrong weights of modes that were seen, which R-hat finds.

    Args:
        draws: Draws of chains, shape `(N, *event)`.
        reference: Draws with the right weights of modes, shape `(M, *event)`: by sequential Monte
            Carlo, or data.
        ancestors: Numbers of the independent draws that those of the reference descend from, shape
            `(M,)`. Default: all are independent.

    Example:
        >>> two_modes = np.array([-1.0, 1.0] * 50) + 0.01 * np.arange(100)
        >>> missing_mass(two_modes[::2], two_modes)
        0.5
    """
    reference, draws = (_flat(x) for x in (reference, draws))
    ancestors = np.arange(len(reference)) if ancestors is None else _thinned(ancestors)
    scale = reference.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    reference, number = reference / scale, len(draws)
    with np.errstate(over="ignore"):  # What is no number, or too far for a distance, is in no cell.
        draws = draws / scale
        draws = draws[np.isfinite((draws**2).sum(1))]
    # In a coordinate without spread another number is another mode.
    is_constant = reference.std(0) == 0
    draws = draws[np.isclose(draws, reference[:1])[:, is_constant].all(1)]
    if not len(draws):
        return 1.0
    most = len(np.unique(reference, axis=0))
    counts = [min(cells, most) for cells in _CELLS]
    return max(_missed(draws, number, reference, ancestors, cells) for cells in counts)


def describe_missing_modes(
    distribution: Any, samples: Any, check: Any, *rng_key: Any
) -> Iterator[str]:
    """Yield a warning if chains have missed a part of a density, or nothing can be said about it.

    Args:
        distribution: Their target.
        samples: Their draws, shape `(num_chains, num_samples, *batch, *event)`.
        check: Whether to draw a reference, after a long run, or the reference itself.
        *rng_key: Of the reference; on NumPyro alone.
    """
    try:
        reference = _find_reference(distribution, samples, check, *rng_key)
        if reference is None:
            return
        batch_shape, event_shape = tuple(distribution.batch_shape), tuple(distribution.event_shape)
        samples = to_numpy(samples).reshape((-1, *batch_shape, *event_shape))
        most = _largest_missing_mass(samples, reference, len(event_shape))
    except Exception as error:  # noqa: BLE001 - No error of a check may lose finished chains.
        yield f"No draws of {distribution} to look for missing modes: {error}"
        return
    if most > _MUCH:
        yield (
            f"{most:.0%} of {reference.source} lie where no chain on {distribution} has been. "
            "Start chains at draws of run_smc (`init`), or take those instead."
        )


def check_modes(
    samples: Mapping[str, Any], site: str, reference: Any, draw: Callable[[], tuple[Any, Any]]
) -> float:
    """Estimate the share of the mass of a site that the draws of ``MCMC`` have missed.

    Any kernel can miss a mode, the host's too, and agreement of its chains does not show it. They
    are compared with a ``reference`` as ``run_chains`` compares its own (:func:`missing_mass`).
    By default it is drawn by ``SMC`` at an energy-based site: right where the draws follow the
    site's own distribution, in a model that observes nothing. A posterior has no such reference;
    give one, for example draws of a longer run from many starts.

    Args:
        samples: What ``get_samples(group_by_chain=True)`` of the run returns.
        site: Name of a latent variable.
        reference: Draws with the right weights of modes, shape ``(M, *shape)``, where ``shape`` is
            that of the site, or the last part of it: the elements of the rest, rows of a plate for
            example, are then compared one by one (the first 16 of them).
        draw: Returns the distribution at the site, and draws of it by ``run_smc``.

    Returns:
        The largest share over these elements.

    Raises:
        ValueError: If the site has no draws, shapes disagree or, without a reference, the draws do
            not follow an energy-based distribution of the model.

    Warns:
        UserWarning: If the share is above 5%.
    """
    if site not in samples:
        raise ValueError(f"Expected a site with draws ({sorted(samples)}), got {site!r}.")
    draws = to_numpy(samples[site])
    draws = draws.reshape((-1, *draws.shape[2:]))
    if reference is None:
        distribution, found = draw()
        found, num_event_dims = _of_smc(found), len(distribution.event_shape)
    else:
        found = _of_values(reference, "`reference`")
        num_event_dims = found.samples.ndim - 1
        if found.samples.shape[1:] != draws.shape[draws.ndim - num_event_dims :]:
            raise ValueError(
                f"Expected `reference` of shape (M, *shape), for the shape {draws.shape[1:]} of "
                f"site {site!r} or the last part of it, got {found.samples.shape}."
            )
    most = _largest_missing_mass(draws, found, num_event_dims)
    if most > _MUCH:
        text = f"{most:.0%} of {found.source} lie where no chain has been at site {site!r}."
        warnings.warn(f"{text} Start chains at some of them.", stacklevel=3)
    return most


def _of_smc(draws: Any) -> Reference:
    return Reference(to_numpy(draws.samples), to_numpy(draws.ancestors), "the draws of SMC")


def _largest_missing_mass(samples: np.ndarray, reference: Reference, num_event_dims: int) -> float:
    """Compare each of the first elements of a batch."""
    shape = samples.shape[1:]
    batch_shape = shape[: len(shape) - num_event_dims]
    found = _spread(reference.samples, shape)
    ancestors = _spread(reference.ancestors, batch_shape)
    elements = [(slice(None), *index) for index in np.ndindex(batch_shape)][:_MOST_ELEMENTS]
    return max((missing_mass(samples[i], found[i], ancestors[i]) for i in elements), default=0.0)


def _of_values(values: Any, name: str) -> Reference:
    values = to_numpy(values)
    if not np.isfinite(values).all():
        raise ValueError(f"Expected finite values of {name}, got NaN or infinity.")
    return Reference(values, np.arange(len(values)), f"the values of {name}")


def _find_reference(distribution: Any, samples: Any, check: Any, *rng_key: Any) -> Reference | None:
    if not isinstance(check, bool):
        return _of_values(check, "`check`")
    is_long = samples.shape[0] * samples.shape[1] >= _FEWEST_DRAWS
    if not (check and is_long and isinstance(distribution, HasPotential)):
        return None
    try:
        draws = distribution._reference(*rng_key)
    except NotImplementedError:  # A base without `sample`.
        return None
    judges = to_numpy(draws.effective_ancestors) >= _FEWEST_EFFECTIVE
    if not (judges.all() and np.isfinite(to_numpy(draws.log_normalizer)).all()):
        return None
    return _of_smc(draws)


def _missed(
    draws: np.ndarray, number: int, reference: np.ndarray, ancestors: np.ndarray, cells: int
) -> float:
    """Add the shares of cells of the reference that hardly any of a number of draws is in."""
    centers, labels = _cells(reference, cells)
    seen, _ = vq(draws, centers)
    shares = np.bincount(labels, minlength=cells) / len(labels)
    visited = np.bincount(seen, minlength=cells) / number
    families = np.array([len(np.unique(ancestors[labels == cell])) for cell in range(cells)])
    return float(shares[(visited < _PART * shares) & (families >= _FEWEST_ANCESTORS)].sum())


def _cells(points: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        found = [kmeans2(points, cells, minit="++", seed=start) for start in range(_STARTS)]
    return min(found, key=lambda pair: ((points - pair[0][pair[1]]) ** 2).sum())


def _flat(x: Any) -> np.ndarray:
    x = _thinned(x).astype(float)
    return x.reshape((len(x), -1))


def _thinned(x: Any) -> np.ndarray:
    return to_numpy(x)[:: max(1, len(x) // _MOST_DRAWS)]


def _spread(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    ones = (1,) * (len(shape) + 1 - x.ndim)
    return np.broadcast_to(x.reshape((len(x), *ones, *x.shape[1:])), (len(x), *shape))
