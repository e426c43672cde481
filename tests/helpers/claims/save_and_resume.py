import numpy as np

from helpers.claims import Claim

CLAIMS = [
    Claim(
        "goes on to the last bit as if nothing had happened",
        lambda run: np.abs(np.subtract(run.losses[run.start :], run.resumed_losses)).max(),
        high=0.0,
    ),
    Claim(
        "the difference is zero, not small",
        lambda run: "difference of weights: 0.0" in run.printed,
        low=1,
    ),
    Claim(
        "without another warm-up",
        lambda run: float(run.more.statistics["acceptance_rate"].mean()),
        low=0.4,
    ),
]
