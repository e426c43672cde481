"""Guides by short Markov chains on the posterior of a NumPyro model."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpyro
from jax import Array, lax, random
from numpyro.distributions import Delta
from numpyro.handlers import seed, substitute, trace
from numpyro.util import not_jax_tracer

from pyro_ebm.core.infer import langevin_guide as settings
from pyro_ebm.core.infer.langevin_guide import check_density, enter_plates
from pyro_ebm.numpyro.model.posterior import Posterior
from pyro_ebm.numpyro.samplers.base import Sampler
from pyro_ebm.numpyro.samplers.langevin import Langevin
from pyro_ebm.numpyro.samplers.run import short_run


class LangevinGuide(settings.LangevinGuide):
    """Guide of short Markov chains on the posterior, which needs a random key and no parameters.

    Chains that diverge are an error outside of ``jit``.

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
    ) -> None:
        self.model = model
        self._configure(Langevin(0.005) if sampler is None else sampler, num_steps)
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
        position = short_run(chain_key, self.sampler, posterior.potential, start, self.num_steps)
        if not_jax_tracer(position) and not jnp.isfinite(position).all():
            raise self._diverged(posterior.latents)
        values = lax.stop_gradient(posterior.values(position))
        sites = {}
        if self.init is not None:
            sites = self._run_init(init_key, posterior, values, args, kwargs)
        plates = posterior.plates()
        for name, site in posterior.latents.items():
            with enter_plates(plates, site):
                log_density = 0.0
                if name in sites:
                    log_q = sites[name]["fn"].log_prob(values[name])
                    log_density = lax.stop_gradient(log_q) - log_q
                fn = Delta(values[name], log_density, event_dim=site["fn"].event_dim)
                numpyro.sample(name, fn)
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
