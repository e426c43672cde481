"""What Pyro's configurations are made of: nets, float64, seeds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

import pyro
import pyro.distributions as dist
import torch
from inputs import layers
from recording import figures
from torch import Tensor, nn

CONFIGURATIONS: dict[str, Callable[[], list[float]]] = {}


def recorded(configuration: Callable[[], list[Tensor]], name: str | None = None) -> Callable:
    """Enter a configuration; it runs from a seed, in float64, and gives floats."""

    @wraps(configuration)
    def run() -> list[float]:
        with settings():
            return figures(torch.as_tensor(x).detach() for x in configuration())

    CONFIGURATIONS[name or configuration.__name__] = run
    return run


@contextmanager
def settings() -> Iterator[None]:
    dtype, num_threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    try:
        with pyro.validation_enabled(is_validate=True):
            yield
    finally:
        pyro.clear_param_store()
        torch.set_default_dtype(dtype)
        torch.set_num_threads(num_threads)


class Net(nn.Module):
    """A net of two hidden layers."""

    def __init__(self, seed: int, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        first, second, third = layers(seed, num_inputs, 8, 8, num_outputs)
        self.stack = nn.Sequential(
            _linear(*first), nn.Tanh(), _linear(*second), nn.SiLU(), _linear(*third)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.stack(x)


class Scalar(Net):
    """An energy or a critic."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.stack(x)[..., 0]


class Residual(Net):
    """A generator in the plane, or a decoder."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 * self.stack(x)


class Encoder(Net):
    """A normal distribution in the plane for each point."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, 2, 2)

    def forward(self, x: Tensor) -> dist.Distribution:
        return dist.Normal(0.6 * x + 0.3 * self.stack(x), 0.5).to_event(1)


class Gaussian(nn.Module):
    """A base with a location and a scale that are learned."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor([0.2, -0.1]))
        self.log_scale = nn.Parameter(torch.tensor([0.1, 0.3]))

    def forward(self) -> dist.Distribution:
        return dist.Normal(self.loc, self.log_scale.exp()).to_event(1)


class Number(nn.Module):
    """A number that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(0.2))


def standard_normal() -> dist.Distribution:
    return dist.Normal(torch.zeros(2), 1.0).to_event(1)


def _linear(weight, bias) -> nn.Linear:
    linear = nn.Linear(*weight.shape[::-1])
    linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor(bias)
    return linear
