"""Loading the C half: one shared object that holds two Python modules.

`gmprt._native` is a cffi module, whose calls release the GIL; `gmprt._core`, with the types that
must not, lives in the same file and is found by its PyInit function (PEP 489, "multiple modules in
one library").
"""

import importlib
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from types import ModuleType


def load_core() -> None:
    """Put `gmprt._core` into sys.modules.  ImportError, in one sentence, where it cannot work.

    If the package was taken out of sys.modules, and is imported again, it comes back as it was:
    there is one runtime in a process, with the package's types, exceptions and hooks.
    """
    name = "gmprt._core"
    if name not in sys.modules:
        _refuse_unsupported()
        _load_from(_library(), name)  # refuses subinterpreters: first, the other must not get there
        importlib.import_module("gmprt._native")
    package: ModuleType | None = vars(sys.modules[name]).get("_package")
    if package is not None:
        sys.modules["gmprt"] = package
        attributes: list[object] = list(vars(package).values())  # submodules are among them
        for module in attributes:
            if isinstance(module, ModuleType) and module.__name__.startswith("gmprt."):
                sys.modules[module.__name__] = module


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
    spec = find_spec("gmprt._native")
    if spec is None or spec.origin is None:
        raise ImportError("gmprt._native was not built for this Python, or not as a file")
    return spec.origin


def _load_from(path: str, name: str) -> None:
    loader = ExtensionFileLoader(name, path)
    spec = spec_from_file_location(name, path, loader=loader)
    if spec is None:
        raise ImportError(f"no module spec for {name} in {path}")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    vars(sys.modules["gmprt"])["_core"] = module  # as the import statement would have done
