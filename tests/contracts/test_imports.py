"""Imports: what they load, and errors when something is not installed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "jax", "pyro", "numpyro", "arviz", "matplotlib", "sklearn"}

BLOCK = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("module", ["", ".checkpoints", ".datasets", ".diagnostics", ".plots"])
def test_import_loads_no_framework(module):
    result = run(f"import sys, pyro_ebm{module}; print(*(m.split('.')[0] for m in sys.modules))")
    assert result.returncode == 0, result.stderr
    assert "pyro_ebm" in result.stdout
    assert HEAVY & set(result.stdout.split()) == set()


def test_core_is_arithmetic_on_arrays_of_any_library():
    core = Path(__file__).parents[2] / "pyro_ebm" / "core"
    nodes = [node for path in core.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    outside = {name for name in imported if not name.startswith("pyro_ebm.core")}
    assert {name.split(".")[0] for name in outside} - sys.stdlib_module_names == {
        "array_api_compat"
    }


@pytest.mark.parametrize(("extra", "blocked"), [("pyro", "torch"), ("numpyro", "jax")])
def test_missing_extra_is_named(extra, blocked):
    code = f"from pyro_ebm._extras import require_extra\nwith require_extra({extra!r}):\n"
    result = run(BLOCK.format(blocked={blocked}) + code + f"    import {blocked}")
    assert f"No module named '{blocked}'" in result.stderr
    assert f"pip install pyro-ebm[{extra}]" in result.stderr


@pytest.mark.parametrize(
    ("extra", "blocked"),
    [("pyro", "torch"), ("pyro", "pyro"), ("numpyro", "jax"), ("numpyro", "numpyro")],
)
def test_front_end_names_its_missing_extra(extra, blocked):
    result = run(BLOCK.format(blocked={blocked}) + f"import pyro_ebm.{extra}")
    assert f"No module named '{blocked}" in result.stderr
    assert f"pip install pyro-ebm[{extra}]" in result.stderr


@pytest.mark.parametrize(("extra", "other"), [("pyro", {"jax", "numpyro"}), ("numpyro", {"torch"})])
def test_front_end_needs_only_its_own_host(extra, other):
    result = run(BLOCK.format(blocked=other) + f"import pyro_ebm.{extra}")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("package", "blocked", "code"),
    [
        ("scikit-learn", "sklearn", "from pyro_ebm.datasets import digits; digits()"),
        (
            "matplotlib",
            "matplotlib",
            "import numpy as np; from pyro_ebm.plots import plot_energy_histogram;"
            "plot_energy_histogram(np.ones(2), np.ones(2))",
        ),
    ],
)
def test_missing_package_is_named(package, blocked, code):
    result = run(BLOCK.format(blocked={blocked}) + code)
    assert f"pip install {package}" in result.stderr
