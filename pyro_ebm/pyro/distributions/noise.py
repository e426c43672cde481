"""Noise as a part of a latent variable, so that chains can walk on both."""

from typing import Any, ClassVar

import torch
from pyro.distributions import Normal, TorchDistribution, constraints
from torch import Tensor

from pyro_ebm.pyro.samplers.target import is_unconstrained

__all__ = ["WithNoise"]


class WithNoise(TorchDistribution):
    """A latent variable and standard normal noise, end to end in one vector."""

    arg_constraints: ClassVar[Any] = {}
    has_rsample = True
    support: Any = constraints.real_vector

    def __init__(self, latent: Any, noise_shape: torch.Size) -> None:
        if not is_unconstrained(latent):
            raise ValueError(
                "Expected a latent over all real numbers where a Pushforward has noise, got "
                f"{latent}."
            )
        self.latent = latent
        self.noise_shape = noise_shape
        self.sizes = latent.event_shape.numel(), noise_shape.numel()
        super().__init__(latent.batch_shape, torch.Size((sum(self.sizes),)), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "WithNoise":
        """The same with a larger batch shape."""
        return WithNoise(self.latent.expand(torch.Size(batch_shape)), self.noise_shape)

    def split(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """Latent values and noise, each in its own shape."""
        latent, noise = both.split(self.sizes, dim=-1)
        shape = both.shape[:-1]
        return latent.reshape(shape + self.latent.event_shape), noise.reshape(
            shape + self.noise_shape
        )

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of both."""
        draw = self.latent.rsample if self.latent.has_rsample else self.latent.sample
        latent = draw(torch.Size(sample_shape))
        shape = self._extended_shape(torch.Size(sample_shape))[:-1]
        latent = latent.reshape((*shape, self.sizes[0]))
        return torch.cat([latent, torch.randn_like(latent.new_empty((*shape, self.sizes[1])))], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of both together."""
        latent, _ = self.split(value)
        noise = value[..., self.sizes[0] :]
        density = Normal(torch.zeros_like(noise), 1.0, validate_args=False).log_prob(noise)
        return self.latent.log_prob(latent) + density.sum(-1)
