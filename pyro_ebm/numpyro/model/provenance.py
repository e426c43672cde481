"""Dependencies of results on arguments, also through loops and branches.

By NumPyro's ``eval_provenance`` every output of a ``scan`` or ``cond`` depends on each of its
inputs.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

Names = frozenset[str]
Step = Callable[[list[Names]], list[Names]]

_NONE: Names = frozenset()


def find_provenance(function: Callable[..., Any], **inputs: Any) -> Any:
    """Names of the keyword arguments behind each array of a result; nothing is computed."""
    traced, result = jax.make_jaxpr(lambda inputs: function(**inputs), return_shape=True)(inputs)
    names = [frozenset({key}) for key in sorted(inputs) for _ in jax.tree.leaves(inputs[key])]
    return jax.tree.unflatten(jax.tree.structure(result), _walk(traced, names))


def _walk(traced: Any, inputs: Iterable[Names]) -> list[Names]:
    jaxpr = traced.jaxpr if isinstance(traced, ClosedJaxpr) else traced
    found = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atoms: Iterable[Any]) -> list[Names]:
        return [_NONE if isinstance(a, Literal) else found.get(a, _NONE) for a in atoms]

    for equation in jaxpr.eqns:
        rule = _RULES.get(equation.primitive.name, _call)
        found |= zip(equation.outvars, rule(equation, read(equation.invars)), strict=True)
    return read(jaxpr.outvars)


def _call(equation: Any, inputs: list[Names]) -> list[Names]:
    """Enter a function inside, or else mix everything."""
    for inner in equation.params.values():
        if isinstance(inner, ClosedJaxpr | Jaxpr):
            outputs = _walk(inner, inputs) if _num_inputs(inner) == len(inputs) else []
            if len(outputs) == len(equation.outvars):
                return outputs
    return [_NONE.union(*inputs)] * len(equation.outvars)


def _num_inputs(traced: Any) -> int:
    return len(traced.in_avals if isinstance(traced, ClosedJaxpr) else traced.invars)


def _scan(equation: Any, inputs: list[Names]) -> list[Names]:
    num_constants, num_carried = equation.params["num_consts"], equation.params["num_carry"]
    constants, rest = inputs[:num_constants], inputs[num_constants:]
    carried, slices = rest[:num_carried], rest[num_carried:]

    def step(carried: list[Names]) -> list[Names]:
        return _walk(equation.params["jaxpr"], constants + carried + slices)

    carried = _repeat(lambda carried: step(carried)[:num_carried], carried)
    return carried + step(carried)[num_carried:]


def _while(equation: Any, inputs: list[Names]) -> list[Names]:
    first = equation.params["cond_nconsts"]
    second = first + equation.params["body_nconsts"]

    def step(carried: list[Names]) -> list[Names]:
        condition = _NONE.union(*_walk(equation.params["cond_jaxpr"], inputs[:first] + carried))
        moved = _walk(equation.params["body_jaxpr"], inputs[first:second] + carried)
        return [condition | names for names in moved]

    return _repeat(step, inputs[second:])


def _cond(equation: Any, inputs: list[Names]) -> list[Names]:
    branches = [_walk(branch, inputs[1:]) for branch in equation.params["branches"]]
    return [inputs[0].union(*outputs) for outputs in zip(*branches, strict=True)]


def _repeat(step: Step, carried: list[Names]) -> list[Names]:
    """Take steps until what is carried depends on nothing new."""
    while True:
        wider = [old | new for old, new in zip(carried, step(carried), strict=True)]
        if wider == carried:
            return carried
        carried = wider


_RULES = {"scan": _scan, "while": _while, "cond": _cond}
