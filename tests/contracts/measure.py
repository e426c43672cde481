"""Measures of the shape of the package and of its tests, read from source.

Run: ``python tests/contracts/measure.py [root of a checkout]``
"""

import ast
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tokenize import COMMENT, ENCODING, ENDMARKER, NEWLINE, NL, tokenize

ROOT = Path(__file__).parents[2]
WINGS = ("pyro", "numpyro")
SKIPPED = {COMMENT, ENCODING, ENDMARKER, NEWLINE, NL}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function


# --- sizes ---


def python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if ".venv" not in path.parts)


def documented(tree: ast.AST) -> Iterator[Documented]:
    return (node for node in ast.walk(tree) if isinstance(node, Documented))


def docstring_lines(tree: ast.AST) -> set[int]:
    """Line numbers of docstrings."""
    texts = [node.body[0] for node in documented(tree) if ast.get_docstring(node) is not None]
    return {line for text in texts for line in range(text.lineno, text.end_lineno + 1)}


def lines_of_code(source: str) -> int:
    """Lines that are neither blank, nor comment, nor docstring."""
    lines: set[int] = set()
    for token in tokenize(BytesIO(source.encode()).readline):
        if token.type not in SKIPPED:
            lines.update(range(token.start[0], token.end[0] + 1))
    blank = {number for number, line in enumerate(source.splitlines(), 1) if not line.strip()}
    return len(lines - docstring_lines(ast.parse(source)) - blank)


@dataclass(frozen=True)
class Size:
    """Physical lines and lines of code of some files."""

    files: int
    physical: int
    code: int

    @classmethod
    def of(cls, files: Iterable[Path]) -> "Size":
        sources = [path.read_text() for path in files]
        physical = sum(len(source.splitlines()) for source in sources)
        return cls(len(sources), physical, sum(map(lines_of_code, sources)))


def body_length(function: Function) -> int:
    """Lines from the first statement after the docstring to the last."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def longest_body(files: Iterable[Path]) -> tuple[int, str]:
    """Length and place of the longest function."""
    return max(
        (body_length(node), f"{path.name}:{node.name}")
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, Function)
    )


def longest_file(files: Iterable[Path]) -> tuple[int, str]:
    return max((len(path.read_text().splitlines()), path.name) for path in files)


# --- rooms and arrows ---


@dataclass(frozen=True)
class Plan:
    """Rooms of a front end, what they import of each other, and the floor of each."""

    arrows: dict[str, set[str]]
    floors: dict[str, int]

    @property
    def num_arrows(self) -> int:
        return sum(map(len, self.arrows.values()))

    @property
    def num_floors(self) -> int:
        return max(self.floors.values())


def room_of(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py") if parts else "__init__"


def imported_rooms(source: str, package: str) -> set[str]:
    """Rooms that a module of the package imports."""
    prefix, rooms = package.split("."), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == package:
                names = [f"{package}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        split = [name.split(".") for name in names]
        rooms |= {p[len(prefix)] for p in split if p[: len(prefix)] == prefix and len(p) > 2}
    return rooms


def plan(root: Path, wing: str) -> Plan:
    """Folders and single files of a front end as rooms; ``__init__`` is the room on top."""
    folder, arrows = root / "pyro_ebm" / wing, defaultdict(set)
    for path in python_files(folder):
        room = room_of(path.relative_to(folder).parts)
        arrows[room] |= imported_rooms(path.read_text(), f"pyro_ebm.{wing}") - {room}
    return Plan(dict(arrows), floors_of(arrows))


def floors_of(arrows: dict[str, set[str]]) -> dict[str, int]:
    """One above the highest floor that a room imports, by room."""
    floors: dict[str, int] = {}
    while len(floors) < len(arrows):
        ready = {room for room in arrows.keys() - floors if arrows[room] <= floors.keys()}
        if not ready:
            raise ValueError(f"Expected no circle, got one among {sorted(arrows.keys() - floors)}")
        floors |= {r: 1 + max((floors[i] for i in arrows[r]), default=0) for r in ready}
    return floors


# --- docstrings ---


def docstrings(source: str) -> Iterator[tuple[Documented, str]]:
    for node in documented(ast.parse(source)):
        text = ast.get_docstring(node)
        if text:
            yield node, text


def unified(line: str) -> str:
    """The line with one name for both hosts."""
    line = re.sub(r"num(?=pyro)", "", line, flags=re.IGNORECASE).replace("Pyro", "pyro")
    return re.sub(r"\b(jnp|jax\.numpy|jax|torch)\b", "host", line).strip()


def docstring_counts(path: Path) -> Counter[str]:
    if not path.exists():
        return Counter()
    texts = [text for _, text in docstrings(path.read_text())]
    return Counter(unified(line) for text in texts for line in text.splitlines() if line.strip())


def agreement(root: Path) -> tuple[float, int, int]:
    """Share of docstring lines that are the same in both front ends, file by file; its parts."""
    folders = [root / "pyro_ebm" / wing for wing in WINGS]
    names = {path.relative_to(folder) for folder in folders for path in python_files(folder)}
    pairs = [[docstring_counts(folder / name) for folder in folders] for name in names]
    common = sum((left & right).total() for left, right in pairs)
    mean = sum(left.total() + right.total() for left, right in pairs) / 2
    return common / mean, common, round(mean)


CLAUSE = re.compile(
    r"(What|Whether|Where|How|That|Which|Who|Whose|Why|When|If|Those|Does|Is|Are|Can|It|There|"
    r"Because|Since|So|As|And|But|Nothing|Nobody)\b"
)
THIRD_PERSON = re.compile(
    r"(Adds|Comes|Gives|Has|Hides|Holds|Keeps|Looks|Makes|Puts|Takes|Warns)\b"
    r"|(?!Its |This |Minus |Less )\w+s (a|an|the|what|whether|its|their|each|every|all|any)\b"
)


def is_title(text: str) -> bool:
    return not CLAUSE.match(text) and not THIRD_PERSON.match(text)


def is_predicate(node: Documented) -> bool:
    if not isinstance(node, Function):
        return False
    is_bool = node.returns is not None and ast.unparse(node.returns) == "bool"
    return is_bool or node.name.startswith(("is_", "has_"))


def first_sentences(files: Iterable[Path]) -> list[str]:
    """Places and first lines that are neither an imperative nor a noun phrase."""
    return [
        f"{path.name}: {text.splitlines()[0]}"
        for path in files
        for node, text in docstrings(path.read_text())
        if not is_title(text) and not (text.startswith("Whether") and is_predicate(node))
    ]


# --- report ---


def split_tests(root: Path) -> tuple[list[Path], list[Path]]:
    """Files of the tests, and files of the evidence runs."""
    folder = root / "tests"
    files, runs = python_files(folder), {folder / "evidence", folder / "benchmarks"}
    evidence = [path for path in files if runs & set(path.parents)]
    return [path for path in files if path not in evidence], evidence


def report(root: Path) -> Iterator[str]:
    package, (tests, evidence) = python_files(root / "pyro_ebm"), split_tests(root)
    for name, files in (("package", package), ("tests", tests), ("evidence", evidence)):
        size = Size.of(files)
        yield f"{name}: {size.files} files, {size.physical:,} lines, {size.code:,} of code"
    for wing in WINGS:
        drawn = plan(root, wing)
        rooms = f"{len(drawn.arrows)} rooms, {drawn.num_floors} floors"
        yield f"{wing}: {rooms}, {drawn.num_arrows} arrows, no circle"
    share, common, mean = agreement(root)
    yield f"docstring lines that agree: {share:.0%} ({common:,} of {mean:,})"
    yield "longest body: {}, {}".format(*longest_body(package))
    yield "longest file: {}, {}".format(*longest_file(package))
    sentences = first_sentences(package)
    yield f"first sentences that are no title: {len(sentences)}"
    yield from (f"    {sentence}" for sentence in sentences)


if __name__ == "__main__":
    print(*report(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT), sep="\n")
