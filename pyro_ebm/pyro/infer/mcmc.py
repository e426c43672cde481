"""Our samplers as kernels of Pyro's own ``MCMC``."""

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from pyro.infer.autoguide import init_to_uniform
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from pyro.infer.mcmc.util import initialize_model
from pyro.ops.integrator import _EXCEPTION_HANDLERS
from torch import Tensor

from pyro_ebm.core.checks import describe_trouble
from pyro_ebm.pyro.model.check import check_model
from pyro_ebm.pyro.samplers import Sampler, TransitionInfo
from pyro_ebm.pyro.samplers.run import kept_draw
from pyro_ebm.pyro.samplers.warmup import Warmup

__all__ = ["SamplerKernel"]


class SamplerKernel(MCMCKernel):
    """A kernel for ``pyro.infer.MCMC`` that moves a model's latent variables by a sampler.

    All latent variables form one vector in unconstrained space. In warm-up the sampler's
    ``target_acceptance`` and ``adapt_scale`` say what is tuned; after that nothing changes.

    ``MCMC.diagnostics()`` has, by chain, the ``"divergences"``, the mean ``"acceptance rate"``, the
    ``"step size"``, and under ``"sample stats"`` what :func:`~pyro_ebm.diagnostics.to_arviz` reads:
    ``lp`` (in unconstrained space), ``acceptance_rate`` and ``step_size`` of each draw.

    Args:
        model: A Pyro model. Discrete latent variables are summed out, as in ``NUTS``.
        sampler: For example :class:`~pyro_ebm.pyro.MALA`. One without acceptance step, such as
            :class:`~pyro_ebm.pyro.Langevin`, leaves the posterior biased.
        init_strategy: Where chains start, one of Pyro's ``init_to_...``.

    Raises:
        TypeError: If ``sampler`` is none.
        ValueError: If the model has no continuous latent variable.

    Warns:
        UserWarning: At the start of a run, if an energy makes its target wrong (see
            :func:`~pyro_ebm.pyro.check_model`); at the end, if chains diverged or never moved.

    Example:
        >>> from pyro.infer import MCMC
        >>> from pyro_ebm.pyro.samplers import MALA
        >>> kernel = SamplerKernel(model, MALA(0.1))  # doctest: +SKIP
        >>> MCMC(kernel, num_samples=1000, warmup_steps=500).run(data)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Callable[..., Any],
        sampler: Sampler,
        *,
        init_strategy: Callable[..., Any] = init_to_uniform,
    ) -> None:
        if not isinstance(sampler, Sampler):
            raise TypeError(
                f"Expected `sampler` to have init and step, got {type(sampler).__name__}."
            )
        self.model = model
        self.sampler = sampler
        self.init_strategy = init_strategy
        self.transforms: Any = None
        self.cleanup()

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Start one chain on the model with these arguments."""
        for finding in check_model(self.model, *args, **kwargs):
            if finding.biases_mcmc:
                warnings.warn(finding.message, stacklevel=2)
        self._initial_params, self._potential_fn, self.transforms, _ = initialize_model(
            self.model,
            args,
            kwargs,
            init_strategy=self.init_strategy,
            initial_params=self._initial_params,
        )
        if not self._initial_params:
            raise ValueError("Expected a model with a continuous latent variable, got none.")
        values = [self._initial_params[name].reshape(-1) for name in sorted(self._initial_params)]
        self._state = self.sampler.init(self._potential, torch.cat(values)[None])
        self._warmup_steps = warmup_steps
        self._warmup = Warmup(self.sampler, self._state, warmup_steps)

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Move the chain once; it goes on from its own state, which is at ``params``."""
        state, info = self.sampler.step(self._potential, self._state)
        if self._index < self._warmup_steps:
            state = self._warmup.adapt(self._index, state, info)
            count = self._index + 1
        else:
            self._kept.append(kept_draw(self._potential, state, info)[1:])
            count = len(self._kept)
        self._state, self._index = state, self._index + 1
        self._mean_rate += (float(info.acceptance_rate) - self._mean_rate) / count
        return self._by_site(state.position[0])

    @property
    def initial_params(self) -> Any:
        """Where the chain starts, by site, in unconstrained space."""
        return self._initial_params

    @initial_params.setter
    def initial_params(self, params: Any) -> None:
        self._initial_params = params

    def logging(self) -> OrderedDict[str, str]:
        """What the progress bar shows."""
        rate, size = f"{self._mean_rate:.3f}", f"{float(self._state.step_size):.2e}"
        return OrderedDict([("step size", size), ("acc. prob", rate)])

    def diagnostics(self) -> dict[str, Any]:
        """What ``MCMC.diagnostics`` reports of this chain; warns if it went wrong."""
        potentials, infos = zip(*self._kept, strict=True)
        rate = torch.cat([info.acceptance_rate for info in infos])
        diverging = torch.cat([info.diverging for info in infos])
        name = getattr(self.model, "__name__", type(self.model).__name__)
        for trouble in describe_trouble(self.sampler, f"model {name}", rate[None], diverging[None]):
            warnings.warn(trouble, stacklevel=2)
        step_size = self._state.step_size
        statistics = {
            "lp": -torch.cat(potentials),
            "acceptance_rate": rate,
            "step_size": step_size.expand(rate.shape),
        }
        return {
            "divergences": diverging.nonzero()[:, 0].tolist(),
            "acceptance rate": float(rate.mean()),
            "step size": float(step_size),
            "sample stats": statistics,
        }

    def cleanup(self) -> None:
        """Forget the chain."""
        self._initial_params: Any = None
        self._potential_fn: Any = None
        self._state: Any = None
        self._warmup: Any = None
        self._warmup_steps = 0
        self._index = 0
        self._mean_rate = 0.0
        self._kept: list[tuple[Tensor, TransitionInfo]] = []

    def _potential(self, position: Tensor) -> Tensor:
        """Potential of one chain, from shape ``(1, size)`` to ``(1,)``."""
        try:
            return self._potential_fn(self._by_site(position[0])).reshape(1)
        except Exception as error:
            # What Pyro's own kernels take for a divergence, a singular matrix for example.
            if not any(handles(error) for handles in _EXCEPTION_HANDLERS.values()):
                raise
            return 0.0 * position.sum(-1) + torch.inf

    def _by_site(self, position: Tensor) -> dict[str, Tensor]:
        sizes = {name: self._initial_params[name].shape for name in sorted(self._initial_params)}
        parts = position.split([shape.numel() for shape in sizes.values()])
        return {
            name: part.reshape(shape)
            for (name, shape), part in zip(sizes.items(), parts, strict=True)
        }
