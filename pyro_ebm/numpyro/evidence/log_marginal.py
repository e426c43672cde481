"""Marginal likelihoods of latent-variable models with energy-based sites."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.tree_util import Partial, register_dataclass
from numpyro.distributions import Delta
from numpyro.handlers import block, seed, trace
from numpyro.util import not_jax_tracer

from pyro_ebm.core.evidence import log_marginal as core
from pyro_ebm.core.evidence.annealing import (
    Schedule,
    TemperedPosterior,
    power_inverse_temperatures,
    schedule_of_pilot,
)
from pyro_ebm.core.evidence.log_normalizer import LogNormalizer
from pyro_ebm.core.model.sites import shared_plates
from pyro_ebm.core.samplers.truncation import NUM_SHARE_DRAWS
from pyro_ebm.numpyro.distributions.bound_energy import StaticPytree
from pyro_ebm.numpyro.evidence.annealing import anneal, pilot_run
from pyro_ebm.numpyro.evidence.log_normalizer import log_normalizer
from pyro_ebm.numpyro.model.parameters import run_trained
from pyro_ebm.numpyro.model.posterior import Posterior
from pyro_ebm.numpyro.model.provenance import find_provenance
from pyro_ebm.numpyro.model.sites import log_density, unwrap
from pyro_ebm.numpyro.samplers.base import Sampler
from pyro_ebm.numpyro.samplers.mala import MALA

LogWeight = Callable[[Array], Array]

register_dataclass(core.LogMarginal)


def log_marginal(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None = None,
    *,
    method: str = "importance",
    num_samples: int = 1000,
    num_temperatures: int = 100,
    sampler: Sampler | None = None,
    log_normalizers: Mapping[str, LogNormalizer | float] | None = None,
    batch_size: int | None = None,
    params: Mapping[str, Any] | None = None,
) -> Callable[..., core.LogMarginal]:
    r"""Estimate :math:`\log p(x)` of a model; call the result with a key and the model's arguments.

    Methods and arguments: :class:`~pyro_ebm.core.evidence.log_marginal.LogMarginalSettings`. The
    model must be vectorized over its plates. ``params`` are parameters of model and guide, from
    ``svi.get_params(state)``. New arrays of the same shapes compile nothing again.

    Example:
        >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> import pyro_ebm.numpyro as ebm
        >>> from jax import random
        >>> def model(x):
        ...     with numpyro.plate("data", len(x)):
        ...         z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        ...         numpyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with numpyro.plate("data", len(x)):
        ...         numpyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> print(ebm.log_marginal(model, guide, num_samples=100)(random.key(0), jnp.zeros(3)))
        log p(x) = -1.266 ± 0.000, mean of 3 data points, effective samples 100 or more
    """
    settings = core.LogMarginalSettings(
        method=method,
        num_samples=num_samples,
        num_temperatures=num_temperatures,
        sampler=sampler if sampler is not None else MALA(0.1),
        log_normalizers=log_normalizers,
        batch_size=batch_size,
    )
    settings.check_guide(guide)

    def estimate(rng_key: Array, *args: Any, **kwargs: Any) -> core.LogMarginal:
        find_key, normalizer_key, weigh_key = random.split(rng_key, 3)
        trained = [Partial(run_trained, f, params, *args, **kwargs) for f in (model, guide)]
        # Values from outer handlers would be constants of the compiled program.
        with block():
            posterior = Posterior(find_key, trained[0])
            result = _estimate(
                weigh_key,
                *map(StaticPytree.pack, trained),
                _constants(normalizer_key, posterior, settings),
                sampler=None if method == "importance" else settings.sampler,
                num_samples=num_samples,
                num_temperatures=num_temperatures,
                batch_size=batch_size or num_samples,
            )
        for doubt in core.describe_doubts(result) if not_jax_tracer(result.estimate) else ():
            warnings.warn(doubt, stacklevel=2)
        return result

    return estimate


def _constants(
    rng_key: Array, posterior: Posterior, settings: core.LogMarginalSettings
) -> list[core.Constants]:
    start_key = random.fold_in(rng_key, len(posterior.sites))

    def sample(index: int, base: Any) -> Array:
        return base.sample(random.fold_in(start_key, index), (NUM_SHARE_DRAWS,))

    return core.find_constants(
        posterior,
        settings,
        estimate=lambda index, energy: log_normalizer(random.fold_in(rng_key, index), energy),
        sample=sample,
        convert=partial(jnp.asarray, dtype=float),
        is_known=not_jax_tracer,
    )


@partial(jax.jit, static_argnames=("sampler", "num_samples", "num_temperatures", "batch_size"))
def _estimate(
    rng_key: Array,
    model: StaticPytree,
    guide: StaticPytree,
    constants: list[core.Constants],
    *,
    sampler: Sampler | None,
    num_samples: int,
    num_temperatures: int,
    batch_size: int,
) -> core.LogMarginal:
    find_key, pilot_key, weigh_key = random.split(rng_key, 3)
    posterior = Posterior(find_key, model.content)
    posterior.check_log_normalizers()
    if sampler is None:
        log_weight, plate_dims = _weight_of_draw(posterior, guide.content)
    else:
        log_weight = _weight_of_chain(pilot_key, posterior, sampler, num_temperatures)
        plate_dims = posterior.plate_dims
    keys = random.split(weigh_key, num_samples)
    log_weights = lax.map(log_weight, keys, batch_size=batch_size)
    log_z, error = core.sum_constants(posterior, constants, plate_dims)
    return core.summarize_log_marginal(log_weights, log_z, error)


def _weight_of_draw(posterior: Posterior, guide: Any) -> tuple[LogWeight, list[int]]:
    """Return a function that weighs a draw of the guide, and the plates of independent elements.

    Elements of other plates are summed over.
    """

    def sites_of(rng_key: Array) -> list[Any]:
        with posterior.hidden(), trace() as met, seed(rng_seed=rng_key):
            guide()
        return [site for site in met.values() if site["type"] == "sample"]

    def values(key: Array) -> dict[str, Any]:
        return {site["name"]: site["value"] for site in sites_of(key)}

    sites, layout = sites_of(random.key(0)), posterior.layout
    core.check_density(sites, lambda fn: isinstance(unwrap(fn), Delta))
    _check_random("guide", values)
    posterior.check_shapes({site["name"]: site["value"].shape for site in sites})
    spread = find_provenance(values, key=random.key(0))
    core.check_no_points(name for name in posterior.latents if not spread[name])
    shared = {dim for _, dim in shared_plates(sites)}
    plate_dims = [dim for dim in posterior.plate_dims if dim in shared]

    def log_weight(rng_key: Array) -> Array:
        sites = {site["name"]: site for site in sites_of(rng_key)}
        log_joint = posterior.log_joint({n: sites[n]["value"] for n in posterior.latents})
        log_weight = layout.sum_over_others(log_joint, plate_dims)
        for site in sites.values():
            log_q = layout.total(log_density(site))
            log_weight = log_weight - layout.sum_over_others(log_q, plate_dims)
        return log_weight

    return log_weight, plate_dims


def _weight_of_chain(
    rng_key: Array, posterior: Posterior, sampler: Sampler, num_temperatures: int
) -> LogWeight:
    """Return a function that weighs an annealed chain."""
    _check_random("model", lambda key: posterior.starts(key, 1))
    path, dtype = TemperedPosterior(posterior), posterior.start.dtype
    inverse_temperatures = jnp.array(power_inverse_temperatures(num_temperatures), dtype)
    schedule = Schedule(inverse_temperatures, None)
    if sampler.target_accept_prob is not None:
        start_key, step_key = random.split(rng_key)
        pilots = posterior.starts(start_key, core.NUM_PILOTS)
        _, log_step_sizes, _ = pilot_run(step_key, sampler, path, inverse_temperatures, pilots)
        schedule = schedule_of_pilot(inverse_temperatures, log_step_sizes)

    def log_weight(rng_key: Array) -> Array:
        start_key, step_key = random.split(rng_key)
        start = posterior.starts(start_key, 1)
        log_weights = anneal(step_key, sampler, path, schedule, start).log_weights
        return posterior.layout.sum_over_others(log_weights[0], posterior.plate_dims)

    return log_weight


def _check_random(name: str, draw: Callable[[Array], Any]) -> None:
    """Raise unless draws depend on the random key."""
    if not any(jax.tree.leaves(find_provenance(draw, key=random.key(0)))):
        raise ValueError(
            f"Expected a {name} without a random key of its own, got one in a seed handler: all of "
            "its draws would be the same."
        )
