"""Walk of a reader from a public function through the rooms of a front end, from source.

Run: ``python tests/contracts/walk.py [--tree] [--package FOLDER] [--function NAME]``.

A room is a folder of the front end (``evidence``, ``samplers``, ...), or, where its modules stand
loose, a file. The reader starts at the function and reads its body in the order of the source. At
each name of a function, method or property of the same front end they go there, read it, and come
back to read on; what has been read once is not read again. Constructors are read where a class is
called. Calls through variables cannot be followed, calls of methods only as far as annotations,
constructors and assignments tell the class; the core, the hosts and methods without a body (of
protocols) are not read.

A *stay* is a stretch of reading in one room. A *return* is a stay in a room that was left before:
returns = stays - rooms.
"""

import argparse
import ast
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "pyro_ebm"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Definition:
    """A function, class, field or alias, in the module and class that it stands in."""

    node: ast.AST
    module: str
    owner: "Definition | None" = None

    @property
    def key(self) -> tuple[str, int]:
        return self.module, self.node.lineno


class FrontEnd:
    """Modules of a front end, with what they define and import."""

    def __init__(self, folder: Path) -> None:
        self.prefix = f"{folder.parent.name}.{folder.name}"
        self.names: dict[str, dict[str, ast.AST]] = {}
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            module = ".".join((self.prefix, *(part for part in parts if part != "__init__")))
            self.names[module] = _names(ast.parse(path.read_text()))

    def find(self, module: str, name: str) -> Definition | None:
        """Definition of a name in a module of this front end, through imports."""
        node = self.names.get(module, {}).get(name)
        if isinstance(node, ast.ImportFrom):
            origin = next(alias.name for alias in node.names if name in (alias.asname, alias.name))
            return self.find(node.module or "", origin)
        return None if node is None else Definition(node, module)

    def find_function(self, name: str) -> Definition:
        """Definition of a public function, by its name alone."""
        found = [
            Definition(names[name], module)
            for module, names in self.names.items()
            if isinstance(names.get(name), Function)
        ]
        (definition,) = found
        return definition

    def member(self, owner: Definition, name: str) -> Definition | None:
        """Method or annotated field of a class or its bases."""
        for node in owner.node.body:
            target = node.target if isinstance(node, ast.AnnAssign) else None
            if name in (getattr(node, "name", None), getattr(target, "id", None)):
                return Definition(node, owner.module, owner)
        for base in owner.node.bases:
            above = self.find(owner.module, base.id) if isinstance(base, ast.Name) else None
            if above is not None and (found := self.member(above, name)):
                return found
        return None

    def annotated(
        self, module: str, annotation: ast.AST | None, owner: Definition | None = None
    ) -> Definition | None:
        """Class of this front end that an annotation names."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        for part in ast.walk(annotation) if isinstance(annotation, ast.BinOp) else [annotation]:
            if isinstance(part, ast.Name) and part.id == "Self":
                return owner
            found = self.find(module, part.id) if isinstance(part, ast.Name) else None
            if found is not None and isinstance(found.node, ast.ClassDef):
                return found
        return None


@dataclass
class Walk:
    """Modules in the order in which they were read, and an outline of what was read."""

    modules: list[str] = field(default_factory=list)
    outline: list[str] = field(default_factory=list)
    prefix: str = ""

    @property
    def stays(self) -> list[str]:
        rooms = [module.removeprefix(self.prefix + ".").split(".")[0] for module in self.modules]
        return [room for index, room in enumerate(rooms) if index == 0 or rooms[index - 1] != room]

    @property
    def num_rooms(self) -> int:
        return len(set(self.stays))

    @property
    def num_returns(self) -> int:
        return len(self.stays) - self.num_rooms


class Reader(ast.NodeVisitor):
    """Reads definitions and follows what they name."""

    def __init__(self, front_end: FrontEnd) -> None:
        self.front_end = front_end
        self.walk = Walk(prefix=front_end.prefix)
        self.seen: set[tuple[str, int]] = set()
        self.reading: list[Definition] = []
        # Classes of local names, None where unknown, in the function that is being read.
        self.local: dict[str, Definition | None] = {}

    def read(self, definition: Definition) -> None:
        node = definition.node
        if definition.key in self.seen or not _has_body(node):
            return
        self.seen.add(definition.key)
        name = getattr(node, "name", None) or ast.unparse(node).split(" = ")[0]
        owner = f"{definition.owner.node.name}." if definition.owner else ""
        self.walk.outline.append(f"{'  ' * len(self.reading)}{definition.module}: {owner}{name}")
        self.walk.modules.append(definition.module)
        outer, self.local = self.local, {}
        self.reading.append(definition)
        if isinstance(node, Function):
            self._read_function(node, definition.owner)
        else:
            self.visit(node.value)
        self.reading.pop()
        self.local = outer
        if self.reading:
            self.walk.modules.append(self.reading[-1].module)

    def _read_function(self, node: Function, owner: Definition | None) -> None:
        module = self.reading[-1].module
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for argument in arguments:
            known = self.front_end.annotated(module, argument.annotation, owner)
            self.local[argument.arg] = known
        if owner is not None and arguments:
            self.local[arguments[0].arg] = owner
        for statement in node.body:
            self.visit(statement)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer = dict(self.local)
        self._read_function(node, None)
        self.local = outer | {node.name: None}

    def visit_Lambda(self, node: ast.Lambda) -> None:
        outer = dict(self.local)
        self.local |= {argument.arg: None for argument in node.args.args}
        self.visit(node.body)
        self.local = outer

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self._assign(target, node.value)

    def _assign(self, target: ast.AST, value: ast.AST | None) -> None:
        if isinstance(target, ast.Name):
            self.local[target.id] = None if value is None else self.class_of(value)
        elif isinstance(target, ast.Tuple):
            values = value.elts if isinstance(value, ast.Tuple) else [None] * len(target.elts)
            for part, one in zip(target.elts, values, strict=True):
                self._assign(part, one)

    def visit_Name(self, node: ast.Name) -> None:
        found = self._global(node)
        if found is not None and not isinstance(found.node, ast.ClassDef):
            self.read(found)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = self._named_class(node.value)
        if owner is None:
            self.visit(node.value)
            owner = self.class_of(node.value)
        found = None if owner is None else self.front_end.member(owner, node.attr)
        if found is not None and isinstance(found.node, Function):
            self.read(found)

    def visit_Call(self, node: ast.Call) -> None:
        is_check = isinstance(node.func, ast.Name) and node.func.id == "isinstance"
        self.visit(node.func)
        made = self._named_class(node.func)
        for name in ("__init__", "__post_init__") if made is not None else ():
            constructor = self.front_end.member(made, name)
            if constructor is not None:
                self.read(constructor)
        for part in (*node.args[: 1 if is_check else None], *node.keywords):
            self.visit(part)

    def class_of(self, node: ast.AST) -> Definition | None:
        """Class of this front end that an expression is an instance of."""
        module = self.reading[-1].module
        if isinstance(node, ast.Name):
            return self.local.get(node.id)
        if isinstance(node, ast.IfExp):
            return self.class_of(node.body) or self.class_of(node.orelse)
        if isinstance(node, ast.Call):
            if (made := self._named_class(node.func)) is not None:
                return made
            found = self._member(node.func) if isinstance(node.func, ast.Attribute) else None
            found = found or (self._global(node.func) if isinstance(node.func, ast.Name) else None)
        else:
            found = self._member(node) if isinstance(node, ast.Attribute) else None
        if found is None or isinstance(found.node, ast.ClassDef):
            return found
        known = getattr(found.node, "returns", None) or getattr(found.node, "annotation", None)
        return self.front_end.annotated(found.module or module, known, found.owner)

    def _member(self, node: ast.Attribute) -> Definition | None:
        owner = self._named_class(node.value) or self.class_of(node.value)
        return None if owner is None else self.front_end.member(owner, node.attr)

    def _global(self, node: ast.Name) -> Definition | None:
        if node.id in self.local:
            return None
        return self.front_end.find(self.reading[-1].module, node.id)

    def _named_class(self, node: ast.AST) -> Definition | None:
        """Class that a name means, ``cls`` too."""
        if not isinstance(node, ast.Name):
            return None
        if node.id == "cls":
            return self.local.get("cls")
        found = self._global(node)
        is_class = found is not None and isinstance(found.node, ast.ClassDef)
        return found if is_class else None


def walk(folder: Path, function: str) -> Walk:
    """Walk from a public function through a front end."""
    front_end = FrontEnd(folder)
    reader = Reader(front_end)
    reader.read(front_end.find_function(function))
    return reader.walk


def _names(tree: ast.Module) -> dict[str, ast.AST]:
    found: dict[str, ast.AST] = {}
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: node for alias in node.names}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node
    return found


def _has_body(node: ast.AST) -> bool:
    if not isinstance(node, Function):
        return isinstance(node, ast.Assign)
    rest = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return any(ast.unparse(statement) != "..." for statement in rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--package", type=Path, default=PACKAGE, help="folder of the package")
    parser.add_argument("--function", default="log_normalizer", help="where the walk starts")
    parser.add_argument("--tree", action="store_true", help="print what is read, in order")
    options = parser.parse_args()
    for host in ("pyro", "numpyro"):
        found = walk(options.package / host, options.function)
        if options.tree:
            print("\n".join(found.outline))
        print(
            f"{host}: {options.function} enters {found.num_rooms} rooms "
            f"and returns {found.num_returns} times"
        )


if __name__ == "__main__":
    main()
