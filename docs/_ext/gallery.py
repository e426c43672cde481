"""Directive that shows the tutorials as cards, with a link for each host: ``{gallery}``."""

import re
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

HOSTS = {"pyro": "Pyro", "numpyro": "NumPyro"}


def tutorials(folder: Path) -> dict[str, dict[str, Path]]:
    """Files by name without host, and by host."""
    found: dict[str, dict[str, Path]] = {}
    for host in HOSTS:
        for path in sorted(folder.glob(f"[0-9][0-9]_*_{host}.py")):
            found.setdefault(path.stem.removesuffix(f"_{host}"), {})[host] = path
    return dict(sorted(found.items()))


def opening(path: Path) -> tuple[str, str]:
    """Title and first paragraph of a tutorial."""
    text = path.read_text().split("# %% [markdown]\n", 1)[1]
    lines = [re.sub("^# ?", "", line) for line in text.splitlines()]
    title, paragraph, *_ = "\n".join(lines).split("\n\n")
    return title.removeprefix("# ").strip(), " ".join(paragraph.split())


class Gallery(SphinxDirective):
    """Cards of all tutorials."""

    def run(self) -> list[nodes.Node]:
        lines = ["::::{grid} 1 1 2 2", ":gutter: 3", ""]
        for files in tutorials(Path(self.env.srcdir, "tutorials")).values():
            title, paragraph = opening(next(iter(files.values())))
            links = (f"{{doc}}`{HOSTS[host]} <tutorials/{files[host].stem}>`" for host in files)
            lines += [f":::{{grid-item-card}} {title}", paragraph, "", " · ".join(links), ":::"]
        container = nodes.container()
        self.state.nested_parse(StringList([*lines, "::::"], "gallery"), 0, container)
        return container.children


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("gallery", Gallery)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
