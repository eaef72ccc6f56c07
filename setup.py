"""The build: one cffi extension (build_native.py), optimised at link time if the compiler can."""

import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

# The runtime's files call each other on every switch: in one unit a switch is a fifth cheaper.
LTO = ["-flto"]


class BuildExt(build_ext):
    def build_extensions(self) -> None:
        if ".S" not in self.compiler.src_extensions:
            self.compiler.src_extensions.append(".S")
        if self.can_lto():
            for ext in self.extensions:
                ext.extra_compile_args += LTO
                ext.extra_link_args += [*LTO, "-O2"]
        super().build_extensions()
        if not self.inplace:
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


setup(cffi_modules=["build_native.py:ffi"], cmdclass={"build_ext": BuildExt})
