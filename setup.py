"""The build: one cffi extension (build_native.py).

pip install .       optimised at link time, if the compiler can
pip install -e .    for those who change it: no link-time optimisation, symbols, and objects are
                    kept in build/, so that the next build compiles only what has changed; there is
                    compile_commands.json, too, for editors
GMPRT_DEBUG=1       with either: assertions, lock ranks and the table of status transitions are
                    checked (GM_DEBUG)
"""

import json
import os
import shlex
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

# The runtime's files call each other on every switch: in one unit a switch is a fifth cheaper.
LTO = ["-flto"]
SYMBOLS = ["-g"]
DEBUG = ["-O1", "-g", "-DGM_DEBUG"] if os.environ.get("GMPRT_DEBUG") == "1" else []


class BuildExt(build_ext):
    def finalize_options(self) -> None:
        super().finalize_options()
        self.kept = bool(self.inplace)  # setuptools clears `inplace` while it builds
        if self.kept:
            self.build_temp = str(Path("build", f"dev-{sys.implementation.cache_tag}"))

    def build_extensions(self) -> None:
        if ".S" not in self.compiler.src_extensions:
            self.compiler.src_extensions.append(".S")
        for ext in self.extensions:
            if DEBUG or self.kept:
                ext.extra_compile_args += DEBUG or SYMBOLS
            elif self.can_lto():
                ext.extra_compile_args += LTO
                ext.extra_link_args += [*LTO, "-O2"]
        compiling = Incremental(self.compiler)
        self.compiler.compile = compiling.compile
        super().build_extensions()
        if self.kept:
            compiling.write_commands(Path("build", "compile_commands.json"))
        else:
            # `pip install . && python -m gmprt` in the source tree imports ./gmprt.
            self.copy_extensions_to_source()

    def can_lto(self) -> bool:
        with tempfile.TemporaryDirectory() as tmp:
            source = Path(tmp, "probe.c")
            source.write_text("int probe(void) { return 0; }\n")
            try:
                objects = self.compiler.compile([str(source)], output_dir=tmp, extra_postargs=LTO)
                self.compiler.link_shared_object(
                    objects, str(Path(tmp, "probe.so")), extra_postargs=LTO
                )
            except Exception:  # any failure of any compiler: build without
                return False
        return True


class BuildPy(build_py):
    """Puts files beside the package that the interpreter reads when it starts.

    For GMPRT_THREADS; and, if it is started for gunicorn, for `-k gmprt`: gunicorn looks for a
    short name in a table of its own only.
    """

    STARTUP = ("gmprt_threads.pth", "gmprt_gunicorn.pth")

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for name in self.STARTUP:
                self.copy_file(f"tools/{name}", str(Path(self.build_lib, name)))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        ours = [str(Path(self.build_lib, name)) for name in self.STARTUP]
        return [*super().get_outputs(include_bytecode), *ours]


class Incremental:
    """Compiles on all CPUs, and only what has changed since: sources, headers or flags."""

    def __init__(self, compiler: Any) -> None:
        self.compiler = compiler
        self.commands: list[dict[str, str]] = []

    def compile(
        self,
        sources: list[str],
        output_dir: str | None = None,
        macros: Any = None,
        include_dirs: Any = None,
        debug: bool = False,
        extra_preargs: Any = None,
        extra_postargs: Any = None,
        depends: Any = None,
    ) -> list[str]:
        _, objects, postargs, pp_opts, build = self.compiler._setup_compile(
            output_dir, macros, include_dirs, sources, depends, extra_postargs
        )
        cc_args = self.compiler._get_cc_args(pp_opts, debug, extra_preargs)

        def one(obj: str) -> None:
            source, suffix = build[obj]
            flags = [*self.compiler.compiler_so, *cc_args, *postargs]
            command = shlex.join([*flags, "-o", obj, source])
            self.commands.append({"directory": os.getcwd(), "file": source, "command": command})
            said = Path(obj + ".command")
            if said.exists() and said.read_text() == command and up_to_date(obj):
                return
            self.compiler._compile(
                obj, source, suffix, cc_args, [*postargs, "-MD", "-MF", obj + ".d"], pp_opts
            )
            said.write_text(command)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(one, objects))
        return list(objects)

    def write_commands(self, path: Path) -> None:
        path.write_text(json.dumps(sorted(self.commands, key=lambda c: c["file"]), indent=1))


def up_to_date(obj: str) -> bool:
    """Is the object younger than all that the compiler has read for it?"""
    try:
        made = os.stat(obj).st_mtime_ns
        names = Path(obj + ".d").read_text().split(":", 1)[1].replace("\\\n", " ").split()
        return all(os.stat(name).st_mtime_ns < made for name in names)
    except OSError:
        return False


setup(cffi_modules=["build_native.py:ffi"], cmdclass={"build_ext": BuildExt, "build_py": BuildPy})
