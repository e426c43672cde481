"""Tables with numbers and codes, whose energy is a density and a classifier at once.

`rings` are points of the plane on four rings, with a group and one of 16 colors around each
(`pyro_ebm.datasets.ColoredRings`, noise .15), fresh draws in every batch; the label is the color,
and the exact law stands beside. `breast cancer` are 569 rows of scikit-learn's table: mean radius,
texture and smoothness as numbers, mean concavity and symmetry in fifths (ordinal, cut at quantiles
of the training rows), and the diagnosis, which is the label; 60 % train, 20 % choose the number of
steps, 20 % test, split by the seed. The net sees standardized numbers and one-hot codes; its base
is the product of column marginals. Energy discrepancy has 16 copies, Gaussian noise on numbers and
heat on codes (rings: variance .3, by the validation likelihood of seed 0, 4.280 nats; 4.280 at 1;
.04 makes a good classifier that does not know the weights of the rings, 6.35 on test rows);
contrastive divergence makes one step of Gibbs sampling (MALA on numbers) from the data: as many
energies for each value, or more. The look with the best validation likelihood is tested.

`NLL` is minus the mean log-density of test rows, in nats, with log Z on a grid for rings, and by
annealing (`log_normalizer`) for breast cancer, in a bracket of the width `bracket`. `log loss`,
`accuracy` and `calibration error` (ten bins of the highest probability) are those of the label
given the other columns. The last rows are those of the exact law of rings, and of logistic
regression on the other columns of breast cancer (scikit-learn, its strength chosen on validation
rows).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from scipy.special import logsumexp

from evidence.hosts import Adam, no_guide
from pyro_ebm.core.columns import Column, Columns
from pyro_ebm.datasets import ColoredRings

FIGURES = ("NLL", "bracket", "log loss", "accuracy", "calibration error")
BATCH_SIZE, WIDTH, NUM_LOOKS, DECAY = 256, 128, 5, 0.99
STEP = 0.12  # of the grid in a box
LOOK = {"num_samples": 300, "num_temperatures": 60, "num_moves": 10}


@dataclass(frozen=True)
class Table:
    """Rows in three parts, float32 of shape `(n, num_columns)`.

    Attributes:
        columns: Their columns.
        label: Number of the one to predict.
        draw: Returns rows to train on, from a number and a seed.
        validation: Rows to choose by.
        test: Rows to report on.
        variance: Of the noise of energy discrepancy on numbers.
        time: Of its heat on codes.
        num_steps: Steps of training.
        rate: Learning rate at the start.
        decay: Weight decay.
        beside: Returns log-densities of test rows, or None, and probabilities of their labels.
        box: Half a side of a square around all of its first two columns, if they are its numbers.
    """

    columns: Columns
    label: int
    draw: Callable[[int, int], np.ndarray]
    validation: np.ndarray
    test: np.ndarray
    variance: float
    time: float
    num_steps: int
    rate: float
    decay: float
    beside: Callable[[], tuple[Any, np.ndarray]]
    box: float | None = None


def rings(seed: int) -> Table:
    law = ColoredRings(noise=0.15)

    def draw(number: int, seed: int) -> np.ndarray:
        return law.sample(number, seed).astype(np.float32)

    validation, test = draw(4000, 20_000 + seed), draw(10_000, 10_000 + seed)
    return Table(
        law.columns,
        *(3, draw, validation, test),
        **{"variance": 0.3, "time": 1.0, "num_steps": 4000, "rate": 2e-3, "decay": 0.0},
        beside=lambda: (law.log_density(test), law.color_probabilities(test)),
        box=12.0,
    )


def breast_cancer(seed: int) -> Table:
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression

    data, rng = load_breast_cancer(), np.random.default_rng(seed)
    names = [
        f"mean {name}" for name in ("radius", "texture", "smoothness", "concavity", "symmetry")
    ]
    rows = data.data[:, [list(data.feature_names).index(name) for name in names]]
    rows = np.column_stack([rows, data.target])
    rng.shuffle(rows)
    first, second = int(0.6 * len(rows)), int(0.8 * len(rows))
    for c in (3, 4):
        rows[:, c] = np.searchsorted(np.quantile(rows[:first, c], [0.2, 0.4, 0.6, 0.8]), rows[:, c])
    train, validation, test = np.split(rows.astype(np.float32), [first, second])

    def logistic_regression() -> tuple[None, np.ndarray]:
        def fitted(strength: float) -> Any:
            classifier = LogisticRegression(C=strength, max_iter=10_000)
            return classifier.fit(features(columns[:-1], train[:, :-1], train), train[:, -1])

        def seen(part: np.ndarray) -> np.ndarray:
            return features(columns[:-1], part[:, :-1], train)

        candidates = [fitted(strength) for strength in (0.01, 0.1, 1.0, 10.0, 100.0)]
        loss = [
            log_loss(one.predict_proba(seen(validation)), validation[:, -1]) for one in candidates
        ]
        return None, candidates[int(np.argmin(loss))].predict_proba(seen(test))

    columns = (
        *(Column.numeric(name) for name in names[:3]),
        *(Column.ordinal(5, name) for name in names[3:]),
        Column.nominal(2, "diagnosis"),
    )
    return Table(
        columns,
        *(5, lambda number, seed: np.random.default_rng(seed).choice(train, number)),
        *(validation, test),
        **{"variance": 1.0, "time": 1.0, "num_steps": 1000, "rate": 1e-3, "decay": 0.1},
        beside=logistic_regression,
    )


TABLES = {"rings": rings, "breast cancer": breast_cancer}
OBJECTIVES = ("energy discrepancy", "contrastive divergence")
WITHOUT_ENERGY = ("marginals", "exact law or logistic regression")


def features(columns: Columns, x: Any, like: np.ndarray) -> Any:
    """Standardize numbers by the rows ``like``, and write codes as 0 and 1."""
    xp, parts = array_namespace(x), []
    for c, column in enumerate(columns):
        values = x[:, c : c + 1]
        if column.is_numeric:
            parts.append((values - float(like[:, c].mean())) / float(like[:, c].std()))
        else:
            codes = xp.arange(column.size, dtype=values.dtype)
            parts.append(xp.astype(values == codes, values.dtype))
    return xp.concat(parts, axis=-1)


class Model:
    """Energies on a table."""

    def __init__(self, host: Any, table: Table, sample: np.ndarray) -> None:
        self.host, self.columns, self.box = host, table.columns, table.box
        self.sample = sample
        self.base = host.ebm.ColumnMarginals.fit(table.columns, sample)
        self.num_features = features(table.columns, sample[:1], sample).shape[1]

    def density(self, net: Any) -> Any:
        return self.host.ebm.EnergyBased(self.host.bind(self.energy, net), self.base)

    def energy(self, net: Any, x: Any) -> Any:
        return net(features(self.columns, x, self.sample))

    def log_normalizer(self, net: Any, **options: Any) -> tuple[float, float]:
        """Estimate of log Z, and the width of its bracket."""
        if self.box is not None:
            return self.on_grid(net), 0.0
        found = self.host.log_normalizer(self.density(net), **options)
        return float(found.estimate), float(found.upper - found.lower)

    def on_grid(self, net: Any) -> float:
        """Sum over codes, and over points in a box of two numbers."""
        side = np.arange(-self.box, self.box + STEP / 2, STEP)
        points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
        log_z = -np.inf
        for codes in product(*(range(column.size) for column in self.columns[2:])):
            rows = np.concatenate([points, np.tile(codes, (len(points), 1))], axis=-1)
            log_densities = self.log_densities(net, rows.astype(np.float32), 0.0)
            log_z = np.logaddexp(log_z, logsumexp(log_densities.astype(float)))
        return float(log_z + 2 * np.log(STEP))

    def log_densities(self, net: Any, rows: np.ndarray, log_z: float) -> np.ndarray:
        return self.host.evaluate(lambda net, x: self.density(net).log_prob(x), net, rows) - log_z

    def probabilities(self, net: Any, rows: np.ndarray, column: int) -> np.ndarray:
        def of_codes(net: Any, x: Any) -> Any:
            return self.host.ebm.code_probabilities(self.density(net), x, column)

        return self.host.evaluate(of_codes, net, rows)


def objective_of(host: Any, table: Table, name: str) -> Any:
    if name == "contrastive divergence":
        return host.ebm.ContrastiveDivergence(sampler=host.ebm.Gibbs(), num_steps=1, init="data")
    kinds = {"nominal": host.ebm.Uniform, "ordinal": host.ebm.Ordinal, "cyclic": host.ebm.Cyclic}
    noise = [
        host.ebm.GaussianPerturbation(table.variance)
        if column.is_numeric
        else kinds[column.kind](table.time)
        for column in table.columns
    ]
    return host.ebm.EnergyDiscrepancy(perturbation=host.ebm.Product(noise), num_samples=16)


def train(
    host: Any, table: Table, objective: str, seed: int, num_steps: int, method: str
) -> tuple[Any, Any]:
    """Return the model and the net that validation chose."""
    host.seed(seed)
    model = Model(host, table, fitting_rows(table, seed))

    def program(nets: Any, x: Any) -> None:
        with host.plate("data", len(x)):
            host.sample("x", model.density(nets["energy"]), obs=x)

    loss = host.ebm.EnergyELBO(objective_of(host, table, objective), num_normalizer_samples=0)
    adam = Adam(table.rate, weight_decay=table.decay)
    inference = host.Inference(program, no_guide, loss, adam, num_steps)
    rows = table.draw(num_steps * BATCH_SIZE, seed)
    blocks = rows.reshape(NUM_LOOKS, -1, BATCH_SIZE, len(table.columns))
    nets = {"energy": host.mlp(model.num_features, None, WIDTH, 3)}
    best, chosen = -np.inf, None
    for trained, _ in inference.train(nets, blocks, decay=DECAY):
        net = host.copied(trained)["energy"]
        log_z, _ = model.log_normalizer(net, method=method, **LOOK)
        likelihood = model.log_densities(net, table.validation, log_z).mean()
        if likelihood > best:
            best, chosen = likelihood, net
    return model, chosen


@cache
def table_of(name: str, seed: int) -> Table:
    return TABLES[name](seed)


def run(
    host: Any,
    seed: int,
    *,
    table: str,
    objective: str,
    num_steps: int | None = None,
    method: str = "annealed",
) -> dict[str, float]:
    rows = table_of(table, seed)
    labels = rows.test[:, rows.label]
    if objective in WITHOUT_ENERGY:
        independent = objective == "marginals"
        log_densities, probabilities = marginals(host, rows, seed) if independent else rows.beside()
        nll = {} if log_densities is None else {"NLL": -float(log_densities.mean())}
        return nll | scores(probabilities, labels)
    num_steps = num_steps or rows.num_steps
    model, net = train(host, rows, objective, seed, num_steps, method)
    log_z, bracket = model.log_normalizer(net, method=method)
    found = model.log_densities(net, rows.test, log_z)
    return {
        "NLL": -float(found.mean()),
        "bracket": bracket,
        **scores(model.probabilities(net, rows.test, rows.label), labels),
    }


def marginals(host: Any, table: Table, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-densities of independent columns, and the frequencies of labels."""
    base, size = Model(host, table, fitting_rows(table, seed)).base, table.columns[table.label].size
    shares = np.exp(host.evaluate(lambda: base.log_probs)[table.label, :size])
    log_densities = host.evaluate(lambda x: base.log_prob(x), table.test)
    return log_densities, np.tile(shares, (len(table.test), 1))


def fitting_rows(table: Table, seed: int) -> np.ndarray:
    """Rows that bases are fitted to."""
    return table.draw(20_000, 30_000 + seed)


CELLS = [
    {"table": table, "objective": objective}
    for table in TABLES
    for objective in (*OBJECTIVES, *WITHOUT_ENERGY)
]
QUICK = {
    "table": "breast cancer",
    "objective": "energy discrepancy",
    "num_steps": 150,
    "method": "importance",
}


def scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    predicted, highest = probabilities.argmax(-1), probabilities.max(-1)
    right = predicted == labels
    bins = np.minimum((10 * highest).astype(int), 9)
    gaps = [abs(right[bins == b].sum() - highest[bins == b].sum()) for b in range(10)]
    return {
        "log loss": log_loss(probabilities, labels),
        "accuracy": float(right.mean()),
        "calibration error": float(np.sum(gaps) / len(labels)),
    }


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    own = np.take_along_axis(probabilities, labels[:, None].astype(int), axis=-1)
    return -float(np.log(np.maximum(own, 1e-12)).mean())
