"""The rows of suites.toml: what is run, and where it comes from.

[name]                          as PyPI calls it
version = "1.0"
requires = ["pytest-mock"]      beyond the library and pytest
tests = ["tests/unit"]          default: tests
remove = ["name"]               of the source: what would be imported in place of the library
arguments = ["-k", "not slow"]  for pytest
variables = { NAME = "value" }  for the environment
files = { "name" = "text" }     to be written into the source before each run
git = "https://..."             where the source archive on PyPI has no tests; the tag is
tag = "v1.0"                    that of the version
server = "redis"                one of tests/lib/servers.py, for as long as the tests run; its
                                address replaces {server} in arguments, variables and files
install = "name[extra]==1.0"    for pip, if not name==version
core = true                     one of the quick ones: run --core
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

FILE = Path(__file__).with_name("suites.toml")


@dataclass(frozen=True)
class Suite:
    name: str
    version: str
    requires: list[str] = field(default_factory=list)
    tests: list[str] = field(default_factory=lambda: ["tests"])
    remove: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    git: str = ""
    tag: str = ""
    server: str = ""
    install: str = ""
    core: bool = False

    def at(self, server: str) -> Suite:
        """The suite with the address of its server."""

        def known(texts: dict[str, str]) -> dict[str, str]:
            return {k: v.replace("{server}", server) for k, v in texts.items()}

        return dataclasses.replace(
            self,
            arguments=[a.replace("{server}", server) for a in self.arguments],
            variables=known(self.variables),
            files=known(self.files),
        )

    @property
    def requirement(self) -> str:
        return self.install or f"{self.name}=={self.version}"


def load(file: Path = FILE) -> dict[str, Suite]:
    rows = tomllib.loads(file.read_text("utf-8"))
    return {name: Suite(name, **row) for name, row in rows.items()}
