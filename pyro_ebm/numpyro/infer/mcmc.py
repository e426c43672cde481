"""The samplers of this package as kernels of NumPyro's ``MCMC``."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree
from numpyro.handlers import block, condition, seed, trace
from numpyro.infer import init_to_uniform
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import initialize_model
from numpyro.util import is_prng_key

from pyro_ebm.core.infer import mcmc as settings
from pyro_ebm.core.infer.mcmc import (
    Codes,
    check_has_latents,
    find_codes,
    kernel_on,
    warn_of_issues,
)
from pyro_ebm.core.numerics import as_real
from pyro_ebm.core.samplers.dynamics import ChainState, TransitionInfo
from pyro_ebm.core.samplers.gibbs import moves_codes
from pyro_ebm.numpyro.distributions.bound_energy import TrainedByObjective
from pyro_ebm.numpyro.model.check import check_model
from pyro_ebm.numpyro.model.parameters import run_trained
from pyro_ebm.numpyro.model.posterior import initialized
from pyro_ebm.numpyro.samplers.base import Sampler
from pyro_ebm.numpyro.samplers.columns import columns_of
from pyro_ebm.numpyro.samplers.target import Potential
from pyro_ebm.numpyro.samplers.warmup import (
    Warmup,
    adapt,
    begin_warmup,
    braked,
    end_warmup,
    prepare_state,
    schedule,
    unbraked,
)

_Learned = tuple[ChainState, Warmup]


class AdaptState(NamedTuple):
    """Step size in use, and what warm-up has learned so far."""

    step_size: Array
    warmup: Any


class KernelState(NamedTuple):
    """State of one chain, or of all vectorized chains, under NumPyro's names.

    Attributes:
        i: Steps taken.
        z: Unconstrained values, by site.
        potential_energy: Minus the log-density there, in unconstrained space.
        accept_prob: Probability of acceptance in the last step.
        mean_accept_prob: Its mean over the warm-up, or since.
        diverging: Whether the last step diverged.
        adapt_state: State of warm-up.
        chains: The sampler's state.
        rng_key: For the next step.
    """

    i: Array
    z: Any
    potential_energy: Array
    accept_prob: Array
    mean_accept_prob: Array
    diverging: Array
    adapt_state: AdaptState
    chains: ChainState
    rng_key: Array


class SamplerKernel(settings.SamplerKernel, MCMCKernel):
    """A kernel for ``numpyro.infer.MCMC``; with ``chain_method="vectorized"`` chains share warm-up.

    ``params`` are parameters of the model, from ``svi.get_params(state)``.
    ``MCMC`` collects ``diverging``, ``accept_prob``, ``potential_energy`` and
    ``adapt_state.step_size`` without being asked; ArviZ and ``to_arviz`` read them.

    Example:
        >>> import numpyro, numpyro.distributions as dist, pyro_ebm.numpyro as ebm
        >>> def model():
        ...     numpyro.sample("z", dist.Normal(0.0, 1.0))
        >>> kernel = ebm.SamplerKernel(model, ebm.MALA(0.5))
        >>> mcmc = numpyro.infer.MCMC(kernel, num_warmup=500, num_samples=1000)
    """

    sample_field = "z"
    default_fields = ("z", "diverging", "accept_prob", "potential_energy", "adapt_state.step_size")

    def __init__(
        self,
        model: Callable[..., Any],
        sampler: Sampler,
        *,
        init_strategy: Callable[..., Any] = init_to_uniform,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        trained = partial(run_trained, model, params)
        super().__init__(trained, sampler, init_strategy=init_strategy)
        self._num_warmup = 0
        self._kernel: Any = sampler
        self._codes: dict[str, Codes] = {}
        self._potential_fn: Any = None
        self._postprocess_fn: Any = None
        self._unravel: Any = None

    def init(
        self,
        rng_key: Array,
        num_warmup: int,
        init_params: Any,
        model_args: tuple[Any, ...],
        model_kwargs: dict[str, Any] | None,
    ) -> KernelState:
        model_kwargs = model_kwargs or {}
        warn_of_issues(check_model(self.model)(*model_args, **model_kwargs))
        rng_key, model_key = _split(rng_key)
        shape = () if is_prng_key(model_key) else (len(model_key),)
        one = model_key[0] if shape else model_key
        self._codes = self._find_codes(one, model_args, model_kwargs)
        values = {name: as_real(code.value) for name, code in self._codes.items()}
        # Of latent variables behind an energy the check has warned; no gradient is a parameter's.
        with TrainedByObjective():
            start, self._potential_fn, self._postprocess_fn, _ = initialize_model(
                model_key,
                self._given_codes,
                init_strategy=self.init_strategy,
                dynamic_args=True,
                model_args=(values, *model_args),
                model_kwargs=model_kwargs,
            )
        if shape and values:  # Every chain starts at codes of its own.
            values = jax.vmap(lambda key: self._values(key, model_args, model_kwargs))(model_key)
        z = start.z | values | (init_params or {})
        check_has_latents(z)
        shapes = {name: jnp.shape(value)[len(shape) :] for name, value in z.items()}
        self._kernel = kernel_on(self.sampler, shapes, self._codes)
        self._num_warmup = num_warmup
        potential = self._potential(model_args, model_kwargs)
        # One compilation costs less than a run of each operation by itself.
        return jax.jit(lambda z, rng_key: self._start(z, potential, rng_key))(z, rng_key)

    def sample(
        self, state: KernelState, model_args: tuple[Any, ...], model_kwargs: dict[str, Any] | None
    ) -> KernelState:
        rng_key, step_key = _split(state.rng_key)
        step_key = step_key if is_prng_key(step_key) else step_key[0]
        potential = self._potential(model_args, model_kwargs)
        start, warmup = state.chains, state.adapt_state.warmup
        chains, info = self._kernel.step(step_key, potential, braked(start, warmup))
        learned = unbraked(chains, start), warmup
        if self._num_warmup:
            warm_up = partial(self._warm_up, state.i, info)
            learned = lax.cond(state.i < self._num_warmup, warm_up, lambda same: same, learned)
        i = state.i + 1
        count = jnp.where(i <= self._num_warmup, i, i - self._num_warmup)
        mean = jnp.reshape(state.mean_accept_prob, info.acceptance_rate.shape)
        mean = mean + (info.acceptance_rate - mean) / count
        chains, warmup = learned
        return self._state(i, potential, chains, info, mean, warmup, rng_key)

    def postprocess_fn(self, model_args: tuple[Any, ...], model_kwargs: dict[str, Any]) -> Any:
        def postprocess(z: Any) -> Any:
            values, numbers = self._codes_apart(z)
            found = self._postprocess_fn(values, *model_args, **model_kwargs)(numbers)
            return found | {n: self._codes[n].of_numbers(value) for n, value in values.items()}

        return postprocess

    def get_diagnostics_str(self, state: KernelState) -> str:
        return (
            f"step size {state.adapt_state.step_size:.2e}. acc. prob={state.mean_accept_prob:.2f}"
        )

    @property
    def _sample_fn(self) -> Any:
        # `MCMC` reads it: None until `init` has run.
        return self._potential_fn

    def _potential(
        self, model_args: tuple[Any, ...], model_kwargs: dict[str, Any] | None
    ) -> Potential:
        """Potential of all chains, from shape ``(*chains, size)`` to ``(*chains,)``."""

        def potential(position: Array) -> Array:
            values, numbers = self._codes_apart(self._unravel(position))
            with TrainedByObjective():
                return self._potential_fn(values, *model_args, **(model_kwargs or {}))(numbers)

        def potentials(position: Array) -> Array:
            rows = position.reshape(-1, position.shape[-1])
            return jax.vmap(potential)(rows).reshape(position.shape[:-1])

        return potentials

    def _find_codes(self, rng_key: Array, args: Any, kwargs: Any) -> dict[str, Codes]:
        if not moves_codes(self.sampler):
            return {}
        with block(), trace() as met, initialized(), seed(rng_seed=rng_key):
            self.model(*args, **kwargs)
        sites = {name: site for name, site in met.items() if site["type"] == "sample"}
        return find_codes(sites, self.sampler, columns_of)

    def _values(self, rng_key: Array, args: Any, kwargs: Any) -> dict[str, Array]:
        codes = self._find_codes(rng_key, args, kwargs)
        return {name: as_real(code.value) for name, code in codes.items()}

    def _given_codes(self, values: Mapping[str, Array], *args: Any, **kwargs: Any) -> Any:
        values = {name: self._codes[name].of_numbers(value) for name, value in values.items()}
        return condition(self.model, data=values)(*args, **kwargs)

    def _codes_apart(self, z: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Split latents into codes, as real numbers, and unconstrained numbers."""
        codes = {name: z[name] for name in self._codes}
        return codes, {name: value for name, value in z.items() if name not in codes}

    def _start(self, z: Any, potential: Potential, rng_key: Array) -> KernelState:
        if is_prng_key(rng_key):
            z = jax.tree.map(lambda leaf: leaf[None], z)
        self._unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], z))[1]
        position = jax.vmap(lambda z: ravel_pytree(z)[0])(z)
        chains = prepare_state(self._kernel, self._kernel.init(potential, position))
        zeros = jnp.zeros(len(position), position.dtype)
        warmup = begin_warmup(self._kernel, chains)
        info, i = TransitionInfo(zeros, zeros > 0), jnp.zeros((), int)
        return self._state(i, potential, chains, info, zeros, warmup, rng_key)

    def _warm_up(self, i: Array, info: TransitionInfo, learned: _Learned) -> _Learned:
        chains, warmup = learned
        now = jax.tree.map(lambda flags: flags[i], schedule(self._num_warmup))
        chains, warmup = adapt(self._kernel, chains, info, warmup, now)
        last = end_warmup(self._kernel, chains, warmup)
        is_last = i + 1 == self._num_warmup
        return jax.tree.map(partial(jnp.where, is_last), last, chains), warmup

    def _state(
        self,
        i: Array,
        potential: Potential,
        chains: ChainState,
        info: TransitionInfo,
        mean: Array,
        warmup: Warmup,
        rng_key: Array,
    ) -> KernelState:
        value = potential(chains.position) if chains.potential is None else chains.potential
        step_size = jnp.broadcast_to(chains.step_size, value.shape)
        z = jax.vmap(self._unravel)(chains.position)
        by_chain: Any = (z, value, info.acceptance_rate, mean, info.diverging, step_size)
        if is_prng_key(rng_key):
            by_chain = jax.tree.map(lambda leaf: leaf[0], by_chain)
        z, value, rate, mean, diverging, step_size = by_chain
        adapt_state = AdaptState(step_size, warmup)
        return KernelState(i, z, value, rate, mean, diverging, adapt_state, chains, rng_key)


def _split(rng_key: Array) -> Any:
    """Two keys out of one, or two for each chain."""
    if is_prng_key(rng_key):
        return random.split(rng_key)
    return jnp.swapaxes(jax.vmap(random.split)(rng_key), 0, 1)
