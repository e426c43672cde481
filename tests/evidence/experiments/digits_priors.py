"""Priors of a decoder of digits, trained by each objective.

Networks, training images and guide are those of the tutorials; 1,500 steps of Adam at 1e-3 with
batches of 128, rates falling to zero along half a cosine, for the normal prior and all others
alike. Settings are the defaults, or those of the experiments above: energy discrepancy with
variance .25 and 16 negatives, 500 draws of the base for KALE (gradient penalty 1), maximum
likelihood and noise contrast; for f-EBM a critic like the energy, 128 persistent chains of 10
Langevin steps and penalties of .1; for bounds a flow of three coupling layers and a penalty of 10.
Denoising (variance .05) trains a prior of noisy latents. Nothing was tuned for this table, but for
the penalty, .1, on persistent contrastive divergence, which runs away without.

`gain` is that over the normal prior of the same seed, in nats an image of the test split, with log
Z by annealing; `failures` is the share of runs that ended in NaN, or with energies that have run
away from draws and data, so that log Z has no upper bound: they are not in the gain. `ms` is the
time of a step on one thread, with NumPyro's compilation.
"""

import time
from functools import cache
from typing import Any

import numpy as np

from evidence import digits
from evidence.experiments import bounds_digits, f_divergence_digits
from evidence.experiments.f_divergence_digits import LOG_Z
from evidence.experiments.generalized_digits import look_at
from evidence.hosts import Adam, Nets
from pyro_ebm import datasets

FIGURES = ("gain", "failures", "ms")
NUM_STEPS, BATCH_SIZE, ADAM = 1500, 128, Adam(1e-3)
NUM_DRAWS = 500
OBJECTIVES = {
    "energy discrepancy": lambda ebm: ebm.EnergyDiscrepancy(variance=0.25, num_samples=16),
    "contrastive divergence": lambda ebm: ebm.ContrastiveDivergence(),
    "persistent contrastive divergence": lambda ebm: ebm.ContrastiveDivergence(),
    "persistent, with a penalty": lambda ebm: ebm.ContrastiveDivergence(energy_penalty=0.1),
    "score matching": lambda ebm: ebm.ScoreMatching(),
    "sliced score matching": lambda ebm: ebm.SlicedScoreMatching(),
    "denoising score matching": lambda ebm: ebm.DenoisingScoreMatching(variance=0.05),
    "noise contrast": lambda ebm: ebm.NoiseContrastive(num_samples=NUM_DRAWS),
    "maximum likelihood": lambda ebm: ebm.MaximumLikelihood(num_samples=NUM_DRAWS),
    "KALE": lambda ebm: ebm.KALE(num_samples=NUM_DRAWS, gradient_penalty=1.0),
    "f-EBM, Jensen-Shannon": lambda ebm: ebm.FDivergence(
        "jensen_shannon", **f_divergence_digits.OBJECTIVE
    ),
    "bidirectional bounds": lambda ebm: ebm.BidirectionalBounds(**bounds_digits.OBJECTIVE),
}
CELLS = [{"objective": objective} for objective in OBJECTIVES]
QUICK = {"objective": "noise contrast", "num_steps": 30}


def parts(host: Any, objective: str, nets: Nets) -> dict[str, Any]:
    """What is attached to the prior."""
    ebm, found = host.ebm, {}
    if "critic" in nets:
        found["critic"] = nets["critic"]
    if "generator" in nets:
        found["generator"] = host.pushforward(host.normal(digits.NUM_LATENTS), nets["generator"])
    if objective.startswith(("persistent", "f-EBM")):
        found["chains"] = ebm.PersistentChains(
            BATCH_SIZE, (digits.NUM_LATENTS,), sampler=ebm.Langevin(0.1), num_steps=10
        )
    return found


def networks(host: Any, objective: str | None) -> Nets:
    nets = digits.networks(host, energy=objective is not None)
    if objective == "bidirectional bounds":
        nets["generator"] = host.generator_flow(digits.NUM_LATENTS, **bounds_digits.FLOW)
    if objective == "f-EBM, Jensen-Shannon":
        nets["critic"] = host.mlp(digits.NUM_LATENTS, None, 128)
    return nets


def inference(host: Any, objective: str | None, num_steps: int) -> Any:
    encode, loss = digits.guide(host), host.infer.Trace_ELBO()

    def guide(nets: Nets, *args: Any, **kwargs: Any) -> None:
        encode(nets, *args, **kwargs)
        if objective is not None and (attached := parts(host, objective, nets)):
            host.ebm.attach("z", **attached)

    if objective is not None:
        trained_by = OBJECTIVES[objective](host.ebm)
        loss = host.ebm.EnergyELBO(trained_by, loss, num_normalizer_samples=0)
    adam = bounds_digits.ADAM if objective == "bidirectional bounds" else ADAM
    return host.Inference(digits.model(host), guide, loss, adam, num_steps)


@cache
def trained(
    host: Any, seed: int, objective: str | None, num_steps: int
) -> tuple[Any, float, float]:
    """Log-likelihoods of test images, error of log Z, and seconds of training."""
    host.seed(seed)
    data, nets = datasets.digits(), networks(host, objective)
    training, start = inference(host, objective, num_steps), time.perf_counter()
    found = np.full(len(data.test.images), np.nan), np.inf
    try:
        nets = training.fit(nets, host.array(data.train.images), batch_size=BATCH_SIZE)
        seconds = time.perf_counter() - start
        found = look_at(host, nets, data.test.images, **LOG_Z)
    except ValueError:  # Gradients or energies that are NaN.
        seconds = time.perf_counter() - start
    return *found, seconds


def run(host: Any, seed: int, *, objective: str, num_steps: int = NUM_STEPS) -> dict[str, Any]:
    scores, error, seconds = trained(host, seed, objective, num_steps)
    others = trained(host, seed, None, num_steps)
    gain, standard_error = digits.gain(scores, error, *others[:2])
    has_failed = not np.isfinite(standard_error)
    return {
        "gain": None if has_failed else gain,
        "standard error": None if has_failed else standard_error,
        "failures": float(has_failed),
        "normal score": float(np.mean(others[0])),
        "ms": 1e3 * seconds / num_steps,
    }
