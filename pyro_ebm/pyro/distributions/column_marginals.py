"""Products of column marginals for Pyro."""

from typing import Any, ClassVar

import torch
from pyro.distributions import Normal, TorchDistribution, constraints
from torch import Tensor

from pyro_ebm import column_marginals as core
from pyro_ebm.pyro.samplers.columns import ColumnConstraint


class ColumnMarginals(core.AbstractColumnMarginals, TorchDistribution):
    """Independent columns of numbers and codes, the base of an energy on a table.

    Definition and arguments: the base class
    :class:`~pyro_ebm.column_marginals.AbstractColumnMarginals`.

    Example:
        >>> import torch
        >>> from pyro_ebm.pyro import Column
        >>> data = torch.tensor([[0.1, 2.0], [0.3, 0.0], [0.2, 1.0]])
        >>> base = ColumnMarginals.fit([Column.numeric(), Column.ordinal(3)], data)
        >>> base.sample((5,)).shape
        torch.Size([5, 2])
    """

    arg_constraints: ClassVar[Any] = {}
    _normal = Normal

    def __init__(self, columns: Any, loc: Any, scale: Any, log_probs: Any) -> None:
        given = (loc, scale, log_probs)
        parameters = [torch.as_tensor(x).to(torch.get_default_dtype()) for x in given]
        self.columns = core.check_parameters(columns, *(x.shape for x in parameters))
        self.loc, self.scale, log_probs = parameters
        self.log_probs = core.normalized(self.columns, log_probs)
        size = torch.Size((len(self.columns),))
        TorchDistribution.__init__(self, torch.Size(), size, validate_args=False)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        return ColumnConstraint(self.columns)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ColumnMarginals":
        new = type(self)(self.columns, self.loc, self.scale, self.log_probs)
        shape = torch.Size(batch_shape)
        TorchDistribution.__init__(new, shape, self.event_shape, validate_args=False)
        return new

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        uniform = torch.rand((*shape, *self.log_probs.shape)).to(self.log_probs)
        codes = (self.log_probs - (-uniform.log()).log()).argmax(-1).to(self.loc)
        numbers = self.loc + self.scale * torch.randn_like(codes)
        return torch.where(self._is_numeric, numbers, codes)

    def log_prob(self, value: Tensor) -> Tensor:
        codes = torch.where(self._is_numeric, 0.0, value.detach()).long()[..., None]
        rows = self.log_probs.expand((*value.shape, -1))
        of_codes = rows.gather(-1, codes)[..., 0]
        normal = Normal(self.loc, self.scale, validate_args=False)
        return torch.where(self._is_numeric, normal.log_prob(value), of_codes).sum(-1)

    @property
    def _is_numeric(self) -> Tensor:
        flags = [column.is_numeric for column in self.columns]
        return torch.tensor(flags, device=self.loc.device)
