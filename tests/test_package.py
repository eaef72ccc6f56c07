"""The order of the Python package: a module imports what stands before it, never what comes after.

Which sub-package holds what is said in its __init__.py.  Looked at are imports that are made when a
module is imported; one inside a function, or for type checkers only, may go anywhere.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import gmprt

PACKAGE = Path(gmprt.__file__).parent

ORDER = (
    "gmprt._life.load",  # brings the C half
    "gmprt._api.errors",  # which imports this one while it starts
    "gmprt._core",
    "gmprt._native",
    "gmprt._api",
    "gmprt.context",
    "gmprt._view",
    "gmprt.debug",
    "gmprt.native",
    "gmprt._life",
    "gmprt",
    "gmprt._serve",
    "gmprt._cli",
    "gmprt.__main__",
)
# gmprt.excepthook is the user's to assign, and looked up in the namespace each time.
UPWARDS = {("gmprt._life.excepthook", "gmprt")}


def modules() -> dict[str, Path]:
    names: dict[str, Path] = {}
    for path in (*PACKAGE.rglob("*.py"), *PACKAGE.glob("*.pyi")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(part for part in parts if part != "__init__")] = path
    return names


def executed(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that importing a module executes."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from executed(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for field in ("body", "orelse", "finalbody"):
                yield from executed(getattr(node, field, []))


def imports() -> dict[str, set[str]]:
    """The modules of the package that each one imports."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        uses = found.setdefault(name, set())
        if path.suffix == ".pyi":
            continue
        for node in executed(ast.parse(path.read_text()).body):
            if isinstance(node, ast.Import):
                uses |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inside = {f"{node.module}.{alias.name}" for alias in node.names} & set(known)
                uses |= inside or {str(node.module)}
        uses &= set(known)
    return found


def place(module: str) -> int:
    """Where its line is in ORDER: its own, or that of its sub-package."""
    parent = module.rpartition(".")[0]
    return ORDER.index(module if module in ORDER or parent == "gmprt" else parent)


def test_imports_go_one_way() -> None:
    found = imports()
    assert "gmprt._core" in found["gmprt.debug"]
    assert {"gmprt._life.run", "gmprt.debug"} <= found["gmprt"]
    uses = {(module, used) for module in found for used in found[module]}
    assert uses >= UPWARDS
    assert [(m, u) for m, u in sorted(uses - UPWARDS) if place(u) > place(m)] == []
    for module, used in UPWARDS:
        found[module].remove(used)
    TopologicalSorter(found).prepare()  # CycleError: nor do those of one sub-package


def test_sub_packages_only_say_what_belongs_there() -> None:
    paths = sorted(PACKAGE.glob("_*/__init__.py"))
    assert [path.parent.name for path in paths] == ["_api", "_cli", "_life", "_serve", "_view"]
    for path in paths:
        module = ast.parse(path.read_text())
        assert ast.get_docstring(module)
        assert len(module.body) == 1
