"""A generator as a variational family: its draws, their density and their potentials."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import Transform

from pyro_ebm.core.objectives import generator as core
from pyro_ebm.pyro.distributions.energy_based import EnergyBased, without_plates
from pyro_ebm.pyro.distributions.flows import as_distribution
from pyro_ebm.pyro.distributions.pushforward import Pushforward, as_pushforward
from pyro_ebm.pyro.objectives.jacobian import log_det_jtj

Volume = Callable[[Tensor], tuple[Tensor, Tensor]]


class GeneratorDraws(core.GeneratorDraws):
    """Draws of a generator with their potentials."""

    constant = staticmethod(Tensor.detach)


class VariationalGenerator(core.VariationalGenerator):
    """Variational family of an energy-based distribution."""

    @classmethod
    def of(
        cls,
        distribution: EnergyBased,
        generator: Any,
        encoder: Any = None,
        *,
        entropy: str = "exact",
        **options: Any,
    ) -> "VariationalGenerator":
        """Family of a generator and its encoder; warns if its draws lie on a surface.

        The other options are those of :func:`log_det_jtj`.
        """
        generator = as_distribution(generator)
        core.check_generator(entropy, distribution, generator, encoder)
        source = as_pushforward(generator)
        if entropy == "noise":
            return cls(source, _with_encoder(source, generator.noise_scale, encoder))
        sizes = source.latent.event_shape.numel(), source.event_shape.numel()
        if sizes[0] < sizes[1]:
            warnings.warn(core.describe_small_latent(*sizes), stacklevel=2)
        if entropy == "exact" and isinstance(source.generator, Transform):
            return cls(source, _of_transform(source.generator, len(source.event_shape)))
        log_det = partial(log_det_jtj, method=entropy, **options)
        return cls(source, core.by_jacobian(source, log_det))

    def draw(self, num_samples: int) -> Tensor:
        """Latent values, shape ``(num_samples, *latent)``, by ``rsample`` where there is one."""
        latent, shape = self.source.latent, torch.Size((num_samples,))
        return latent.rsample(shape) if latent.has_rsample else latent.sample(shape)

    def compare(self, distribution: EnergyBased, latent: Tensor) -> GeneratorDraws:
        """Draws with their potentials; calls the energy and its gradient once."""
        (value, neg_log_density), pull = _vjp(self.value_and_neg_log_density, latent)
        model = without_plates(distribution)
        potential, gradient = value_and_slope(model.potential, value.detach())
        return GeneratorDraws(value, neg_log_density, potential, gradient, pull)


def value_and_slope(function: Callable[[Tensor], Tensor], value: Tensor) -> tuple[Tensor, Tensor]:
    """Call a function of rows; return its values and gradients, differentiable in parameters."""
    # With torch.func, because a leaf of autograd would stay in the loss as one more parameter.
    result, pull = _vjp(function, value)
    return result, pull(torch.ones_like(result))[0]


# Its annotation hides what it returns without ``has_aux``.
_vjp: Any = torch.func.vjp


def _with_encoder(
    source: Pushforward, noise_scale: Any, encoder: Callable[[Tensor], Any]
) -> Volume:
    num_dims = source.event_shape.numel()

    def value_and_log_volume(both: Tensor) -> tuple[Tensor, Tensor]:
        value = source.generate(both)
        posterior, (latent, noise) = encoder(value), source.latent.split(both)
        core.check_encoder(posterior, latent)
        log_scale = torch.as_tensor(noise_scale, dtype=noise.dtype).log()
        return value, num_dims * log_scale + posterior.log_prob(latent)

    return value_and_log_volume


def _of_transform(transform: Transform, event_dim: int) -> Volume:
    dims = event_dim - transform.codomain.event_dim

    def one_by_one(latent: Tensor) -> tuple[Tensor, Tensor]:
        value: Any = transform(latent)
        return value, transform.log_abs_det_jacobian(latent, value)

    # Transforms of zuko compute both at the cost of one.
    both = getattr(transform, "call_and_ladj", one_by_one)

    def value_and_log_volume(latent: Tensor) -> tuple[Tensor, Tensor]:
        value, log_det = both(latent)
        return value, cast(Tensor, sum_rightmost(log_det, dims))

    return value_and_log_volume
