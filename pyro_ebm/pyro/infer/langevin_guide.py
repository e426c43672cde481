"""Guides by short Markov chains on the posterior of a Pyro model."""

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from pyro_ebm.core.infer import langevin_guide as settings
from pyro_ebm.core.infer.langevin_guide import check_density, enter_plates, resume, stored_name
from pyro_ebm.pyro.infer.persistent_chains import ModuleChains
from pyro_ebm.pyro.model.posterior import Posterior
from pyro_ebm.pyro.model.sites import log_density
from pyro_ebm.pyro.samplers.base import Sampler
from pyro_ebm.pyro.samplers.langevin import Langevin
from pyro_ebm.pyro.samplers.run import short_run


class LangevinGuide(settings.LangevinGuide, nn.Module):
    """Short Markov chains on the posterior, in place of an encoder; a module, like autoguides.

    As in autoguides, the parameters of the model are not the guide's; those of ``init`` are. Stored
    positions are in the parameter store, under the name ``"z$positions"``, where no optimizer moves
    them; with ``module_local_params`` they are a part of the guide's ``state_dict()``. Steps of
    training move them; no evaluation does, nor a guide in ``eval()`` mode. Vectorized particles
    have chains of their own, others go on with the same ones.

    Example:
        >>> import pyro, pyro.distributions as dist, torch, pyro_ebm.pyro as ebm
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> guide = ebm.LangevinGuide(model, ebm.MALA(0.5), num_steps=5)
        >>> guide(torch.zeros(3))["z"].shape
        torch.Size([3])
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
        super().__init__()
        # In a tuple, or a module would become a child of the guide.
        self._model = (model,)
        self._configure(Langevin(0.005) if sampler is None else sampler, num_steps, start)
        self.init = init
        self.chains = ModuleChains()

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Emit draws of the latents, given the arguments of the model; return them by site."""
        posterior = Posterior(self._model[0], args, kwargs)
        start = posterior.start
        if self.init is not None:
            sites = self._run_init(posterior, {}, args, kwargs)
            start = posterior.position({name: site["value"] for name, site in sites.items()})
        stored = self._stored(posterior) if self.start == "stored" else None
        if stored is not None:
            start = stored.resume(start)
        position = short_run(self.sampler, posterior.potential, start, self.num_steps).samples
        if is_validation_enabled() and not bool(torch.isfinite(position).all()):
            raise self._diverged(posterior.latents)
        values = {name: value.detach() for name, value in posterior.values(position).items()}
        if stored is not None and self.training and torch.is_grad_enabled():
            stored.keep(position, values)
        sites = {} if self.init is None else self._run_init(posterior, values, args, kwargs)
        plates = posterior.plates()
        for name, site in posterior.latents.items():
            with enter_plates(plates, site):
                pyro.sample(name, Delta(values[name], event_dim=site["fn"].event_dim))
                if name in sites:
                    # Pyro scales it by plates; its value is zero.
                    log_q = scale_and_mask(log_density(sites[name]), mask=sites[name]["mask"])
                    pyro.factor(f"{name}$init", log_q.detach() - log_q, has_rsample=True)
        return values

    def _stored(self, posterior: Posterior) -> "_Stored":
        is_local = pyro.settings.get("module_local_params")
        return _Stored(posterior, self.chains.values if is_local else pyro.get_param_store())

    def _run_init(
        self, posterior: Posterior, values: Mapping[str, Tensor], args: Any, kwargs: Any
    ) -> dict[str, Any]:
        """Messages of the latents' sites in the amortized guide, at these values or its draws."""
        init: Any = self.init
        with posterior.hidden(), poutine.trace() as trace, poutine.condition(data=dict(values)):
            init(*args, **kwargs)
        sites = {name: trace.trace.nodes.get(name) for name in posterior.latents}
        for name, site in sites.items():
            check_density(name, site, Delta)
        return sites


class _Stored:
    """Positions of all rows of the data; ``kept`` has them by name."""

    def __init__(self, posterior: Posterior, kept: Any) -> None:
        self.posterior, self.rows, self.kept = posterior, posterior.rows(), kept
        self.name = stored_name(posterior, self.rows.around)
        self.shape = self.rows.number, posterior.start.shape[-1]

    def resume(self, start: Tensor) -> Tensor:
        if self.name not in self.kept:
            return start
        stored = self.kept[self.name].detach()
        return resume(self.name, stored, self.shape, self.rows.index, start)

    @torch.no_grad()
    def keep(self, position: Tensor, values: Mapping[str, Tensor]) -> None:
        # A row that is masked out has a log-density of zero.
        counts = (self.posterior.log_joint(values) != 0).expand(self.rows.index.shape)
        if self.name not in self.kept:
            self.kept[self.name] = position.new_full(self.shape, torch.inf)
        # In place: the store holds on to every tensor it was ever given.
        self.kept[self.name][self.rows.index[counts]] = position[counts]
