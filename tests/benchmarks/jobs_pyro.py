"""Jobs on torch: by hand, this package alone and in ``SVI``, ``ebmkit`` and ``torchebm``."""

import math
import warnings
from functools import partial
from itertools import count

import ebm as ebmkit
import problems as at
import pyro
import pyro.distributions as dist
import torch
import torchebm.core
import torchebm.losses
import torchebm.samplers
from games_by_hand import GAMES
from harness import (
    BY_HAND,
    DEVICE,
    EBMKIT,
    FUSED,
    IN_SVI,
    OURS,
    TORCHEBM,
    Job,
    peak_of_process,
)
from losses_by_hand import LOSSES, PersistentContrastiveDivergence
from problems import LARGE, SMALL
from pyro.infer import SVI
from torch import nn

import pyro_ebm.pyro as ebm

PACKAGES = "torch", "pyro-ppl", "ebmkit", "torchebm"

# The compiler imports deprecated parts of torch.
warnings.filterwarnings("ignore", category=DeprecationWarning)
if DEVICE != "cpu":  # On the CPU too, each call would pass through Python.
    torch.set_default_device(DEVICE)
numbers = count()


def synchronize():
    if DEVICE != "cpu":
        torch.cuda.synchronize()


def peak(run):
    if DEVICE == "cpu":
        return peak_of_process(run)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


class Energy(nn.Module):
    """Perceptron plus ``|x|^2 / 8``."""

    def __init__(self, num_dims, width, num_hidden=2):
        super().__init__()
        self.net = mlp(num_dims, *num_hidden * [width], 1)

    def forward(self, x):
        return self.net(x).squeeze(-1) + x.square().sum(-1) / 8.0


class ForTorchebm(torchebm.core.BaseModel):
    def __init__(self, energy):
        super().__init__()
        self.energy = energy

    def forward(self, x):
        return self.energy(x)


def mlp(*sizes):
    parts = []
    for weight, bias in at.layers(*sizes):
        linear = nn.Linear(*weight.shape[::-1])
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(weight))
            linear.bias.copy_(torch.tensor(bias))
        parts += [linear, nn.SiLU()]
    return nn.Sequential(*parts[:-1])


def array(x):
    return torch.as_tensor(x, device=DEVICE)


def normal(num_dims, scale=1.0):
    return dist.Normal(torch.zeros(num_dims), scale).to_event(1)


# --- training ---


def trainer(loss, parameters):
    """A step by hand: gradients and one Adam."""
    optimizer = torch.optim.Adam(list(parameters), lr=at.LEARNING_RATE)

    def step():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def by_hand(size, loss, x):
    energy = Energy(*size.layers)
    return trainer(partial(loss, energy, x), energy.parameters())


def game_by_hand(size, loss, other, x):
    energy, other = Energy(*size.layers), other()
    other = getattr(other, "generator", other)
    return trainer(partial(loss, energy, other, x), [*energy.parameters(), *other.parameters()])


def ours_alone(size, objective, x, base=None, **parts):
    energy = Energy(*size.layers)
    prior = ebm.EnergyBased(energy, base, event_shape=None if base else x.shape[1:])
    attached = {name: make() for name, make in parts.items()}
    modules = [energy, *(p.generator if name == "generator" else p for name, p in attached.items())]
    parameters = [p for m in modules if isinstance(m, nn.Module) for p in m.parameters()]
    return trainer(lambda: objective.loss(prior, x, **attached).value.mean(), parameters)


def in_svi(size, objective, x, base=None, options=None, **parts):
    # The parameter store is one for all columns.
    energy, site = Energy(*size.layers), f"x{next(numbers)}"
    attached = {name: make() for name, make in parts.items()}

    def model(x):
        pyro.module(f"{site}.energy", energy)
        with pyro.plate("data", len(x)):
            prior = ebm.EnergyBased(energy, base, event_shape=None if base else x.shape[1:])
            pyro.sample(site, prior, obs=x)

    def guide(x):
        if attached:
            ebm.attach(site, **attached)

    adam = pyro.optim.Adam({"lr": at.LEARNING_RATE, **(options or {})})
    # Without a base there is no log-normalizer to report.
    loss = ebm.EnergyELBO(objective, **({} if base else {"num_normalizer_samples": 0}))
    svi = SVI(model, guide, adam, loss)
    return lambda: svi.step(x)


def of_ebmkit(size, make, x):
    energy, loss = Energy(*size.layers), make(ebmkit)
    parameters = [*energy.parameters(), *loss.parameters()]
    return trainer(lambda: loss(energy, x).loss, parameters)


def of_torchebm(size, make, x):
    model = ForTorchebm(Energy(*size.layers))
    loss = make(torchebm.losses, model)

    def value():
        result = loss(x)
        return result[0] if isinstance(result, tuple) else result

    return trainer(value, model.parameters())


def losses(size):
    """Objectives: name, setting, ``ebmkit``, ``torchebm``, and where it has them base and parts."""
    for m in (4, 16) if size is LARGE else (4, 16, 64):
        objective = ebm.EnergyDiscrepancy(variance=at.VARIANCE, num_samples=m)
        theirs = _kit("EnergyDiscrepancy", math.sqrt(at.VARIANCE), m)
        yield f"energy discrepancy, {m}", objective, theirs, None, {}
    yield from _losses_with_chains(size)
    if size is SMALL:
        yield "score matching, exact", ebm.ScoreMatching(), _kit("ExactScoreMatching"), None, {}
    theirs = _kit("SlicedScoreMatching"), _torchebm("SlicedScoreMatching", n_projections=1)
    yield "score matching, sliced", ebm.SlicedScoreMatching(), *theirs, {}
    ours = ebm.DenoisingScoreMatching(0.01)
    theirs = _torchebm("DenoisingScoreMatching", noise_scale=0.1)
    yield "score matching, denoising", ours, _kit("DenoisingScoreMatching", 0.1), theirs, {}
    base = {"base": normal(size.num_dims)}
    yield "KALE", ebm.KALE(num_samples=1000), None, None, base
    ours = ebm.NoiseContrastive(num_samples=size.batch)
    yield "noise-contrastive", ours, _kit("NoiseContrastiveEstimation"), None, base


def _losses_with_chains(size):
    ula, d = ebm.Langevin(at.LANGEVIN_STEP), size.num_dims
    ours = ebm.ContrastiveDivergence(sampler=ula, num_steps=10)
    theirs = partial(ebmkit.ContrastiveDivergence, ebmkit.LangevinDynamics(at.LANGEVIN_STEP, 10))
    yield "CD-10", ours, lambda _: theirs(), _torchebm_cd, {}
    stored = 8 * size.batch
    persistent = partial(_torchebm_cd, persistent=True, buffer_size=stored)
    with_buffer = lambda _: theirs(buffer=ebmkit.ReplayBuffer(stored, (d,)))  # noqa: E731
    yield "PCD-10", ours, with_buffer, persistent, {"chains": partial(_chains, size)}
    parts = {"base": normal(d), "critic": lambda: nn.Sequential(mlp(d, 128, 1), nn.Flatten(0))}
    settings = {"sampler": ula, "num_steps": 10, "num_samples": size.batch}
    yield "f-EBM", ebm.FDivergence("kl", **settings), None, None, parts
    if size is SMALL:
        generator = {"generator": lambda: ebm.Pushforward(normal(d), mlp(d, 128, d))}
        yield "bidirectional bounds", ebm.BidirectionalBounds(), None, None, generator


def _chains(size):
    options = {"num_steps": 10, "buffer_size": 8 * size.batch}
    sampler = ebm.Langevin(at.LANGEVIN_STEP)
    return ebm.PersistentChains(size.batch, (size.num_dims,), sampler=sampler, **options)


def _kit(name, *args):
    return lambda kit: getattr(kit, name)(*args)


def _torchebm(name, **options):
    return lambda losses, model: getattr(losses, name)(model=model, **options)


def _torchebm_cd(losses, model, **options):
    sampler = torchebm.samplers.LangevinDynamics(model, step_size=at.LANGEVIN_STEP, noise_scale=1.0)
    return losses.ContrastiveDivergence(model=model, sampler=sampler, k_steps=10, **options)


def loss_jobs(size):
    x = array(at.values(size.batch, size.num_dims))
    for name, objective, kit, torchebm_, parts in losses(size):
        columns = {}
        if name in LOSSES:
            columns[BY_HAND] = partial(by_hand, size, LOSSES[name], x)
        if name == "PCD-10":
            loss = PersistentContrastiveDivergence(size)
            columns[BY_HAND] = partial(by_hand, size, loss, x)
        if name in GAMES:
            other = parts.get("critic") or parts["generator"]
            columns[BY_HAND] = partial(game_by_hand, size, GAMES[name], other, x)
        if "chains" not in parts:  # They live in the parameter store.
            columns[OURS] = partial(ours_alone, size, objective, x, **parts)
        columns[IN_SVI] = partial(in_svi, size, objective, x, **parts)
        columns[FUSED] = partial(in_svi, size, objective, x, options={"fused": True}, **parts)
        if kit is not None:
            columns[EBMKIT] = partial(of_ebmkit, size, kit, x)
        if torchebm_ is not None:
            columns[TORCHEBM] = partial(of_torchebm, size, torchebm_, x)
        yield Job("a training step", name, size.name, columns, quick=size is SMALL)
    yield bits_job(size)


def bits_job(size, num_samples=16):
    x, objective = array(at.bits(size.batch, size.num_dims)), {"perturbation": ebm.Uniform(1.0)}
    base = dist.Bernoulli(logits=torch.zeros(size.num_dims)).to_event(1)
    settings = size, ebm.EnergyDiscrepancy(num_samples=num_samples, **objective), x, base
    columns = {
        BY_HAND: partial(by_hand, size, partial(LOSSES["bits"], num_samples=num_samples), x),
        OURS: partial(ours_alone, *settings),
        IN_SVI: partial(in_svi, *settings),
    }
    return Job("a training step", f"energy discrepancy of bits, {num_samples}", size.name, columns)
