"""Cost of the weights of modes: sequential Monte Carlo beside tempering by other libraries.

Two targets of `mode_weights`, 1,024 draws. The rival is parallel tempering by ebmkit 0.16 on Pyro
and adaptive tempered sequential Monte Carlo by blackjax 1.7 on NumPyro, both with MALA. Ours has
its default settings, 10 moves at a temperature, or fewer, chosen to match blackjax's error on other
seeds. The rivals fix one step size, in `RIVALS`: blackjax's settings are the cheapest of a few that
came close to our error, ebmkit's the most that was tried. Methods take turns, on one thread.

`distance`: total variation between drawn and exact weights, 5 runs on Pyro, 200 on NumPyro; that of
independent draws: `exact`. `evaluations`: gradients a draw. `CPU`: median milliseconds of a run.
"""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from evidence.experiments.mode_weights import NUM_DRAWS, TARGETS, compare, distribution, energy
from evidence.measures import mean_and_error

METHODS = ("ours", "rival")
FIGURES = (
    *(f"{figure}, {name}" for figure in ("distance", "evaluations", "CPU") for name in METHODS),
    "exact",
)
NUM_RUNS = {"pyro": 5, "numpyro": 200}
RIVALS: dict[str, dict[str, dict[str, Any]]] = {
    "pyro": {
        "two": {"step_size": 0.005, "num_steps": 500, "num_temperatures": 9},
        "two, 16-d": {"step_size": 0.3, "num_steps": 200, "num_temperatures": 4},
    },
    "numpyro": {
        "two": {"step_size": 0.005, "num_moves": 5},
        "two, 16-d": {"step_size": 0.3, "num_moves": 5},
    },
}
MOVES = {"two": (10, 7), "two, 16-d": (10, 5)}
CELLS = [{"target": name, "num_moves": k} for name, numbers in MOVES.items() for k in numbers]
QUICK = {"target": "two", "num_moves": 10, "num_runs": 2}
Method = Callable[[int], tuple[np.ndarray, float]]


def ours(host: Any, target: str, num_moves: int) -> Method:
    """Draws, and gradients for each of them."""
    smc, prior = host.ebm.SMC(num_moves=num_moves), distribution(host, TARGETS[target])

    def run(seed: int) -> tuple[np.ndarray, float]:
        host.seed(seed)
        draws = host.run_smc(smc, prior, num_samples=NUM_DRAWS)
        num_changes = int((np.asarray(draws.inverse_temperatures) < 1).sum())
        return np.asarray(draws.samples), num_changes * num_moves + 1

    return run


def parallel_tempering(
    target: str, *, step_size: float, num_steps: int, num_temperatures: int
) -> Method:
    """Run ebmkit's, at temperatures that double, from draws of the base."""
    import ebm as ebmkit
    import torch

    mixture, count = TARGETS[target], [0]
    constants = _constants(torch.as_tensor, target)
    ladder = tuple(2.0**k for k in range(num_temperatures))
    sampler = ebmkit.ParallelTempering(ebmkit.MALA(step_size), ladder)

    def potential(x: Any) -> Any:
        count[0] += len(x) if x.requires_grad else 0
        return energy(*constants, x) + (x**2).sum(-1) / (2 * mixture.base_variance)

    def run(seed: int) -> tuple[np.ndarray, float]:
        torch.manual_seed(seed)
        count[0] = 0
        start = math.sqrt(mixture.base_variance) * torch.randn(NUM_DRAWS, mixture.centers.shape[1])
        draws = sampler.sample(potential, start, steps=num_steps)
        return draws.numpy(), count[0] / NUM_DRAWS

    return run


def tempered_smc(target: str, *, step_size: float, num_moves: int) -> Method:
    """Run blackjax's, with half of the population effective after a change of temperature."""
    import blackjax
    import jax
    import jax.numpy as jnp

    mixture = TARGETS[target]
    constants = _constants(jnp.asarray, target)
    smc = blackjax.adaptive_tempered_smc(
        lambda x: -(x**2).sum() / (2 * mixture.base_variance),
        lambda x: -energy(*constants, x[None])[0],
        blackjax.mala.build_kernel(),
        blackjax.mala.init,
        {"step_size": jnp.array([step_size])},
        blackjax.smc.resampling.systematic,
        0.5,
        num_mcmc_steps=num_moves,
    )

    def step(carry: Any) -> Any:
        key, state, count = carry
        key, step_key = jax.random.split(key)
        return key, smc.step(step_key, state)[0], count + 1

    @jax.jit
    def whole(key: Any) -> Any:
        start_key, key = jax.random.split(key)
        start = jax.random.normal(start_key, (NUM_DRAWS, mixture.centers.shape[1]))
        state = smc.init(math.sqrt(mixture.base_variance) * start)
        going = lambda carry: carry[1].tempering_param < 1  # noqa: E731
        carry = jax.lax.while_loop(going, step, (key, state, 0))
        # The last weights are still to be resampled, and their particles to be moved.
        _, state, count = step(carry)
        return state.particles, count

    def run(seed: int) -> tuple[np.ndarray, float]:
        particles, count = whole(jax.random.key(seed))
        # Each temperature begins with gradients of its own.
        return np.asarray(particles), int(count) * (num_moves + 1)

    return run


def _constants(array: Callable[[Any], Any], target: str) -> list[Any]:
    mixture = TARGETS[target]
    parts = mixture.centers, np.log(mixture.weights), mixture.scales, mixture.base_variance
    return [array(np.asarray(part, np.float32)) for part in parts]


def rival(host: Any, target: str, **changes: Any) -> Method:
    settings = RIVALS[host.NAME][target] | changes
    return (parallel_tempering if host.NAME == "pyro" else tempered_smc)(target, **settings)


def run(host: Any, seed: int, *, target: str, num_moves: int, num_runs: int = 0) -> dict[str, Any]:
    num_runs = num_runs or NUM_RUNS[host.NAME]
    methods = {"ours": ours(host, target, num_moves), "rival": rival(host, target)}
    mixture, rng = TARGETS[target], np.random.default_rng(seed)
    weights = np.bincount(mixture.modes, mixture.weights)
    rows: dict[str, list[Any]] = {name: [] for name in methods}
    for number in range(num_runs + 1):
        for name, method in methods.items():
            start = time.process_time()
            draws, count = method(1000 * seed + number)
            seconds = time.process_time() - start
            if number:
                rows[name].append((compare(draws, mixture, weights)[0], count, seconds))
    figures: dict[str, Any] = {}
    for name, of_method in rows.items():
        distances, counts, seconds = zip(*of_method, strict=True)
        figures[f"distance, {name}"] = mean_and_error(distances)
        figures[f"evaluations, {name}"] = float(np.mean(counts))
        figures[f"CPU, {name}"] = 1000 * statistics.median(seconds)
    exact = rng.multinomial(NUM_DRAWS, weights, size=num_runs) / NUM_DRAWS
    return figures | {"exact": mean_and_error(abs(exact - weights).sum(1) / 2)}
