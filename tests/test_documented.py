"""Every public name says what it does: to help() at run time, to editors in the stub.

And what type checkers make of it is looked at in tests/types.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gmprt
import gmprt.native

PACKAGE = Path(gmprt.__file__).parent
API = Path(__file__).parents[1] / "docs" / "api.md"

MODULES: dict[str, ModuleType] = {
    "": gmprt,
    "context.": gmprt.context,
    "debug.": gmprt.debug,
    "native.": gmprt.native,
}
NATIVE = ("go", "chan", "include_dir", "api_pointer", "NativeChan")


def public() -> Iterator[tuple[str, Any]]:
    """Every public function and class, and the methods and properties of these."""
    names = {
        "": gmprt.__all__,
        "context.": gmprt.context.__all__,
        "debug.": gmprt.debug.__all__,
        "native.": NATIVE,
    }
    for prefix, module in MODULES.items():
        for name in names[prefix]:
            value = getattr(module, name)
            if isinstance(value, ModuleType):
                continue
            yield prefix + name, value
            if isinstance(value, type):
                for member, attribute in vars(value).items():
                    if not member.startswith("_") and not inspect.ismemberdescriptor(attribute):
                        yield f"{prefix}{name}.{member}", attribute


def test_at_run_time() -> None:
    assert [name for name, value in public() if not (value.__doc__ or "").strip()] == []


def test_types_are_looked_at() -> None:
    """By name: mypy and pyright do the rest."""
    used = set()
    for path in (Path(__file__).parent / "types").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Name, ast.Attribute)):
                used.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    assert [name for name, _ in public() if name.rpartition(".")[2] not in used] == []


def in_stub() -> dict[str, str | None]:
    """Docstrings of the stub by name; of an overloaded function the first that is there."""
    found: dict[str, str | None] = {}

    def visit(nodes: list[ast.stmt], prefix: str) -> None:
        for node in nodes:
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            name = prefix + node.name
            found[name] = found.get(name) or ast.get_docstring(node)
            if isinstance(node, ast.ClassDef):
                visit(node.body, name + ".")

    visit(ast.parse((PACKAGE / "_core.pyi").read_text()).body, "")
    return found


def from_c() -> list[str]:
    core = vars(gmprt._core)
    ours = {name for name in gmprt.__all__ if core.get(name) is getattr(gmprt, name)}
    return [name for name, _ in public() if name.partition(".")[0] in ours]


def test_names_from_c_are_looked_at() -> None:
    assert {"go", "Chan", "Chan.send", "Goroutine.state", "SendView.close"} <= set(from_c())


def test_in_the_stub() -> None:
    """Where editors look."""
    stub = in_stub()
    assert [name for name in from_c() if not stub.get(name)] == []


def test_in_the_reference() -> None:
    text = API.read_text()
    assert [n for n in gmprt.__all__ if not re.search(rf"(`[^`\n]*|\*\*)\b{n}\b", text)] == []


def test_on_the_site() -> None:
    """Each name has its place among the pages that mkdocstrings fills."""
    pages = "".join(path.read_text() for path in (API.parent / "reference").glob("*.md"))
    shown = re.findall(r"^::: gmprt\.(\S+)$", pages, re.MULTILINE)
    assert sorted(shown) == sorted(gmprt.__all__)
