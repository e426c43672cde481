"""Chains of samplers, and the conversion of draws of either host to ArviZ."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from pyro_ebm._arrays import is_from, to_numpy
from pyro_ebm.core.columns import Column, Columns, check_columns, names_of

Array = Any
Group = Mapping[str, Array]

_PER_DRAW = ("posterior_predictive", "predictions", "log_likelihood")
_PRIOR = ("prior", "prior_predictive")
_NOT_VALUES = ("sample_stats", "log_likelihood")
_DATA = ("observed_data", "constant_data", "predictions_constant_data")

# ArviZ's names for NumPyro's statistics; of two with one meaning the later one wins.
_NUMPYRO_NAMES = {
    "mean_accept_prob": "acceptance_rate",
    "accept_prob": "acceptance_rate",
    "adapt_state.step_size": "step_size",
    "num_steps": "n_steps",
    "potential_energy": "lp",
}


class Chains(NamedTuple):
    """Draws of several chains, arrays of the host.

    Attributes:
        samples: Draws, shape `(chain, draw, *batch_shape, *event_shape)`.
        statistics: By name, shapes `(chain, draw, *batch_shape)`: `lp`, the unnormalized
            log-density in nats, `acceptance_rate`, `diverging` and others.
        state: Last state of the sampler, from which another run can continue.
    """

    samples: Array
    statistics: dict[str, Array]
    state: Any

    def to_arviz(self, name: str = "x", **kwargs: Any) -> Any:
        """Convert the chains with :func:`to_arviz`, which documents the other arguments."""
        return to_arviz(self, name=name, **kwargs)


def to_arviz(
    draws: Any,
    *,
    name: str | None = None,
    num_chains: int | None = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, list[str]] | None = None,
    sample_stats: Group | None = None,
    log_likelihood: Group | bool | None = None,
    columns: Mapping[str, Iterable[Column]] | None = None,
    **groups: Group,
) -> Any:
    """Convert posterior draws to the data structure of the installed ArviZ.

    R-hat and effective sample sizes are about Markov chains, not about independent draws from a
    guide.

    Args:
        draws: :class:`Chains`; an `MCMC` object of Pyro or NumPyro that has run; or a dictionary
            from names to arrays of shape `(chain, draw, *shape)`.
        name: Name of the variable of `Chains`. Default: `"x"`, as for draws of a `potential_fn`.
        num_chains: Number of chains of a dictionary of flat arrays, shape
            `(num_chains * draw, *shape)`, as `get_samples()` of both hosts returns them.
        coords: Labels of dimensions, by dimension.
        dims: Names of the dimensions of `shape`, by variable; those of a table name its columns'
            dimension last, which columns do not have.
        sample_stats: Statistics of the sampler under ArviZ's names, shape `(chain, draw, *batch)`
            or flat, in addition to those of `draws`. A draw is `diverging` if it diverged in any
            batch element.
        log_likelihood: With an `MCMC` object, True evaluates that of each observed value in its
            model, for `az.loo` and `az.compare`; masked values count as zero. An energy-based site
            is refused, unless its density is `distribution.normalized(log_normalizer)`. Or the
            group itself, a dictionary.
        columns: Columns of variables that are tables, by variable. Each becomes a variable under
            its own name, codes as integers if none is NaN, in all groups of values.
        **groups: Further groups of ArviZ. `posterior_predictive`, `predictions` and
            `log_likelihood` have shapes `(chain, draw, *shape)` or flat, as `Predictive` returns
            them; `prior` and `prior_predictive` are flat and become one chain; `observed_data`,
            `constant_data` and `predictions_constant_data` are not changed.

    Returns:
        An `InferenceData` (ArviZ 0.x) or an xarray `DataTree` (ArviZ 1.x).

    Raises:
        TypeError: If `draws` has another type.
        ValueError: If shapes disagree, a group has an unknown name, a statistic of an
            energy-based model is called `energy`, which in ArviZ is that of the Hamiltonian, or a
            log-likelihood is not known.

    Example:
        >>> draws = {"z": np.random.default_rng(0).normal(size=(4, 100, 2))}
        >>> to_arviz(draws).posterior["z"].shape
        (4, 100, 2)
    """
    posterior, statistics = _read(draws, name, num_chains)
    chain, draw = _chain_and_draw(posterior)
    statistics |= sample_stats or {}
    if "energy" in statistics and not _is_mcmc(draws):
        raise ValueError(
            "Expected the energy of an energy-based model under the name 'ebm_energy', got "
            "'energy', which in ArviZ is the energy of the sampler's Hamiltonian."
        )
    if log_likelihood:
        groups["log_likelihood"] = _given(draws, log_likelihood)
    contents = {"posterior": posterior, "sample_stats": _statistics(statistics, chain, draw)}
    contents |= {group: _shaped(group, groups[group], chain, draw) for group in groups}
    if columns:
        columns = {name: check_columns(of_table) for name, of_table in columns.items()}
        dims = _dims_by_column(dims or {}, columns)
        of_values = contents.keys() - _NOT_VALUES
        contents |= {group: _by_column(contents[group], columns) for group in of_values}
    data = _from_dict({k: v for k, v in contents.items() if v}, coords=coords, dims=dims)
    if "lp" in statistics and not isinstance(draws, Mapping):
        # An integer, because a netCDF file stores no Boolean attributes.
        data["sample_stats"]["lp"].attrs["lp_normalized"] = 0
    return data


def _read(
    draws: Any, name: str | None, num_chains: int | None
) -> tuple[dict[str, np.ndarray], dict[str, Array]]:
    """Return posterior draws, shapes `(chain, draw, *shape)`, and their statistics."""
    if name is not None and not isinstance(draws, Chains):
        raise ValueError(f"Expected `name` with Chains only, got it with {_kind(draws)}.")
    if num_chains is not None and not isinstance(draws, Mapping):
        raise ValueError(f"Expected `num_chains` with a dictionary only, got {_kind(draws)}.")
    if isinstance(draws, Chains):
        return {name or "x": to_numpy(draws.samples)}, dict(draws.statistics)
    if isinstance(draws, Mapping):
        return _split_chains(draws, num_chains), {}
    if _is_mcmc(draws):
        return _read_mcmc(draws)
    raise TypeError(
        "Expected `draws` to be Chains, a dictionary of arrays or an MCMC object of Pyro or "
        f"NumPyro, got {_kind(draws)}."
    )


def _split_chains(draws: Group, num_chains: int | None) -> dict[str, np.ndarray]:
    arrays = {name: to_numpy(value) for name, value in draws.items()}
    if num_chains is None:
        return arrays
    for name, array in arrays.items():
        if num_chains < 1 or not array.ndim or len(array) % num_chains:
            raise ValueError(
                f"Expected {name!r} to have a first dimension divisible by "
                f"`num_chains`={num_chains}, got shape {array.shape}."
            )
    return {
        name: array.reshape(num_chains, len(array) // num_chains, *array.shape[1:])
        for name, array in arrays.items()
    }


def _read_mcmc(mcmc: Any) -> tuple[dict[str, np.ndarray], dict[str, Array]]:
    samples = mcmc.get_samples(group_by_chain=True)
    samples = {"x": samples} if hasattr(samples, "shape") else samples  # Of a potential.
    if not isinstance(samples, Mapping):
        raise ValueError(f"Expected draws by name, or one array, got {_kind(samples)}: has it run?")
    posterior = {name: to_numpy(value) for name, value in samples.items()}
    if is_from(mcmc, "numpyro"):
        return posterior, _numpyro_statistics(mcmc.get_extra_fields(group_by_chain=True))
    chain, draw = _chain_and_draw(posterior)
    # Pyro's R-hat, which comes with the statistics, needs four draws.
    diagnostics = mcmc.diagnostics() if draw > 3 else {}
    return posterior, _pyro_statistics(diagnostics, chain, draw)


def _numpyro_statistics(fields: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return extra fields with one number for each draw, under ArviZ's names."""
    arrays = {k: to_numpy(v) for k, v in fields.items() if not isinstance(v, dict | tuple)}
    arrays = {name: array for name, array in arrays.items() if array.ndim == 2}
    if "potential_energy" in arrays:
        arrays["potential_energy"] = -arrays["potential_energy"]
    known = {new: arrays.pop(old) for old, new in _NUMPYRO_NAMES.items() if old in arrays}
    return arrays | known


def _pyro_statistics(diagnostics: Mapping[str, Any], chain: int, draw: int) -> dict[str, Array]:
    """Return the divergences of Pyro's kernels, and all statistics of ours."""
    if "divergences" not in diagnostics:
        return {}
    chains = [f"chain {index}" for index in range(chain)]
    diverging = np.zeros((chain, draw), dtype=bool)
    for index, name in enumerate(chains):
        diverging[index, list(diagnostics["divergences"][name])] = True
    more = diagnostics.get("sample stats", dict.fromkeys(chains, {}))
    by_name = {
        name: np.stack([to_numpy(more[chain][name]) for chain in chains])
        for name in more[chains[0]]
    }
    return {"diverging": diverging, **by_name}


def _chain_and_draw(posterior: Mapping[str, np.ndarray]) -> tuple[int, int]:
    shapes = {name: array.shape for name, array in posterior.items()}
    leading = {shape[:2] for shape in shapes.values()}
    if len(leading) != 1 or len(min(leading)) != 2:
        raise ValueError(f"Expected variables of one shape (chain, draw, ...), got {shapes}.")
    chain, draw = leading.pop()
    return chain, draw


def _shaped(group: str, arrays: Group, chain: int, draw: int) -> dict[str, np.ndarray]:
    if group in _PER_DRAW:
        return _folded(arrays, chain, draw)
    if group in _PRIOR:
        return _split_chains(arrays, num_chains=1)
    if group in _DATA:
        return {name: to_numpy(value) for name, value in arrays.items()}
    known = ", ".join(_PER_DRAW + _PRIOR + _DATA)
    raise ValueError(f"Expected groups out of {known}, got {group!r}.")


def _by_column(
    arrays: dict[str, np.ndarray], columns: Mapping[str, Columns]
) -> dict[str, np.ndarray]:
    tables = {name: arrays[name] for name in columns if name in arrays}
    split = {k: v for k, v in arrays.items() if k not in tables}
    for name, table in tables.items():
        of_table = columns[name]
        if table.shape[-1:] != (len(of_table),):
            raise ValueError(
                f"Expected {name!r} of {len(of_table)} columns, got shape {table.shape}."
            )
        names = names_of(of_table, name)
        if again := split.keys() & names:
            raise ValueError(f"Expected variables of different names, got {sorted(again)} twice.")
        for column, own, x in zip(of_table, names, np.moveaxis(table, -1, 0), strict=True):
            split[own] = x if column.is_numeric or np.isnan(x).any() else x.astype(int)
    return split


def _dims_by_column(
    dims: Mapping[str, list[str]], columns: Mapping[str, Columns]
) -> dict[str, list[str]]:
    """Give the dimensions of a table, but for that of its columns, to each column."""
    names = {name: names_of(columns[name], name) for name in columns if name in dims}
    split = {own: dims[name][:-1] for name in names for own in names[name]}
    # A table's own name is that of the log-likelihoods of its rows.
    return {**split, **dims, **{name: dims[name][:-1] for name in names}}


def _given(draws: Any, log_likelihood: Any) -> Group:
    if isinstance(log_likelihood, Mapping):
        return log_likelihood
    raise ValueError(
        "Expected an MCMC object, and to_arviz of pyro_ebm.pyro or pyro_ebm.numpyro, with "
        f"`log_likelihood={log_likelihood}`, got {_kind(draws)}: give the group itself."
    )


def _statistics(statistics: Group, chain: int, draw: int) -> dict[str, np.ndarray]:
    arrays = _folded(statistics, chain, draw)
    if "diverging" in arrays:
        # ArviZ's plots mark whole draws.
        diverging = arrays["diverging"].reshape(chain, draw, -1)
        arrays["diverging"] = np.any(diverging, axis=-1)
    return arrays


def _folded(arrays: Group, chain: int, draw: int) -> dict[str, np.ndarray]:
    """Return arrays with one value for each draw as `(chain, draw, *shape)`."""
    return {name: _fold(name, to_numpy(value), chain, draw) for name, value in arrays.items()}


def _fold(name: str, array: np.ndarray, chain: int, draw: int) -> np.ndarray:
    if array.shape[:2] == (chain, draw):
        return array
    if array.shape[:1] == (chain * draw,):
        return array.reshape(chain, draw, *array.shape[1:])
    raise ValueError(
        f"Expected {name!r} of shape ({chain}, {draw}, ...) or ({chain * draw}, ...) like the "
        f"posterior, got {array.shape}."
    )


def _from_dict(contents: dict[str, dict[str, np.ndarray]], **kwargs: Any) -> Any:
    import arviz

    # ArviZ's own version decides: arviz-base may be installed beside ArviZ 0.x.
    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz.from_dict(contents, **kwargs)
    return arviz.from_dict(**contents, **kwargs)


def _is_mcmc(draws: Any) -> bool:
    classes, hosts = type(draws).__mro__, ("pyro.", "numpyro.")
    return any(c.__name__ == "MCMC" and c.__module__.startswith(hosts) for c in classes)


def _kind(value: Any) -> str:
    return type(value).__qualname__
