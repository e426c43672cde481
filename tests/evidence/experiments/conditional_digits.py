"""An energy of 8 x 8 digits given their label.

One convolutional network gives ten numbers, and the context, a label as a one-hot vector, picks
the energy among them. The base is normal, with the mean and, wider by .2, the standard deviation of
each pixel. Training is contrastive divergence whose draws start at the base: short runs of Langevin
dynamics with a third of its noise, as in the literature; the same runs give the draws.

`recognized` is the share of 1,000 draws, 100 a label, that a support vector classifier, trained on
the same images, takes for their label; `classifier` is its share on test images. The settings were
chosen on Pyro with 200 draws of seed 0.
"""

from typing import Any

import numpy as np

from evidence.hosts import Adam, no_guide
from pyro_ebm import datasets

FIGURES = ("recognized", "classifier")
NUM_STEPS, BATCH_SIZE, ADAM = 200, 64, Adam(1e-3)
STEP_SIZE, NOISE_SCALE, LENGTH = 0.02, 0.3, 20
WIDER, ENERGY_PENALTY = 0.2, 0.01
CELLS = [{"num_steps": NUM_STEPS}]
QUICK = {"num_steps": 3, "num_draws": 2}


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(10, dtype=np.float32)[labels]


def prior(host: Any, net: Any, images: np.ndarray, labels: Any) -> Any:
    loc, scale = images.mean(0), np.sqrt(images.var(0) + WIDER**2)
    base = host.dist.Normal(host.array(loc), host.array(scale)).to_event(1)
    sampler = host.ebm.Langevin(STEP_SIZE, noise_scale=NOISE_SCALE)
    return host.ebm.EnergyBased(
        lambda x, c: -(net(x) * c).sum(-1),
        base,
        context=labels,
        sampler=sampler,
        num_sampler_steps=LENGTH,
    )


def inference(host: Any, images: np.ndarray, num_steps: int) -> Any:
    def model(nets: Any, x: Any, labels: Any) -> None:
        with host.plate("images", len(x), subsample_size=BATCH_SIZE) as batch:
            host.sample("x", prior(host, nets["net"], images, labels[batch]), obs=x[batch])

    objective = host.ebm.ContrastiveDivergence(energy_penalty=ENERGY_PENALTY, init="base")
    loss = host.ebm.EnergyELBO(objective, num_normalizer_samples=0)
    return host.Inference(model, no_guide, loss, ADAM, num_steps)


def run(host: Any, seed: int, *, num_steps: int, num_draws: int = 100) -> dict[str, float]:
    host.seed(seed)
    data = datasets.digits()
    images, labels = data.train
    nets = {"net": host.convolutional(8, 10)}
    training = inference(host, images, num_steps)
    net = training.fit(nets, host.array(images), host.array(one_hot(labels)))["net"]
    asked = np.repeat(np.arange(10), num_draws)
    draws = host.draw(prior(host, net, images, host.array(one_hot(asked))), 1)[0]
    return recognize(data, draws, asked)


def recognize(data: Any, draws: np.ndarray, asked: np.ndarray) -> dict[str, float]:
    """Share of draws that a classifier takes for what was asked."""
    from sklearn.svm import SVC

    classifier = SVC(C=10.0).fit(*data.train)
    return {
        "recognized": float(classifier.score(draws.clip(0, 1), asked)),
        "classifier": float(classifier.score(*data.test)),
    }
