"""Handlers that record the energy-based sites of a model and add the factors that train them."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import pyro
import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer.inspect import is_sample_site
from pyro.ops.provenance import detach_provenance
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_ebm.core.distributions.checks import describe_learned_scale
from pyro_ebm.core.distributions.context import over_batch, own_shape
from pyro_ebm.core.infer import energy_sites as core
from pyro_ebm.core.model.issues import in_guide, issues_of_site
from pyro_ebm.core.numerics import as_real, log_mean_exp
from pyro_ebm.pyro.distributions.bound_energy import (
    KnownLogProb,
    trainable_parameters,
)
from pyro_ebm.pyro.distributions.closures import identities_of
from pyro_ebm.pyro.distributions.energy_based import EnergyBased, without_plates
from pyro_ebm.pyro.distributions.graph import graph_leaves
from pyro_ebm.pyro.distributions.importance import importance_log_weights
from pyro_ebm.pyro.infer.persistent_chains import ChainStore
from pyro_ebm.pyro.model.check import check_model
from pyro_ebm.pyro.model.sites import (
    find_energy,
    find_mixture,
    has_energy,
    issues_of_graph,
    issues_of_leaves,
    issues_of_untrained,
    map_energy,
    without_observations,
)
from pyro_ebm.pyro.optim import num_processes
from pyro_ebm.pyro.samplers.target import Target

# Of a site whose checks were made: its name, and identities of its energy.
SiteKey = tuple[str, tuple[int, ...]]

# Plates that Pyro itself puts around a model to draw many particles at once.
_PARTICLE_PLATES = ("num_particles_vectorized", "num_sleep_particles_vectorized")


@dataclass
class EnergySite(core.EnergySite):
    """An energy-based site of a Pyro model.

    Attributes:
        mask: Batch elements that count; None for all.
        first_enumerated: First (negative) dimension of enumerated variables; None without.
        chains: Moves persistent chains among the attached parts.
    """

    mask: Any
    first_enumerated: int | None
    chains: ChainStore

    _gradient = staticmethod(torch.func.grad)
    _is_known = staticmethod(torch.is_tensor)

    @property
    def key(self) -> SiteKey:
        """Name, and what stays of the energy when the same model is run again."""
        return self.name, identities_of(self.energy.energy)

    def log_normalizer(self, num_samples: int) -> Tensor:
        """Sum of estimates from draws of the base, zero without one; a mean over particles."""
        if self.energy.base is None:
            return self.total(self.value.new_zeros(()))
        estimate = log_mean_exp(self._log_weights(num_samples))
        # A transform that depends on an enumerated variable leaves one log-normalizer.
        copies = prod(self.fn.batch_shape) // prod(self._shape_of_normalizers())
        return self.total(self._map(lambda energy, value: estimate)) / copies

    def _log_weights(self, num_samples: int) -> Tensor:
        return importance_log_weights(self.energy, num_samples)

    def warn_if_untrained(self, leaves: list[Tensor], params: Any) -> None:
        """Warn of parameters of the energy that no optimizer will update.

        Args:
            leaves: Tensors that the objective's loss has gradients in.
            params: Trace of the registered parameters.
        """
        if self.objective is None:
            parameters = trainable_parameters(self.energy.energy)
            reason = "EnergyELBO has no objective for this site"
            issues = issues_of_untrained(self.name, self.energy, parameters, reason)
        else:
            issues = issues_of_leaves(self.name, self.energy, leaves, params)
        for issue in issues:
            warnings.warn(issue.message, stacklevel=4)

    def warn_without_base(self) -> None:
        """Warn if the log-normalizer will be missing in the reported number."""
        if self.energy.base is None:
            warnings.warn(core.without_base(self.name), stacklevel=5)

    def _shape_of_normalizers(self) -> tuple[int, ...]:
        shape = tuple(self.fn.batch_shape)
        if self.first_enumerated is None:
            return shape
        own = tuple(own_shape(self.energy))
        own = own[: len(own) - len(self.energy.batch_shape) + len(shape)]
        own = (1,) * (len(shape) - len(own)) + own
        start = max(len(shape) + self.first_enumerated + 1, 0)
        return own[:start] + shape[start:]

    def total(self, per_element: Tensor) -> Tensor:
        """Sum numbers over batch elements; a mean over particles."""
        num_particles = prod(plate.size for plate in self.plates if plate.name in _PARTICLE_PLATES)
        return scale_and_mask(per_element, self.scale, self.mask).sum() / num_particles

    def _map(self, function: Callable[[EnergyBased, Tensor], Tensor]) -> Tensor:
        # Plates and particles are no contexts: an objective sees the distribution without them.
        # Constant after transforms too, which may have parameters.
        def each(fn: EnergyBased, x: Tensor) -> Tensor:
            own = without_plates(fn)
            return function(own, over_batch(own, x.detach()))

        return map_energy(self.fn, self.value, each)

    @property
    def _is_masked(self) -> bool:
        return isinstance(self.mask, Tensor) or super()._is_masked

    def _parts(self) -> Mapping[str, Any]:
        parts, self.acceptance_rate = self.chains.resolve(self.name, self.attached, self.energy)
        return parts


class SiteRecorder(Messenger):
    """Handler that records the energy-based sites of a model, and raises for issues.

    Args:
        objective: One objective for all sites, or a dictionary of objectives by site.
        moves_chains: Whether persistent chains stay where the objectives move them.
        chains: Values of persistent chains by name. Default: in the parameter store.
    """

    def __init__(
        self, objective: Any, *, moves_chains: bool, chains: dict[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.objective = objective
        self.sites: dict[str, EnergySite] = {}
        self.latents: dict[str, Tensor] = {}
        self.enumerated: list[int] = []
        self.attached: dict[str, dict[str, Any]] = {}
        self.chains = ChainStore(keeps=moves_chains, values=chains)

    @property
    def trained(self) -> list[EnergySite]:
        """Sites with an objective."""
        return [site for site in self.sites.values() if site.objective is not None]

    def model(self, model: Any) -> Callable[..., Any]:
        """Wrap a model in this handler."""

        def handled(*args: Any, **kwargs: Any) -> Any:
            # Particles are runs of their own; only the last is kept, they report the same.
            self.sites.clear()
            self.latents.clear()
            self.enumerated.clear()
            with self:
                result = model(*args, **kwargs)
            core.check_names(self.objective, self.sites, self.attached)
            return result

        return handled

    def guide(self, guide: Any) -> Callable[..., Any]:
        """Wrap a guide in a handler that collects what it attaches."""

        def handled(*args: Any, **kwargs: Any) -> Any:
            self.attached.clear()
            with _GuideSites(self.attached):
                return without_observations(guide)(*args, **kwargs)

        return handled

    def _pyro_attach(self, msg: Any) -> None:
        core.refuse_attach(msg["name"])

    def _pyro_post_sample(self, msg: Any) -> None:
        energy, mixture = find_energy(msg["fn"]), find_mixture(msg["fn"])
        for issue in issues_of_site(msg, energy, mixture):
            raise ValueError(issue.message)
        # With a known log-normalizer it is a distribution like any other.
        if energy is not None and energy.log_normalizer is None:
            self._record(msg, energy)
        if is_sample_site(msg) and not msg["is_observed"]:
            self.latents[msg["name"]] = msg["value"]
            self.enumerated += filter(None, [msg["infer"].get("_enumerate_dim")])

    def _record(self, msg: Any, energy: EnergyBased) -> None:
        name = msg["name"]
        self.sites[name] = EnergySite(
            name=name,
            fn=msg["fn"],
            energy=energy,
            value=_constant(name, msg["value"], energy),
            scale=msg["scale"],
            mask=msg["mask"],
            first_enumerated=max(self.enumerated, default=None),
            plates=msg["cond_indep_stack"],
            objective=core.objective_of(name, self.objective),
            attached=self.attached.get(name, {}),
            chains=self.chains,
        )
        self.sites[name].check()


def _constant(name: str, value: Any, energy: EnergyBased) -> Tensor:
    """Value of a site as an energy has it: real numbers, or the codes of its support."""
    if not isinstance(value, Tensor):
        raise TypeError(f"Expected a tensor at site {name!r}, got {type(value).__name__}.")
    value = as_real(detach_provenance(value).detach())
    codes = Target.as_codes(energy, value)
    # Fractions stay, to be found by the checks.
    return value if codes is not value and bool((codes != value).any()) else codes


class FactorEmitter(Messenger):
    """Handler that adds a factor of value zero, with minus an objective's gradient, at each site.

    Args:
        recorder: Handler around this one.
        checked: Keys of sites whose gradients were inspected in an earlier step.

    Attributes:
        leaves: Tensors that the losses of the other sites have gradients in, by site.
    """

    def __init__(self, recorder: SiteRecorder, checked: set[SiteKey]) -> None:
        super().__init__()
        self.recorder = recorder
        self.checked = checked
        self.leaves: dict[str, list[Tensor]] = {}
        self._has_hidden_latents = False

    def _pyro_sample(self, msg: Any) -> None:
        # What is known of a value is known to this run alone: the user may keep the distribution.
        if msg["is_observed"] and isinstance(msg["fn"], EnergyBased):
            msg["fn"] = msg["fn"].expand(msg["fn"].batch_shape)

    def _pyro_post_sample(self, msg: Any) -> None:
        site = self.recorder.sites.get(msg["name"])
        if site is None or site.objective is None:
            return
        if site.energy._validate_args and site.key not in self.checked:
            site.check_rows()
        evaluated = site.loss()
        loss = evaluated.value
        if site.energy._validate_args and not bool(torch.isfinite(loss.detach()).all()):
            raise core.not_finite(site.name)
        if site.key not in self.checked:
            self._inspect(site, loss)
            site.warn_of_parts(num_processes())
        elif msg["is_observed"] and msg["fn"] is site.energy and not site._is_masked:
            # From the second step on: in the first, the log-density has checks of its own.
            site.energy._known = KnownLogProb.of(msg["value"], evaluated.potential)
        pyro.factor(f"{site.name}$energy", loss.detach() - loss)

    def check_hidden_latents(self, model: Any, *args: Any, **kwargs: Any) -> None:
        """Raise if an energy depends on a latent without a gradient, which no graph shows."""
        issues = check_model(model)(*args, **kwargs) if self._has_hidden_latents else ()
        for issue in issues:
            if issue.kind in ("doubly_intractable", "mixture"):
                raise ValueError(issue.message)

    def _inspect(self, site: EnergySite, loss: Tensor) -> None:
        self.leaves[site.name] = list(graph_leaves(loss))
        others = {name: it for name, it in self.recorder.latents.items() if name != site.name}
        self._has_hidden_latents |= not all(it.requires_grad for it in others.values())
        if isinstance(site.scale, Tensor) and site.scale.requires_grad:
            raise ValueError(describe_learned_scale(site.name))
        for issue in issues_of_graph(site.name, loss, others):
            raise ValueError(issue.message)


class _GuideSites(Messenger):
    def __init__(self, attached: dict[str, dict[str, Any]]) -> None:
        super().__init__()
        self.attached = attached

    def _pyro_post_attach(self, msg: Any) -> None:
        self.attached.setdefault(msg["name"], {}).update(msg["value"])

    def _pyro_sample(self, msg: Any) -> None:
        if has_energy(msg["fn"]):
            raise ValueError(in_guide(msg["name"]).message)
