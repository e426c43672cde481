"""Report of both digits tutorials: a table, two pictures, and plain words.

It takes arrays and numbers of either host, and writes text and files.
"""

import argparse
import math
import textwrap
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

with warnings.catch_warnings():
    # The last ArviZ 0.x announces ArviZ 1.x on its first import of each day.
    warnings.filterwarnings("ignore", r"\s*ArviZ is undergoing", FutureWarning)
    import arviz as az

matplotlib.use("Agg")
from matplotlib import pyplot as plt

NORMAL, ENERGY_BASED = "standard normal", "energy-based"


class Settings(NamedTuple):
    """Length of every run, fixed before any result is known."""

    output: Path
    seed: int
    num_steps: int = 4000  # of training, for each prior
    num_importance: int = 500  # samples for the likelihood of each image
    num_temperatures: int = 1000  # from the base to the energy-based prior
    num_weights: int = 1000  # annealed samples for its normalizing constant
    num_draws: int = 4000  # from each prior, to look at
    num_moves: int = 500  # of MALA for each draw from the energy-based prior
    num_chains: int = 3  # of NUTS
    num_warmup: int = 200
    num_samples: int = 300  # that each chain keeps


class Evidence(NamedTuple):
    """Results of one prior.

    Attributes:
        log_likelihood: Importance-weighted log p(x) of the test images in nats, shape `(n,)`,
            the log-normalizer left out.
        draws: Images decoded from draws of the prior, shape `(m, 64)`.
        log_z: Result of `log_normalizer`; None for a density that is normalized already.
    """

    log_likelihood: np.ndarray
    draws: np.ndarray
    log_z: Any = None

    @property
    def log_normalizer(self) -> float:
        return 0.0 if self.log_z is None else float(self.log_z.estimate)

    @property
    def standard_error(self) -> float:
        return 0.0 if self.log_z is None else float(self.log_z.standard_error)


class Estimate(NamedTuple):
    """A mean and its standard error."""

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.error:.2f}"


def read_settings(argv: list[str] | None, description: str | None) -> Settings:
    """Settings from the command line."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder to fill")
    parser.add_argument("--seed", type=int, default=0, help="of every random number (default 0)")
    parser.add_argument("--steps", type=int, help="training steps for each prior (default 4000)")
    parser.add_argument("--fast", action="store_true", help="seconds, for a look at the machinery")
    options = parser.parse_args(argv)
    settings = Settings(options.output, options.seed)
    if options.fast:
        settings = settings._replace(
            num_steps=20, num_importance=5, num_temperatures=20, num_weights=60, num_draws=60,
            num_moves=5, num_chains=2, num_warmup=5, num_samples=10,
        )  # fmt: skip
    if options.steps is not None:
        settings = settings._replace(num_steps=options.steps)
    settings.output.mkdir(parents=True, exist_ok=True)
    return settings


# --- Numbers ------------------------------------------------------------------------------------


def estimate(values: np.ndarray) -> Estimate:
    """Mean of independent values with its standard error."""
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values))))


def per_image(evidence: Evidence) -> Estimate:
    """Log-likelihood of an unseen image in nats, with the error of log Z inside."""
    mean, error = estimate(evidence.log_likelihood - evidence.log_normalizer)
    return Estimate(mean, math.hypot(error, evidence.standard_error))


def paired_gain(normal: Evidence, learned: Evidence) -> Estimate:
    """Nats per image by which the energy-based prior is better, image by image."""
    mean, error = estimate(learned.log_likelihood - normal.log_likelihood)
    return Estimate(mean - learned.log_normalizer, math.hypot(error, learned.standard_error))


def distance(images: np.ndarray, real: np.ndarray, num_batches: int = 10) -> Estimate:
    r"""Squared maximum mean discrepancy to real images, times 1000.

    Unbiased, so it may fall below zero, with a Gaussian kernel as wide as the median distance
    between real images. The error is that of the mean over batches of ``images``.

    References:
        A Kernel Two-Sample Test (Gretton et al., 2012),
        https://jmlr.org/papers/v13/gretton12a.html
    """
    median = np.median(euclidean_distances(real)[np.triu_indices(len(real), 1)])
    gamma = 0.5 / median**2
    within_real = off_diagonal_mean(rbf_kernel(real, gamma=gamma))
    batches = [
        off_diagonal_mean(rbf_kernel(batch, gamma=gamma))
        + within_real
        - 2 * rbf_kernel(batch, real, gamma=gamma).mean()
        for batch in np.array_split(images, num_batches)
    ]
    return estimate(1000 * np.array(batches))


def off_diagonal_mean(matrix: np.ndarray) -> float:
    """Mean over pairs of different items."""
    n = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (n * (n - 1)))


# --- Pictures -----------------------------------------------------------------------------------


def draw_digits(
    path: Path, panels: dict[str, np.ndarray], rows: int = 6, columns: int = 10
) -> None:
    """One mosaic of digits for each panel."""
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4 * len(panels), 2.8), layout="constrained"
    )
    for axis, (title, images) in zip(axes, panels.items(), strict=True):
        tiles = images[: rows * columns].reshape(rows, columns, 8, 8)
        framed = np.pad(tiles, ((0, 0), (0, 0), (1, 1), (1, 1)))
        mosaic = framed.transpose(0, 2, 1, 3).reshape(rows * 10, columns * 10)
        axis.imshow(mosaic, cmap="gray", vmin=0, vmax=1)
        axis.set_title(title)
        axis.axis("off")
    figure.savefig(path, dpi=160)
    plt.close(figure)


def draw_posterior(path: Path, posterior: Any) -> None:
    """ArviZ's forest plot: each chain's intervals side by side, with effective sample sizes."""
    az.plot_forest(
        posterior,
        var_names=["z"],
        coords={"image": [0]},
        hdi_prob=0.9,
        ess=True,
        figsize=(10, 8),
        textsize=10,
    )
    figure = plt.gcf()
    figure.suptitle("Latents of one unseen digit: 90 % intervals, one line for each chain")
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)


# --- Words --------------------------------------------------------------------------------------


def table(
    log_likelihoods: dict[str, Estimate],
    distances: dict[str, Estimate],
    gain: Estimate,
    learned: Evidence,
) -> str:
    """Table of the measurements on the test images, and log Z."""
    lines = [
        f"{'':22}{'log-likelihood':>18}{'distance of draws':>20}",
        f"{'prior':22}{'(nats per image)':>18}{'(1000 x MMD^2)':>20}",
    ]
    for name, log_likelihood in log_likelihoods.items():
        lines.append(f"{name:22}{log_likelihood!s:>18}{distances[name]!s:>20}")
    lines.append(f"{'(real digits)':22}{'':18}{distances['real']!s:>20}")
    lines.append(f"{'paired gain':22}{gain!s:>18}")
    return "\n".join([*lines, "", f"{ENERGY_BASED}: {learned.log_z}"])


def explain_gain(gain: Estimate) -> str:
    """The main result in plain words."""
    low, high = gain.mean - 2 * gain.error, gain.mean + 2 * gain.error
    interval = f"about 95 % sure: between {low:.1f} and {high:.1f}"
    if low > 0:
        return (
            f"The energy-based prior predicts unseen digits better, by {gain.mean:.1f} nats an "
            f"image ({interval}): to it, a digit is {math.exp(gain.mean):.1f} times as likely. "
            "Encoder, decoder, seeds and steps are the same; what differs is the prior."
        )
    if high < 0:
        return (
            f"The energy-based prior predicts unseen digits worse, by {-gain.mean:.1f} nats an "
            f"image ({interval}). It has not paid here; was it trained for long enough?"
        )
    return (
        f"The gain of {gain.mean:.1f} nats an image is within its error ({interval}): this run "
        "does not separate the two priors."
    )


def explain_distance(distances: dict[str, Estimate]) -> str:
    """Comparison of draws with real digits."""
    normal, ours, real = (distances[name] for name in (NORMAL, ENERGY_BASED, "real"))
    difference, error = normal.mean - ours.mean, math.hypot(normal.error, ours.error)
    if difference > 2 * error:
        verdict = "draws from the energy-based prior decode to images closer to real digits"
    elif difference < -2 * error:
        verdict = "draws from the energy-based prior decode to images further from real digits"
    else:
        verdict = "the difference between the priors is within its error"
    return (
        f"The distance of draws is 0 for a perfect model; real digits of the training set are at "
        f"{real}. Here {verdict} ({ours.mean:.2f} against {normal.mean:.2f})."
    )


def explain_normalizer(log_z: Any) -> str:
    """How far the likelihood of an unnormalized density can be trusted."""
    narrow = log_z.upper - log_z.lower < 1
    health = "close enough" if narrow else "too far apart to trust: use more temperatures"
    return (
        "The density of the energy-based prior is known up to Z. Annealing from the base to the "
        f"prior bounds log Z from below, annealing back from above: {log_z.lower:.2f} and "
        f"{log_z.upper:.2f}, {health}. Its standard error is part of those of the table."
    )


def explain_chains(summary: Any, num_draws: int) -> str:
    """Assessment of the posterior draws."""
    worst, smallest = summary["r_hat"].max(), summary["ess_bulk"].min()
    if worst < 1.01:
        verdict = "near 1: chains that started apart agree"
    elif worst < 1.05:
        verdict = "near enough to 1 for means and intervals; more draws would bring it nearer"
    else:
        verdict = "not near 1: the chains still disagree, run them for longer"
    return (
        f"NUTS on the latents of unseen digits: the worst R-hat is {worst:.3f}, {verdict}. The "
        f"latent that mixed worst has {smallest:.0f} effective draws out of {num_draws}."
    )


def report(
    settings: Settings, data: Any, *, normal: Evidence, learned: Evidence, posterior: Any
) -> None:
    """Write and print everything; the test images are read here for the first time."""
    real = data.test.images
    distances = {
        NORMAL: distance(normal.draws, real),
        ENERGY_BASED: distance(learned.draws, real),
        "real": distance(data.train.images, real),
    }
    log_likelihoods = {NORMAL: per_image(normal), ENERGY_BASED: per_image(learned)}
    gain = paired_gain(normal, learned)
    summary = az.summary(posterior, var_names=["z"]).sort_values("ess_bulk")
    num_draws = posterior["posterior"].sizes["chain"] * posterior["posterior"].sizes["draw"]
    columns = ["mean", "sd", "ess_bulk", "ess_tail", "r_hat"]
    parts = [
        f"{len(real)} unseen digits",
        table(log_likelihoods, distances, gain, learned),
        "Posterior draws of the latents (image, latent), the three that mixed worst",
        summary[columns].head(3).to_string(),
        "What this means",
        *(
            textwrap.fill(text, 96, initial_indent="- ", subsequent_indent="  ")
            for text in (
                explain_gain(gain),
                explain_distance(distances),
                explain_normalizer(learned.log_z),
                explain_chains(summary, num_draws),
            )
        ),
    ]
    text = "\n\n".join(parts)
    (settings.output / "table.txt").write_text(text + "\n", encoding="utf-8")
    posterior.to_netcdf(settings.output / "posterior.nc")
    panels = {"Real digits": real, f"Draws, {NORMAL} prior": normal.draws}
    draw_digits(
        settings.output / "digits.png",
        panels | {f"Draws, {ENERGY_BASED} prior": learned.draws},
    )
    draw_posterior(settings.output / "posterior.png", posterior)
    print(f"\n{text}\n\nPictures, table and posterior.nc are in {settings.output}/")
