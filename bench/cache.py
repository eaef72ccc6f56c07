"""Where compiled programs are kept: ``$XDG_CACHE_HOME/gmprt-bench``, one directory per content."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def built(kind: str, inputs: list[bytes], build: Callable[[Path], None]) -> Path:
    """The directory that `build` filled for these inputs, now or on an earlier run.

    It is filled under another name and renamed when complete, so that an interrupted or a
    simultaneous build leaves nothing half done.
    """
    digest = hashlib.sha256(b"\0".join(inputs)).hexdigest()[:16]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gmprt-bench"
    wanted = root / f"{kind}-{digest}"
    if wanted.is_dir():
        return wanted
    root.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=root))
    try:
        build(unfinished)
        unfinished.rename(wanted)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not wanted.is_dir():
            raise
    return wanted
