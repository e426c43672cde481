"""Guides by short Markov chains on the posterior of a NumPyro model."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpyro
from jax import Array, lax, random
from numpyro.distributions import Delta
from numpyro.handlers import seed, substitute, trace
from numpyro.primitives import mutable
from numpyro.util import not_jax_tracer

from pyro_ebm.core.infer import langevin_guide as settings
from pyro_ebm.core.infer.langevin_guide import check_density, enter_plates, resume, stored_name
from pyro_ebm.numpyro.model.posterior import Posterior
from pyro_ebm.numpyro.samplers.base import Sampler
from pyro_ebm.numpyro.samplers.langevin import Langevin
from pyro_ebm.numpyro.samplers.run import short_run


class LangevinGuide(settings.LangevinGuide):
    """Guide of short Markov chains on the posterior, which needs a random key and no parameters.

    Chains that diverge are an error outside of ``jit``. Stored positions are a ``mutable`` site, a
    part of ``SVIState`` under ``mutable_state["z$positions"]``, which ELBOs keep with one particle.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> import pyro_ebm.numpyro as ebm
        >>> def model(x):
        ...     with numpyro.plate("data", len(x)):
        ...         z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        ...         numpyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> guide = numpyro.handlers.seed(ebm.LangevinGuide(model), jax.random.key(0))
        >>> jax.eval_shape(guide, jnp.zeros(3))["z"].shape
        (3,)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        sampler: Sampler | None = None,
        *,
        num_steps: int = 20,
        init: Callable[..., Any] | None = None,
        start: str = "fresh",
    ) -> None:
        self.model = model
        self._configure(Langevin(0.005) if sampler is None else sampler, num_steps, start)
        self.init = init

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Emit draws of the latents, given the arguments of the model; return them by site."""
        rng_key = numpyro.prng_key()
        if rng_key is None:
            raise ValueError("Expected a random key from a seed handler, got none.")
        start_key, init_key, chain_key = random.split(rng_key, 3)
        posterior = Posterior(start_key, self.model, args, kwargs)
        start = posterior.start
        if self.init is not None:
            sites = self._run_init(init_key, posterior, {}, args, kwargs)
            start = posterior.position({name: site["value"] for name, site in sites.items()})
        stored = _Stored(posterior) if self.start == "stored" else None
        if stored is not None:
            start = stored.resume(start)
        run = self.sampler, posterior.potential, start, self.num_steps
        position = short_run(chain_key, *run).samples
        if not_jax_tracer(position) and not jnp.isfinite(position).all():
            raise self._diverged(posterior.latents)
        values = lax.stop_gradient(posterior.values(position))
        if stored is not None:
            stored.keep(position, values)
        sites = {}
        if self.init is not None:
            sites = self._run_init(init_key, posterior, values, args, kwargs)
        _emit(posterior, values, sites)
        return values

    def _run_init(
        self,
        rng_key: Array,
        posterior: Posterior,
        values: Mapping[str, Array],
        args: Any,
        kwargs: Any,
    ) -> dict[str, Any]:
        """Messages of the latents' sites in the amortized guide, at these values or its draws."""
        init: Any = self.init
        with posterior.hidden(), trace() as met, seed(rng_seed=rng_key), substitute(data=values):
            init(*args, **kwargs)
        sites = {name: met.get(name) for name in posterior.latents}
        for name, site in sites.items():
            check_density(name, site, Delta)
        return sites


def _emit(posterior: Posterior, values: Mapping[str, Array], amortized: Mapping[str, Any]) -> None:
    """Emit values of the latents; with the messages of an amortized guide, and its gradient."""
    plates = posterior.plates()
    for name, site in posterior.latents.items():
        with enter_plates(plates, site):
            log_density = 0.0
            if name in amortized:
                log_q = amortized[name]["fn"].log_prob(values[name])
                log_density = lax.stop_gradient(log_q) - log_q
            numpyro.sample(name, Delta(values[name], log_density, event_dim=site["fn"].event_dim))


class _Stored:
    """Positions of all rows of the data, in a ``mutable`` site."""

    def __init__(self, posterior: Posterior) -> None:
        self.posterior, self.rows = posterior, posterior.rows()
        self.name = stored_name(posterior, self.rows.around)
        self.shape = self.rows.number, posterior.start.shape[-1]
        infinite = jnp.full(self.shape, jnp.inf, posterior.start.dtype)
        self.site = mutable(self.name, {"positions": infinite})

    def resume(self, start: Array) -> Array:
        return resume(self.name, self.site["positions"], self.shape, self.rows.index, start)

    def keep(self, position: Array, values: Mapping[str, Array]) -> None:
        # A row that is masked out has a log-density of zero.
        counts = self.posterior.log_joint(values) != 0
        index = jnp.where(counts, self.rows.index, self.rows.number)
        before = self.site["positions"]
        self.site["positions"] = before.at[index].set(lax.stop_gradient(position), mode="drop")
