"""The ELBO of a model with energy-based sites, around any ELBO that Pyro has."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO, Trace_ELBO
from pyro.infer.elbo import ELBOModule
from pyro.infer.enum import get_importance_trace
from pyro.infer.util import is_validation_enabled, zero_grads
from pyro.poutine.runtime import effectful
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.infer.metrics import ADVICE, TrustedRange
from pyro_ebm.pyro.distributions.pushforward import Pushforward
from pyro_ebm.pyro.distributions.training import trained_by_objective
from pyro_ebm.pyro.infer.energy_sites import EnergySite, EnergySites

__all__ = ["EnergyELBO", "auxiliary"]


def auxiliary(site: str, **learners: Any) -> None:
    """Declare, in a guide, what the objective of a site learns beside the energy.

    Modules, and the module in a :class:`Pushforward`, are registered with Pyro, so that the host's
    ``SVI`` trains them; other parameters come from ``pyro.param`` or ``pyro.module``.

    Args:
        site: Name of the energy-based site of the model.
        **learners: By the names that the objective's ``loss`` asks for, for example
            ``critic=module`` or ``chains=PersistentChains(...)``.
    """
    for name, learner in learners.items():
        module = learner.generator if isinstance(learner, Pushforward) else learner
        if isinstance(module, nn.Module):
            pyro.module(f"{site}${name}", module)
    _declare(learners, name=site)


@effectful(type="auxiliary")
def _declare(learners: dict[str, Any]) -> dict[str, Any]:
    return learners


class EnergyELBO(ELBO):
    r"""A loss for ``SVI`` that trains energies beside everything that a stock ELBO trains.

    The stock ELBO runs on the model as it stands; at each energy-based site it meets a factor of
    value zero whose gradient is that of minus the objective's loss, so that Pyro itself applies
    plates, subsampling, masks and particles to it, and importance weights are untouched. With no
    energy-based site this *is* the stock ELBO, to the last bit.

    The number it reports is the stock loss plus :math:`\log \hat Z` of each site: an estimate of
    the negative ELBO. :math:`\log \hat Z` comes from draws of the site's base and is low on
    average; it never touches a gradient. Where an energy has moved far from its base, in many
    dimensions, few of the draws count and it is low by many nats: read the number as a trend then,
    and report :func:`log_normalizer`'s.

    Args:
        objective: What trains the energies, for example ``EnergyDiscrepancy(variance=0.25)``; or
            a dictionary from the name of a site to its objective.
        elbo: The stock ELBO. Default: ``Trace_ELBO()``.
        num_normalizer_samples: Draws for :math:`\log \hat Z`; 0 leaves it out of the number.
        max_loss: Largest magnitude that an objective's loss of a value may reach.
        max_energy_scale: Largest standard deviation of the energies that an objective compares,
            where it tells of it (``energy_scale`` of :meth:`health`).

    Raises:
        TypeError: If an objective has no ``loss`` or ``elbo`` is not an ELBO of Pyro.
        ValueError: At the first step: if an objective is given for a site that is not there, a
            guide samples an energy-based distribution, a site's energy depends on another latent
            variable, or a batch dimension of a site is no plate. At any step, while Pyro validates:
            if a loss, the energies or a gradient are not finite or leave the range; parameters are
            then as they were before the step.

    Example:
        >>> loss = EnergyELBO(EnergyDiscrepancy(variance=0.25))  # doctest: +SKIP
        >>> svi = SVI(model, guide, Adam({"lr": 1e-3}), loss=loss)  # doctest: +SKIP
    """

    def __init__(
        self,
        objective: Any,
        elbo: ELBO | None = None,
        *,
        num_normalizer_samples: int = 128,
        max_loss: float = 1e8,
        max_energy_scale: float = 1e6,
    ) -> None:
        self.objective = objective
        self.trusted = TrustedRange(max_loss, max_energy_scale)
        self.elbo = elbo if elbo is not None else Trace_ELBO()
        _check_objectives(objective)
        if not isinstance(self.elbo, ELBO):
            raise TypeError(f"Expected `elbo` to be an ELBO of Pyro, got {type(elbo).__name__}.")
        self.num_normalizer_samples = check_positive_integer(
            "num_normalizer_samples", num_normalizer_samples, minimum=0
        )
        # Sites whose gradients, and whose log-normalizers, a user has been told about.
        self._checked_sites: set[str] = set()
        self._reported_sites: set[str] = set()
        super().__init__(
            num_particles=self.elbo.num_particles,
            vectorize_particles=self.elbo.vectorize_particles,
            retain_graph=self.elbo.retain_graph,
        )

    def __call__(self, model: nn.Module, guide: nn.Module) -> ELBOModule:
        """The module form ``elbo(model, guide)``, where the stock ELBO has it."""
        self._check_differentiable()
        return super().__call__(model, guide)

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """Estimate of the negative ELBO."""
        with trained_by_objective():
            sites = self._sites(emits=False)
            loss = self.elbo.loss(sites.model(model), sites.guide(guide), *args, **kwargs)
        return self._report(loss, sites)

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """Estimate of the negative ELBO; adds its gradients and the objectives' to parameters."""
        sites = self._sites(emits=True)
        model, guide = sites.model(model), sites.guide(guide)
        with trained_by_objective(), poutine.trace(param_only=True) as params:
            try:
                loss = self.elbo.loss_and_grads(model, guide, *args, **kwargs)
                if sites.records and is_validation_enabled():
                    _check_gradients(_unconstrained(params.trace))
            except Exception:
                # Or the next step would add to what this one has left.
                zero_grads(_unconstrained(params.trace).values())
                raise
        for record in sites.records:
            if record.name not in self._checked_sites:
                record.warn_if_untrained(params.trace)
                self._checked_sites.add(record.name)
        return self._report(loss, sites)

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The same as a tensor to call ``backward`` on."""
        self._check_differentiable()
        with trained_by_objective():
            sites = self._sites(emits=True)
            loss = self.elbo.differentiable_loss(
                sites.model(model), sites.guide(guide), *args, **kwargs
            )
        return self._report(loss, sites)

    def health(
        self, model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> dict[str, dict[str, Tensor]]:
        """Figures of each trained site to read during training.

        Model and guide are run once more, with fresh noise and without touching parameters.

        Returns:
            By the name of the site: ``objective``, its mean over batch elements, and what the
            objective tells beside it, for example ``energy_gap``.
        """
        with self._met(model, guide, args, kwargs) as sites:
            return {site.name: site.health() for site in sites}

    def check_health(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> None:
        """Raise if the objective of a site, or its energies, are out of range on these data.

        Raises:
            ValueError: Naming the site.
        """
        with self._met(model, guide, args, kwargs) as sites:
            for site in sites:
                site.check_range(self.trusted, *site.loss())

    def _sites(self, *, emits: bool) -> EnergySites:
        return EnergySites(self.objective, self.trusted, emits=emits, checked=self._checked_sites)

    @contextmanager
    def _met(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Iterator[list[EnergySite]]:
        """Sites with an objective, as one more run of model and guide meets them."""
        with trained_by_objective(), torch.no_grad(), poutine.block():
            sites = self._sites(emits=False)
            get_importance_trace(
                "flat", inf, sites.model(model), sites.guide(guide), args, kwargs, detach=True
            )
            yield [record for record in sites.records if record.objective is not None]

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        return self.elbo._get_trace(model, guide, args, kwargs)

    def _report(self, loss: Any, sites: EnergySites) -> Any:
        if not self.num_normalizer_samples or not sites.records:
            return loss
        for record in sites.records:
            if record.name not in self._reported_sites:
                self._reported_sites.add(record.name)
                record.warn_if_unnormalized()
        total = sum(
            record.total(record.log_normalizer(self.num_normalizer_samples))
            for record in sites.records
        )
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


def _unconstrained(trace: Any) -> dict[str, Tensor]:
    return {name: node["value"].unconstrained() for name, node in trace.nodes.items()}


def _check_gradients(parameters: Mapping[str, Tensor]) -> None:
    """Raise before an optimizer makes all parameters NaN."""
    gradients = {name: leaf.grad for name, leaf in parameters.items() if leaf.grad is not None}
    # One number to wait for; a norm may be infinite where no gradient is.
    if bool(get_total_norm(gradients.values()).isfinite()):
        return
    broken = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    if broken:
        raise ValueError(f"Expected finite gradients, got NaN or infinity in {broken}. {ADVICE}")


def _check_objectives(objective: Any) -> None:
    objectives = objective.values() if isinstance(objective, Mapping) else [objective]
    for one in objectives:
        if not callable(getattr(one, "loss", None)):
            raise TypeError(f"Expected an objective with a `loss`, got {type(one).__name__}.")
