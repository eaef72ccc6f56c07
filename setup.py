"""Only what pyproject.toml cannot say: the extension, and that .S is a source."""

from setuptools import setup
from setuptools.command.build_ext import build_ext


class BuildExt(build_ext):
    def build_extensions(self) -> None:
        if ".S" not in self.compiler.src_extensions:
            self.compiler.src_extensions.append(".S")
        super().build_extensions()


setup(cffi_modules=["build_native.py:ffi"], cmdclass={"build_ext": BuildExt})
