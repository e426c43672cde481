"""An energy-based prior of a decoder of digits that is trained between bounds.

Networks, training images and guide are those of the tutorials; beside the guide's encoder there is
a generator of latents, a flow (affine coupling layers) of as many latent dimensions as there are:
its entropy is exact. All are trained together by one loss. Two penalty weights were tried, with
NumPyro and seed 100. With 1, that of a true bound where the log-ratio is concave, encoder
and energy run away together within 150 steps, to where the generator has no draws (and with Adam's
own betas too, on Pyro); with 10 the generator's draws are worth 94 % as many of the prior.

`gain` is that over the normal prior of the same seed, in nats an image of the test split, with the
standard error over images and log Z.
"""

from typing import Any

from evidence import digits
from evidence.experiments.generalized_digits import LOG_Z, look_at
from evidence.hosts import Adam, Nets
from pyro_ebm import datasets

FIGURES = ("gain",)
NUM_STEPS, BATCH_SIZE = 1500, 128
ADAM = Adam(1e-3, betas=(0.0, 0.9))
FLOW = {"num_layers": 3, "width": 64}
OBJECTIVE = {"penalty_weight": 10.0}
CELLS = [{"num_steps": NUM_STEPS}]
QUICK = {"num_steps": 30}


def networks(host: Any, *, tilted: bool, flow: Any = FLOW) -> Nets:
    nets = digits.networks(host, energy=tilted)
    generator = host.generator_flow(digits.NUM_LATENTS, **flow)
    return nets | ({"generator": generator} if tilted else {})


def inference(host: Any, num_steps: int, *, tilted: bool, objective: Any = OBJECTIVE) -> Any:
    encode = digits.guide(host)

    def guide(nets: Nets, *args: Any, **kwargs: Any) -> None:
        encode(nets, *args, **kwargs)
        if tilted:
            latent = host.normal(digits.NUM_LATENTS)
            host.ebm.attach("z", generator=host.pushforward(latent, nets["generator"]))

    loss = host.infer.Trace_ELBO()
    if tilted:
        bounds = host.ebm.BidirectionalBounds(**objective)
        loss = host.ebm.EnergyELBO(bounds, loss, num_normalizer_samples=0)
    return host.Inference(digits.model(host), guide, loss, ADAM, num_steps)


def run(host: Any, seed: int, *, num_steps: int, split: str = "test") -> dict[str, Any]:
    data, found = datasets.digits(), {}
    train, images = host.array(data.train.images), getattr(data, split).images
    for tilted in (False, True):
        host.seed(seed)
        nets = networks(host, tilted=tilted)
        nets = inference(host, num_steps, tilted=tilted).fit(nets, train, batch_size=BATCH_SIZE)
        found[tilted] = look_at(host, nets, images, **LOG_Z)
    scores = {
        f"score, {name}": float(found[key][0].mean())
        for key, name in ((False, "normal"), (True, "bounds"))
    }
    return {"gain": digits.gain(*found[True], *found[False]), **scores}
