"""Walks through the autograd graph."""

from collections.abc import Iterable, Iterator

from torch import Tensor
from torch.autograd.graph import Node

from pyro_ebm.pyro.samplers.target import ANCHOR


def graph_leaves(result: Tensor, until: Iterable[Tensor] = ()) -> Iterator[Tensor]:
    """Tensors that a backward pass from ``result`` reaches, without those behind ``until``."""
    until = list(until)
    for node in graph_nodes(result, until):
        variable = getattr(node, "variable", None)
        if variable is not None and not any(variable is value for value in (*until, ANCHOR)):
            yield variable


def graph_nodes(result: Tensor, until: Iterable[Tensor] = ()) -> Iterator[Node]:
    """Nodes of the autograd graph of ``result``, without those behind ``until``."""
    seen = {value.grad_fn for value in until}
    waiting = [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting.extend(parent for parent, _ in node.next_functions)
