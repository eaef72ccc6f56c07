"""What mkdocstrings does not see in a stub: overloads without a function behind them, `__new__`.

An overloaded function of a stub is shown once, with its most general signature, which is the last.
A class is shown with the parameters of its `__new__`.  A "/" at the end of parameters, which
mkdocstrings leaves out, is made one of them.
"""

from __future__ import annotations

from typing import Any

from griffe import Class, Docstring, Extension, Function, Module, Parameter, ParameterKind


class Stub(Extension):
    def on_function(self, *, func: Function, **kwargs: Any) -> None:
        # That of a method has its self before it, which is not said to be positional only.
        kinds = [p.kind for p in func.parameters if p.name not in ("self", "cls")]
        if kinds and all(kind is ParameterKind.positional_only for kind in kinds):
            func.parameters.add(Parameter("/", kind=kinds[0]))

    def on_module_members(self, *, mod: Module, **kwargs: Any) -> None:
        _last_overloads(mod)

    def on_class_members(self, *, cls: Class, **kwargs: Any) -> None:
        _last_overloads(cls)
        new = cls.members.get("__new__")
        if isinstance(new, Function) and "__init__" not in cls.members:
            new.name = "__init__"  # whose parameters are those of the class to mkdocstrings
            cls.set_member("__init__", new)


def _last_overloads(scope: Module | Class) -> None:
    if scope.filepath.suffix != ".pyi":  # elsewhere a function follows, which has them
        return
    for name, overloads in list(scope.overloads.items()):
        if not overloads:
            continue
        documented = next((o for o in overloads if o.docstring), None)
        shown = overloads[-1]
        if documented is not None and documented.docstring is not None:
            shown.docstring = Docstring(documented.docstring.value, parent=shown)
        scope.set_member(name, shown)
        del scope.overloads[name]
