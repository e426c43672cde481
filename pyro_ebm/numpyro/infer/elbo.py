"""The ELBO of a model with energy-based sites, around any ELBO of NumPyro.

A step runs the model three times. (1) `SiteRecorder`, outside of the particles: only arrays leave
a `vmap`, but log-normalizers need the sites, and persistent chains must move once for all of them.
(2) `find_dependencies`, abstractly: arrays have no identity, only provenance shows which latents
and parameters are behind an energy. (3) The stock ELBO, in its particles, with `FactorEmitter`.
Under `jit` the first two cost tracing alone, as XLA drops what is unused; outside of it a step
takes about twice the time.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from numpyro.handlers import replay, seed, substitute, trace
from numpyro.infer import ELBO, Trace_ELBO
from numpyro.primitives import _PYRO_STACK, apply_stack

from pyro_ebm.core.infer import elbo as settings
from pyro_ebm.core.objectives.negatives import lowest
from pyro_ebm.core.samplers.run import ShortRun
from pyro_ebm.numpyro.distributions.bound_energy import TrainedByObjective
from pyro_ebm.numpyro.infer.energy_sites import EnergySite, FactorEmitter, SiteRecorder
from pyro_ebm.numpyro.infer.meshes import with_automatic_axes
from pyro_ebm.numpyro.infer.persistent_chains import AttachedChains, PersistentChains, with_values


def attach(site: str, **parts: Any) -> None:
    """Attach what the objective of a site learns beside the energy; call it in the guide.

    ``site`` is the name in a trace of the model, with the prefix of a ``scope`` around the site.
    ``parts`` are keyword arguments of the objective's ``loss``, for example
    ``critic=eqx_module("critic", module)`` or ``chains=PersistentChains(...)``. ``SVI`` trains
    what ``numpyro.param`` and the modules of ``numpyro.contrib.module`` register.

    Example:
        >>> import numpyro, pyro_ebm.numpyro as ebm
        >>> def guide(x):
        ...     ebm.attach("x", log_normalizer=numpyro.param("log_normalizer", 0.0))
    """
    if not _PYRO_STACK:
        return
    parts = {
        name: AttachedChains.attach(f"{site}${name}", part)
        if isinstance(part, PersistentChains)
        else part
        for name, part in parts.items()
    }
    # The value stays None, as Predictive and others expect of a message they do not know.
    message: Any = {"type": "attach", "site": site, "parts": parts, "value": None}
    apply_stack(message | {"fn": lambda: None, "args": (), "kwargs": {}})


class EnergyELBO(settings.EnergyELBO, ELBO):
    """A loss for NumPyro's ``SVI`` that trains energies beside what a stock ELBO trains.

    Settings and metrics: :class:`pyro_ebm.core.infer.elbo.EnergyELBO`. Persistent chains work with
    every stock ELBO, other ``mutable`` sites if it supports them. A loss that is not finite raises
    an error outside ``jit``. Inside, the loss is NaN, and ``SVI.run(..., stable_update=True)``
    keeps the parameters. ``metrics`` takes the parameters from ``SVI.get_params``; if you add the
    state's ``mutable_state``, persistent chains continue from their current positions.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist, optax
        >>> import pyro_ebm.numpyro as ebm
        >>> def model(x):
        ...     scale = numpyro.param("scale", 1.0)
        ...     with numpyro.plate("data", len(x)):
        ...         energy = ebm.EnergyBased(lambda x: scale * x**4, dist.Normal(0.0, 1.0))
        ...         numpyro.sample("x", energy, obs=x)
        >>> loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=0.25))
        >>> svi = numpyro.infer.SVI(model, lambda x: None, optax.adam(1e-3), loss)
        >>> state = svi.init(jax.random.key(0), jnp.ones(4))
        >>> jax.eval_shape(svi.update, state, jnp.ones(4))[1].shape
        ()
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.elbo = Trace_ELBO() if self.elbo is None else self.elbo
        _check_elbo(self.elbo)
        self.can_infer_discrete = self.elbo.can_infer_discrete
        ELBO.__init__(self, self.elbo.num_particles, self.elbo.vectorize_particles)

    def loss(
        self, rng_key: Array, param_map: Any, model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> Any:
        arguments = rng_key, param_map, model, guide, args, kwargs
        return with_automatic_axes(partial(self._run, with_state=False), *arguments)["loss"]

    def loss_with_mutable_state(
        self, rng_key: Array, param_map: Any, model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> Any:
        arguments = rng_key, param_map, model, guide, args, kwargs
        return with_automatic_axes(partial(self._run, with_state=True), *arguments)

    def metrics(
        self, rng_key: Array, param_map: Any, model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> dict[str, dict[str, Array]]:
        """Metrics of each trained site, by name."""
        arguments = rng_key, param_map, model, guide, args, kwargs
        return with_automatic_axes(self._metrics, *arguments)

    def _metrics(
        self, rng_key: Array, param_map: Any, model: Any, guide: Any, args: Any, kwargs: Any
    ) -> dict[str, dict[str, Array]]:
        recorder = self._record(rng_key, param_map, model, guide, args, kwargs)
        _advance_chains(random.fold_in(rng_key, 1), recorder)
        sites = recorder.trained
        keys, number = random.split(rng_key, len(sites) + 1)[1:], self.num_normalizer_samples
        return {
            site.name: site.metrics(key, num_normalizer_samples=number)
            for site, key in zip(sites, keys, strict=True)
        }

    def _run(
        self,
        rng_key: Array,
        params: Any,
        model: Any,
        guide: Any,
        args: Any,
        kwargs: Any,
        *,
        with_state: bool,
    ) -> dict[str, Any]:
        """Run the stock ELBO, move chains, and add log-normalizers."""
        # From keys of its own: the keys that the stock ELBO splits off do not change.
        record_key, normalizer_key = random.split(random.fold_in(rng_key, 0))
        recorder = self._record(record_key, params, model, guide, args, kwargs)
        states, values = _advance_chains(random.fold_in(rng_key, 1), recorder)
        self._check_discrete(recorder)
        if recorder.sites:
            emitter = FactorEmitter(self.objective, values)
            model, guide = emitter(model), emitter.guide(guide)
        # Not every stock ELBO knows mutable sites, and some only with one particle.
        stock = with_state and (not states or recorder.mutables > states.keys())
        elbo = self.elbo.loss_with_mutable_state if stock else self.elbo.loss
        if stock:
            self._check_particles(recorder.mutables - states.keys())
        with TrainedByObjective():
            result = elbo(rng_key, params, model, guide, *args, **kwargs)
        result = result if stock else {"loss": result, "mutable_state": None}
        if states:
            result = {**result, "mutable_state": {**(result["mutable_state"] or {}), **states}}
        if recorder.sites and self.num_normalizer_samples:
            total = self._log_normalizer(normalizer_key, list(recorder.sites.values()))
            result = {**result, "loss": result["loss"] + total}
        return result

    def _check_discrete(self, recorder: SiteRecorder) -> None:
        """Raise if the stock ELBO has no gradient with a discrete energy-based latent."""
        for name in () if self.can_infer_discrete else recorder.sites:
            if recorder.latents.get(name):
                raise ValueError(
                    f"Expected EnergyELBO(objective, TraceGraph_ELBO()) with the discrete latent "
                    f"site {name!r}, whose guide learns by score functions, got "
                    f"{type(self.elbo).__name__}."
                )

    def _check_particles(self, mutables: set[str]) -> None:
        if mutables and self.num_particles > 1:
            raise ValueError(
                f"Expected one particle with mutable sites, got {self.num_particles}: NumPyro "
                f"drops the state of {sorted(mutables)} with more."
            )

    def _log_normalizer(self, rng_key: Array, sites: list[EnergySite]) -> Array:
        keys = random.split(rng_key, len(sites))
        totals = [
            site.log_normalizer(key, self.num_normalizer_samples)
            for site, key in zip(sites, keys, strict=True)
        ]
        return jnp.stack(totals).sum()

    def _record(
        self, rng_key: Array, params: Any, model: Any, guide: Any, args: Any, kwargs: Any
    ) -> SiteRecorder:
        guide_key, model_key = random.split(rng_key)
        # Copied, because a mutable site writes into its dictionary.
        copied = jax.tree.map(lambda leaf: leaf, params)
        recorder = SiteRecorder(self.objective)
        guide = substitute(seed(recorder.guide(guide), guide_key), data=copied)
        guide_trace = trace(guide).get_trace(*args, **kwargs)
        model = replay(seed(recorder.model(model), model_key), guide_trace)
        substitute(model, data=copied)(*args, **kwargs)
        return recorder


def _advance_chains(
    rng_key: Array, recorder: SiteRecorder
) -> tuple[dict[str, Array], dict[str, ShortRun]]:
    """Move the persistent chains of all sites: all of them thereafter, and those that moved."""
    states: dict[str, Array] = {}
    values: dict[str, ShortRun] = {}
    for site in recorder.sites.values():
        rates = []
        for part in site.attached.values():
            if isinstance(part, AttachedChains):
                key, name = random.fold_in(rng_key, len(states)), part.name
                states[name], values[name] = part.advance(key, site.energy)
                rates.append(values[name].acceptance_rate)
        site.acceptance_rate = lowest(rates)
        site.attached = with_values(site.attached, values)
    return states, values


def _check_elbo(elbo: Any) -> None:
    if not isinstance(elbo, ELBO):
        raise TypeError(f"Expected `elbo` to be an ELBO of NumPyro, got {type(elbo).__name__}.")
    if not getattr(elbo, "sum_sites", True):
        raise ValueError(
            "Expected an ELBO with sum_sites=True, got False: one loss for each site cannot "
            "train an energy."
        )
    if isinstance(elbo, Trace_ELBO) and elbo.multi_sample_guide:
        raise ValueError("Expected an ELBO with multi_sample_guide=False, got True.")
