"""Joint distributions of named parts for Pyro."""

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_ebm.core.distributions import joint as core
from pyro_ebm.pyro.distributions.flows import as_distribution
from pyro_ebm.pyro.distributions.supports import support_of
from pyro_ebm.pyro.samplers.target import Target


class Joint(core.AbstractJoint, TorchDistribution):
    """Independent parts as one vector, the base of an energy between them.

    Definition and arguments: the base class
    :class:`~pyro_ebm.core.distributions.joint.AbstractJoint`.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from pyro_ebm.pyro import EnergyBased
        >>> base = Joint(scale=dist.LogNormal(0.0, 1.0), x=dist.Normal(0.0, 9.0))
        >>> joint = EnergyBased(lambda scale, x: (x / scale) ** 2, base)
        >>> joint.conditional(scale=torch.ones(5)).log_prob(torch.zeros(5)).shape
        torch.Size([5])
    """

    arg_constraints: ClassVar[Any] = {}
    support: Any = constraints.real_vector
    _target_class = Target

    def __init__(self, /, **parts: Any) -> None:
        parts = {name: as_distribution(part) for name, part in parts.items()}
        core.check_parts(parts, Distribution)
        shape = core.common_batch_shape(parts, torch.broadcast_shapes)
        self.parts = {
            name: part if part.batch_shape == shape else part.expand(shape)
            for name, part in parts.items()
        }
        size = torch.Size((self._size,))
        TorchDistribution.__init__(self, torch.Size(shape), size, validate_args=False)

    def __repr__(self) -> str:
        return f"Joint({', '.join(f'{name}={part}' for name, part in self.parts.items())})"

    @property
    def has_rsample(self) -> bool:
        return all(part.has_rsample for part in self.parts.values())

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Joint":
        shape = torch.Size(batch_shape)
        return Joint(**{name: part.expand(shape) for name, part in self.parts.items()})

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        return self.join(**{name: part.sample(shape) for name, part in self.parts.items()})

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        return self.join(**{name: part.rsample(shape) for name, part in self.parts.items()})

    def _support_of(self, part: Any) -> Any:
        return support_of(part)


class ConditionalEnergy(nn.Module):
    """An energy of several parts, some of them given; it has the energy's parameters."""

    def __init__(self, energy: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.energy, self.names = energy, names

    def forward(self, *rows: Any) -> Tensor:
        return core.conditional_energy(self.energy, self.names, *rows)
