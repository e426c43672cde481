import os
import subprocess
import sys
from pathlib import Path

import pytest
import xarray

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("host", ["pyro", "numpyro"])
def test_demo_runs_and_leaves_its_files(host, tmp_path):
    command = [sys.executable, f"tutorials/digits_{host}.py", "--fast", "--output", str(tmp_path)]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "check": False}
    options["env"] = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    run = subprocess.run(command, **options)
    assert run.returncode == 0, run.stderr
    assert "Warning" not in run.stderr
    assert "What this means" in run.stdout
    assert "paired gain" in (tmp_path / "table.txt").read_text()
    for picture in ("digits.png", "posterior.png"):
        assert (tmp_path / picture).stat().st_size > 10_000
    posterior = xarray.open_datatree(tmp_path / "posterior.nc")["posterior"]
    assert posterior["z"].dims == ("chain", "draw", "image", "latent")
    assert posterior["z"].shape == (2, 10, 2, 16)
