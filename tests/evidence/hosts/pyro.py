"""Adapter of the experiments to Pyro; ``numpyro.py`` has the same names.

Networks are torch modules on rows, flows are zuko's. Networks that are trained together are a
dictionary by name, and a model or guide registers each of them where it looks it up.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
import pyro
import torch
from pyro import distributions as dist
from pyro import factor, infer, param, plate, sample
from pyro.contrib.zuko import ZukoToPyro
from pyro.optim import PyroLRScheduler
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from zuko.flows import NSF, RealNVP
from zuko.lazy import LazyTransform

import pyro_ebm.pyro as ebm
from evidence.hosts import Adam, InferenceSettings
from pyro_ebm.pyro.distributions.importance import importance_log_weights
from pyro_ebm.pyro.objectives.generator import VariationalGenerator

__all__ = ["dist", "ebm", "factor", "importance_log_weights", "infer", "param", "plate", "sample"]

NAME = "pyro"
PACKAGES = ("torch", "pyro-ppl", "zuko")
ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "softplus": nn.Softplus, "tanh": nn.Tanh}
FINAL = {None: nn.Identity, "sigmoid": nn.Sigmoid}

pyro.enable_validation()  # zuko turns it off in all of torch.


# --- random numbers and arrays ---


def seed(number: int) -> None:
    pyro.clear_param_store()
    pyro.set_rng_seed(number)


def noise(shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, in a model or guide."""
    return torch.randn(shape)


def array(x: Any) -> Tensor:
    return torch.as_tensor(x)


def evaluate(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function without gradients; tensors of the result become NumPy arrays."""
    with torch.no_grad():
        result = function(*(array(x) if isinstance(x, np.ndarray) else x for x in args))
    if isinstance(result, tuple):
        return tuple(part.numpy() for part in result)
    return result.numpy()


def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gradient of a sum in the first argument."""
    return torch.func.grad(lambda *args: function(*args).sum())


@contextmanager
def float64() -> Iterator[None]:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(default)


# --- networks and distributions ---


def mlp(
    num_inputs: int | None,
    num_outputs: int | None,
    width: int,
    depth: int = 2,
    *,
    activation: str = "silu",
    final: str | None = None,
) -> nn.Module:
    """Perceptron on rows; None inputs or outputs are scalars, of shape ``(N,)``."""
    sizes = [num_inputs or 1, *depth * [width]]
    layers: list[nn.Module] = [] if num_inputs else [nn.Unflatten(0, (-1, 1))]
    for before, after in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    layers += [nn.Linear(width, num_outputs or 1), FINAL[final]()]
    return nn.Sequential(*layers, *([] if num_outputs else [nn.Flatten(0)]))


def convolutional(
    side: int, num_outputs: int, channels: tuple[int, ...] = (32, 64, 64)
) -> nn.Module:
    """Convolutions on rows of square images; all but the first halve the sides."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, side, side))]
    for index, (before, after) in enumerate(zip((1, *channels), channels, strict=False)):
        layers += [nn.Conv2d(before, after, 3, stride=min(index + 1, 2), padding=1), nn.SiLU()]
    num_features = channels[-1] * (side // 2 ** (len(channels) - 1)) ** 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(num_features, num_outputs))


def deconvolutional(
    num_inputs: int, side: int, channels: tuple[int, ...] = (64, 64, 32)
) -> nn.Module:
    """Rows of square images by convolutions; all but the last double the sides."""
    small = side // 2 ** (len(channels) - 1)
    layers: list[nn.Module] = [
        nn.Linear(num_inputs, channels[0] * small**2),
        nn.Unflatten(1, (channels[0], small, small)),
    ]
    for before, after in pairwise(channels):
        layers += [nn.SiLU(), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
    last = nn.Conv2d(channels[-1], 1, 3, padding=1)
    return nn.Sequential(*layers, nn.SiLU(), last, nn.Flatten())


class Formula(nn.Module):
    """Function of named parameters and an array, written for arrays of either host."""

    def __init__(self, function: Callable[..., Any], parameters: Mapping[str, Any]) -> None:
        super().__init__()
        self.function, dtype = function, torch.get_default_dtype()
        tensors = {name: torch.as_tensor(x, dtype=dtype) for name, x in parameters.items()}
        self.values = nn.ParameterDict({name: nn.Parameter(x) for name, x in tensors.items()})

    def forward(self, value: Tensor) -> Tensor:
        return self.function(self.values, value)


def flow(
    num_dims: int, *, num_layers: int, width: int, depth: int = 1, activation: str = "relu"
) -> RealNVP:
    """Affine coupling layers."""
    hidden = {"hidden_features": depth * (width,), "activation": ACTIVATIONS[activation]}
    return RealNVP(num_dims, transforms=num_layers, **hidden)


def generator_flow(
    num_dims: int, *, num_layers: int, width: int, knots: int | None = None, interval: float = 5.0
) -> LazyTransform:
    """Map from latents to values, in one pass: splines with ``knots``, affine without."""
    del interval  # 5 in zuko
    hidden = {"hidden_features": (width,), "activation": nn.SiLU}
    if knots is None:
        return RealNVP(num_dims, transforms=num_layers, **hidden).transform
    return NSF(num_dims, transforms=num_layers, bins=knots, **hidden).transform


def flow_density(flow: RealNVP) -> Any:
    """Object with a ``log_prob``."""
    return flow()


def held(flow: RealNVP) -> Any:
    """Density of a flow with constants for parameters."""
    constants = {name: value.detach() for name, value in flow.named_parameters()}
    return functional_call(flow, constants, ())


def flow_distribution(flow: RealNVP) -> Any:
    """The host's distribution of a flow."""
    return ZukoToPyro(flow())


def normal(num_dims: int, loc: float = 0.0, scale: float = 1.0) -> Any:
    return dist.Normal(torch.full((num_dims,), loc), scale).to_event(1)


def pushforward(latent: Any, generator: nn.Module, **options: Any) -> ebm.Pushforward:
    forward = generator() if isinstance(generator, LazyTransform) else generator
    return ebm.Pushforward(latent, forward, **options)


def bind(function: Callable[..., Any], *parts: Any) -> Callable[[Tensor], Tensor]:
    """Energy ``function(*parts, x)``."""
    return lambda x: function(*parts, x)


def frozen(nets: dict[str, Any]) -> dict[str, Any]:
    """The networks with constants for parameters."""
    for net in nets.values():
        net.requires_grad_(requires_grad=False)
    return nets


def copied(nets: dict[str, Any]) -> dict[str, Any]:
    """Copy that training the originals leaves alone."""
    return {name: deepcopy(net) for name, net in nets.items()}


# --- training ---


class Registered(dict):
    """Networks whose parameters are registered where they are looked up."""

    def __getitem__(self, name: str) -> Any:
        net = super().__getitem__(name)
        return pyro.module(name, net) if isinstance(net, nn.Module) else pyro.param(name, net)


def registering(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda nets, *args, **kwargs: function(Registered(nets), *args, **kwargs)


class Inference(InferenceSettings):
    """SVI with torch's optimizers; networks are trained in place."""

    def train(self, nets, blocks, *, decay=0.0):
        svi, schedule = self._start()
        averages = _averages(nets, decay)
        for block in blocks:
            refused = 0
            for batch in array(block):
                try:
                    svi.step(nets, batch)
                except ValueError as error:
                    if "finite" not in str(error):
                        raise
                    refused += 1
                else:
                    schedule.step()
                    for name, average in averages.items():
                        average.update_parameters(nets[name])
            yield _current(nets) | {name: one.module for name, one in averages.items()}, refused

    def fit(self, nets, *args, **kwargs):
        svi, schedule = self._start()
        for _ in range(self.num_steps):
            svi.step(nets, *args, **kwargs)
            schedule.step()
        return _current(nets)

    def metrics(self, nets, *args):
        return self.loss.metrics(registering(self.model), registering(self.guide), nets, *args)

    def _start(self) -> tuple[infer.SVI, PyroLRScheduler]:
        pyro.clear_param_store()
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        adam = ebm.step_when(torch.optim.AdamW)
        arguments = {"optimizer": adam, "optim_args": self._options, "T_max": self.num_steps}
        schedule = PyroLRScheduler(cosine, arguments)
        model, guide = registering(self.model), registering(self.guide)
        return infer.SVI(model, guide, schedule, self.loss), schedule

    def _options(self, parameter: str) -> dict[str, Any]:
        adam = self.adam
        adam = adam if isinstance(adam, Adam) else adam[parameter.split(".")[0]]
        options = {"lr": adam.rate, "betas": adam.betas, "weight_decay": adam.weight_decay}
        return options | ({} if adam.condition is None else {"condition": adam.condition})


def _averages(nets: dict[str, Any], decay: float) -> dict[str, AveragedModel]:
    if decay == 0.0:
        return {}
    moving = get_ema_multi_avg_fn(decay)
    modules = {name: net for name, net in nets.items() if isinstance(net, nn.Module)}
    return {name: AveragedModel(net, multi_avg_fn=moving) for name, net in modules.items()}


def _current(nets: dict[str, Any]) -> dict[str, Any]:
    store = pyro.get_param_store()
    return {name: store[name].detach() if name in store else net for name, net in nets.items()}


# --- the package's functions, without random keys ---


def draw(distribution: Any, num_samples: int) -> np.ndarray:
    with torch.no_grad():
        return distribution.sample((num_samples,)).numpy()


def call(guide: Any, *args: Any) -> dict[str, Any]:
    """Draw from a guide that returns its draws."""
    return {name: value.detach() for name, value in guide(*args).items()}


def nuts(model: Callable, *args: np.ndarray, num_draws: int, num_chains: int) -> Any:
    """Run the host's NUTS after as much warm-up, chain by chain; the result is ArviZ's."""
    options = {"num_samples": num_draws, "warmup_steps": num_draws, "num_chains": num_chains}
    # With fewer cores than chains they run here, and Pyro warns.
    with patch("torch.multiprocessing.cpu_count", lambda: 1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "num_chains=.* is more than available_cpu")
        mcmc = infer.MCMC(infer.NUTS(model), **options, disable_progbar=True)
    mcmc.run(*map(array, args))
    return ebm.to_arviz(mcmc)


def check_conditional(joint: Any, **draws: np.ndarray) -> Any:
    return ebm.check_conditional(joint)(**{name: array(x) for name, x in draws.items()})


def simulation_based_calibration(prior: Any, simulator: Any, *args: Any, **options: Any) -> Any:
    """Calibration with a simulator of parameters and of noise of their shape."""

    def simulate(theta: Tensor) -> Tensor:
        return simulator(theta, torch.randn_like(theta))

    return ebm.simulation_based_calibration(prior, simulate, *args, **options)


def log_normalizer(distribution: Any, **options: Any) -> Any:
    return ebm.log_normalizer(distribution, **options)


def run_smc(sampler: Any, distribution: Any, **options: Any) -> Any:
    return ebm.run_smc(sampler, distribution, **options)


def log_marginal(model: Callable, guide: Any, *args: Any, **options: Any) -> Any:
    """Of a model and guide without networks to register."""
    return ebm.log_marginal(model, guide, **options)(*args)


def log_ratios(model: ebm.EnergyBased, generator: Any, latent: Any) -> tuple[np.ndarray, ...]:
    """Values, log-ratios and their slopes in latent values, or in as many draws.

    Args:
        model: Energy-based distribution.
        generator: Pushforward.
        latent: Array ``(N, *latent)``, or a number of draws.
    """
    partner = VariationalGenerator.of(model, generator)
    z = partner.draw(latent) if isinstance(latent, int) else array(latent)
    draws = partner.compare(model, z)
    return tuple(x.detach().numpy() for x in (draws.value, draws.log_ratio, draws.ratio_gradient))
