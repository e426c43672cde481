"""Evidence of latent-variable models with energy-based sites."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.tree_util import Partial
from numpyro.distributions import Delta
from numpyro.handlers import seed, trace

from pyro_ebm.core.checks import check_choice, check_positive_integer
from pyro_ebm.core.evidence.annealing import log_weight_increment, tuned
from pyro_ebm.core.evidence.log_marginal import (
    LogMarginal,
    describe_doubts,
    inverse_temperatures,
    summarize_log_marginal,
)
from pyro_ebm.core.evidence.weights import LogNormalizer
from pyro_ebm.numpyro.distributions.bound_energy import _as_pytree
from pyro_ebm.numpyro.evidence.annealing import check_exact
from pyro_ebm.numpyro.evidence.log_normalizer import log_normalizer
from pyro_ebm.numpyro.model.densities import log_density, shared_plates
from pyro_ebm.numpyro.model.posterior import Posterior
from pyro_ebm.numpyro.model.sites import find_energy, map_energy
from pyro_ebm.numpyro.samplers import MALA, Sampler
from pyro_ebm.numpyro.samplers.target import Potential

__all__ = ["log_marginal"]

LogWeight = Callable[[Array], Array]

# Chains of the first pass, which finds the step size that each temperature asks for.
_NUM_PILOTS = 8


def log_marginal(
    rng_key: Array,
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    *args: Any,
    method: str = "importance",
    num_samples: int = 1000,
    num_temperatures: int = 100,
    sampler: Sampler | None = None,
    log_normalizers: Mapping[str, LogNormalizer | float] | None = None,
    batch_size: int | None = None,
    **kwargs: Any,
) -> LogMarginal:
    r"""Estimate :math:`\log p(x) = \log \int p(x, z)\,dz`, for each data point where it can be.

    Data points are the elements of the plates that contain all latents, and all observations
    that depend on them (with ``"importance"``: all that the guide samples, too); the results have
    the shape of these plates. Without such plates there is one result, for all data. Observed
    sites outside of them, which no latent enters, are left out; subsampling leaves the numbers of
    the data points that were drawn as they are.

    ``"importance"`` draws from the guide and weighs by :math:`p(x, z) / q(z)`. ``"annealed"``
    walks from draws :math:`z_0` of the priors to the posterior, through
    :math:`p_k \propto p_0(z)\,(e^{-E(z)}\,p(x \mid z))^{\beta_k}` with
    :math:`\beta_k = (k / K)^4` and one transition each, and weighs by
    :math:`\log w = \sum_k (\beta_k - \beta_{k-1}) (\log p(x \mid z_{k-1}) - E(z_{k-1}))`. For an
    energy-based prior it starts at the *base* :math:`p_0`, whose draws are exact (those of the
    prior itself are not), and tempers the energy along with the likelihood.

    So both estimate :math:`\log (Z\,p(x))`, and :math:`\log Z` of every energy-based site is
    subtracted, with its standard error added in quadrature. Priors without energies, and those
    with a known ``log_normalizer``, need none.

    Args:
        rng_key: Random key.
        model: A NumPyro model, vectorised over its plates. A trained one wants its parameters:
            ``numpyro.handlers.substitute(model, data=params)``.
        guide: Proposal of ``"importance"``, normalized, with its parameters; ``"annealed"`` does
            not use it: None.
        *args: Arguments of model and guide. New arrays of the same shapes cost no compilation.
        method: ``"importance"`` or ``"annealed"``.
        num_samples: Independent weights for each data point.
        num_temperatures: :math:`K` of ``"annealed"``.
        sampler: Kernel of ``"annealed"`` that leaves a density invariant. With a
            ``target_acceptance``, a first pass of a few chains finds the step size of each
            temperature and data point, which the weighted chains keep to. Default:
            ``MALA(0.1)``, so tuned.
        log_normalizers: What is known of :math:`\log Z` by site: what :func:`log_normalizer`
            gave, or a number that is exact. Others are estimated by :func:`log_normalizer`.
        batch_size: Samples that are held in memory at once. Default: all.
        **kwargs: Arguments of model and guide.

    Returns:
        Estimates with their errors, shape ``(*plates,)`` each.

    Raises:
        ValueError: If an argument is out of range; if ``log_normalizers`` names a site that is
            not energy-based; if the guide is missing or has no density; if an energy-based prior
            has no base to start at; and as :class:`LangevinGuide` for the latents.

    References:
        | Annealed importance sampling (Neal, 2001)
    """
    check_choice("method", method, ("importance", "annealed"))
    check_positive_integer("num_samples", num_samples)
    check_positive_integer("num_temperatures", num_temperatures)
    if method == "importance" and guide is None:
        raise ValueError("Expected a guide for method='importance', got None.")
    size = num_samples if batch_size is None else check_positive_integer("batch_size", batch_size)
    find_key, normalizer_key, weigh_key = random.split(rng_key, 3)
    kernel = sampler if sampler is not None else MALA(0.1)
    if method == "annealed":
        check_exact(kernel)
    known = _known(normalizer_key, Posterior(find_key, model, args, kwargs), log_normalizers or {})
    evaluated = _evaluate(
        weigh_key,
        _as_pytree(Partial(model, *args, **kwargs)),
        None if guide is None else _as_pytree(Partial(guide, *args, **kwargs)),
        known,
        sampler=None if method == "importance" else kernel,
        num_samples=num_samples,
        num_temperatures=num_temperatures,
        batch_size=size,
    )
    result = summarize_log_marginal(*evaluated)
    for doubt in describe_doubts(result):
        warnings.warn(doubt, stacklevel=2)
    return result


def _known(
    rng_key: Array, posterior: Posterior, given: Mapping[str, LogNormalizer | float]
) -> dict[str, tuple[Array, Array]]:
    """Log-normalizers of energy-based sites with their standard errors."""
    energies = {name: find_energy(site["fn"]) for name, site in posterior.sites.items()}
    energies = {n: e for n, e in energies.items() if e is not None and e.log_normalizer is None}
    for name in given:
        if name not in energies:
            raise ValueError(
                "Expected log_normalizers for energy-based sites of the model "
                f"({sorted(energies)}), got {name!r}."
            )
    known = {}
    for index, (name, energy) in enumerate(energies.items()):
        key = random.fold_in(rng_key, index)
        record = given[name] if name in given else log_normalizer(key, energy)
        exact = not isinstance(record, LogNormalizer)
        numbers = (record, 0.0) if exact else (record.estimate, record.standard_error)
        known[name] = jnp.asarray(numbers[0], float), jnp.asarray(numbers[1], float)
    return known


@partial(jax.jit, static_argnames=("sampler", "num_samples", "num_temperatures", "batch_size"))
def _evaluate(
    rng_key: Array,
    model: Any,
    guide: Any,
    known: dict[str, tuple[Array, Array]],
    *,
    sampler: Sampler | None,
    num_samples: int,
    num_temperatures: int,
    batch_size: int,
) -> tuple[Array, Array, Array]:
    """Log-weights of each data point, its sum of log-normalizers, and the error of that."""
    find_key, pilot_key, weigh_key = random.split(rng_key, 3)
    posterior = Posterior(find_key, model)
    if sampler is None:
        log_weight, plate_dims = _of_draw(posterior, guide)
    else:
        log_weight = _of_walk(pilot_key, posterior, sampler, num_temperatures)
        plate_dims = posterior.plate_dims
    keys = random.split(weigh_key, num_samples)
    log_weights = lax.map(log_weight, keys, batch_size=batch_size)

    def per_data_point(site: Any, number: Array) -> Array:
        numbers = map_energy(site["fn"], site["value"], lambda fn, value: number)
        numbers = posterior.per_element(site, numbers)
        return posterior.packing.sum_over_others(numbers, plate_dims)

    total = variance = jnp.zeros(log_weights.shape[1:], log_weights.dtype)
    for name, (estimate, error) in known.items():
        total = total + per_data_point(posterior.sites[name], estimate)
        variance = variance + per_data_point(posterior.sites[name], error) ** 2
    return log_weights, total, jnp.sqrt(variance)


def _of_draw(posterior: Posterior, guide: Any) -> tuple[LogWeight, list[int]]:
    """Log-weights of draws of the guide, and the plates whose elements are independent in it.

    Elements of other plates are summed over.
    """

    def sites_of(rng_key: Array) -> list[Any]:
        with posterior.hidden(), trace() as met, seed(rng_seed=rng_key):
            guide()
        return [site for site in met.values() if site["type"] == "sample"]

    sites, packing = sites_of(random.key(0)), posterior.packing
    if all(isinstance(site["fn"], Delta) for site in sites if not site["is_observed"]):
        raise ValueError("Expected a guide with a density, got one with nothing but Delta sites.")
    shared = {dim for _, dim in shared_plates(sites)}
    plate_dims = [dim for dim in posterior.plate_dims if dim in shared]

    def log_weight(rng_key: Array) -> Array:
        sites = {site["name"]: site for site in sites_of(rng_key)}
        log_joint = posterior.log_joint({n: sites[n]["value"] for n in posterior.latents})
        log_weight = packing.sum_over_others(log_joint, plate_dims)
        for site in sites.values():
            log_q = packing.total(log_density(site))
            log_weight = log_weight - packing.sum_over_others(log_q, plate_dims)
        return log_weight

    return log_weight, plate_dims


def _of_walk(
    rng_key: Array, posterior: Posterior, sampler: Sampler, num_temperatures: int
) -> LogWeight:
    """Log-weights of annealed chains."""
    path = jnp.array(inverse_temperatures(num_temperatures), posterior.start.dtype)
    step_sizes = None
    if sampler.target_acceptance is not None:
        _, step_sizes = _walk(rng_key, posterior, sampler, path, num_chains=_NUM_PILOTS)

    def log_weight(rng_key: Array) -> Array:
        log_weights, _ = _walk(rng_key, posterior, sampler, path, step_sizes, num_chains=1)
        return posterior.packing.sum_over_others(log_weights[0], posterior.plate_dims)

    return log_weight


def _walk(
    rng_key: Array,
    posterior: Posterior,
    sampler: Sampler,
    path: Array,
    step_sizes: Array | None = None,
    *,
    num_chains: int,
) -> tuple[Array, Array]:
    """Log-weights of chains along a path, and their step sizes: as given, or tuned on the way."""
    start_key, step_key = random.split(rng_key)
    position = posterior.starts(start_key, num_chains)
    state = sampler.init(_tempered(posterior, jnp.zeros(())), position)

    def step(carry: Any, at: Any) -> tuple[Any, Array]:
        (position, before, log_weights, log_step_size), (key, inverse_temperature, given) = (
            carry,
            at,
        )
        potential = _tempered(posterior, inverse_temperature)
        state = sampler.init(potential, position)
        log_weights = log_weights + log_weight_increment(before, state.potential)
        step_size = jnp.exp(log_step_size) if given is None else given
        state, info = sampler.step(key, potential, state._replace(step_size=step_size))
        if sampler.target_acceptance is not None:
            rate = info.acceptance_rate.mean(0)
            log_step_size = tuned(log_step_size, rate, sampler.target_acceptance)
        return (state.position, state.potential, log_weights, log_step_size), step_size

    log_weights = jnp.zeros_like(state.potential)
    log_step_size = jnp.log(state.step_size) + log_weights[0]
    carry = state.position, state.potential, log_weights, log_step_size
    keys = random.split(step_key, len(path))
    (_, _, log_weights, _), used = lax.scan(step, carry, (keys, path, step_sizes))
    return log_weights, used


def _tempered(posterior: Posterior, inverse_temperature: Array) -> Potential:
    def potential(position: Array) -> Array:
        prior, rest = posterior.log_densities(position)
        # Not zero times infinity: at first, what is impossible does not count.
        return -prior - jnp.where(inverse_temperature > 0, inverse_temperature * rest, 0.0)

    return potential
