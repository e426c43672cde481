"""Guides that need no encoder."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from pyro_ebm.pyro.model.posterior import Posterior
from pyro_ebm.pyro.samplers import Langevin, Sampler
from pyro_ebm.pyro.samplers.run import draw

__all__ = ["LangevinGuide"]


class LangevinGuide(nn.Module):
    r"""Short-run Markov chains on the posterior, in the place of an encoder.

    Each call starts chains at draws of the priors (of the bases of energy-based priors), takes
    ``sampler.num_steps`` steps on :math:`-\log p(x, z)` under the parameters as they are, and
    emits where they end as ``Delta`` sites: fixed values, with no gradient through the chains.
    Data points are independent chains wherever the latents lie in the plates of the data, also
    under subsampling and vectorised particles; a latent outside of a plate makes everything in
    that plate one chain.

    The log-density of the guide counts as zero, so the loss that ``SVI`` reports estimates
    :math:`-\mathrm E \log p(x, z)`, *without the entropy* of the posterior: it is no bound on the
    evidence and cannot be compared with that of an encoder. Use :func:`log_marginal`. Its
    gradients are those of maximum likelihood, as far as the chains have converged. ELBOs that
    weigh particles against each other (``RenyiELBO``, ``ReweightedWakeSleep``) need a density of
    the guide that is not there: they would favour draws of high joint density.

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
        ValueError: When called: if a latent is discrete, chains have run off, or ``init`` leaves
            a latent out.

    Example:
        >>> guide = LangevinGuide(model, Langevin(0.01, num_steps=40))  # doctest: +SKIP
        >>> svi = SVI(model, guide, Adam({"lr": 1e-3}), loss)  # doctest: +SKIP

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
        super().__init__()
        if sampler is not None and not isinstance(sampler, Sampler):
            raise TypeError(
                f"Expected `sampler` to have init and step, got {type(sampler).__name__}."
            )
        # As in Pyro's autoguides: the parameters of the model are not the guide's.
        self._model = (model,)
        self.sampler: Sampler = sampler if sampler is not None else Langevin(0.005, num_steps=20)
        self.init = init

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Emit draws of the latents, given the arguments of the model; return them by site."""
        posterior = Posterior(self._model[0], args, kwargs)
        start = posterior.start
        if self.init is not None:
            sites = self._run_init(posterior, {}, args, kwargs)
            start = posterior.position({name: site["value"] for name, site in sites.items()})
        position = draw(self.sampler, posterior.potential, start)
        if is_validation_enabled() and not bool(torch.isfinite(position).all()):
            raise ValueError(
                f"Expected {self.sampler} to give finite draws of {list(posterior.latents)}, got "
                "NaN or infinity: lower its `step_size`, or look at the model."
            )
        values = {name: value.detach() for name, value in posterior.values(position).items()}
        sites = {} if self.init is None else self._run_init(posterior, values, args, kwargs)
        plates = posterior.plates()
        for name, site in posterior.latents.items():
            with _entered(plates, site):
                pyro.sample(name, Delta(values[name], event_dim=site["fn"].event_dim))
                if name in sites:
                    # Pyro weighs it by plates; its value is zero.
                    log_q = scale_and_mask(_log_prob(sites[name]), mask=sites[name]["mask"])
                    pyro.factor(f"{name}$init", log_q.detach() - log_q, has_rsample=True)
        return values

    def _run_init(
        self, posterior: Posterior, values: Mapping[str, Tensor], args: Any, kwargs: Any
    ) -> dict[str, Any]:
        """Messages of the latents' sites in the amortised guide, at given values or its draws."""
        init: Any = self.init
        with posterior.hidden(), poutine.trace() as trace, poutine.condition(data=dict(values)):
            init(*args, **kwargs)
        met: dict[str, Any] = dict(trace.trace.nodes)
        for name in posterior.latents:
            if name not in met or isinstance(met[name]["fn"], Delta):
                got = "a Delta" if name in met else "none"
                raise ValueError(f"Expected `init` to have a density at site {name!r}, got {got}.")
        return {name: met[name] for name in posterior.latents}


def _entered(plates: Mapping[str, Any], site: Mapping[str, Any]) -> ExitStack:
    """The plates that a site of the model lies in."""
    stack = ExitStack()
    for frame in site["cond_indep_stack"]:
        if frame.vectorized and frame.name in plates:
            stack.enter_context(plates[frame.name])
    return stack


def _log_prob(site: Mapping[str, Any]) -> Tensor:
    return site["fn"].log_prob(site["value"])
