"""Metrics over training with Pyro."""

from typing import Any

import torch
from pyro.infer import SVI
from pyro.infer.elbo import ELBOModule

from pyro_ebm.core.infer import metrics_recorder as core
from pyro_ebm.pyro.distributions.bound_energy import kept_buffers
from pyro_ebm.pyro.infer.elbo import EnergyELBO


class MetricsRecorder(core.MetricsRecorder):
    """Metrics of every trained site over training, by ``SVI`` or the module form of ``EnergyELBO``.

    See :class:`pyro_ebm.core.infer.metrics_recorder.MetricsRecorder`.

    Example:
        >>> import pyro, pyro.distributions as dist, torch, pyro_ebm.pyro as ebm
        >>> def model(y):
        ...     a = pyro.param("a", torch.tensor(1.0))
        ...     with pyro.plate("data", len(y)):
        ...         prior = ebm.EnergyBased(lambda y: a * y**2, dist.Normal(0.0, 1.0))
        ...         pyro.sample("y", prior, obs=y)
        >>> elbo = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=1.0))
        >>> svi = pyro.infer.SVI(model, lambda y: None, pyro.optim.Adam({"lr": 1e-3}), elbo)
        >>> recorder, y = ebm.MetricsRecorder(svi, every=2), torch.ones(8)
        >>> for step in range(4):
        ...     loss = svi.step(y)
        ...     recorder(y)
        >>> recorder.steps, recorder.metrics["y"]["energy_gap"].shape
        ([2, 4], torch.Size([2]))
    """

    def __init__(self, svi: SVI | ELBOModule, *, every: int = 100) -> None:
        super().__init__(every)
        loss: Any = svi.elbo if isinstance(svi, ELBOModule) else svi.loss
        # Pyro's SVI keeps a method of its ELBO.
        self._elbo = core.check_elbo(getattr(loss, "__self__", loss), EnergyELBO)
        self._svi = svi

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        if not self._is_due():
            return
        model, guide = self._svi.model, self._svi.guide
        devices = range(torch.cuda.device_count())
        # A run goes on as without readings: from the same random numbers and buffers.
        with torch.random.fork_rng(devices), kept_buffers(model), kept_buffers(guide):
            self._keep(self._elbo.metrics(model, guide, *args, **kwargs))
