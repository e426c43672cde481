import jax
import jax.numpy as jnp
import pytest
from jax import lax

from pyro_ebm.numpyro.model.provenance import find_provenance

A, B, C = (frozenset(name) for name in "abc")


def carried(a, b, c):
    """Two numbers, of which the second follows the first one step later; a stacked sum."""
    step = lambda carry, x: ((carry[0] * a, carry[0]), carry[1] + x)  # noqa: E731
    return lax.scan(step, (1.0, b), c * jnp.ones(3))


def counted(a, b, c):
    return lax.while_loop(
        lambda carry: carry[0] < a, lambda carry: (carry[0] + 1, carry[1] * b), (0.0, c)
    )


CASES = {
    "arithmetic": (lambda a, b, c: (a + b, 2 * c, 1.0), (A | B, C, frozenset())),
    "scan": (carried, ((A, A | B), A | B | C)),
    "scan of one": (lambda a, b, c: lax.map(lambda x: x * b, a * jnp.ones(2)), A | B),
    "while": (counted, (A, A | B | C)),
    "cond": (
        lambda a, b, c: lax.cond(a > 0, lambda: (b, 1.0), lambda: (c, 1.0)),
        (A | B | C, A),
    ),
    "switch": (lambda a, b, c: lax.switch(2, [lambda: a, lambda: b, lambda: c]), A | B | C),
    "jit": (jax.jit(lambda a, b, c: (a * b, c)), (A | B, C)),
    "checkpoint": (jax.checkpoint(lambda a, b, c: (a * b, c)), (A | B, C)),
    "custom rule": (lambda a, b, c: (jax.nn.relu(a), jax.nn.softplus(b)), (A, B)),
    "vmap": (lambda a, b, c: jax.vmap(lambda x: x + b)(a * jnp.ones(2)), A | B),
    "tree": (lambda a, b, c: {"x": a, "y": [b]}, {"x": A, "y": [B]}),
    "constant": (lambda a, b, c: jnp.zeros_like(a), frozenset()),
}


@pytest.mark.parametrize("name", CASES)
def test_names_behind_results(name):
    function, expected = CASES[name]
    assert find_provenance(function, a=1.0, b=2.0, c=3.0) == expected


def test_inputs_may_be_trees_and_shapes():
    inputs = {"b": {"x": jnp.ones(2), "y": 1.0}, "a": jax.ShapeDtypeStruct((3,), float)}
    found = find_provenance(lambda a, b: (a.sum(), b["y"] * a[0], b["x"]), **inputs)
    assert found == (A, A | B, B)
