"""The linear-Gaussian toy with Langevin for a guide.

Does `LangevinGuide` recover the best prior, which is known, in every layout and with every ELBO of
the host? `precision` is that of the fitted prior, a mean over the last 300 steps; `truth` is what
it should be, given draws that are as biased as the sampler makes them. MALA and HMC are exact,
Langevin is not, and `warm` starts MALA at the draws of another guide.
"""

from importlib import import_module
from typing import Any

from helpers.linear_gaussian import VARIANCE, Toy
from scipy.optimize import brentq

FIGURES = ("precision", "truth")
NUM_NEGATIVES = 16
NUM_STEPS, NUM_AVERAGED, LEARNING_RATE = 500, 300, 0.04
SAMPLERS = {  # name, options, steps
    "MALA": ("MALA", {"step_size": 0.7}, 8),
    "HMC": ("HMC", {"step_size": 0.3, "num_steps": 5}, 3),
    "Langevin": ("Langevin", {"step_size": 0.2}, 20),
    "warm": ("MALA", {"step_size": 0.7}, 2),
}
# Every layout with the plain ELBO, every ELBO in a plate, and the other samplers. As one event, all
# rows are accepted or rejected together: large steps need HMC there.
_RUNS = [
    ("Trace", "to_event", "HMC"),
    ("Trace", "subsample", "MALA"),
    ("Trace", "mask", "MALA"),
    *((elbo, "plate", "MALA") for elbo in ("Trace", "Trace x4 vectorized", "TraceMeanField")),
    *((elbo, "plate", "MALA") for elbo in ("TraceGraph", "TraceEnum")),  # TraceEnum: Pyro
    ("Trace x4 vectorized", "subsample", "MALA"),
    ("Trace", "plate", "Langevin"),
    ("Trace", "plate", "warm"),
]
CELLS = [dict(zip(("elbo", "layout", "sampler"), run, strict=True)) for run in _RUNS]
QUICK = CELLS[3] | {"num_steps": 50, "num_averaged": 10}


def fitted_precision(sampler: str) -> float:
    r"""Solve for the precision :math:`\rho` of the best prior, given draws with their bias.

    :math:`1 / \rho = E z^2 = 5 / (1 + \rho)^2 + v`, with :math:`v` the variance of the draws:
    :math:`1 / (1 + \rho)` if they are exact.
    """
    kind, options, _ = SAMPLERS[sampler]

    def difference(precision: float) -> float:
        variance = 1 / (1 + precision)
        if kind == "Langevin":
            variance = variance / (1 - options["step_size"] / (2 * variance))
        return 5 / (1 + precision) ** 2 + variance - 1 / precision

    return brentq(difference, 0.05, 1.0)


def run(
    host: Any,
    seed: int,
    *,
    elbo: str,
    layout: str,
    sampler: str,
    num_steps: int = NUM_STEPS,
    num_averaged: int = NUM_AVERAGED,
) -> dict[str, float]:
    host.seed(seed)
    case = import_module(f"helpers.infer.{host.NAME}")
    if elbo not in case.ELBOS:
        return {}
    toy = Toy(case, layout)
    kind, options, length = SAMPLERS[sampler]
    kernel, init = getattr(host.ebm, kind)(**options), toy.guide if sampler == "warm" else None
    guide = host.ebm.LangevinGuide(toy.model, kernel, num_steps=length, init=init)
    objective = host.ebm.EnergyDiscrepancy(variance=VARIANCE, num_samples=NUM_NEGATIVES)
    loss = host.ebm.EnergyELBO(objective, case.ELBOS[elbo]())
    path = PATHS[host.NAME](toy, guide, loss, num_steps, seed)
    average = sum(path[-num_averaged:]) / num_averaged
    return {"precision": float(average), "truth": fitted_precision(sampler)}


def pyro_path(toy: Any, guide: Any, loss: Any, num_steps: int, seed: int) -> list[float]:
    """Precision of the prior after each step."""
    import pyro
    from pyro.infer import SVI
    from pyro.optim import Adam

    del seed
    svi, path = SVI(toy.model, guide, Adam({"lr": LEARNING_RATE}), loss=loss), []
    for _ in range(num_steps):
        svi.step()
        path.append(1 / 16 + pyro.param("a").detach().exp().item())
    return path


def numpyro_path(toy: Any, guide: Any, loss: Any, num_steps: int, seed: int) -> Any:
    import jax
    import optax
    from numpyro.infer import SVI

    svi = SVI(toy.model, guide, optax.adam(LEARNING_RATE), loss=loss)

    def step(state: Any, _: Any) -> Any:
        state, _ = svi.update(state)
        return state, 1 / 16 + jax.numpy.exp(svi.get_params(state)["a"])

    @jax.jit
    def train(key: Any) -> Any:
        return jax.lax.scan(step, svi.init(key), length=num_steps)[1]

    return train(jax.random.key(seed))


PATHS = {"pyro": pyro_path, "numpyro": numpyro_path}
