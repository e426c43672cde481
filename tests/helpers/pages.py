"""Code of the pages of the documentation, run by the tests of either host.

The blocks of a page are one script: those outside of tabs, and those in the tabs of a host. A line
that ends in ``# ValueError: some words`` must raise, and one in ``# UserWarning: some words`` must
warn. Long runs, of ``1_000`` steps or more, take two steps here.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
TITLES = {"pyro": "Pyro", "numpyro": "NumPyro"}

_TROUBLE = re.compile(r"^( *)(\S.*?)  # (\w+(Error|Warning)): (.*)$", flags=re.MULTILINE)


def pages() -> list[str]:
    """Names of pages with code in tabs for each host."""
    paths = sorted(DOCS.glob("**/*.md"))
    return [str(path.relative_to(DOCS)) for path in paths if "{tab-item}" in path.read_text()]


def script(page: str, host: str) -> str:
    """Code of a page for a host, as a reader sees it."""
    return "".join(_lines((DOCS / page).read_text(), TITLES[host]))


def run(page: str, host: str, *, shorten: bool = True) -> dict[str, Any]:
    """Run a page for a host, and return its variables."""
    code = script(page, host)
    assert code, f"Expected {page} to have code for {TITLES[host]}."
    if shorten:
        code = re.sub(r"\b\d+_000\b", "2", code)
    names: dict[str, Any] = {"__name__": page, "_pytest": pytest, "_re": re}
    with TemporaryDirectory() as folder, chdir(folder), warnings.catch_warnings():
        # After two steps of training nothing is right yet.
        warnings.simplefilter("ignore")
        exec(compile(_TROUBLE.sub(_expected, code), page, "exec"), names)
    return names


def _lines(text: str, title: str) -> Iterator[str]:
    shown, in_block = True, False
    for line in text.splitlines(keepends=True):
        if line.startswith(":::{tab-item}"):
            shown = line.split()[1] == title
        elif line.strip() == ":::":
            shown = True
        if line.startswith("```"):
            in_block = line.strip() == "```python"
        elif in_block and shown:
            yield line


def _expected(found: re.Match[str]) -> str:
    """Statement inside of a check that it raises, or warns."""
    indent, statement, category, kind, text = found.groups()
    check = "raises" if kind == "Error" else "warns"
    match = f"match=_re.escape({text.removesuffix(' ...')!r})"
    return f"{indent}with _pytest.{check}({category}, {match}): {statement}"


if __name__ == "__main__":
    import sys
    import time

    for page in sys.argv[2:] or pages():
        start = time.process_time()
        run(page, sys.argv[1], shorten=False)
        print(f"{page} on {sys.argv[1]}: {time.process_time() - start:.0f} s of CPU time")
