"""Exact posterior of groups, against draws of the prior that are weighed."""

import numpy as np
from evidence.experiments.hierarchy import LOG_SCALE, LOG_SCALE_ERROR, exact
from evidence.experiments.learned_likelihood import NOISE


def test_exact_posterior():
    x = np.array([-0.4, 0.3, 1.1])
    mu, log_tau, *noise = np.random.default_rng(0).normal(size=(2 + len(x), 400_000))
    tau = np.exp(LOG_SCALE + LOG_SCALE_ERROR * log_tau)
    theta = mu + tau * np.stack(noise)
    log_weights = -0.5 * (((x[:, None] - theta) / NOISE) ** 2).sum(0)
    weights = np.exp(log_weights) / np.exp(log_weights).sum()
    for name, draws in {"mu": mu, "tau": tau, "theta": theta}.items():
        mean, scale = exact(x)[name]
        np.testing.assert_allclose(draws @ weights, mean, atol=0.02 * np.max(scale))
        np.testing.assert_allclose(((draws.T - mean).T ** 2 @ weights) ** 0.5, scale, rtol=0.02)
