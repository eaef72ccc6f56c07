"""Loading the C half: one shared object that holds two Python modules.

`gmprt._native` is a cffi module, whose calls release the GIL; `gmprt._core`, with the types that
must not, lives in the same file and is found by its PyInit function (PEP 489, "multiple modules in
one library").
"""

from __future__ import annotations

import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder

TYPE_CHECKING = False  # importing typing takes longer than importing gmprt
if TYPE_CHECKING:
    from types import ModuleType
else:
    ModuleType = type(sys)


def load_core() -> None:
    """Put `gmprt._core` into sys.modules.  ImportError, in one sentence, where it cannot work.

    If the package was taken out of sys.modules, and is imported again, it comes back as it was:
    there is one runtime in a process, with the package's types, exceptions and hooks.
    """
    name = "gmprt._core"
    if name not in sys.modules:
        _refuse_unsupported()
        _load_from(_library(), name)
    package: ModuleType | None = vars(sys.modules[name]).get("_package")
    if package is not None:
        _put_back(package)


def _put_back(module: ModuleType) -> None:
    """Into sys.modules, with its submodules, which are among its attributes."""
    sys.modules[module.__name__] = module
    attributes: list[object] = list(vars(module).values())
    for value in attributes:
        if isinstance(value, ModuleType) and value.__name__.startswith(f"{module.__name__}."):
            _put_back(value)


def keep_package() -> None:
    """Remember the package, which is complete."""
    vars(sys.modules["gmprt._core"]).setdefault("_package", sys.modules["gmprt"])


def _refuse_unsupported() -> None:
    """First of all: loading an extension module can already change an interpreter."""
    if sys.platform != "linux":
        raise ImportError(f"gmprt supports Linux only, not {sys.platform}")
    if "t" in sys.abiflags:
        raise ImportError("gmprt does not support free-threaded builds of Python")


def _library() -> str:
    """The shared object, which has not been loaded yet."""
    spec = PathFinder.find_spec("gmprt._native", sys.modules["gmprt"].__path__)
    if spec is None or spec.origin is None:
        raise ImportError("gmprt._native was not built for this Python, or not as a file")
    return spec.origin


def _load_from(path: str, name: str) -> None:
    loader = ExtensionFileLoader(name, path)
    spec = ModuleSpec(name, loader, origin=path)
    module = loader.create_module(spec)
    module.__spec__, module.__loader__, module.__file__ = spec, loader, path
    module.__package__ = "gmprt"
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    vars(sys.modules["gmprt"])["_core"] = module  # as the import statement would have done
