"""Groups with a learned likelihood: 48 parameters, their mean and their spread, by NUTS.

mu ~ N(0, 1), log tau ~ N(-0.7, 0.5), theta_g ~ N(mu, tau) and x_g ~ N(theta_g, 0.5) in each of two
coordinates; the true mu is (0.5, -0.3), tau (0.6, 0.4). NUTS knows the last law only as the energy
that `learned_likelihood` trains by noise contrast on 10,000 pairs whose theta is N(0, 1). Two
chains of 1,000 draws after 1,000.

`mu`, `tau` and `theta` are root mean squares, over coordinates and groups, of errors of posterior
means, in exact standard deviations; `sd` is that of relative errors of all their standard
deviations. Exact moments are sums over a grid of mu and tau. `R-hat` is the largest and `ESS` the
smallest of `az.summary`. `spread` is what `check_conditional` finds at the draws: the standard
deviation of log Z, summed over groups; `shift` how far the farthest posterior mean would move by
it, in standard deviations, `largest` the spread of one group.
"""

from typing import Any

import arviz as az
import numpy as np

from evidence.experiments.learned_likelihood import NOISE, NUM_STEPS, trained

FIGURES = ("mu", "tau", "theta", "sd", "R-hat", "ESS", "spread", "largest", "shift")
NUM_GROUPS, MEAN, SCALE = 48, np.array([0.5, -0.3]), np.array([0.6, 0.4])
LOG_SCALE, LOG_SCALE_ERROR = -0.7, 0.5
CELLS = [{"objective": "noise contrast"}]
QUICK = {"objective": "noise contrast", "num_steps": 300, "width": 16, "num_draws": 30}


def observations(seed: int) -> np.ndarray:
    """Data of all groups, shape ``(NUM_GROUPS, 2)``."""
    theta, noise = np.random.default_rng([seed, 3]).normal(size=(2, NUM_GROUPS, 2))
    return (MEAN + SCALE * theta + NOISE * noise).astype(np.float32)


def model(host: Any, likelihood: Any) -> Any:
    def model(x: Any) -> None:
        mu = host.sample("mu", host.normal(2))
        law = host.dist.LogNormal(host.array(np.full(2, LOG_SCALE, np.float32)), LOG_SCALE_ERROR)
        tau = host.sample("tau", law.to_event(1))
        with host.plate("groups", NUM_GROUPS):
            theta = host.sample("theta", host.dist.Normal(mu, tau).to_event(1))
            host.sample("x", likelihood.conditional(theta=theta), obs=x)

    return model


def exact(x: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Means and standard deviations of the posterior of one coordinate, ``x`` of shape ``(N,)``."""
    mu, log_tau = np.meshgrid(np.linspace(-2, 2, 401), np.linspace(-4, 1.5, 401), indexing="ij")
    tau = np.exp(log_tau)
    # Marginally, x is normal around mu.
    variance = tau**2 + NOISE**2
    squares = (x**2).sum() - 2 * mu * x.sum() + len(x) * mu**2
    log_density = -0.5 * (squares / variance + len(x) * np.log(variance))
    log_density -= 0.5 * (mu**2 + ((log_tau - LOG_SCALE) / LOG_SCALE_ERROR) ** 2)
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    shrunk = tau**2 / variance
    theta = mu + shrunk * (x[:, None, None] - mu)
    moments = {"mu": (mu, 0.0), "tau": (tau, 0.0), "theta": (theta, shrunk * NOISE**2)}
    return {name: _mean_and_scale(weights, *pair) for name, pair in moments.items()}


def _mean_and_scale(weights: np.ndarray, mean: np.ndarray, variance: Any) -> tuple[Any, Any]:
    total = (weights * mean).sum((-2, -1))
    square = (weights * (mean**2 + variance)).sum((-2, -1))
    return total, np.sqrt(square - total**2)


def run(
    host: Any,
    seed: int,
    *,
    objective: str,
    num_steps: int = NUM_STEPS,
    width: int = 128,
    num_draws: int = 1000,
) -> dict[str, float]:
    x = observations(seed)
    likelihood = trained(host, seed, objective, num_steps, width)
    data = host.nuts(model(host, likelihood), x, num_draws=num_draws, num_chains=2)
    draws = {name: data.posterior[name].values for name in ("mu", "tau", "theta")}
    draws = {name: value.reshape(-1, *value.shape[2:]) for name, value in draws.items()}
    summary = az.summary(data, round_to="none")
    check = host.check_conditional(likelihood, theta=draws["theta"])
    return compare(draws, x) | {
        "R-hat": float(summary["r_hat"].max()),
        "ESS": float(summary["ess_bulk"].min()),
        "spread": check.posterior.spread,
        "largest": check.posterior.largest_spread,
        "shift": check.largest_shift,
    }


def compare(draws: dict[str, np.ndarray], x: np.ndarray) -> dict[str, float]:
    """Root mean squares of errors of means and of standard deviations."""
    coordinates = [exact(part) for part in x.T.astype(float)]
    found, of_scale = {}, []
    for name, value in draws.items():
        pairs = zip(*(one[name] for one in coordinates), strict=True)
        mean, scale = (np.stack(part, axis=-1) for part in pairs)
        found[name] = _root_mean_square((value.mean(0) - mean) / scale)
        of_scale.append(np.ravel(value.std(0) / scale - 1))
    return found | {"sd": _root_mean_square(np.concatenate(of_scale))}


def _root_mean_square(errors: np.ndarray) -> float:
    return float(np.sqrt((errors**2).mean()))
