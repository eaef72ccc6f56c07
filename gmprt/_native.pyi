"""The cffi half: generated at build time, so its contents have cffi's dynamic types."""

from typing import Any

ffi: Any
lib: Any
