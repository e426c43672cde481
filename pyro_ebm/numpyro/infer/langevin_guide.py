"""Guides that need no encoder."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import jax.numpy as jnp
import numpyro
from jax import Array, lax, random
from numpyro.distributions import Delta
from numpyro.handlers import seed, substitute, trace
from numpyro.util import not_jax_tracer

from pyro_ebm.numpyro.model.posterior import Posterior
from pyro_ebm.numpyro.samplers import Langevin, Sampler
from pyro_ebm.numpyro.samplers.run import draw

__all__ = ["LangevinGuide"]


class LangevinGuide:
    r"""Short-run Markov chains on the posterior, in the place of an encoder.

    Each call starts chains at draws of the priors (of the bases of energy-based priors), takes
    ``sampler.num_steps`` steps on :math:`-\log p(x, z)` under the parameters as they are, and
    emits where they end as ``Delta`` sites: fixed values, with no gradient through the chains.
    Data points are independent chains wherever the latents lie in the plates of the data, also
    under subsampling and with many particles; a latent outside of a plate makes everything in
    that plate one chain.

    The log-density of the guide counts as zero, so the loss that ``SVI`` reports estimates
    :math:`-\mathrm E \log p(x, z)`, *without the entropy* of the posterior: it is no bound on the
    evidence and cannot be compared with that of an encoder. Use :func:`log_marginal`. Its
    gradients are those of maximum likelihood, as far as the chains have converged. An ELBO that
    weighs particles against each other (``RenyiELBO``) needs a density of the guide that is not
    there: it would favour draws of high joint density.

    With ``init``, an amortised guide, the chains start at its draws, and it learns to imitate
    where they end: the guide's log-density is zero there, and its gradient that of
    :math:`-\log q(z)`. The reported number does not change.

    Args:
        model: The model, vectorised over its plates.
        sampler: Kernel and number of steps. Default: ``Langevin(0.005, num_steps=20)``. It must
            fit the scale of the posterior: with a step size above twice the smallest posterior
            variance Langevin's chains run off, well below it their bias is small. ``MALA`` has
            none but that of a short run.
        init: Guide of the same model that samples every latent from a distribution with a
            density. Default: none.

    Raises:
        TypeError: If ``sampler`` is no sampler.
        ValueError: When called: if a latent is discrete, ``init`` leaves a latent out, or there
            is no random key; outside ``jit``, if chains have run off.

    Example:
        >>> guide = LangevinGuide(model, Langevin(0.01, num_steps=40))  # doctest: +SKIP
        >>> svi = SVI(model, guide, optax.adam(1e-3), loss)  # doctest: +SKIP

    References:
        | Learning latent space energy-based prior model (Pang, Han, Nijkamp, Zhu and Wu, 2020)
          https://arxiv.org/abs/2006.08205
    """

    def __init__(
        self,
        model: Callable[..., Any],
        sampler: Sampler | None = None,
        *,
        init: Callable[..., Any] | None = None,
    ) -> None:
        if sampler is not None and not isinstance(sampler, Sampler):
            raise TypeError(
                f"Expected `sampler` to have init and step, got {type(sampler).__name__}."
            )
        self.model = model
        self.sampler: Sampler = sampler if sampler is not None else Langevin(0.005, num_steps=20)
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
        position = draw(chain_key, self.sampler, posterior.potential, start)
        if not_jax_tracer(position) and not jnp.isfinite(position).all():
            raise ValueError(
                f"Expected {self.sampler} to give finite draws of {list(posterior.latents)}, got "
                "NaN or infinity: lower its `step_size`, or look at the model."
            )
        values = lax.stop_gradient(posterior.values(position))
        init_sites = {}
        if self.init is not None:
            init_sites = self._run_init(init_key, posterior, values, args, kwargs)
        plates = posterior.plates()
        for name, site in posterior.latents.items():
            with _entered(plates, site):
                log_density = 0.0
                if name in init_sites:
                    log_q = init_sites[name]["fn"].log_prob(values[name])
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
        """Messages of the latents' sites in the amortised guide, at given values or its draws."""
        init: Any = self.init
        with posterior.hidden(), trace() as met, seed(rng_seed=rng_key), substitute(data=values):
            init(*args, **kwargs)
        for name in posterior.latents:
            if name not in met or isinstance(met[name]["fn"], Delta):
                got = "a Delta" if name in met else "none"
                raise ValueError(f"Expected `init` to have a density at site {name!r}, got {got}.")
        return {name: met[name] for name in posterior.latents}


def _entered(plates: Mapping[str, Any], site: Mapping[str, Any]) -> ExitStack:
    """The plates that a site of the model lies in."""
    stack = ExitStack()
    for frame in site["cond_indep_stack"]:
        stack.enter_context(plates[frame.name])
    return stack
