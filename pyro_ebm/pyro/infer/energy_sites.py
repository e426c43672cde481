"""Energy-based sites of a model: found, checked, and given the gradient of their objective."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import pyro
import torch
from pyro.distributions.util import scale_and_mask
from pyro.ops.provenance import detach_provenance
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_ebm.core.checks import check_auxiliary, check_sites
from pyro_ebm.core.infer.metrics import TrustedRange, recorded_figures
from pyro_ebm.core.model.issues import doubly_intractable, implicit_latent, in_guide, in_mixture
from pyro_ebm.core.numerics import log_mean_exp
from pyro_ebm.pyro.distributions.bound_energy import graph_leaves, graph_nodes, trainable_parameters
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.infer.persistent_chains import ChainStore
from pyro_ebm.pyro.model.sites import (
    find_energy,
    find_mixture,
    find_unregistered,
    has_implicit_base,
    map_energy,
    never_seen,
)

__all__ = ["EnergySite", "EnergySites"]

# Plates that Pyro itself puts around a model to draw many particles at once.
_PARTICLE_PLATES = ("num_particles_vectorized", "num_sleep_particles_vectorized")


@dataclass
class EnergySite:
    """An energy-based site as one run of a model met it.

    Attributes:
        name: Name of the site.
        fn: Its distribution, with its wrappers.
        value: Its value, held constant.
        scale: Factor on its log-density, from plates that subsample and the like.
        mask: Which batch elements count; None for all.
        plates: The plates around it.
        objective: What trains it, or None.
        learners: What the guide declared for it.
        chains: Moves those of the learners that are persistent chains.
        loss_leaves: What the objective sent gradients to; None where nobody asked.
    """

    name: str
    fn: Any
    value: Tensor
    scale: Any
    mask: Any
    plates: tuple[Any, ...]
    objective: Any
    learners: dict[str, Any]
    chains: ChainStore
    loss_leaves: list[Tensor] | None = None

    def loss(self) -> tuple[Tensor, dict[str, Callable[[], Tensor]]]:
        """The objective's loss of each batch element, and the figures that it recorded."""
        learners = self.chains.resolve(self.name, self.learners, self.energy)
        with recorded_figures() as figures:
            loss = map_energy(
                self.fn, self.value, lambda fn, x: self.objective.loss(fn, x, **learners)
            )
        return loss, figures

    def health(self) -> dict[str, Tensor]:
        """The objective's mean over batch elements, and the figures that it recorded."""
        loss, figures = self.loss()
        read = {name: figure() for name, figure in figures.items()}
        return {"objective": self.mean(loss), **read}

    def check_range(
        self, trusted: TrustedRange, loss: Tensor, figures: Mapping[str, Callable[[], Tensor]]
    ) -> None:
        """Raise if a loss that was just computed, or the energies in it, are out of range."""
        loss = loss.detach().abs().amax()
        scale = figures["energy_scale"]() if "energy_scale" in figures else torch.zeros_like(loss)
        # Together, for either alone would make the device wait.
        trusted.check(self.name, *torch.stack([loss, scale.to(loss)]).tolist())

    def log_normalizer(self, num_samples: int) -> Tensor:
        """Estimate for each batch element, from draws of the base; zero if there is no base."""
        if self.energy.base is None:
            estimate = self.value.new_zeros(())
        else:
            estimate = log_mean_exp(self.energy.importance_log_weights(num_samples))
        return map_energy(self.fn, self.value, lambda fn, x: estimate)

    def warn_if_unnormalized(self) -> None:
        """Warn that the log-normalizer will be missing from the reported number."""
        if self.energy.base is None:
            warnings.warn(
                f"The reported loss leaves out the log-normalizer of site {self.name!r}, which "
                "has no base to estimate it from; num_normalizer_samples=0 says that this is "
                "meant.",
                stacklevel=5,
            )

    def total(self, per_element: Tensor) -> Tensor:
        """Sum over batch elements as Pyro weighs them; a mean over particles."""
        num_particles = prod(plate.size for plate in self.plates if plate.name in _PARTICLE_PLATES)
        return scale_and_mask(per_element, self.scale, self.mask).sum() / num_particles

    def mean(self, per_element: Tensor) -> Tensor:
        """Mean over batch elements as Pyro weighs them."""
        ones = map_energy(self.fn, self.value, lambda fn, x: x.new_ones(()))
        return self.total(per_element) / self.total(ones.expand(per_element.shape))

    def check(self) -> None:
        """Raise if a batch dimension is no plate, or the guide declared the wrong learners."""
        batch_shape = self.fn.batch_shape
        plate_dims = {plate.dim for plate in self.plates if plate.vectorized}
        for dim in range(-len(batch_shape), 0):
            if batch_shape[dim] > 1 and dim not in plate_dims:
                raise ValueError(
                    f"Expected every batch dimension of energy-based site {self.name!r} to be a "
                    f"plate, got batch shape {tuple(batch_shape)} with no plate at {dim}. An "
                    "enumerated variable upstream needs the log-normalizer of each of its values; "
                    "independent values belong in a plate or in to_event."
                )
        if self.objective is not None:
            check_auxiliary(self.name, self.objective.loss, self.learners)

    def check_graph(self, loss: Tensor, latents: Mapping[str, Tensor]) -> None:
        """Raise if the loss depends on another latent variable; keep what it does depend on."""
        self.loss_leaves = list(graph_leaves(loss))
        reached = {id(node) for node in graph_nodes(loss)} | {id(x) for x in self.loss_leaves}
        for name, latent in latents.items():
            origin = latent if latent.grad_fn is None else latent.grad_fn
            if latent.requires_grad and id(origin) in reached:
                raise ValueError(doubly_intractable(self.name, name).message)

    def warn_if_untrained(self, trace: Any) -> None:
        """Warn of parameters in the energy that no optimizer will see, once for a site."""
        if self.objective is None:
            parameters = trainable_parameters(self.energy.energy)
            reason = "EnergyELBO has no objective for this site"
            finding = never_seen(self.name, self.energy, parameters, reason)
        else:
            leaves = self.loss_leaves or ()
            finding = find_unregistered(self.name, self.energy, leaves, trace)
        if finding is not None:
            warnings.warn(finding.message, stacklevel=4)

    @property
    def energy(self) -> EnergyBased:
        """Its distribution, without wrappers."""
        energy = find_energy(self.fn)
        assert energy is not None
        return energy


class EnergySites(Messenger):
    """Runs in a model: emits a factor at each energy-based site, and keeps what it met.

    Args:
        objective: One objective for all sites, or a dictionary from a site's name to its own.
        trusted: What losses and energies must not leave.
        emits: Whether to emit the factors that train the energies.
        checked: Names of sites whose gradients were looked at in an earlier step.
    """

    def __init__(
        self,
        objective: Any,
        trusted: TrustedRange,
        *,
        emits: bool,
        checked: set[str] | None = None,
    ) -> None:
        super().__init__()
        self.objective = objective
        self.trusted = trusted
        self.emits = emits
        self.checked = checked if checked is not None else set()
        self.records: list[EnergySite] = []
        self.latents: dict[str, Tensor] = {}
        self.learners: dict[str, dict[str, Any]] = {}
        self.chains = ChainStore(keeps=emits)

    def model(self, model: Any) -> Callable[..., Any]:
        """The model with this handler around it."""

        def handled(*args: Any, **kwargs: Any) -> Any:
            # Several particles are several runs: what they met differs in nothing that we report.
            self.records.clear()
            self.latents.clear()
            with self:
                result = model(*args, **kwargs)
            if isinstance(self.objective, Mapping):
                check_sites(self.objective, {record.name for record in self.records})
            return result

        return handled

    def guide(self, guide: Any) -> Callable[..., Any]:
        """The guide, watched for declared learners and for energies that are out of place."""

        def handled(*args: Any, **kwargs: Any) -> Any:
            self.learners.clear()
            with _GuideSites(self.learners):
                return guide(*args, **kwargs)

        return handled

    def _pyro_post_sample(self, msg: Any) -> None:
        mixture = find_mixture(msg["fn"])
        if mixture is not None:
            raise ValueError(in_mixture(msg["name"], mixture).message)
        energy = find_energy(msg["fn"])
        if has_implicit_base(msg["fn"]) and not msg["is_observed"]:
            raise ValueError(implicit_latent(msg["name"]).message)
        # With a known log-normalizer it is a distribution like any other.
        if energy is not None and energy.log_normalizer is None:
            self._meet(msg, energy)
        if not msg["is_observed"]:
            self.latents[msg["name"]] = msg["value"]

    def _meet(self, msg: Any, energy: EnergyBased) -> None:
        name = msg["name"]
        site = EnergySite(
            name=name,
            fn=msg["fn"],
            value=detach_provenance(msg["value"]).detach(),
            scale=msg["scale"],
            mask=msg["mask"],
            plates=msg["cond_indep_stack"],
            objective=(
                self.objective.get(name) if isinstance(self.objective, Mapping) else self.objective
            ),
            learners=self.learners.get(name, {}),
            chains=self.chains,
        )
        site.check()
        self.records.append(site)
        if self.emits and site.objective is not None:
            loss, figures = site.loss()
            if energy._validate_args:
                site.check_range(self.trusted, loss, figures)
            if name not in self.checked:
                site.check_graph(loss, self.latents)
            pyro.factor(f"{name}$energy", loss.detach() - loss)


class _GuideSites(Messenger):
    def __init__(self, learners: dict[str, dict[str, Any]]) -> None:
        super().__init__()
        self.learners = learners

    def _pyro_post_auxiliary(self, msg: Any) -> None:
        self.learners.setdefault(msg["name"], {}).update(msg["value"])

    def _pyro_sample(self, msg: Any) -> None:
        if find_energy(msg["fn"]) is not None or find_mixture(msg["fn"]) is not None:
            raise ValueError(in_guide(msg["name"]).message)
