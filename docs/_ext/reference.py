"""Directives that document the package by folder, each name once.

``.. public:: pyro objectives`` documents what `pyro_ebm.pyro` exports from that folder,
``.. shared:: objectives`` what both hosts export and neither defines, ``.. core:: objectives`` the
parts of the core that docstrings lead to; ``.. names:: objectives`` links to the names of a host.
"""

import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import pyro_ebm

HOSTS = {"pyro": "Pyro", "numpyro": "NumPyro"}
FOLDERS = ("distributions", "objectives", "samplers", "infer", "model", "evidence")

# Folders of what lies outside of them.
PLACES = {
    "columns": "distributions",
    "column_perturbations": "objectives",
    "diagnostics": "infer",
    "optim": "infer",
}


def folder_of(item: Any) -> str:
    """Folder of a public class or function."""
    parts = item.__module__.split(".")
    (folder,) = [part for part in parts if part in FOLDERS] or [PLACES[parts[-1]]]
    return folder


def public_names(host: str, folder: str) -> dict[str, Any]:
    """Names that a host exports from a folder, in the order of the alphabet."""
    module = importlib.import_module(f"pyro_ebm.{host}")
    items = {name: getattr(module, name) for name in sorted(module.__all__, key=str.lower)}
    return {name: item for name, item in items.items() if folder_of(item) == folder}


def path_of(host: str, name: str, item: Any) -> str:
    """Name under which an item is documented: that of its host, or its own if hosts share it."""
    is_shared = not item.__module__.startswith(f"pyro_ebm.{host}.")
    return f"{item.__module__}.{name}" if is_shared else f"pyro_ebm.{host}.{name}"


def host_bases(cls: type) -> str:
    """Names of the base classes of the host, whose members are left out."""
    ours = ("pyro_ebm", "builtins", "abc")
    theirs = (base for base in cls.__mro__ if not base.__module__.startswith(ours))
    return ", ".join(base.__name__ for base in theirs) or "object"


def entry(path: str, item: Any) -> list[str]:
    """Directive of one name."""
    if not inspect.isclass(item):
        return [f".. autofunction:: {path}", ""]
    return [
        f".. autoclass:: {path}",
        "   :members:",
        f"   :inherited-members: {host_bases(item)}",
        "",
    ]


@cache
def core_names() -> dict[str, Any]:
    """Parts of the core that a host's class derives from, or that a docstring refers to."""
    sources = [path.read_text() for path in Path(pyro_ebm.__path__[0]).rglob("*.py")]
    paths = set(re.findall(r":\w+:`~?(pyro_ebm\.core\.[\w.]+)`", "".join(sources)))
    for host in HOSTS:
        for folder in FOLDERS:
            for item in public_names(host, folder).values():
                bases = [base for base in getattr(item, "__mro__", ()) if base is not item]
                paths |= {f"{base.__module__}.{base.__qualname__}" for base in bases}
    found = {}
    for path in sorted(paths):
        module, _, name = path.rpartition(".")
        if path.startswith("pyro_ebm.core.") and name[0] != "_" and name not in FOLDERS:
            item = getattr(importlib.import_module(module), name)
            if inspect.isclass(item) or inspect.isfunction(item):
                found[path] = item
    return found


class Listing(SphinxDirective):
    """Base of the directives: reStructuredText from arguments."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        for host in HOSTS:  # New names make a page out of date.
            self.env.note_dependency(importlib.import_module(f"pyro_ebm.{host}").__file__)
        return self.parse_text_to_nodes("\n".join(self.lines(*self.arguments)))

    def lines(self, *arguments: str) -> list[str]:
        raise NotImplementedError


class Public(Listing):
    """Documentation of what a host defines in one folder, and links to what hosts share."""

    required_arguments = 2

    def lines(self, host: str, folder: str) -> list[str]:
        lines, shared = [f".. py:currentmodule:: pyro_ebm.{host}", ""], []
        for name, item in public_names(host, folder).items():
            path = path_of(host, name, item)
            if path.startswith(f"pyro_ebm.{host}."):
                lines += entry(path, item)
            else:
                shared.append(f":py:obj:`{name} <{path}>`")
        return [*lines, "", f"The same on both hosts: {', '.join(shared)}." if shared else ""]


class Shared(Listing):
    """Documentation of what both hosts export from one folder and neither defines."""

    def lines(self, folder: str) -> list[str]:
        items = public_names("pyro", folder).items()
        paths = {path_of("pyro", name, item): item for name, item in items}
        found = {path: item for path, item in paths.items() if path.split(".")[1] != "pyro"}
        return [line for path, item in found.items() for line in entry(path, item)]


class Core(Listing):
    """Documentation of the parts of one folder of the core."""

    def lines(self, folder: str) -> list[str]:
        shared = {path_of(h, n, i) for h in HOSTS for n, i in public_names(h, folder).items()}
        found = core_names().items()
        entries = [
            entry(path, item)
            for path, item in found
            if path.split(".")[2] == folder and path not in shared
        ]
        return [line for lines in entries for line in lines]


class Names(Listing):
    """Links to the public names of a folder, by host."""

    def lines(self, folder: str) -> list[str]:
        lines = []
        for host, title in HOSTS.items():
            items = public_names(host, folder).items()
            links = (f":py:obj:`{name} <{path_of(host, name, item)}>`" for name, item in items)
            lines += [f"* {title}: " + ", ".join(links)]
        return lines


def _is_front(cls: type) -> bool:
    return cls.__module__.startswith(tuple(f"pyro_ebm.{host}." for host in HOSTS))


def inherit_docstring(
    app: Sphinx, what: str, name: str, item: Any, options: Any, lines: list[str]
) -> None:
    """Put formula, arguments and references of the core beneath the words of a host's class."""
    if not (inspect.isclass(item) and _is_front(item)):
        return
    bases = (base for base in item.__mro__[1:] if base.__module__.startswith("pyro_ebm."))
    core = next((base for base in bases if not _is_front(base) and base.__doc__), None)
    if core is not None:
        _, *rest = inspect.getdoc(core).splitlines()
        sections = ("Args:", "Example:", "Raises:", "Warns:", "Attributes:")
        start = next((k for k, line in enumerate(lines) if line in sections), len(lines))
        lines[start:start] = ["", *rest, ""]


def hide_bases(app: Sphinx, name: str, item: Any, options: Any, bases: list[Any]) -> None:
    """Leave out private bases, whose own bases stand for them, and `object`."""
    while any(base.__name__.startswith("_") for base in bases):
        place = next(k for k, base in enumerate(bases) if base.__name__.startswith("_"))
        bases[place : place + 1] = bases[place].__bases__
    bases[:] = [base for base in bases if base is not object]


def setup(app: Sphinx) -> dict[str, bool]:
    for directive in (Public, Shared, Core, Names):
        app.add_directive(directive.__name__.lower(), directive)
    # Before napoleon reads the sections.
    app.connect("autodoc-process-docstring", inherit_docstring, priority=100)
    app.connect("autodoc-process-bases", hide_bases)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
