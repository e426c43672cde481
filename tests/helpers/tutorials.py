"""Runs of the tutorials: a few steps of everything, with either host."""

import re
import runpy
import sys
from pathlib import Path

import matplotlib
import pytest

FOLDER = Path(__file__).parents[2] / "tutorials"


def of_host(host: str) -> list[Path]:
    """Tutorials of a host, in their order."""
    return sorted(FOLDER.glob(f"[0-9][0-9]_*_{host}.py"))


def check_run(tutorial: Path, figures: Path) -> None:
    """Run a tutorial fast: it warns of nothing and saves the figures that it shows."""
    with pytest.MonkeyPatch.context() as patch, matplotlib.rc_context():
        patch.setenv("PYRO_EBM_FAST", "1")
        patch.setenv("PYRO_EBM_FIGURES", str(figures))
        patch.syspath_prepend(str(FOLDER))
        patch.delitem(sys.modules, "_tutorial", raising=False)  # It reads the environment.
        runpy.run_path(str(tutorial))
    shown = re.findall(r'^ *show\("(\w+)"\)', tutorial.read_text(), flags=re.MULTILINE)
    assert shown
    assert sorted(path.stem for path in figures.iterdir()) == sorted(shown)


def outline(tutorial: Path) -> list[str]:
    """Kinds of the cells of a tutorial, with the headings in them."""
    return re.findall(r"^# (?:%%.*|#+ .*)$", tutorial.read_text(), flags=re.MULTILINE)
