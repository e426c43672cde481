"""A conditional law with an exact answer: x | c ~ N(w c, exp(a + b c)).

The energy is quadratic in x and sees c as its context; the base, N(0, 2^2), has no batch. `w`, `a`
and `b` are fitted to `rows` rows, and `off` is the largest distance of the three from their truth
(0.7, -1, 0.5), in standard errors of maximum likelihood on these rows. Other lines are about every
row's log Z at the truth: `largest error` in nats, and `outside`, the number of rows whose bracket
leaves the exact value out. Persistent chains, the pseudo-spherical score and bidirectional bounds
refuse a context.
"""

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from evidence.hosts import Adam

FIGURES = ("w", "a", "b", "off", "largest error", "outside")
TRUTH = {"w": 0.7, "a": -1.0, "b": 0.5}
BASE_SCALE = 2.0
NUM_STEPS, ADAM = 1000, Adam(0.03)
CRITIC_ADAM = Adam(0.03, betas=(0.5, 0.999))
DRAWS = {"num_steps": 20, "num_samples": 8}
OBJECTIVES = {
    "energy discrepancy": ("EnergyDiscrepancy", {"variance": 1.0, "num_samples": 32}),
    "contrastive divergence": ("ContrastiveDivergence", {"num_steps": 10, "init": "data"}),
    "score matching": ("ScoreMatching", {}),
    "sliced score matching": ("SlicedScoreMatching", {}),
    "denoising score matching": ("DenoisingScoreMatching", {"variance": 0.01}),
    "maximum likelihood": ("MaximumLikelihood", {"num_samples": 100}),
    "KALE": ("KALE", {"num_samples": 100}),
    "noise contrastive": ("NoiseContrastive", {"num_samples": 100}),
    "f-EBM": ("FDivergence", {"f": "kl", "gradient": "covariance"} | DRAWS),
}
SAMPLERS = {"contrastive divergence": 0.3, "f-EBM": 0.1}
LOG_Z = {
    "log Z, grid": {"method": "grid"},
    "log Z, importance": {"method": "importance", "num_samples": 200_000},
    "log Z, annealed": {"method": "annealed", "num_samples": 4_000},
}
CELLS = [{"part": part, "rows": rows} for part in OBJECTIVES for rows in (64, 1000)]
CELLS += [{"part": part, "rows": 64} for part in LOG_Z]
QUICK = {"part": "maximum likelihood", "rows": 64, "num_steps": 200}


def data(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and contexts, float32 of shape `(rows,)`."""
    context = np.linspace(-1.5, 1.5, rows)
    noise = np.random.default_rng(seed).normal(size=rows)
    values = TRUTH["w"] * context + np.exp((TRUTH["a"] + TRUTH["b"] * context) / 2) * noise
    return values.astype(np.float32), context.astype(np.float32)


def quadratic(w: Any, a: Any, b: Any) -> Any:
    """Minus the log-density without its normalizer, less the base's."""

    def energy(x: Any, c: Any) -> Any:
        precision = array_namespace(x, c).exp(-a - b * c)
        return (x - w * c) ** 2 * precision / 2 - x**2 / (2 * BASE_SCALE**2)

    return energy


def distribution(host: Any, nets: Any, context: Any) -> Any:
    energy = quadratic(*(nets[name] for name in TRUTH))
    return host.ebm.EnergyBased(energy, host.dist.Normal(0.0, BASE_SCALE), context=context)


def inference(host: Any, part: str, num_steps: int) -> Any:
    def model(nets: Any, x: Any, context: Any) -> None:
        with host.plate("rows", len(x)):
            host.sample("x", distribution(host, nets, context), obs=x)

    def guide(nets: Any, x: Any, context: Any) -> None:
        if part == "f-EBM":
            energy = quadratic(*(nets[f"critic {name}"] for name in TRUTH))
            k = [nets[f"offset {power}"] for power in range(3)]
            critic = lambda x, c: k[0] + k[1] * c + k[2] * c**2 - energy(x, c)  # noqa: E731
            host.ebm.attach("x", critic=critic)
        if part == "noise contrastive":
            host.ebm.attach("x", log_normalizer=nets["offset 0"] + nets["offset 1"] * context)

    kind, options = OBJECTIVES[part]
    sampler = {"sampler": host.ebm.MALA(SAMPLERS[part])} if part in SAMPLERS else {}
    objective = getattr(host.ebm, kind)(**options, **sampler)
    loss = host.ebm.EnergyELBO(objective, num_normalizer_samples=0)
    adam = {name: CRITIC_ADAM if " " in name else ADAM for name in parameters(host, part)}
    return host.Inference(model, guide, loss, adam, num_steps)


def parameters(host: Any, part: str) -> dict[str, Any]:
    names = list(TRUTH)
    if part == "f-EBM":
        names += [f"critic {name}" for name in TRUTH] + [f"offset {power}" for power in range(3)]
    if part == "noise contrastive":
        names += ["offset 0", "offset 1"]
    return {name: host.array(np.float32(0.0)) for name in names}


def standard_errors(context: np.ndarray) -> dict[str, float]:
    """Errors of maximum likelihood, from the Fisher information; contexts have mean zero."""
    precision = np.exp(-TRUTH["a"] - TRUTH["b"] * context)
    rows, squares = len(context), float((context**2).sum())
    information = {"w": (context**2 * precision).sum(), "a": rows / 2, "b": squares / 2}
    return {name: float(value) ** -0.5 for name, value in information.items()}


def run(
    host: Any, seed: int, *, part: str, rows: int, num_steps: int = NUM_STEPS
) -> dict[str, float]:
    host.seed(seed)
    x, context = data(seed, rows)
    if part in LOG_Z:
        return log_normalizers(host, context, LOG_Z[part])
    nets = inference(host, part, num_steps).fit(
        parameters(host, part), host.array(x), host.array(context)
    )
    found = {name: float(nets[name]) for name in TRUTH}
    errors = standard_errors(context)
    off = max(abs(found[name] - TRUTH[name]) / errors[name] for name in TRUTH)
    return found | {"off": off}


def log_normalizers(host: Any, context: np.ndarray, options: dict[str, Any]) -> dict[str, float]:
    nets = {name: host.array(np.float32(value)) for name, value in TRUTH.items()}
    result = host.log_normalizer(distribution(host, nets, host.array(context)), **options)
    truth = (TRUTH["a"] + TRUTH["b"] * context) / 2 - math.log(BASE_SCALE)
    lower, estimate, upper = (np.asarray(x) for x in (result.lower, result.estimate, result.upper))
    outside = (truth < lower) | (truth > upper)
    return {"largest error": float(np.abs(estimate - truth).max()), "outside": int(outside.sum())}
