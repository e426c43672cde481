"""Calls of the package in texts pass arguments that it has."""

import ast
import re
from collections.abc import Iterator

from contracts.test_parity import ROOT, WINGS, surface

_PAGES = ("README.md", "docs/**/*.md", "tutorials/*.py", "pyro_ebm/**/*.py")
_FENCED = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+\([^`\n]*\))`")


def calls(text: str) -> Iterator[ast.Call]:
    """Calls in code and in words between backticks, by a name alone or one of ``ebm``."""
    for code in _FENCED.findall(text) + _INLINE.findall(text):
        try:
            nodes = list(ast.walk(ast.parse(code)))
        except SyntaxError:  # Words, or a part of a line.
            continue
        yield from (node for node in nodes if isinstance(node, ast.Call))


def wrong_keywords(call: ast.Call) -> set[str]:
    """Keywords that no host has; none where the call is of something else."""
    name = ast.unparse(call.func).removeprefix("ebm.")
    hosts = [surface(wing)[name]["arguments"] for wing in WINGS if name in surface(wing)]
    known = set().union(*hosts)
    is_open = not hosts or any(argument.startswith("**") for argument in known)
    return set() if is_open else {k.arg for k in call.keywords if k.arg} - known


def test_keywords_are_known():
    pages = [path for pattern in _PAGES for path in ROOT.glob(pattern)]
    found = [(page.name, call) for page in pages for call in calls(page.read_text())]
    wrong = [(name, ast.unparse(call)) for name, call in found if wrong_keywords(call)]
    assert wrong == []
    assert len(found) > 500
