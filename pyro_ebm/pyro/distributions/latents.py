"""Latent variables of the present run of a model, and a search for them behind an energy."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pyro.infer.inspect import is_sample_site
from pyro.ops.provenance import get_provenance
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.scale_messenger import ScaleMessenger
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pyro_ebm.core.distributions.checks import describe_dependence
from pyro_ebm.pyro.distributions.graph import graph_nodes

T = TypeVar("T")


def latents_so_far() -> dict[str, Tensor]:
    """Unobserved values that the present run of a model, if it is traced, has drawn so far."""
    handlers = (it for it in _PYRO_STACK if isinstance(it, TraceMessenger) and not it.param_only)
    sites: list[tuple[str, Any]] = [site for it in handlers for site in it.trace.nodes.items()]
    return {
        name: site["value"]
        for name, site in sites
        if is_sample_site(site) and not site["is_observed"]
    }


def is_scale_learned() -> bool:
    """Return whether the scale of a handler around the present site has a gradient."""
    scales = (handler.scale for handler in _PYRO_STACK if isinstance(handler, ScaleMessenger))
    return any(isinstance(scale, Tensor) and scale.requires_grad for scale in scales)


def evaluate_without(
    latents: Mapping[str, Tensor], function: Callable[..., Tensor], values: list[Tensor]
) -> Tensor:
    """Evaluate a function of values that may depend on no other latent variable.

    Raises:
        ValueError: If the result has a gradient in one, was computed from one without a gradient,
            a discrete one for example, or carries its mark (``TraceGraph_ELBO`` marks them).
    """
    if not latents:
        return function(*values)
    result = evaluate_watching(latents, function, values)
    own = get_provenance(values)
    behind = {it.grad_fn: name for name, it in latents.items() if it.grad_fn is not None}
    found = [behind[node] for node in graph_nodes(result, values) if node in behind]
    # Pyro marks what depends on a parameter, too, where it looks for dependencies.
    marked = (get_provenance(result) & latents.keys()) - own
    for name in [*found, *sorted(marked)]:
        raise ValueError(describe_dependence(name))
    return result


def evaluate_watching(
    latents: Mapping[str, Tensor], function: Callable[..., T], values: list[Tensor]
) -> T:
    """Evaluate a function; raise if it uses a latent without a gradient, which no graph shows."""
    hidden = {id(it): name for name, it in latents.items() if not it.requires_grad}
    for value in values:  # The variables of the energy, perhaps views of a latent.
        hidden.pop(id(value), None)
        hidden.pop(id(value._base), None)
    if not hidden:
        return function(*values)
    with _Uses(hidden) as uses:
        try:
            result = function(*values)
        except Exception as error:  # An enumerated latent makes shapes wrong, too.
            if uses.found is None:
                raise
            raise ValueError(describe_dependence(uses.found)) from error
    if uses.found is not None:
        raise ValueError(describe_dependence(uses.found))
    return result


class _Uses(TorchFunctionMode):
    """Mode that finds one of some tensors, or a view of one, among arguments of functions."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names
        self.found: str | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Shapes and the like are attributes.
        is_attribute = getattr(func, "__name__", "") == "__get__"
        for leaf in () if is_attribute else tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                whole = getattr(leaf, "_base", None)
                self.found = self.names.get(id(leaf)) or self.names.get(id(whole)) or self.found
        return func(*args, **(kwargs or {}))
