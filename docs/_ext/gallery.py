"""Directives that find tutorials by name: ``{gallery}`` of notebooks, ``{scripts}`` to download."""

import ast
import re
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

HOSTS = {"pyro": "Pyro", "numpyro": "NumPyro"}


def tutorials(folder: Path, pattern: str) -> dict[str, dict[str, Path]]:
    """Files by name without host, and by host."""
    found: dict[str, dict[str, Path]] = {}
    for host in HOSTS:
        for path in sorted(folder.glob(f"{pattern}_{host}.py")):
            found.setdefault(path.stem.removesuffix(f"_{host}"), {})[host] = path
    return dict(sorted(found.items()))


def opening(path: Path) -> tuple[str, str]:
    """Title and first paragraph of a tutorial."""
    text = path.read_text().split("# %% [markdown]\n", 1)[1]
    lines = [re.sub("^# ?", "", line) for line in text.splitlines()]
    title, paragraph, *_ = "\n".join(lines).split("\n\n")
    return title.removeprefix("# ").strip(), " ".join(paragraph.split())


def summary(path: Path) -> str:
    """First line of a script's docstring, or of its first cell of text."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    return docstring.splitlines()[0] if docstring else opening(path)[1].split(". ")[0] + "."


class _Found(SphinxDirective):
    """Base of the directives: Markdown from the files of a pattern."""

    pattern: str

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # Files come and go.
        found = tutorials(Path(self.env.srcdir, "tutorials"), self.pattern)
        container = nodes.container()
        self.state.nested_parse(StringList(self.lines(found), "tutorials"), 0, container)
        return container.children

    def links(self, role: str, files: dict[str, Path], suffix: str = "") -> str:
        """Links to the files of one name."""
        links = (f"{{{role}}}`{HOSTS[h]} <tutorials/{files[h].stem}{suffix}>`" for h in files)
        return " · ".join(links)


class Gallery(_Found):
    """Cards of all notebooks."""

    pattern = "[0-9][0-9]_*"

    def lines(self, found: dict[str, dict[str, Path]]) -> list[str]:
        lines = ["::::{grid} 1 1 2 2", ":gutter: 3", ""]
        for files in found.values():
            title, paragraph = opening(next(iter(files.values())))
            links = self.links("doc", files)
            lines += [f":::{{grid-item-card}} {title}", paragraph, "", links, ":::"]
        return [*lines, "::::"]


class Scripts(_Found):
    """List of the scripts beside them."""

    pattern = "[a-z]*"

    def lines(self, found: dict[str, dict[str, Path]]) -> list[str]:
        lines = []
        for name, files in found.items():
            links = self.links("download", files, ".py")
            lines += [f"* {name} ({links}): {summary(next(iter(files.values())))}"]
        return lines


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("gallery", Gallery)
    app.add_directive("scripts", Scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
