"""What users of one front end see, as JSON: ``python tests/contracts/surface.py numpyro``.

Each host needs a process of its own.
"""

import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from typing import Any

STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def is_ours(item: Any) -> bool:
    return (getattr(item, "__module__", None) or "").split(".")[0] == "pyro_ebm"


def arguments(item: Any) -> dict[str, str] | None:
    """Names of arguments, with their defaults; None for what takes none."""
    if not callable(item):
        return None
    parameters = inspect.signature(item).parameters
    return {
        STARS.get(parameter.kind, "") + parameter.name: shown(parameter.default)
        for parameter in parameters.values()
        if parameter.name not in ("self", "cls")
    }


def shown(default: Any) -> str:
    """Default as text, without addresses."""
    if default is inspect.Parameter.empty:
        return "required"
    return getattr(default, "__name__", None) or repr(default)


def is_of_the_host(name: str, cls: type) -> bool:
    """Whether a base class from elsewhere has this method too."""
    return any(name in vars(base) for base in cls.__mro__[:-1] if not is_ours(base))


def methods(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties of our own, inherited ones too."""
    for name in dir(cls):
        item = inspect.getattr_static(cls, name)
        is_method = isinstance(item, property | classmethod | staticmethod) or callable(item)
        defined_here = any(name in vars(base) for base in cls.__mro__ if is_ours(base))
        if not name.startswith("_") and is_method and defined_here:
            yield name, getattr(cls, name)


def describe_class(name: str, cls: type) -> dict[str, Any]:
    described = {
        f"{name}.{method}": {
            "arguments": arguments(item),
            "is_documented": bool(inspect.getdoc(item)),
            "is_of_the_host": is_of_the_host(method, cls),
        }
        for method, item in methods(cls)
    }
    settings = [
        base.__name__ for base in cls.__mro__ if base.__module__.startswith("pyro_ebm.core")
    ]
    return described | {name: describe(cls) | {"settings": settings}}


def describe(item: Any) -> dict[str, Any]:
    return {"arguments": arguments(item), "is_documented": bool(inspect.getdoc(item))}


def surface(front_end: str) -> dict[str, dict[str, Any]]:
    """Everything exported and each of its public methods, by name."""
    module, found = importlib.import_module(f"pyro_ebm.{front_end}"), {}
    for name in module.__all__:
        item = getattr(module, name)
        found |= describe_class(name, item) if inspect.isclass(item) else {name: describe(item)}
    return found


if __name__ == "__main__":
    print(json.dumps(surface(sys.argv[1])))
