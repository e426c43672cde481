"""What both hosts are given: data, weights of nets, and the list of objectives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Layers = list[tuple[np.ndarray, np.ndarray]]


def layers(seed: int, *sizes: int) -> Layers:
    """Weights, shape ``(outputs, inputs)``, and biases of a net."""
    generator = np.random.default_rng(seed)
    return [
        (generator.normal(size=(after, before)) / before**0.5, 0.1 * generator.normal(size=after))
        for before, after in zip(sizes, sizes[1:], strict=False)
    ]


def points(seed: int, *shape: int) -> np.ndarray:
    """Standard normal numbers."""
    return np.random.default_rng(seed).normal(size=shape)


DATA = 0.8 * points(0, 12, 2) + [0.5, -0.3]
MASK = np.arange(5) % 3 != 0
SUBSAMPLE_SIZE = len(MASK)


@dataclass(frozen=True)
class Game:
    """An objective, and what it trains.

    Attributes:
        objective: Makes it, given the module of a host that calls the library.
        base: ``"density"`` or ``"pushforward"``.
        learner: What the guide declares: None, ``"critic"``, ``"number"``, ``"generator"``, or
            ``"encoder"``, which is a generator with noise and an encoder.
    """

    objective: Callable[[Any], Any]
    base: str = "density"
    learner: str | None = None


def _from(start: str) -> Callable[[Any], Any]:
    return lambda api: api.contrastive_divergence(
        api.langevin(0.1), num_steps=4, start=start, num_samples=9, energy_penalty=0.1
    )


def _kale(form: str) -> Callable[[Any], Any]:
    return lambda api: api.kale(
        form=form, num_samples=20, gradient_penalty=0.3, base_loss=None, safe_gradient=True
    )


def _f_divergence(name: str, gradient: str) -> Callable[[Any], Any]:
    return lambda api: api.f_divergence(
        name,
        api.langevin(0.1),
        num_steps=4,
        num_samples=9,
        gradient=gradient,
        energy_penalty=0.1,
        critic_penalty=0.2,
        log_ratio_bound=20.0,
    )


def _bounds(entropy: str, penalty: str) -> Callable[[Any], Any]:
    return lambda api: api.bidirectional_bounds(
        entropy=entropy,
        penalty=penalty,
        penalty_weight=0.7,
        threshold=0.01,
        entropy_weight=0.9,
        num_samples=10,
    )


# Each is played by itself; those that are named below as steps of training, too.
GAMES = {
    "energy_discrepancy": Game(
        lambda api: api.energy_discrepancy(variance=0.3, num_samples=4, stabilization=1.0)
    ),
    "contrastive_divergence_from_base": Game(_from("base")),
    "contrastive_divergence_from_data": Game(_from("data")),
    "score_matching_exact": Game(lambda api: api.exact_score_matching()),
    "score_matching_sliced": Game(lambda api: api.sliced_score_matching(num_projections=3)),
    "score_matching_denoising": Game(lambda api: api.denoising_score_matching(variance=0.2)),
    "pseudo_spherical": Game(
        lambda api: api.pseudo_spherical(
            0.5, api.langevin(0.1), num_steps=4, num_samples=9, energy_penalty=0.1
        )
    ),
    "maximum_likelihood": Game(lambda api: api.maximum_likelihood(num_samples=30)),
    "kale_donsker_varadhan": Game(_kale("donsker_varadhan")),
    "kale_donsker_varadhan_pushforward": Game(_kale("donsker_varadhan"), base="pushforward"),
    "kale_fenchel": Game(_kale("fenchel"), learner="number"),
    "kale_fenchel_pushforward": Game(_kale("fenchel"), base="pushforward", learner="number"),
    "f_divergence_full": Game(_f_divergence("jensen_shannon", "full"), learner="critic"),
    "f_divergence_covariance": Game(_f_divergence("kl", "covariance"), learner="critic"),
    "bidirectional_bounds_exact": Game(_bounds("exact", "log_ratio"), learner="generator"),
    "bidirectional_bounds_noise": Game(_bounds("noise", "log_ratio"), learner="encoder"),
    "bidirectional_bounds_data_penalty": Game(_bounds("exact", "data"), learner="generator"),
}

TRAINED = (
    "energy_discrepancy",
    "kale_fenchel_pushforward",
    "f_divergence_full",
    "bidirectional_bounds_noise",
)
