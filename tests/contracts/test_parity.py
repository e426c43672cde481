"""Both front ends offer the same files, names, arguments and defaults, all of them documented."""

import json
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WINGS = ("pyro", "numpyro")

# JAX passes randomness and parameters in; torch keeps them in global state, and compiles if asked.
HOST_ARGUMENTS = {"rng_key", "key", "param_map", "params", "compile_steps"}

# Pyro has optimizers that optax has too, processes, and the autograd graph; JAX is handed
# parameters, and has no marks on arrays, but arrays on meshes.
HOST_FILES = {
    "pyro": {
        Path("optim.py"),
        Path("infer/processes.py"),
        Path("distributions/graph.py"),
    },
    "numpyro": {
        Path("distributions/probe.py"),
        Path("distributions/scanned.py"),
        Path("infer/meshes.py"),
        Path("model/parameters.py"),
        Path("model/provenance.py"),
    },
}

HOST_NAMES = {
    # NumPyro users have `optax.conditionally_mask`, and `lax.pmean` in an `optax.stateless`.
    "step_when",
    "AllReduce",
    # Entries of Pyro's ELBOs that its base class does not declare.
    "EnergyELBO.differentiable_loss",
    "EnergyELBO.loss_and_grads",
    # Attributes of an instance on Pyro; distributions of JAX keep arrays and settings apart.
    "Joint.parts",
    "Pushforward.generator",
    "Pushforward.latent",
    "Pushforward.noise_scale",
}

Surface = Mapping[str, Mapping[str, Any]]


@cache
def surface(wing: str) -> Surface:
    command = [sys.executable, str(Path(__file__).with_name("surface.py")), wing]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def files(wing: str) -> set[Path]:
    folder = ROOT / "pyro_ebm" / wing
    return {path.relative_to(folder) for path in folder.rglob("*.py")}


def is_compared(name: str, surfaces: tuple[Surface, ...]) -> bool:
    """Whether a name is ours on both sides, and not a part of a host's protocol on one."""
    is_of_a_host = any(side.get(name, {}).get("is_of_the_host") for side in surfaces)
    return not is_of_a_host and not {name, name.split(".")[0]} & HOST_NAMES


def shared(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments in order, with defaults, but the host's own; classes of the core below."""
    given = (entry.get("arguments") or {}).items()
    arguments = [(name, default) for name, default in given if name not in HOST_ARGUMENTS]
    return {"arguments": arguments, "settings": entry.get("settings")}


def differences(*surfaces: Surface) -> list[str]:
    """Names that the sides disagree on."""
    left, right = surfaces
    names = {name for name in left.keys() | right.keys() if is_compared(name, surfaces)}
    missing = left.keys() ^ right.keys()
    return sorted(n for n in names if n in missing or shared(left[n]) != shared(right[n]))


def test_same_files():
    pyro, numpyro = (files(wing) - HOST_FILES[wing] for wing in WINGS)
    assert pyro == numpyro


def test_same_names_arguments_and_settings():
    assert differences(*map(surface, WINGS)) == []


def test_no_exemption_is_out_of_date():
    assert set().union(*map(surface, WINGS)) >= HOST_NAMES


@pytest.mark.parametrize("wing", WINGS)
def test_everything_public_is_documented(wing):
    assert [name for name, entry in surface(wing).items() if not entry["is_documented"]] == []


# --- the comparison itself ---


def entry(names: str = "state step_size", **others: Any) -> Surface:
    return {"draw": {"arguments": dict.fromkeys(names.split(), "required")} | others}


@pytest.mark.parametrize(
    "other",
    [
        entry("rng_key state step_size"),
        entry("rng_key param_map state step_size"),
        entry("anything", is_of_the_host=True),
        entry() | {"step_when": {"arguments": {}}},
    ],
)
def test_allowed_differences_pass(other):
    assert differences(entry(), other) == []


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (entry("state stepsize"), ["draw"]),
        (entry("step_size state"), ["draw"]),
        (entry(settings=["MALA"]), ["draw"]),
        (entry(arguments={"state": "required", "step_size": "0.1"}), ["draw"]),
        (entry() | {"walk": {"arguments": {}}}, ["walk"]),
        ({}, ["draw"]),
    ],
)
def test_planted_differences_are_found(other, expected):
    assert differences(entry(), other) == expected
