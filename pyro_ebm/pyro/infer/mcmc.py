"""The samplers of this package as kernels of Pyro's ``MCMC``."""

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import init_to_uniform
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from pyro.infer.mcmc.util import initialize_model
from pyro.ops.integrator import _EXCEPTION_HANDLERS
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_ebm.core.infer import mcmc as settings
from pyro_ebm.core.infer.mcmc import (
    Codes,
    check_has_latents,
    find_codes,
    kernel_on,
    warn_of_issues,
)
from pyro_ebm.core.numerics import as_real
from pyro_ebm.core.samplers.checks import describe_trouble
from pyro_ebm.core.samplers.gibbs import moves_codes
from pyro_ebm.core.samplers.run import kept_draw
from pyro_ebm.pyro.model.check import check_model
from pyro_ebm.pyro.model.posterior import InitialValues
from pyro_ebm.pyro.samplers.base import Sampler
from pyro_ebm.pyro.samplers.columns import columns_of
from pyro_ebm.pyro.samplers.warmup import Warmup


class SamplerKernel(settings.SamplerKernel, MCMCKernel):
    """A kernel for ``pyro.infer.MCMC``.

    Draws of codes are real numbers, as Pyro's diagnostics need them. ``MCMC.diagnostics()`` has, by
    chain, the ``"divergences"``, the mean ``"acceptance rate"``, the ``"step size"``, and under
    ``"sample stats"`` what ``to_arviz`` reads: ``lp`` (in unconstrained space), ``acceptance_rate``
    and ``step_size`` of each draw. It warns if chains diverged or never moved.

    Example:
        >>> import pyro, pyro.distributions as dist, pyro_ebm.pyro as ebm
        >>> from pyro.infer import MCMC
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> kernel = ebm.SamplerKernel(model, ebm.MALA(0.5))
        >>> mcmc = MCMC(kernel, num_samples=50, warmup_steps=50, disable_progbar=True)
        >>> mcmc.run()
        >>> mcmc.get_samples()["z"].shape
        torch.Size([50])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        sampler: Sampler,
        *,
        init_strategy: Callable[..., Any] = init_to_uniform,
    ) -> None:
        super().__init__(model, sampler, init_strategy=init_strategy)
        self.transforms: Any = None
        self.cleanup()

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        warn_of_issues(check_model(self.model)(*args, **kwargs))
        self._codes, given = self._find_codes(args, kwargs), dict(self._initial_params or {})
        # The model is run with these.
        self._values = {n: given.pop(n, code.value) for n, code in self._codes.items()}
        self._initial_params, self._potential_fn, self.transforms, _ = initialize_model(
            self._given_codes,
            args,
            kwargs,
            init_strategy=self.init_strategy,
            initial_params=given or None,
        )
        shapes = {name: tuple(x.shape) for name, x in self._initial_params.items()}
        self._kernel = kernel_on(self.sampler, shapes, self._codes)
        check_has_latents(start := self._initial_params | self._values)
        position = torch.cat([as_real(start[name]).reshape(-1) for name in sorted(start)])
        self._state = self._kernel.init(self._potential, position[None])
        self._warmup_steps = warmup_steps
        self._warmup = Warmup(self._kernel, self._state, warmup_steps)

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        state, info = self._kernel.step(self._potential, self._warmup.braked(self._state))
        if self._index < self._warmup_steps:
            state = self._warmup.adapt(self._index, state, info)
            count = self._index + 1
        else:
            self._kept.append(kept_draw(torch.no_grad()(self._potential), state, info)[1:])
            count = len(self._kept)
        self._state, self._index = state, self._index + 1
        self._mean_rate += (float(info.acceptance_rate) - self._mean_rate) / count
        return self._by_site(state.position[0])

    @property
    def initial_params(self) -> Any:
        return None if self._initial_params is None else self._initial_params | self._values

    @initial_params.setter
    def initial_params(self, params: Any) -> None:
        self._initial_params = params

    def logging(self) -> OrderedDict[str, str]:
        rate, size = f"{self._mean_rate:.3f}", f"{float(self._state.step_size):.2e}"
        return OrderedDict([("step size", size), ("acc. prob", rate)])

    def diagnostics(self) -> dict[str, Any]:
        potentials, infos = zip(*self._kept, strict=True)
        found = {name: torch.cat([info[name] for info in infos]) for name in infos[0]}
        rate, diverging = found["acceptance_rate"], found.pop("diverging")
        name = f"model {getattr(self.model, '__name__', type(self.model).__name__)}"
        run = self.sampler, name, self._warmup_steps
        for trouble in describe_trouble(*run, rate[None], diverging[None]):
            warnings.warn(trouble, stacklevel=2)
        step_size = self._state.step_size
        statistics = {
            "lp": -torch.cat(potentials),
            "step_size": step_size.expand(rate.shape),
            **found,
        }
        return {
            "divergences": diverging.nonzero()[:, 0].tolist(),
            "acceptance rate": float(rate.mean()),
            "step size": float(step_size),
            "sample stats": statistics,
        }

    def cleanup(self) -> None:
        self._initial_params: Any = None
        self._codes: dict[str, Codes] = {}
        self._values: dict[str, Tensor] = {}
        self._kernel: Any = self.sampler
        self._potential_fn: Any = None
        self._state: Any = None
        self._warmup: Any = None
        self._warmup_steps = 0
        self._index = 0
        self._mean_rate = 0.0
        self._kept: list[tuple[Tensor, dict[str, Tensor]]] = []

    def _potential(self, position: Tensor) -> Tensor:
        rows = position.reshape(-1, position.shape[-1])
        return torch.stack([self._potential_of_row(row) for row in rows]).reshape(
            position.shape[:-1]
        )

    def _potential_of_row(self, position: Tensor) -> Tensor:
        try:
            values = self._by_site(position)
            self._values = {name: values.pop(name) for name in self._codes}
            return self._potential_fn(values).reshape(())
        except Exception as error:
            # Pyro's own kernels count these as divergences, a singular matrix for example.
            if not any(handles(error) for handles in _EXCEPTION_HANDLERS.values()):
                raise
            return 0.0 * position.sum() + torch.inf

    def _by_site(self, position: Tensor) -> dict[str, Tensor]:
        like = self._initial_params | self._values
        sizes = {name: like[name].shape for name in sorted(like)}
        parts = position.split([shape.numel() for shape in sizes.values()])
        return {
            name: self._codes[name].of_numbers(part.reshape(shape))
            if name in self._codes
            else part.reshape(shape)
            for (name, shape), part in zip(sizes.items(), parts, strict=True)
        }

    def _find_codes(self, args: Any, kwargs: Any) -> dict[str, Codes]:
        if not moves_codes(self.sampler):
            return {}
        with InitialValues():
            traced = poutine.trace(poutine.block(self.model, expose_types=["sample"]))
            nodes: Any = traced.get_trace(*args, **kwargs).nodes
        sites = {name: s for name, s in nodes.items() if s["type"] == "sample"}
        sites = {name: s for name, s in sites.items() if not site_is_subsample(s)}
        return find_codes(sites, self.sampler, columns_of)

    def _given_codes(self, *args: Any, **kwargs: Any) -> Any:
        return poutine.condition(self.model, data=self._values)(*args, **kwargs)
