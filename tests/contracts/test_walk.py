"""The way through a front end is short; the walk that measures it counts as its docstring says."""

from textwrap import dedent

import pytest
from contracts.walk import PACKAGE, walk


@pytest.mark.parametrize("host", ["pyro", "numpyro"])
def test_log_normalizer_stays_near_its_room(host):
    found = walk(PACKAGE / host, "log_normalizer")
    assert found.num_rooms <= 2
    assert found.num_returns <= 11


FILES = {
    "attic/start.py": """
        from package.host.cellar.box import Box, fill
        from package.host.garden import grow

        def start(box: Box):
            fill(box)
            box.open()
            fill(box)
            made = Box.empty()
            made.shake()
            return _middle(made)

        def _middle(made, grow=None):
            made.hide()
            return grow, made.depth
    """,
    "cellar/box.py": """
        from package.host.garden import grow

        class Lid:
            def shake(self):
                return 1

        class Box(Lid):
            depth: int

            def __init__(self):
                self.depth = 0

            @classmethod
            def empty(cls) -> "Box":
                return cls()

            def open(self):
                return grow()

            def hold(self): ...

            def hide(self):
                return 1

        def fill(box: Box):
            return box.hold()
    """,
    "garden.py": """
        def grow():
            return 1
    """,
}


def test_walk_follows_names_and_counts_stays(tmp_path):
    for name, source in FILES.items():
        path = tmp_path / "package" / "host" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source))
    found = walk(tmp_path / "package" / "host", "start")
    read = [line.split(": ")[1] for line in found.outline]
    made = ["Box.empty", "Box.__init__", "Lid.shake", "_middle"]
    assert read == ["start", "fill", "Box.open", "grow", *made]
    opened = ["cellar", "garden", "cellar"]
    assert found.stays == ["attic", "cellar", "attic", *opened, "attic", *2 * ["cellar", "attic"]]
    assert (found.num_rooms, found.num_returns) == (3, 8)
