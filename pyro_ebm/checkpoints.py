"""Checkpoint files: safetensors with one JSON header, written whole or not at all.

Reading executes nothing: a file has arrays, numbers and words by name. The structure of a state,
with its classes and functions, is that of the run that loads it.
"""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pyro_ebm._state_trees import Fixed, Lazy, Leaves, is_array

# Version of the layout.
FORMAT = 1
# Key of the header in the metadata of a safetensors file.
_KEY = "pyro_ebm"
# Where a safetensors file has a brace, after the length of its header.
_BRACE = 8
_OTHERS = {b"PK\x03\x04": "a zip archive, as torch.save writes", b"\x80": "a pickle"}
_DTYPES = (
    *("bool", "bfloat16", "float16", "float32", "float64", "complex64"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
# A boolean is an integer to Python.
_KINDS = {bool: "a boolean", int | float: "a number", str: "a word", type(None): "None"}

FilePath = str | os.PathLike[str]


def write(
    path: FilePath,
    host: str,
    versions: Mapping[str, str],
    state: Mapping[str, Any],
    save: Callable[[Leaves, dict[str, str]], bytes],
) -> None:
    """Write a state, whole or not at all: :func:`save_checkpoint` of both hosts.

    It goes to a temporary file in the same folder, to the disk, and to its name. A process that is
    killed leaves the old file, and perhaps a temporary one, ``.name.*.tmp``.

    Args:
        path: Name of the file; one that exists is replaced. Processes that train together need a
            name each, such as ``f"run_{rank}.safetensors"``: chains and random numbers differ.
        host: ``"pyro"`` or ``"numpyro"``.
        versions: Versions of packages, for the record.
        state: Arrays that ``save`` takes, numbers, words and None, by name.
        save: ``safetensors.torch.save`` or its like.

    Raises:
        TypeError: If a leaf is something else, a function for example, or has numbers of a type
            that is not in the format. The old file stays.
    """
    for name, leaf in state.items():
        _check_leaf(name, leaf)
    arrays = {name: leaf for name, leaf in state.items() if is_array(leaf)}
    values = {name: leaf for name, leaf in state.items() if name not in arrays}
    header = {"format": FORMAT, "host": host, "versions": dict(versions), "values": values}
    # A link stays a link.
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    content = save(arrays, {_KEY: json.dumps(header, sort_keys=True)})
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_names(target.parent)


def read(path: FilePath, host: str, framework: str) -> Leaves:
    """Return what a file has by name, arrays as safetensors makes them for a framework.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is no whole file of :func:`write` (but a pickle, for example), or one of
            another host or of another version of the layout.
    """
    path = os.fspath(path)
    _check_start(path)
    try:
        with safe_open(path, framework) as file:
            # Of this very file; another may have its name by now.
            values = _header(path, host, file.metadata() or {})["values"]
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _check_doubles(path)
    # The last two: frameworks lack some of the numbers that a file may have.
    except (SafetensorError, AttributeError, TypeError) as error:
        raise ValueError(f"Expected {path!r} to be a checkpoint, got: {error}") from error
    for name in arrays.keys() & values.keys():
        raise ValueError(f"Expected {name} once in {path!r}, got it as an array and as a value.")
    return arrays | values


def match(path: FilePath, file: Mapping[str, Any], run: Mapping[str, Any], advice: str) -> Leaves:
    """Return the leaves of a file by the names of a run; lazy ones become dictionaries.

    Args:
        path: Name of the file.
        file: Leaves of the file.
        run: Leaves of the run.
        advice: A sentence for leaves that one of them lacks.

    Raises:
        ValueError: If the file is of another model: a leaf is missing or too many, or has another
            shape, type of numbers, kind or fixed text. The error has its name.
    """
    path = os.fspath(path)
    groups: dict[str, Leaves] = {name: {} for name, leaf in run.items() if isinstance(leaf, Lazy)}
    for name, leaf in file.items():
        owner, _, key = name.rpartition(".")
        if owner in groups:
            groups[owner][key] = leaf
    expected: Leaves = {}
    for name, leaf in run.items():
        expected |= _settled(name, leaf, groups[name]) if name in groups else {name: leaf}
    missing = [name for name in expected if name not in file]
    surplus = [name for name in file if name not in expected]
    if missing:
        raise ValueError(f"Expected {_some(missing)} in {path!r}, got none. {advice}")
    if surplus:
        raise ValueError(
            f"Expected nothing in {path!r} that this run does not have, got {_some(surplus)}. "
            f"{advice}"
        )
    for name, leaf in expected.items():
        if (got := _describe(file[name], leaf)) != (wanted := _describe(leaf, leaf)):
            raise ValueError(f"Expected {name} to be {wanted}, got {got} in {path!r}.")
    return {name: groups[name] if name in groups else file[name] for name in run}


def _check_leaf(name: str, leaf: Any) -> None:
    if is_array(leaf):
        dtype = str(leaf.dtype).removeprefix("torch.")
        if dtype not in _DTYPES:
            raise TypeError(f"Expected arrays of {', '.join(_DTYPES)}, got {dtype} at {name}.")
    elif _kind(leaf) is None:
        raise TypeError(
            "Expected arrays, numbers, words and None in `state`, got "
            f"{type(leaf).__name__} at {name}."
        )


def _settled(name: str, lazy: Lazy, group: Leaves) -> Leaves:
    """Leaves that a file should have, as it has some."""
    if lazy.present and group:
        return lazy.named(name)
    shapes = (), tuple(lazy.like.shape)
    return {
        f"{name}.{key}": lazy.like if is_array(leaf) and tuple(leaf.shape) not in shapes else leaf
        for key, leaf in group.items()
    }


def _describe(leaf: Any, like: Any) -> str:
    if is_array(leaf):
        return f"an array of shape {tuple(leaf.shape)} and {leaf.dtype}"
    return repr(str(leaf)) if isinstance(like, Fixed) else str(_kind(leaf))


def _kind(value: Any) -> str | None:
    return next((kind for types, kind in _KINDS.items() if isinstance(value, types)), None)


def _some(names: list[str]) -> str:
    more = len(names) - 3
    return ", ".join(name[:200] for name in names[:3]) + (f" and {more} more" if more > 0 else "")


def _brief(value: Any) -> str:
    return f"{value!r:.200}"


def _check_start(path: str) -> None:
    with open(path, "rb") as file:
        start = file.read(_BRACE + 1)
    # The length of a header may begin with any byte, that of a pickle too.
    if start[_BRACE:] == b"{":
        return
    kinds = [kind for magic, kind in _OTHERS.items() if start.startswith(magic)]
    got = f"{kinds[0]}, which is never loaded: it could run any program" if kinds else "another"
    raise ValueError(f"Expected {path!r} to be a file of `save_checkpoint`, got {got}.")


def _header(path: str, host: str, metadata: Mapping[str, str]) -> Leaves:
    header = _parse(path, metadata.get(_KEY, "null"))
    if not isinstance(header, dict) or not isinstance(header.get("values"), dict):
        raise ValueError(f"Expected {path!r} to have the header of `save_checkpoint`, got another.")
    if header.get("format") != FORMAT:
        raise ValueError(
            f"Expected format {FORMAT} in {path!r}, got {_brief(header.get('format'))}, of "
            f"{_brief(header.get('versions'))}."
        )
    if header.get("host") != host:
        got = _brief(header.get("host"))
        raise ValueError(f"Expected a checkpoint of {host!r} in {path!r}, got {got}.")
    for name, value in header["values"].items():
        if _kind(value) is None:
            raise ValueError(
                f"Expected {name:.200} in {path!r} to be a number or a word, got {_brief(value)}."
            )
    return header


def _check_doubles(path: str) -> None:
    """Raise if two arrays have one name: safetensors would drop the first."""
    with open(path, "rb") as file:
        _parse(path, file.read(int.from_bytes(file.read(_BRACE), "little")))


def _parse(path: str, text: str | bytes) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected a header of JSON in {path!r}, got: {error}") from error


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a name twice among {_brief([name for name, _ in pairs])}")
    return found


def _flush_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where a system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
