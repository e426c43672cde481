"""Metrics over training with NumPyro."""

from typing import Any

import jax
from jax import random
from numpyro.infer import SVI
from numpyro.infer.svi import SVIState

from pyro_ebm.core.infer import metrics_recorder as core
from pyro_ebm.numpyro.infer.elbo import EnergyELBO


class MetricsRecorder(core.MetricsRecorder):
    """Metrics of every trained site over training by ``SVI.update``, read in compiled code.

    See :class:`pyro_ebm.core.infer.metrics_recorder.MetricsRecorder`. Compiled, they warn of
    nothing.

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
        >>> recorder, x = ebm.MetricsRecorder(svi, every=2), jnp.ones(8)
        >>> state, update = svi.init(jax.random.key(0), x), jax.jit(svi.update)
        >>> for _ in range(6):
        ...     state, _ = update(state, x)
        ...     recorder(state, x)
        >>> recorder.steps, recorder.metrics["x"]["energy_gap"].shape
        ([2, 4, 6], (3,))
    """

    def __init__(self, svi: SVI, *, every: int = 100) -> None:
        super().__init__(every)
        core.check_elbo(svi.loss, EnergyELBO)
        self._svi = svi
        self._metrics = jax.jit(self._metrics_of)

    def __call__(self, state: SVIState, *args: Any, **kwargs: Any) -> None:
        if self._is_due():
            self._keep(self._metrics(state, *args, **kwargs))

    def _metrics_of(self, state: SVIState, *args: Any, **kwargs: Any) -> Any:
        svi: Any = self._svi
        # The next step splits this key.
        rng_key, params = random.fold_in(state.rng_key, 0), svi.get_params(state)
        given = params | (state.mutable_state or {}), svi.model, svi.guide
        return svi.loss.metrics(rng_key, *given, *args, **kwargs, **svi.static_kwargs)
