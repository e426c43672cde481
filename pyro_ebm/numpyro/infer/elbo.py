"""The ELBO of a model with energy-based sites, around any ELBO that NumPyro has."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from numpyro.handlers import replay, seed, substitute, trace
from numpyro.infer import ELBO, Trace_ELBO
from numpyro.primitives import _PYRO_STACK, apply_stack

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.infer.metrics import TrustedRange
from pyro_ebm.numpyro.distributions.training import trained_by_objective
from pyro_ebm.numpyro.infer.energy_sites import EnergySite, EnergySites
from pyro_ebm.numpyro.infer.persistent_chains import DeclaredChains, PersistentChains, with_values

__all__ = ["EnergyELBO", "auxiliary"]


def auxiliary(site: str, **learners: Any) -> None:
    """Declare, in a guide, what the objective of a site learns beside the energy.

    Their parameters come from ``eqx_module``, ``nnx_module``, ``flax_module`` or
    ``numpyro.param``, so that the host's ``SVI`` trains them.

    Args:
        site: Name of the energy-based site of the model.
        **learners: By the names that the objective's ``loss`` asks for, for example
            ``critic=eqx_module("critic", module)`` or ``chains=PersistentChains(...)``.
    """
    if not _PYRO_STACK:
        return
    learners = {
        name: DeclaredChains.declare(f"{site}${name}", learner)
        if isinstance(learner, PersistentChains)
        else learner
        for name, learner in learners.items()
    }
    # The value stays None, as Predictive and others expect of a message they do not know.
    message: Any = {"type": "auxiliary", "site": site, "learners": learners, "value": None}
    apply_stack(message | {"fn": lambda: None, "args": (), "kwargs": {}})


class EnergyELBO(ELBO):
    r"""A loss for ``SVI`` that trains energies beside everything that a stock ELBO trains.

    The stock ELBO runs on the model as it stands; at each energy-based site it meets a factor of
    value zero whose gradient is that of minus the objective's loss, so that NumPyro itself
    applies plates, subsampling, masks and particles to it, and importance weights are untouched.
    With no energy-based site this *is* the stock ELBO, to the last bit.

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
            where it tells of it (``energy_scale`` of :meth:`health`). Outside this range, while
            NumPyro validates, the number is NaN: ``SVI.run(..., stable_update=True)`` then keeps
            the parameters, and :meth:`check_health` says why. Outside ``jit`` it is an error.

    Raises:
        TypeError: If an objective has no ``loss`` or ``elbo`` is not an ELBO of NumPyro.
        ValueError: At the first step: if an objective is given for a site that is not there, a
            guide samples an energy-based distribution, a site's energy depends on another latent
            variable, or a batch dimension of a site is no plate.

    Example:
        >>> loss = EnergyELBO(EnergyDiscrepancy(variance=0.25))  # doctest: +SKIP
        >>> svi = SVI(model, guide, optax.adam(1e-3), loss=loss)  # doctest: +SKIP
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
        _check_elbo(self.elbo)
        self.num_normalizer_samples = check_positive_integer(
            "num_normalizer_samples", num_normalizer_samples, minimum=0
        )
        self.can_infer_discrete = self.elbo.can_infer_discrete
        super().__init__(self.elbo.num_particles, self.elbo.vectorize_particles)

    def loss(
        self, rng_key: Array, param_map: Any, model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Estimate of the negative ELBO; its gradient is that of the objectives too."""
        run = self._run(rng_key, param_map, model, guide, args, kwargs, with_state=False)
        return run["loss"]

    def loss_with_mutable_state(
        self, rng_key: Array, param_map: Any, model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """The same with persistent chains, moved, and other ``mutable`` sites.

        Persistent chains go with every stock ELBO; other mutable sites where it has them.
        """
        return self._run(rng_key, param_map, model, guide, args, kwargs, with_state=True)

    def health(
        self, rng_key: Array, param_map: Any, model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> dict[str, dict[str, Array]]:
        """Figures of each trained site to read during training.

        Model and guide are run once more, with fresh noise. ``param_map`` is what
        ``SVI.get_params`` gives; add the state's ``mutable_state`` for persistent chains to move
        from where they are.

        Returns:
            By the name of the site: ``objective``, its mean over batch elements, and what the
            objective tells beside it, for example ``energy_gap``.
        """
        trained = self._trained(rng_key, param_map, model, guide, args, kwargs)
        return {site.name: site.health(key) for key, site in trained}

    def check_health(
        self, rng_key: Array, param_map: Any, model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Raise if the objective of a site, or its energies, are out of range on these data.

        Inside a compiled run nothing can raise: call it after ``SVI.run``.

        Raises:
            ValueError: Naming the site.
        """
        for key, site in self._trained(rng_key, param_map, model, guide, args, kwargs):
            site.check_range(self.trusted, *site.loss(key))

    def _trained(
        self, rng_key: Array, params: Any, model: Any, guide: Any, args: Any, kwargs: Any
    ) -> list[tuple[Array, EnergySite]]:
        """Sites with an objective, as one more run of model and guide meets them, and keys."""
        sites = self._meet(rng_key, params, model, guide, args, kwargs)
        _advance_chains(random.fold_in(rng_key, 1), sites)
        trained = [site for site in sites.records if site.objective is not None]
        keys = random.split(rng_key, len(trained) + 1)[1:]
        return list(zip(keys, trained, strict=True))

    def _run(
        self,
        rng_key: Array,
        params: Any,
        model: Any,
        guide: Any,
        args: Any,
        kwargs: Any,
        *,
        with_state: bool,
    ) -> dict[str, Any]:
        """What the stock ELBO gives, log-normalizers added, and chains moved."""
        # Drawn from keys of its own: those that the stock ELBO splits off stay as they are.
        meet_key, normalizer_key = random.split(random.fold_in(rng_key, 0))
        met = self._meet(meet_key, params, model, guide, args, kwargs)
        states, values = _advance_chains(random.fold_in(rng_key, 1), met)
        if met.records:
            sites = EnergySites(self.objective, self.trusted, emits=True, chains=values)
            model, guide = sites.model(model), sites.guide(guide)
        # Not every stock ELBO knows mutable sites, and some only with one particle.
        stock = with_state and (not states or met.mutables > states.keys())
        elbo = self.elbo.loss_with_mutable_state if stock else self.elbo.loss
        with trained_by_objective():
            result = elbo(rng_key, params, model, guide, *args, **kwargs)
        result = result if stock else {"loss": result, "mutable_state": None}
        if states:
            result = {**result, "mutable_state": {**(result["mutable_state"] or {}), **states}}
        if met.records and self.num_normalizer_samples:
            total = self._log_normalizer(normalizer_key, met.records)
            result = {**result, "loss": result["loss"] + total}
        return result

    def _log_normalizer(self, rng_key: Array, sites: list[EnergySite]) -> Array:
        keys = random.split(rng_key, len(sites))
        totals = [
            site.total(site.log_normalizer(key, self.num_normalizer_samples))
            for site, key in zip(sites, keys, strict=True)
        ]
        return jnp.stack(totals).sum()

    def _meet(
        self, rng_key: Array, params: Any, model: Any, guide: Any, args: Any, kwargs: Any
    ) -> EnergySites:
        """Energy-based sites of one run outside the particles; XLA leaves out what is not used."""
        guide_key, model_key = random.split(rng_key)
        # Copied, for a mutable site writes into its dictionary.
        copied = jax.tree.map(lambda leaf: leaf, params)
        sites = EnergySites(self.objective, self.trusted, emits=False)
        guide = substitute(seed(sites.guide(guide), guide_key), data=copied)
        guide_trace = trace(guide).get_trace(*args, **kwargs)
        model = replay(seed(sites.model(model), model_key), guide_trace)
        substitute(model, data=copied)(*args, **kwargs)
        return sites


def _advance_chains(
    rng_key: Array, sites: EnergySites
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Move the persistent chains of all sites: all of them thereafter, and those that moved."""
    states: dict[str, Array] = {}
    values: dict[str, Array] = {}
    for site in sites.records:
        for learner in site.learners.values():
            if isinstance(learner, DeclaredChains):
                key, name = random.fold_in(rng_key, len(states)), learner.name
                states[name], values[name] = learner.advance(key, site.energy)
        site.learners = with_values(site.learners, values)
    return states, values


def _check_objectives(objective: Any) -> None:
    objectives = objective.values() if isinstance(objective, Mapping) else [objective]
    for one in objectives:
        if not callable(getattr(one, "loss", None)):
            raise TypeError(f"Expected an objective with a `loss`, got {type(one).__name__}.")


def _check_elbo(elbo: Any) -> None:
    if not isinstance(elbo, ELBO):
        raise TypeError(f"Expected `elbo` to be an ELBO of NumPyro, got {type(elbo).__name__}.")
    if not getattr(elbo, "sum_sites", True):
        raise ValueError(
            "Expected an ELBO with sum_sites=True, got False: one loss for each site cannot "
            "train an energy."
        )
    if isinstance(elbo, Trace_ELBO) and elbo.multi_sample_guide:
        raise ValueError("Expected an ELBO with multi_sample_guide=False, got True.")
