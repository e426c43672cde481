"""Both front ends offer the same modules, names and arguments; read from source, none is imported.

Defaults, annotations and private names may differ, and so may what is listed here with its reason.
"""

import ast
from collections.abc import Set
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pyro_ebm"

# JAX passes randomness and parameters in; torch keeps them in global state.
NUMPYRO_ARGUMENTS = {"rng_key", "key", "param_map"}

# JAX always compiles; torch does when asked.
PYRO_ARGUMENTS = {"compile_steps"}

# Names that only one host has a need for, by module.
HOST_NAMES: dict[str, set[str]] = {
    # JAX compiles every step; torch does when asked.
    "potentials.py": {"compilable", "compiled_steps"},
    # A loop in Python keeps what it learns in an object, a compiled one in what it carries.
    "warmup.py": {
        "Warmup",
        "adapt",
        "begin_warmup",
        "end_warmup",
        "prepare_state",
        "window_flags",
    },
    "sampling.py": {"kept_draw"},
    # How a step ends and where its noise comes from is the host's way.
    "samplers/base.py": {"decide", "decision_info", "noise_like"},
    # torch finds an energy's parameters by walking the autograd graph; in JAX they are arguments.
    "energies.py": {
        "Packed",
        "freeze_module",
        "graph_leaves",
        "graph_nodes",
        "kept_buffers",
        "trainable_arrays",
        "trainable_parameters",
    },
    # Distributions of JAX are pytrees, and keep some of their parts packed.
    "noise.py": {"WithNoise.latent"},
    "pushforward.py": {f"Pushforward.{name}" for name in ("generator", "latent", "noise_scale")},
    # A warning when a gradient is taken, or while a graph is built.
    "training.py": {"warn_if_untrained"},
    "inspection.py": {
        "Dependencies",
        "HOW_TO_REGISTER",
        "find_dependencies",
        "find_unregistered",
        "never_seen",
    },
    # What a kernel keeps and is called is the host's protocol.
    "mcmc.py": {
        "AdaptState",
        "KernelState",
        "SamplerKernel.cleanup",
        "SamplerKernel.diagnostics",
        "SamplerKernel.get_diagnostics_str",
        "SamplerKernel.init",
        "SamplerKernel.initial_params",
        "SamplerKernel.logging",
        "SamplerKernel.postprocess_fn",
        "SamplerKernel.setup",
    },
    # Where chains stay from step to step: in Pyro's parameter store, at NumPyro's mutable sites.
    "chains.py": {"ChainStore", "DeclaredChains", "with_values"},
    # The inside of EnergyELBO: what a handler keeps and is called is the host's protocol.
    "sites.py": {"EnergySite", "EnergySites"},
}

# Methods that one host's protocol asks for and the other's lacks or spells otherwise.
HOST_METHODS = {
    # Pyro distributions and ELBOs
    "rsample",
    "score_parts",
    "has_rsample",
    "has_enumerate_support",
    "differentiable_loss",
    "loss_and_grads",
    "forward",
    # NumPyro distributions and ELBOs
    "tree_flatten",
    "tree_unflatten",
    "sample_with_intermediates",
    "loss_with_mutable_state",
    "infer_shapes",
    "log_prob",
    "is_discrete",
    # Both, with other arguments
    "sample",
    "expand",
    "loss",
}


def is_public(name: str) -> bool:
    return not name.startswith("_")


def names_of_arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ...]:
    arguments = function.args
    plain = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    starred = [f"*{arguments.vararg.arg}"] if arguments.vararg else []
    keyword_only = [a.arg for a in arguments.kwonlyargs]
    double = [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    names = [*plain, *starred, *keyword_only, *double]
    exempt = NUMPYRO_ARGUMENTS | PYRO_ARGUMENTS
    return tuple(n for n in names if is_public(n) and n not in exempt)


def without_receiver(method: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ...]:
    names = names_of_arguments(method)
    return names[1:] if names[:1] in {("self",), ("cls",)} else names


def surface_of_class(node: ast.ClassDef) -> dict[str, tuple[str, ...]]:
    """The class under its constructor's arguments (fields, in a dataclass), and its methods."""
    methods = {f.name: f for f in node.body if isinstance(f, ast.FunctionDef)}
    fields = [f.target.id for f in node.body if isinstance(f, ast.AnnAssign)]
    constructor = methods.get("__init__")
    arguments = without_receiver(constructor) if constructor else tuple(filter(is_public, fields))
    return {node.name: arguments} | {
        f"{node.name}.{name}": without_receiver(method)
        for name, method in methods.items()
        if is_public(name) and name not in HOST_METHODS
    }


def surface(source: str) -> dict[str, tuple[str, ...]]:
    """Public names of a module, each with its argument names; `__all__` with its entries."""
    found: dict[str, tuple[str, ...]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and is_public(node.name):
            found |= surface_of_class(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_public(node.name):
            found[node.name] = names_of_arguments(node)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            found["__all__"] = tuple(sorted(ast.literal_eval(node.value)))
    return found


def without(names: dict[str, tuple[str, ...]], exempt: Set[str]) -> dict[str, tuple[str, ...]]:
    """Leaves exempt names, their methods and their entries in `__all__` out."""
    kept = {name: a for name, a in names.items() if not {name, name.split(".")[0]} & exempt}
    if "__all__" in kept:
        kept["__all__"] = tuple(entry for entry in kept["__all__"] if entry not in exempt)
    return kept


def differences(pyro: str, numpyro: str, exempt: Set[str] = frozenset()) -> list[str]:
    """What the two sources of one module disagree on, one line each."""
    left, right = (without(surface(source), exempt) for source in (pyro, numpyro))
    return [
        f"{name}: pyro {left.get(name, 'lacks it')}, numpyro {right.get(name, 'lacks it')}"
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    ]


def modules(front_end: str) -> dict[str, Path]:
    folder = PACKAGE / front_end
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*.py"))}


def test_same_modules():
    assert "__init__.py" in modules("pyro")
    assert modules("pyro").keys() == modules("numpyro").keys()


@pytest.mark.parametrize("module", sorted(modules("pyro").keys() & modules("numpyro").keys()))
def test_same_names_and_arguments(module):
    sources = [modules(front_end)[module].read_text() for front_end in ("pyro", "numpyro")]
    assert differences(*sources, HOST_NAMES.get(module, set())) == []


def test_exempt_names_are_left_out():
    other = SOURCE.replace("draw", "walk")
    assert differences(SOURCE, other) != []
    assert differences(SOURCE, other, {"draw", "walk"}) == []


SOURCE = """
__all__ = ["Energy", "draw"]
class Energy(Base):
    def __init__(self, energy, *, scale=1.0): ...
    def potential(self, value): ...
    def sample(self, shape, _private=None): ...
    def _helper(self, anything): ...
class State(NamedTuple):
    value: Array
    energy: Array
def draw(state, *, step_size): ...
def _private(): ...
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def draw(state, *, step_size)", "def draw(rng_key, state, *, step_size)"),
        ("def sample(self, shape, _private=None)", "def sample(self, key, sample_shape)"),
        ("def _helper(self, anything)", "def _other(self)"),
        ("scale=1.0", "scale=2.0"),
        ('["Energy", "draw"]', '["draw", "Energy"]'),
        ("def sample(", "def tree_flatten(self): ...\n    def sample("),
    ],
)
def test_allowed_differences_pass(before, after):
    assert before in SOURCE
    assert differences(SOURCE, SOURCE.replace(before, after)) == []


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        ("step_size", "stepsize", "draw"),
        ("(state, *, step_size)", "(step_size, state)", "draw"),
        ("def draw", "def sample_chain", "draw"),
        ("def _private", "def public", "public"),
        ("energy, *, scale=1.0", "energy", "Energy"),
        ("def potential(self, value)", "def potential(self, x)", "Energy.potential"),
        ("class Energy(", "class EnergyModel(", "Energy"),
        ("    value: Array", "    position: Array", "State"),
        ('["Energy", "draw"]', '["Energy"]', "__all__"),
    ],
)
def test_planted_differences_are_found(before, after, name):
    assert before in SOURCE
    found = [line.split(":")[0] for line in differences(SOURCE, SOURCE.replace(before, after))]
    assert name in found
