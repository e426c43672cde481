"""Energies bound to their parameters, which can be held constant."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from pyro.ops.provenance import detach_provenance, get_provenance, track_provenance
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from pyro_ebm.core.distributions.checks import REMEDY
from pyro_ebm.pyro.distributions.closures import capture, modules_in
from pyro_ebm.pyro.distributions.graph import graph_leaves
from pyro_ebm.pyro.distributions.latents import evaluate_without

Function = Callable[..., Tensor]
Weights = Mapping[Any, Mapping[str, Tensor]]

# Parameters that a warning has named: once is enough.
_warned_of = WeakIdKeyDictionary()


def trainable_parameters(energy: Function) -> list[Tensor]:
    """Parameters of a module that require a gradient; none for any other callable."""
    parameters = energy.parameters() if isinstance(energy, nn.Module) else ()
    return [parameter for parameter in parameters if parameter.requires_grad]


def bind(energy: Callable[..., Any]) -> Callable[..., Any]:
    """Bind an energy to the constants that it refers to; a module stays the module that it is."""
    return energy if isinstance(energy, nn.Module) else capture(energy)


def drawn_weights(energy: Function, log_normalizer: Any) -> Weights:
    """Weights of a module that are sampled (``PyroSample``), as this run of the model drew them.

    Raises:
        ValueError: If there are any, and the log-normalizer is unknown.
    """
    modules = energy.modules() if isinstance(energy, nn.Module) else ()
    # Each read of such an attribute is a sample site, once in a run.
    weights = {
        module: {name: getattr(module, name) for name in samples}
        for module in modules
        if (samples := getattr(module, "_pyro_samples", None))
    }
    if weights and log_normalizer is None:
        names = [name for values in weights.values() for name in values]
        raise ValueError(
            f"Expected an energy without PyroSample, got sampled {names}: the log-normalizer "
            f"depends on them (the model is doubly intractable). {REMEDY} Or make them parameters."
        )
    return weights


@contextmanager
def held(energy: Function) -> Iterator[None]:
    """Hold the parameters of a module constant, and its buffers as they are.

    Other energies are unchanged. It misses parameters that one fetches from elsewhere (a plain
    tensor attribute, another closure): :func:`frozen_in_parameters` finds those.
    """
    modules = list(energy.modules()) if isinstance(energy, nn.Module) else []
    constrained = {
        module: {name: getattr(module, name).detach() for name in module._pyro_params}
        for module in modules
        if isinstance(module, PyroModule) and module._pyro_params
    }
    stores: list[Any] = [store for m in modules for store in (m._parameters, m._buffers)]
    before = [dict(store) for store in stores]
    for module in modules:
        # `pyro.module` may put in latents: lifted weights, which are left to later checks.
        _replace(module._parameters, lambda it: it.detach() if _is_parameter(it) else it)
        # Spectral norm and its like write to their buffers; a log-density must not change them.
        _replace(module._buffers, Tensor.clone)
    try:
        with shadowed(constrained):
            yield
    finally:
        for store, tensors in zip(stores, before, strict=True):
            store.update(tensors)


def _replace(tensors: Any, function: Callable[[Tensor], Tensor]) -> None:
    tensors.update({n: function(tensor) for n, tensor in tensors.items() if tensor is not None})


def shadowed(weights: Weights) -> AbstractContextManager[None]:
    """Give attributes of modules other values."""
    return _shadowed(weights) if weights else nullcontext()


@contextmanager
def _shadowed(weights: Weights) -> Iterator[None]:
    for module, values in weights.items():
        module.__dict__.update(values)
    try:
        yield
    finally:
        for module, values in weights.items():
            for name in values:
                del module.__dict__[name]


@contextmanager
def kept_buffers(energy: Function) -> Iterator[None]:
    """Restore buffers at the end: a forward pass of spectral norm writes to them.

    They are those of a module, or of modules that a function refers to.
    """
    referred = (module for _, module in modules_in(energy, set()))
    modules = [energy] if isinstance(energy, nn.Module) else referred
    buffers = [buffer for module in modules for buffer in module.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.data.copy_(value)


def with_kept_buffers(distribution: Any) -> Any:
    """Copy a distribution; all calls of the copy's energy begin with the same buffers."""
    new, energy = copy(distribution), distribution.energy

    def call(*given: Any) -> Tensor:
        with kept_buffers(energy):
            return energy(*given)

    call.__name__ = getattr(energy, "__name__", type(energy).__name__)
    new.energy = call
    return new


def frozen_in_parameters(
    function: Function, *values: Tensor, latents: Mapping[str, Tensor] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Evaluate a function so that derivatives of any order exist in ``values`` alone.

    ``latents`` are values of other variables, which the function may not depend on.

    Returns:
        The result, and the parameters that were found and held constant in it.

    Raises:
        ValueError: If the function depends on a differentiable tensor that is no parameter: a
            latent variable of the model (as NUTS and HMC pass them), on which the log-normalizer
            depends too.
    """
    if not torch.is_grad_enabled():
        return function(*values), []
    # A node of its own marks where the graph leaves the function and enters a value's past.
    inside = [value.view_as(value) if value.requires_grad else value for value in values]
    result = evaluate_without(latents or {}, function, inside)
    leaves = list(graph_leaves(result, inside))
    if not leaves:
        return result, []
    for leaf in leaves:
        _check_is_parameter(leaf)
    constant = result.detach()
    if not any(value.requires_grad for value in values):
        return constant, leaves
    # TraceGraph_ELBO tracks which latents a term depends on; the operation alone would lose it.
    plain = _Frozen.apply(function, *map(detach_provenance, (constant, *values)))
    return track_provenance(plain, get_provenance(constant)), leaves


class KnownLogProb:
    """A log-density that was evaluated before, at one value as it was then."""

    def __init__(self, value: Tensor, log_prob: Tensor) -> None:
        self.value, self.version, self.log_prob = value, value._version, log_prob

    @classmethod
    def of(cls, value: Any, potential: Tensor | None) -> "KnownLogProb | None":
        """Make one of a potential; None where the log-density would have more than a number."""
        is_plain = type(value) in (Tensor, nn.Parameter) and not value.is_inference()
        if potential is None or not is_plain or value.requires_grad:
            return None
        return cls(value, -potential.detach())

    def is_at(self, value: Tensor) -> bool:
        """Check whether this is the value, unchanged."""
        return value is self.value and value._version == self.version


class TrainedByObjective(Messenger):
    """Effect handler that only marks code in which an objective trains the energies."""


def warn_if_untrained(distribution: Any, held: list[Tensor]) -> None:
    """Warn, once per parameter, if a stock ELBO trains what ``log_prob`` holds constant."""
    if not torch.is_grad_enabled() or _is_on_stack(lambda it: isinstance(it, TrainedByObjective)):
        return
    new = [parameter for parameter in held if parameter not in _warned_of]
    # Only a step of SVI traces parameters alone; MCMC and Predictive do not.
    if new and _is_on_stack(lambda it: isinstance(it, TraceMessenger) and it.param_only):
        _warned_of.update(dict.fromkeys(new, True))
        warnings.warn(
            f"Nothing trains the parameters of {distribution}: a stock ELBO holds those of the "
            "energy and its base constant. To train them, use EnergyELBO(objective, elbo) as the "
            "loss; if they are meant to stay as they are, write "
            "module.requires_grad_(False).eval().",
            stacklevel=3,
        )


def _is_on_stack(predicate: Callable[[Any], bool]) -> bool:
    return any(predicate(handler) for handler in _PYRO_STACK)


class _Frozen(torch.autograd.Function):
    """A scalar function with its parameters held constant in every derivative.

    Backward applies the same operation to the vector-Jacobian product, which makes second and
    higher derivatives right too.
    """

    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Tensor], result: Tensor, *inputs: Tensor
    ) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        return result.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (gradient,) = gradients
        inputs = ctx.saved_tensors
        vjps = [
            _vjp(ctx.function, index, gradient, inputs) if needed else None
            for index, needed in enumerate(ctx.needs_input_grad[2:])
        ]
        return (None, None, *vjps)


def _vjp(
    function: Callable[..., Tensor], index: int, gradient: Tensor, inputs: tuple[Tensor, ...]
) -> Tensor:
    higher = torch.is_grad_enabled()

    def vjp(gradient: Tensor, *inputs: Tensor) -> Tensor:
        with torch.enable_grad():
            inputs = tuple(x if x.requires_grad else x.detach().requires_grad_() for x in inputs)
            result = function(*inputs)
            (product,) = torch.autograd.grad(
                result, inputs[index], gradient, create_graph=higher, materialize_grads=True
            )
        return product

    if not higher:
        return vjp(gradient, *inputs)
    with torch.no_grad():
        product = vjp(gradient, *inputs).detach()
    return _Frozen.apply(vjp, product, gradient, *inputs)


def _is_parameter(leaf: Tensor) -> bool:
    return isinstance(leaf, nn.Parameter) or pyro.get_param_store().param_name(leaf) is not None


def _check_is_parameter(leaf: Tensor) -> None:
    if _is_parameter(leaf):
        return
    raise ValueError(
        "Expected an energy and its base to depend on the value and on parameters only "
        f"(`nn.Parameter` or `pyro.param`), got a differentiable tensor of shape "
        f"{tuple(leaf.shape)}. If it is a latent variable, the density's log-normalizer depends "
        "on it (the model is doubly intractable) and inference would be silently wrong. "
        f"{REMEDY} If it is meant to be a parameter, make it one."
    )
