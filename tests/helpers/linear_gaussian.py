"""A latent-variable model whose best energy prior is known, for both hosts.

    x | z ~ N(z, 1),   z ~ exp(-e^a z^2 / 2) N(z; 0, 4^2) / Z,   q(z | x) = N(slope x, scale^2)

Data with mean square 5 (in either half of them) make prior precision 1/16 + e^a = 0.25, slope 0.8
and scale 0.8^(1/2) exactly optimal; the negative log-evidence of a datum is then 2.22366.
"""

import math
from contextlib import contextmanager

import numpy as np

NUM_DATA, SUBSAMPLE = 512, 128
PRECISION = 0.25
SLOPE, SCALE = 0.8, math.sqrt(0.8)
NEGATIVE_LOG_EVIDENCE = 0.5 * math.log(2 * math.pi * 5) + 0.5
LAYOUTS = ("plate", "to_event", "subsample", "mask", "masked distribution")
VARIANCE, NUM_SAMPLES, LEARNING_RATE = 2.0, 16, 0.01
# The same half is masked out on both hosts.
MASK = np.arange(NUM_DATA) < NUM_DATA // 2


def data(num_data: int = NUM_DATA, seed: int = 0) -> np.ndarray:
    """Normal data, each half with mean 0 and mean square 5 exactly; shape ``(num_data,)``."""
    halves = np.random.default_rng(seed).normal(size=(2, num_data // 2))
    halves = halves - halves.mean(axis=1, keepdims=True)
    return (math.sqrt(5) * halves / halves.std(axis=1, keepdims=True)).reshape(-1)


def quadratic(weight, z):
    return 0.5 * weight * z**2


class Toy:
    """Model and guide in one of the layouts, with parameters that start at these values."""

    def __init__(self, host, layout="plate", *, precision=1 + 1 / 16, slope=0.5, scale=1.0):
        self.host, self.layout = host, layout
        self.x = host.xp.asarray(data(), dtype=host.xp.float32)
        self.mask = host.xp.asarray(MASK)
        values = {"a": math.log(precision - 1 / 16), "slope": slope, "scale": scale}
        self.start = {name: host.xp.asarray(value) for name, value in values.items()}

    def model(self):
        host = self.host
        energy = host.bind(quadratic, host.xp.exp(host.ppl.param("a", self.start["a"])))
        with self._rows() as x:
            prior = host.ebm.EnergyBased(energy, host.dist.Normal(0.0, 4.0))
            z = host.ppl.sample("z", self._wrap(prior, x))
            host.ppl.sample("x", self._wrap(host.dist.Normal(z, 1.0), x), obs=x)

    def guide(self):
        host, positive = self.host, self.host.dist.constraints.positive
        slope = host.ppl.param("slope", self.start["slope"])
        scale = host.ppl.param("scale", self.start["scale"], constraint=positive)
        with self._rows() as x:
            host.ppl.sample("z", self._wrap(host.dist.Normal(slope * x, scale), x))

    @contextmanager
    def _rows(self):
        if self.layout == "to_event":
            yield self.x
            return
        subsample_size = SUBSAMPLE if self.layout == "subsample" else None
        mask = self.mask if self.layout == "mask" else True
        with self.host.ppl.plate("data", NUM_DATA, subsample_size=subsample_size) as index:
            with self.host.mask(mask=mask):
                yield self.x[index]

    def _wrap(self, fn, x):
        if self.layout == "to_event":
            return fn.expand(np.broadcast_shapes(fn.batch_shape, x.shape)).to_event(1)
        return fn.mask(self.mask) if self.layout == "masked distribution" else fn


def run(
    host,
    elbo=None,
    layout="plate",
    *,
    num_steps,
    num_averaged,
    make_guide=lambda toy: toy.guide,
    objective=None,
    precision=1 + 1 / 16,
    learning_rate=LEARNING_RATE,
    num_normalizer_samples=128,
):
    """Means of prior precision, loss per datum, slope and scale over the last steps.

    Args:
        host: Adapter of a host.
        elbo: Name of a stock ELBO in the adapter. Default: the host's ``Trace_ELBO()``.
        layout: One of ``LAYOUTS``.
        num_steps: Steps of Adam.
        num_averaged: Steps in the means.
        make_guide: Function of the toy. Default: its own guide.
        objective: Default: energy discrepancy.
        precision: That of the prior, at the start.
        learning_rate: Of Adam.
        num_normalizer_samples: As in ``EnergyELBO``.
    """
    toy = Toy(host, layout, precision=precision)
    objective = objective or host.ebm.EnergyDiscrepancy(variance=VARIANCE, num_samples=NUM_SAMPLES)
    stock = None if elbo is None else host.ELBOS[elbo]()
    loss = host.ebm.EnergyELBO(objective, stock, num_normalizer_samples=num_normalizer_samples)
    options = {"num_steps": num_steps, "learning_rate": learning_rate}
    found = host.fit(toy.model, make_guide(toy), loss, **options)
    num_counted = NUM_DATA // 2 if "mask" in layout else NUM_DATA
    losses = found.losses.reshape(num_steps, -1)[:, 0]  # Reweighted wake-sleep has two.
    path = {"precision": 1 / 16 + np.exp(found.path["a"]), "loss": losses / num_counted}
    path |= {name: found.path[name] for name in {"slope", "scale"} & found.path.keys()}
    return {name: float(values[-num_averaged:].mean()) for name, values in path.items()}


def is_optimal(results: dict[str, float]) -> bool:
    """Whether precision, loss, slope and scale are right within 5 %, or 0.05 nats."""
    exact = {"loss": NEGATIVE_LOG_EVIDENCE, "slope": SLOPE, "scale": SCALE}
    errors = {name: abs(results[name] - value) / 0.05 for name, value in exact.items()}
    errors["precision"] = abs(results["precision"] / PRECISION - 1) / 0.05
    print(errors)
    return max(errors.values()) < 1
