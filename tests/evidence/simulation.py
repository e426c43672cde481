"""Two moons and SLCP, simulators of the benchmark of simulation-based inference (Lueckmann et al.,
2021), with draws of their exact posteriors.
"""

from typing import NamedTuple

import numpy as np

NUM_PAIRS = 10_000


class Task(NamedTuple):
    """Parameters, uniform within a bound, and independent trials of data under one likelihood.

    The last are variances of energy discrepancy.
    """

    num_dims: int
    bound: float
    num_trials: int
    num_data: int
    variances: tuple[float, ...]


TASKS = {
    "two moons": Task(2, 1.0, 1, 2, (0.03, 0.003)),
    "SLCP": Task(5, 3.0, 1, 8, (0.03, 0.003)),
    "SLCP, points": Task(5, 3.0, 4, 2, (0.1, 0.01, 0.001)),
}


def prior(task: str, rng: np.random.Generator, num_rows: int) -> np.ndarray:
    bound = TASKS[task].bound
    return rng.uniform(-bound, bound, (num_rows, TASKS[task].num_dims))


def simulate(task: str, rng: np.random.Generator, theta: np.ndarray) -> np.ndarray:
    """Data, shape ``(N, num_trials, num_data)``."""
    x = (_moons if task == "two moons" else _points)(rng, theta)
    return x.reshape(len(theta), TASKS[task].num_trials, TASKS[task].num_data)


def _moons(rng: np.random.Generator, theta: np.ndarray) -> np.ndarray:
    plus, minus = theta.sum(1), theta[:, 1] - theta[:, 0]
    return _crescent(rng, len(theta)) + np.stack([-np.abs(plus), minus], 1) / np.sqrt(2)


def _points(rng: np.random.Generator, theta: np.ndarray) -> np.ndarray:
    noise = rng.normal(size=(len(theta), 4, 2))
    scale, correlation = theta[:, None, 2:4] ** 2, np.tanh(theta[:, 4:])
    second = correlation * noise[..., 0] + np.sqrt(1 - correlation**2) * noise[..., 1]
    return theta[:, None, :2] + scale * np.stack([noise[..., 0], second], -1)


def _crescent(rng: np.random.Generator, num_rows: int) -> np.ndarray:
    angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, num_rows), rng.normal(0.1, 0.01, num_rows)
    return np.stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)], 1)


def pairs(task: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    theta = prior(task, rng, NUM_PAIRS)
    return theta, simulate(task, rng, theta)


def observation(task: str, index: int) -> np.ndarray:
    rng = np.random.default_rng([index, 7])
    return simulate(task, rng, prior(task, rng, 1))[0]


# --- exact posteriors ---


def exact(task: str, x: np.ndarray, seed: int, num_draws: int) -> np.ndarray:
    rng = np.random.default_rng([seed, 8])
    return (_moons_given if task == "two moons" else _slcp_given)(rng, x.ravel(), num_draws)


def _moons_given(rng: np.random.Generator, x: np.ndarray, num_draws: int) -> np.ndarray:
    shift = _crescent(rng, 100 * num_draws) - x
    sign = rng.choice([-1.0, 1.0], len(shift))
    plus, minus = sign * shift[:, 0], -shift[:, 1]
    theta = np.stack([plus - minus, plus + minus], 1) / np.sqrt(2)
    return theta[(shift[:, 0] > 0) & (np.abs(theta) < 1).all(1)][:num_draws]


def _slcp_given(rng: np.random.Generator, x: np.ndarray, num_draws: int) -> np.ndarray:
    theta = prior("SLCP", rng, max(4 * num_draws, 4000))
    theta[:, 2:4] = np.abs(theta[:, 2:4])
    powers = np.append(np.linspace(0, 1, 81) ** 4, np.ones(40))
    for before, power in zip(powers, powers[1:], strict=False):
        weights = (power - before) * _log_likelihood(theta, x)
        share = np.exp(weights - weights.max())
        theta = theta[rng.choice(len(theta), len(theta), p=share / share.sum())]
        _move(rng, theta, x, power)
    theta = rng.permutation(theta)[:num_draws]
    theta[:, 2:4] *= rng.choice([-1.0, 1.0], (num_draws, 2))
    return theta


def _move(rng: np.random.Generator, theta: np.ndarray, x: np.ndarray, power: float) -> None:
    """Take ten Metropolis steps in place, as wide as the population."""
    value, root = power * _log_likelihood(theta, x), np.linalg.cholesky(np.cov(theta.T))
    for scale in (1.0, 0.5, 0.2, 0.1, 0.03) * 2:
        there = theta + scale * rng.normal(size=theta.shape) @ root.T
        there[:, 2:4] = np.abs(there[:, 2:4])
        inside = (np.abs(there) < TASKS["SLCP"].bound).all(1)
        proposed = np.where(inside, power * _log_likelihood(there, x), -np.inf)
        accepted = np.log(rng.uniform(size=len(theta))) < proposed - value
        theta[accepted], value[accepted] = there[accepted], proposed[accepted]


def _log_likelihood(theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    scale, correlation = theta[:, None, 2:4] ** 2 + 1e-12, np.tanh(theta[:, 4:])
    first, second = np.moveaxis((x.reshape(4, 2) - theta[:, None, :2]) / scale, -1, 0)
    rest = 1 - correlation**2
    square = (first**2 - 2 * correlation * first * second + second**2) / rest
    return -(square / 2 + np.log(scale).sum(-1) + np.log(rest) / 2).sum(1)


def accuracy(x: np.ndarray, y: np.ndarray) -> float:
    """Share that a classifier gets right of draws that it has not seen."""
    from sklearn.model_selection import cross_val_score
    from sklearn.neural_network import MLPClassifier

    both = (np.concatenate([x, y]) - x.mean(0)) / x.std(0)
    width = 10 * x.shape[1]
    classifier = MLPClassifier((width, width), max_iter=1000, random_state=0)
    labels = np.repeat([0, 1], [len(x), len(y)])
    rows = np.random.default_rng(0).permutation(len(both))
    return float(cross_val_score(classifier, both[rows], labels[rows], cv=5).mean())
