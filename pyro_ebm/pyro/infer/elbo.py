"""The ELBO of a model with energy-based sites, around any ELBO of Pyro."""

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from math import inf
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import (
    ELBO,
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    JitTraceGraph_ELBO,
    JitTraceMeanField_ELBO,
    Trace_ELBO,
)
from pyro.infer.elbo import ELBOModule
from pyro.infer.enum import get_importance_trace
from pyro.infer.util import is_validation_enabled, zero_grads
from pyro.nn import PyroModule
from pyro.poutine.runtime import effectful
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from pyro_ebm.core.infer import elbo as settings
from pyro_ebm.core.infer.energy_sites import ADVICE
from pyro_ebm.pyro.distributions.bound_energy import TrainedByObjective
from pyro_ebm.pyro.distributions.pushforward import Pushforward
from pyro_ebm.pyro.infer.energy_sites import FactorEmitter, SiteKey, SiteRecorder
from pyro_ebm.pyro.infer.persistent_chains import ModuleChains
from pyro_ebm.pyro.infer.processes import failing_together


def attach(site: str, **parts: Any) -> None:
    """Attach, in a guide, what the objective of an energy-based site learns beside the energy.

    ``parts`` are keyword arguments of the objective's ``loss``, such as ``critic=module`` or
    ``chains=PersistentChains(...)``. Modules, and the module of a :class:`Pushforward`, are
    registered with Pyro, so that ``SVI`` trains them; make other parameters by ``pyro.param``. A
    ``PyroModule`` without a name gets that of its part, ``"x$critic"``.

    Example:
        >>> import pyro, torch, pyro_ebm.pyro as ebm
        >>> ebm.attach("x", critic=torch.nn.Linear(2, 1))
        >>> list(pyro.get_param_store())
        ['x$critic$$$weight', 'x$critic$$$bias']
    """
    for name, part in parts.items():
        module = part.generator if isinstance(part, Pushforward) else part
        if isinstance(module, nn.Module):
            _name_roots(f"{site}${name}", module)
            pyro.module(f"{site}${name}", module)
    _attach(parts, name=site)


def _name_roots(name: str, module: nn.Module) -> None:
    """Name each ``PyroModule`` that the user has not: those without would share parameters."""
    parts = [(p, it) for p, it in module.named_modules(prefix=name) if isinstance(it, PyroModule)]
    # A copy of what was attached elsewhere has the name of that. Parts of a root have its context.
    roots = {it._pyro_context for _, it in parts if not it._pyro_name or "$" in it._pyro_name}
    for path, part in parts:
        if part._pyro_context in roots:
            part._pyro_name = path


@effectful(type="attach")
def _attach(parts: dict[str, Any]) -> dict[str, Any]:
    return parts


class EnergyELBO(settings.EnergyELBO, ELBO):
    """A loss for Pyro's ``SVI`` that trains energies beside what a stock ELBO trains.

    Settings and metrics: :class:`pyro_ebm.core.infer.elbo.EnergyELBO`. While Pyro validates, a
    gradient that is not finite raises an error too, with parameters as they were before the step.
    Processes connected by ``torch.distributed`` then step together: an error on one is an error on
    all, and none waits for ever. The module form, ``EnergyELBO(...)(model, guide)``, works in
    ``DistributedDataParallel``; its stock ELBO needs a ``differentiable_loss``. A traced stock
    ELBO, such as ``JitTrace_ELBO``, runs as its untraced version.

    Example:
        >>> import pyro, pyro.distributions as dist, torch, pyro_ebm.pyro as ebm
        >>> from pyro.infer import SVI
        >>> energy = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Flatten(0))
        >>> def model(x):
        ...     pyro.module("energy", energy)
        ...     with pyro.plate("data", len(x)):
        ...         base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        ...         pyro.sample("x", ebm.EnergyBased(energy, base), obs=x)
        >>> loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=0.25))
        >>> svi = SVI(model, lambda x: None, pyro.optim.Adam({"lr": 1e-3}), loss)
        >>> type(svi.step(torch.randn(8, 2)))
        <class 'float'>
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.elbo = Trace_ELBO() if self.elbo is None else self.elbo
        if not isinstance(self.elbo, ELBO):
            raise TypeError(
                f"Expected `elbo` to be an ELBO of Pyro, got {type(self.elbo).__name__}."
            )
        self.elbo = _untraced(self.elbo)
        self._chains: ModuleChains | None = None
        # Sites whose gradients, and whose bases, have been inspected.
        self._checked_sites: set[SiteKey] = set()
        self._reported_sites: set[str] = set()
        ELBO.__init__(
            self,
            num_particles=self.elbo.num_particles,
            vectorize_particles=self.elbo.vectorize_particles,
            retain_graph=self.elbo.retain_graph,
        )

    def __call__(self, model: nn.Module, guide: nn.Module) -> ELBOModule:
        """Make the module form, whose state has the persistent chains."""
        self._check_differentiable()
        elbo = replace(self)
        module = ELBOModule(model, guide, elbo)
        module.chains = elbo._chains = ModuleChains()
        return module

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """Estimate of the negative ELBO."""
        recorder = self._recorder(moves_chains=False)
        with TrainedByObjective():
            loss = self.elbo.loss(recorder.model(model), recorder.guide(guide), *args, **kwargs)
        return self._report(loss, recorder)

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """Estimate the negative ELBO, and add gradients of stock ELBO and objectives."""
        recorder, emitter = self._handlers()
        handled, guide = recorder.model(emitter(model)), recorder.guide(guide)
        with TrainedByObjective(), poutine.trace(param_only=True) as params:
            try:
                with failing_together():
                    loss = self.elbo.loss_and_grads(handled, guide, *args, **kwargs)
                    emitter.check_hidden_latents(model, *args, **kwargs)
                    if recorder.sites and is_validation_enabled():
                        _check_gradients(_unconstrained(params.trace))
            except Exception:
                # The next step would add to these gradients.
                zero_grads(_unconstrained(params.trace).values())
                raise
        for name, site in recorder.sites.items():
            if site.key not in self._checked_sites:
                site.warn_if_untrained(emitter.leaves.get(name, []), params.trace)
                self._checked_sites.add(site.key)
        return self._report(loss, recorder)

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Estimate the negative ELBO as a tensor with a ``backward``."""
        self._check_differentiable()
        recorder, emitter = self._handlers()
        handled, guide = recorder.model(emitter(model)), recorder.guide(guide)
        with failing_together(), TrainedByObjective():
            loss = self.elbo.differentiable_loss(handled, guide, *args, **kwargs)
            emitter.check_hidden_latents(model, *args, **kwargs)
        self._checked_sites.update(site.key for site in recorder.sites.values())
        return self._report(loss, recorder)

    def metrics(
        self, model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> dict[str, dict[str, Tensor]]:
        """Metrics of each trained site, by name."""
        with TrainedByObjective(), torch.no_grad(), poutine.block():
            recorder, number = self._recorder(moves_chains=False), self.num_normalizer_samples
            model, guide = recorder.model(model), recorder.guide(guide)
            get_importance_trace("flat", inf, model, guide, args, kwargs, detach=True)
            sites = recorder.trained
            return {site.name: site.metrics(num_normalizer_samples=number) for site in sites}

    def _recorder(self, *, moves_chains: bool) -> SiteRecorder:
        chains = None if self._chains is None else self._chains.values
        return SiteRecorder(self.objective, moves_chains=moves_chains, chains=chains)

    def _handlers(self) -> tuple[SiteRecorder, FactorEmitter]:
        recorder = self._recorder(moves_chains=True)
        return recorder, FactorEmitter(recorder, self._checked_sites)

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        return self.elbo._get_trace(model, guide, args, kwargs)

    def _report(self, loss: Any, recorder: SiteRecorder) -> Any:
        sites = recorder.sites
        if not self.num_normalizer_samples or not sites:
            return loss
        for name, site in sites.items():
            if name not in self._reported_sites:
                self._reported_sites.add(name)
                site.warn_without_base()
        total = sum(site.log_normalizer(self.num_normalizer_samples) for site in sites.values())
        if isinstance(loss, tuple):  # ReweightedWakeSleep: the model's loss, then the guide's
            return type(loss)((loss[0] + total, *loss[1:]))
        return loss + total if isinstance(loss, Tensor) else loss + float(total)

    def _check_differentiable(self) -> None:
        if not callable(getattr(self.elbo, "differentiable_loss", None)):
            raise NotImplementedError(
                "Expected a stock ELBO with a differentiable loss, got "
                f"{type(self.elbo).__name__}, which has none in Pyro: use SVI.step, or "
                "Trace_ELBO, TraceMeanField_ELBO or TraceEnum_ELBO."
            )


def _untraced(elbo: ELBO) -> ELBO:
    """Drop ``torch.jit`` from an ELBO: its graph has neither reports, nor checks, nor chains."""
    kinds = (JitTrace_ELBO, JitTraceEnum_ELBO, JitTraceGraph_ELBO, JitTraceMeanField_ELBO)
    if not isinstance(elbo, kinds):
        return elbo
    copied = copy(elbo)
    copied.__class__ = type(elbo).__base__
    return copied


def _unconstrained(trace: Any) -> dict[str, Tensor]:
    return {name: node["value"].unconstrained() for name, node in trace.nodes.items()}


def _check_gradients(parameters: Mapping[str, Tensor]) -> None:
    """Raise before an optimizer makes all parameters NaN."""
    gradients = {
        name: leaf.grad.coalesce().values() if leaf.grad.is_sparse else leaf.grad
        for name, leaf in parameters.items()
        if leaf.grad is not None
    }
    # One number to wait for; a norm may be infinite where no gradient is.
    if bool(get_total_norm(gradients.values()).isfinite()):
        return
    broken = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    if broken:
        raise ValueError(f"Expected finite gradients, got NaN or infinity in {broken}. {ADVICE}")
