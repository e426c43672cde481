"""Checks of the experiments by runs of seconds, with either host."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from evidence import digits, simulation
from evidence.experiments import (
    anomalies,
    bit_codes,
    bounds_digits,
    bounds_planes,
    bounds_sandwich,
    brackets,
    conditional_digits,
    conditional_normal,
    density,
    digits_priors,
    f_divergence_digits,
    f_divergence_toy,
    gaussians_25,
    generalized,
    generalized_digits,
    ising,
    langevin_digits,
    langevin_toy,
    mixed_tables,
    mode_counting,
    planes,
    simulators,
    stored_digits,
    tilts,
)
from evidence.hosts import Nets

from pyro_ebm import datasets

Check = Callable[[Any], None]

SMALL_FLOW = {"num_layers": 1, "width": 32}


def energies_separate(host: Any, nets: Nets, by: float) -> bool:
    """Whether the prior's energy is lower at latents of images than at draws of its base."""
    images = datasets.digits().validation.images

    def encode(encoder: Any, images: Any) -> Any:
        return encoder(images)[..., : digits.NUM_LATENTS]

    encoded = host.evaluate(encode, nets["encoder"], images)
    flow = host.flow_density(nets["flow"]) if "flow" in nets else None
    draws = host.draw(flow or host.normal(digits.NUM_LATENTS), 1000)
    of_images, of_draws = (host.evaluate(nets["energy"], z) for z in (encoded, draws))
    return of_images.mean() < of_draws.mean() - by


def check_planes(host: Any) -> None:
    figures = planes.run(host, 0, **planes.QUICK)
    assert figures["difference"] > -1.3  # the base alone: -1.6


def check_bit_codes(host: Any) -> None:
    figures = bit_codes.run(host, 0, **bit_codes.QUICK)
    assert figures["NLL"] < 22.17  # the base alone: 22.18


def check_ising(host: Any) -> None:
    figures = ising.run(host, 0, **ising.QUICK)
    assert figures["-log RMSE"] > figures["zero"] + 1


def check_mixed_tables(host: Any) -> None:
    figures = mixed_tables.run(host, 0, **mixed_tables.QUICK)
    alone = mixed_tables.run(host, 0, table="breast cancer", objective="marginals")
    assert figures["NLL"] < alone["NLL"] - 0.1


def check_gaussians_25(host: Any) -> None:
    def base(points: np.ndarray) -> np.ndarray:
        return -np.sum(points**2, axis=-1) / (2 * gaussians_25.BASE_SCALE**2)

    untrained = gaussians_25.mean_squared_error(base, 0, 80)
    assert gaussians_25.run(host, 0, **gaussians_25.QUICK)["mse"] < 0.9 * untrained["mse"]


def check_f_divergence_toy(host: Any) -> None:
    figures = f_divergence_toy.run(host, 0, **f_divergence_toy.QUICK)
    assert figures["error"] < 0.9  # at the start: 1.01


def check_f_divergence_digits(host: Any) -> None:
    figures = f_divergence_digits.run(host, 0, split="validation", **f_divergence_digits.QUICK)
    assert figures["score"] > -200  # untrained: below -1000
    assert 0.5 < figures["mean_ratio"] < 2
    assert math.isclose(figures["gain"][0], figures["score"] - figures["normal score"])


def check_circles(host: Any) -> None:
    """Disjoint supports come together by KALE, which is finite; the base moves when it may."""
    figures = generalized.run(host, 0, **generalized.QUICK_CIRCLE)
    # Twenty steps of Adam, each of 0.03 at most.
    assert 2.4 < figures["distance, end"] < 2.9
    assert 0 < figures["kale, end"] < float("inf")


def check_implicit_bases(host: Any) -> None:
    """An energy corrects a base that is hardly trained."""
    figures = generalized.run(host, 0, **generalized.QUICK)
    assert figures["gain, likelihood"] > 10 * figures["error, likelihood"]
    assert min(figures[f"gain, {kind}"] for kind in generalized.KINDS) > 0


def check_tilts(host: Any) -> None:
    figures = tilts.run(host, 0, **tilts.QUICK)
    assert figures["upper"] - figures["lower"] < 0.002
    assert figures["lower"] > 0.1
    # The identity KL(P, Q) = KL(P, G) - L, whose sides share no estimate.
    gain = figures["kl_base"] - figures["kl_model"]
    assert math.isclose(figures["gain"], gain, abs_tol=4 * figures["error"])


def check_density(host: Any) -> None:
    figures = density.run(host, 0, **density.QUICK)
    assert figures["test"] < figures["initial"] - 0.2
    assert abs(figures["estimated"] + density.OFFSET) < 4 * figures["standard error"] < 0.4
    # It follows estimates of 200 draws, with 5 times the standard error of 5000: within two.
    assert abs(figures["learned"] + density.OFFSET) < 10 * figures["standard error"]


def check_pair_of_flows(host: Any) -> None:
    """The energy of a pair tilts g into d."""
    host.seed(0)
    d, g = (host.flow(3, **density.FLOW) for _ in range(2))
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    log_normalizer = host.array(np.float32(-density.OFFSET))

    def log_densities(d: Any, g: Any, x: Any) -> tuple[Any, Any]:
        tilted = density.pair(host, d, g, log_normalizer=lambda: log_normalizer)
        return tilted.log_prob(x), host.flow_density(d).log_prob(x)

    found, expected = host.evaluate(log_densities, d, g, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    base = host.evaluate(lambda g, x: host.flow_density(g).log_prob(x), g, x)
    assert np.abs(base - expected).max() > 0.1


def check_digits_priors(host: Any) -> None:
    figures = digits_priors.run(host, 0, **digits_priors.QUICK)
    assert figures["failures"] == 0
    assert figures["gain"] > -3


def check_anomalies(host: Any) -> None:
    figures = anomalies.run(host, 0, **anomalies.QUICK)
    assert figures["calibrated"] > figures["plain"] > 0.2


def check_convolutions(host: Any) -> None:
    """Both halves of an autoencoder of square images."""
    host.seed(0)
    encoder, decoder = host.convolutional(8, 3), host.deconvolutional(3, 8)
    images = datasets.digits().validation.images[:5]
    decoded = host.evaluate(lambda d, e, x: d(e(x)), decoder, encoder, images)
    assert decoded.shape == images.shape
    assert np.all(decoded.std(1) > 0)


def check_generalized_digits(host: Any) -> None:
    data, penalty = datasets.digits(), {"num_samples": 50}
    host.seed(0)
    nets = generalized_digits.networks(host, "tilted flow", SMALL_FLOW)
    training = generalized_digits.inference(host, "tilted flow", 60, penalty)
    nets = training.fit(nets, host.array(data.train.images), batch_size=128)
    assert energies_separate(host, nets, by=0.05)


def check_constant_energy(host: Any) -> None:
    """A constant energy changes no score."""
    images = datasets.digits().validation.images[:50]
    host.seed(0)
    flow = generalized_digits.networks(host, "flow")
    tilted = flow | {"energy": lambda z: 0 * z.sum(-1) + 2.0}
    host.seed(1)
    expected, _ = generalized_digits.look_at(host, flow, images, 5)
    host.seed(1)
    found, error = generalized_digits.look_at(host, tilted, images, 5, method="importance")
    assert error < 1e-6
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def check_bounds_planes(host: Any) -> None:
    setting = replace(bounds_planes.SETTINGS["bounds"], penalty_weight=0.1)
    flow = SMALL_FLOW | {"num_layers": 2}
    start, end = bounds_planes.train(host, 100, "25_gaussians", setting, 100, 1, flow)
    assert end["log-likelihood"] > start["log-likelihood"] + 0.05
    # The flow is injective, and onto the plane.
    for look in (start, end):
        assert look["lower"] < look["log_z"] + 4 * look["error, lower"]
    assert abs(end["estimate"] - end["log_z"]) < 4 * end["error, estimate"]


def check_divergence_ends_a_run(host: Any) -> None:
    setting = replace(bounds_planes.SETTINGS["no penalty"], learning_rate=30.0)
    looks = bounds_planes.train(host, 0, "25_gaussians", setting, 20, 1, SMALL_FLOW)
    assert len(looks) == 1


def check_bounds_sandwich(host: Any) -> None:
    case = replace(bounds_sandwich.CASES["skewed, convex"], num_steps=60)
    with host.float64():
        looks = bounds_sandwich.train(host, 0, case, 2)
    figures = bounds_sandwich.summarize(looks)
    assert figures["violations"] == 0
    assert figures["known"] == 3
    assert figures["least slack"] < 0.2
    for look in looks:
        assert abs(look["estimate"] - look["truth"]) < 4 * look["error, estimate"]


def check_mode_counting(host: Any) -> None:
    images, setting = mode_counting.read_images("digits").train.images, mode_counting.QUICK_SETTING
    nets, refused = mode_counting.train(host, 0, images, "bounds", setting)
    assert refused == 0.0
    z = host.draw(host.normal(setting.num_latents), 500)
    off = host.evaluate(nets["generator"], z).mean(0) - np.tile(images.mean(0), 3)
    assert np.abs(off).mean() < 0.15  # at the start: 0.3


def check_bounds_digits(host: Any) -> None:
    data = datasets.digits()
    host.seed(0)
    nets = bounds_digits.networks(host, tilted=True, flow=SMALL_FLOW)
    training = bounds_digits.inference(host, 60, tilted=True, objective={"penalty_weight": 0.0})
    nets = training.fit(nets, host.array(data.train.images), batch_size=128)
    assert energies_separate(host, nets, by=0.05)


def check_langevin_toy(host: Any) -> None:
    figures = langevin_toy.run(host, 1, **langevin_toy.QUICK)
    assert abs(figures["precision"] - figures["truth"]) < 0.2  # at the start: 0.8


def check_langevin_digits(host: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Few draws are not enough.
        figures = langevin_digits.run(host, 0, split="validation", **langevin_digits.QUICK)
    assert figures["normal, importance"][0] > -600  # untrained: below -1000
    assert abs(figures["gain, importance"][0]) < 100


def check_stored_digits(host: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Few draws are not enough.
        figures = stored_digits.run(host, 0, split="validation", **stored_digits.QUICK)
    assert figures["log-likelihood"] > -600  # untrained: below -1000


def check_brackets(host: Any) -> None:
    figures = brackets.run(host, 0, **brackets.QUICK)
    slack = 4 * figures["standard error"]
    assert figures["lower"] - slack < figures["truth"] < figures["upper"] + slack
    assert figures["upper"] - figures["lower"] < 0.3


def check_conditional_normal(host: Any) -> None:
    assert conditional_normal.run(host, 0, **conditional_normal.QUICK)["off"] < 3


def check_conditional_digits(host: Any) -> None:
    figures = conditional_digits.run(host, 0, **conditional_digits.QUICK)
    assert 0 <= figures["recognized"] < 0.5 < figures["classifier"]  # three steps


def check_simulators(host: Any) -> None:
    options = {name: simulators.QUICK[name] for name in ("task", "method")}
    training = {name: simulators.QUICK[name] for name in ("num_steps", "width", "decay")}
    x = simulation.observation("two moons", 0)
    theta = simulators.trained(host, 0, **options, **training)(x, 200)
    off = (theta[:, 1] - theta[:, 0]).mean() / np.sqrt(2) - x[0, 1]
    assert abs(off) < 0.1  # at the start: 1.1


CHECKS: dict[str, Check] = {
    name.removeprefix("check_"): check
    for name, check in list(vars().items())
    if name.startswith("check_")
}
WITH_TABLES = ("density", "anomalies")
