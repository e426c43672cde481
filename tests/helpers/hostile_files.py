"""Files that a checkpoint must not be mistaken for: broken, hostile, or of another run."""

import gzip
import io
import json
import pickle
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

NAME = "state['a']"
MARK = "executed"


@dataclass
class Parts:
    """Parts of a checkpoint.

    Attributes:
        header: Entries of the safetensors header, with the metadata.
        ours: The header of the checkpoint.
        data: Numbers of all arrays.
    """

    header: dict[str, Any]
    ours: dict[str, Any]
    data: bytes

    @classmethod
    def of(cls, file: bytes) -> "Parts":
        (length,) = struct.unpack("<Q", file[:8])
        header = json.loads(file[8 : 8 + length])
        ours = json.loads(header.pop("__metadata__")["pyro_ebm"])
        return cls(header, ours, file[8 + length :])

    def packed(self) -> bytes:
        return self.with_ours(json.dumps(self.ours))

    def with_ours(self, text: str) -> bytes:
        return self.with_metadata({"pyro_ebm": text})

    def with_metadata(self, metadata: Any) -> bytes:
        return self.with_header(json.dumps({"__metadata__": metadata, **self.header}).encode())

    def with_header(self, text: bytes, length: int | None = None) -> bytes:
        length = len(text) if length is None else length
        return struct.pack("<Q", length) + text + self.data

    def with_entry(self, **changes: Any) -> bytes:
        self.header[NAME] |= changes
        return self.packed()

    def with_changes(self, **changes: Any) -> bytes:
        self.ours |= changes
        return self.packed()

    def with_values(self, **changes: Any) -> bytes:
        self.ours["values"] |= {f"state[{name!r}]": value for name, value in changes.items()}
        return self.packed()

    def without(self, name: str) -> bytes:
        del self.ours[name]
        return self.packed()

    def with_array(self, name: str, dtype: str = "F32", shape: tuple[int, ...] = (1,)) -> bytes:
        at = len(self.data)
        self.data += bytes(4)
        self.header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + 4]}
        return self.packed()

    def renamed(self, name: str) -> bytes:
        self.header[name] = self.header.pop(NAME)
        return self.packed()


class _Attack:
    """A pickle of it would leave a mark where it is loaded."""

    def __reduce__(self) -> Any:
        return open, (MARK, "w")


def _pickled(protocol: int) -> bytes:
    return pickle.dumps({"params": _Attack()}, protocol)


def _zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.ones(3))
    return file.getvalue()


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([_Attack()]), allow_pickle=True)
    return file.getvalue()


def _twice(parts: Parts, name: str) -> bytes:
    """A name twice in the header."""
    text = json.dumps({"__metadata__": {"pyro_ebm": json.dumps(parts.ours)}, **parts.header})
    entry = json.dumps(
        {"__metadata__": {}} if name == "__metadata__" else {NAME: parts.header[NAME]}
    )
    return parts.with_header(f"{text[:-1]}, {entry[1:]}".encode())


_ZIP, _PICKLE, _OTHER = "got a zip archive", "got a pickle, which is never loaded", "got another"
_BROKEN, _HEADER = "to be a checkpoint, got: ", "to have the header of `save_checkpoint`"

# By name: makes the file of the parts of a good one; what the error has.
KINDS = {
    # Other files.
    "empty": (lambda p: b"", _OTHER),
    "one byte": (lambda p: b"{", _OTHER),
    "zeros": (lambda p: bytes(1000), _OTHER),
    "noise": (lambda p: np.random.default_rng(0).bytes(1000), _OTHER),
    "text": (lambda p: b"Not a checkpoint, but a letter.", _OTHER),
    "JSON": (lambda p: json.dumps(p.header).encode(), _OTHER),
    "HTML": (lambda p: b"<!DOCTYPE html><html>404</html>", _OTHER),
    "pointer of Git LFS": (lambda p: b"version https://git-lfs.github.com/spec/v1\n", _OTHER),
    "program": (lambda p: b"\x7fELF" + bytes(1000), _OTHER),
    "HDF5": (lambda p: b"\x89HDF\r\n\x1a\n" + bytes(100), _OTHER),
    "npy with a pickle": (lambda p: _npy(), _OTHER),
    "gzip": (lambda p: gzip.compress(p.packed()), _OTHER),
    "npz": (lambda p: _npz(), _ZIP),
    "zip as of torch.save": (lambda p: _zipped("archive/data.pkl", _pickled(2)), _ZIP),
    "zip bomb": (lambda p: _zipped("bomb", bytes(10**7)), _ZIP),
    "zip that climbs": (lambda p: _zipped(f"../../{MARK}", b"x"), _ZIP),
    "pickle of protocol 0": (lambda p: _pickled(0), _OTHER),
    "pickle of protocol 1": (lambda p: _pickled(1), _OTHER),
    **{
        f"pickle of protocol {i}": (lambda p, i=i: _pickled(i), _PICKLE)
        for i in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
    "pickle with a brace": (lambda p: b"\x80\x02" + b"0" * 6 + b"{" + _pickled(2), _BROKEN),
    # Lengths.
    "a header's half": (lambda p: p.packed()[:100], _BROKEN),
    "half of the data": (lambda p: p.packed()[: -len(p.data) // 2], _BROKEN),
    "one byte less": (lambda p: p.packed()[:-1], _BROKEN),
    "one byte more": (lambda p: p.packed() + b"x", _BROKEN),
    "a pickle behind": (lambda p: p.packed() + _pickled(2), _BROKEN),
    "a header of no bytes": (lambda p: p.with_header(b"{}", 0), _BROKEN),
    "a header of 2^63 bytes": (lambda p: p.with_header(b"{}", 2**63), _BROKEN),
    "a header of 2^64 - 1 bytes": (lambda p: p.with_header(b"{}", 2**64 - 1), _BROKEN),
    "a header longer than the file": (lambda p: p.with_header(b"{}", 10**6), _BROKEN),
    "a header that ends early": (lambda p: p.with_header(p.packed()[8:], 50), _BROKEN),
    # The header of safetensors.
    "a list": (lambda p: p.with_header(b"[1, 2]"), _OTHER),
    "no JSON": (lambda p: p.with_header(b"{'a': 1}"), _BROKEN),
    "no Unicode": (lambda p: p.with_header(b'{"\xff\xfe": 1}'), _BROKEN),
    "nested deeply": (lambda p: p.with_header(b'{"a":' * 10**5), _BROKEN),
    "an array twice": (lambda p: _twice(p, NAME), "a name twice"),
    "metadata twice": (lambda p: _twice(p, "__metadata__"), _BROKEN),
    "metadata of numbers": (lambda p: p.with_metadata({"pyro_ebm": 1}), _BROKEN),
    "metadata as a list": (lambda p: p.with_metadata(["pyro_ebm"]), _BROKEN),
    "no metadata": (lambda p: p.with_header(json.dumps(p.header).encode()), _HEADER),
    "metadata of others": (lambda p: p.with_metadata({"format": "pt"}), _HEADER),
    # Arrays.
    "offsets that overlap": (lambda p: p.with_entry(data_offsets=[4, 28]), _BROKEN),
    "offsets in reverse": (lambda p: p.with_entry(data_offsets=[24, 0]), _BROKEN),
    "offsets beyond the end": (lambda p: p.with_entry(data_offsets=[10**9, 10**9 + 24]), _BROKEN),
    "a negative offset": (lambda p: p.with_entry(data_offsets=[-24, 0]), _BROKEN),
    "a negative shape": (lambda p: p.with_entry(shape=[-2, -3]), _BROKEN),
    "a shape of fractions": (lambda p: p.with_entry(shape=[2.0, 3.0]), _BROKEN),
    "a shape of NaN": (lambda p: p.with_entry(shape=[float("nan"), 3]), _BROKEN),
    "a shape without end": (lambda p: p.with_entry(shape=[2**40, 2**40]), _BROKEN),
    "a shape of other size": (lambda p: p.with_entry(shape=[2, 4]), _BROKEN),
    "unknown numbers": (lambda p: p.with_entry(dtype="F99"), _BROKEN),
    "Python objects": (lambda p: p.with_entry(dtype="object"), _BROKEN),
    "numbers of 4 bits": (lambda p: p.with_entry(dtype="F4", shape=[2, 24]), "Expected"),
    "numbers of 8 bits": (lambda p: p.with_entry(dtype="F8_E8M0", shape=[2, 12]), "Expected"),
    # Our header.
    "a header that is no JSON": (lambda p: p.with_ours("import os"), "Expected a header of JSON"),
    "an empty header": (lambda p: p.with_ours(""), "Expected a header of JSON"),
    "a header nested deeply": (lambda p: p.with_ours("[" * 10**5), "Expected a header of JSON"),
    "a header with a long number": (
        lambda p: p.with_ours("9" * 10**4),
        "Expected a header of JSON",
    ),
    "a name twice in the header": (
        lambda p: p.with_ours('{"format": 1, "format": 1}'),
        "a name twice",
    ),
    "a header that is a list": (lambda p: p.with_ours("[1]"), _HEADER),
    "a header that is a word": (lambda p: p.with_ours('"format"'), _HEADER),
    "no values": (lambda p: p.without("values"), _HEADER),
    "values in a list": (lambda p: p.with_changes(values=[1]), _HEADER),
    "no format": (lambda p: p.without("format"), "Expected format 1 .* got None"),
    "a later format": (lambda p: p.with_changes(format=2), "Expected format 1 .* got 2"),
    "a format in words": (lambda p: p.with_changes(format="1"), "Expected format 1 .* got '1'"),
    "a format without end": (lambda p: p.with_changes(format="1" * 10**6), "Expected format 1"),
    "versions without end": (
        lambda p: p.with_changes(format=2, versions="1" * 10**6),
        "Expected format 1 .* got 2",
    ),
    "a format of NaN": (lambda p: p.with_changes(format=float("nan")), "Expected format 1"),
    "no host": (lambda p: p.without("host"), "Expected a checkpoint of 'n?u?m?pyro' .*, got None"),
    "the other host": (
        lambda p: p.with_changes(host={"pyro": "numpyro", "numpyro": "pyro"}[p.ours["host"]]),
        "Expected a checkpoint of 'n?u?m?pyro' .*, got 'n?u?m?pyro'",
    ),
    "a value with a tree": (lambda p: p.with_values(step={"a": 1}), "to be a number or a word"),
    "a value with a list": (lambda p: p.with_values(step=[1]), "to be a number or a word"),
    "a value of another kind": (lambda p: p.with_values(step="three"), "a number, got a word"),
    "a boolean for a number": (lambda p: p.with_values(step=True), "a number, got a boolean"),
    "none for a number": (lambda p: p.with_values(step=None), "a number, got None"),
    "a number for a word": (lambda p: p.with_values(phase=1), "a word, got a number"),
    "a surplus value": (lambda p: p.with_values(more=1), r"does not have, got state\['more'\]"),
    "no such value": (lambda p: p.with_changes(values={}), "in .*, got none"),
    "a value for an array": (lambda p: p.with_values(a=1), "got it as an array and as a value"),
    # Another run.
    "a surplus array": (lambda p: p.with_array("state['b']"), r"have, got state\['b'\]"),
    "a name that climbs": (lambda p: p.with_array(f"../../{MARK}"), f"have, got ../../{MARK}"),
    "an absolute name": (lambda p: p.with_array(f"/tmp/{MARK}"), f"have, got /tmp/{MARK}"),
    "a name of an attribute": (lambda p: p.with_array("state.__class__"), "have, got state.__cl"),
    "an empty name": (lambda p: p.with_array(""), "does not have, got"),
    "a name of a megabyte": (lambda p: p.with_array("x" * 10**6), "does not have, got xxx"),
    "another name": (lambda p: p.renamed("state['A']"), r"Expected state\['a'\] in .*, got none"),
    "another shape": (lambda p: p.with_entry(shape=[3, 2]), r"shape \(2, 3\).*, got .*\(3, 2\)"),
    "one axis": (lambda p: p.with_entry(shape=[6]), r"shape \(2, 3\) .*, got .* \(6,\)"),
    "integers": (lambda p: p.with_entry(dtype="I32"), "float32, got .*int32"),
    "bits": (lambda p: p.with_entry(dtype="F16", shape=[2, 6]), r"\(2, 3\)"),
}
