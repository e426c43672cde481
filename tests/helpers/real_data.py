"""Where tests find the real tables: in PYRO_EBM_DATA, else in shared/data beside the project."""

import os
from pathlib import Path

import pytest

_beside = Path(__file__).parents[3] / "shared" / "data"
if _beside.is_dir():
    os.environ.setdefault("PYRO_EBM_DATA", str(_beside))

needs_tables = pytest.mark.skipif(
    "PYRO_EBM_DATA" not in os.environ,
    reason="the environment variable PYRO_EBM_DATA names no folder with the real tables",
)
