""".ci/layers.py: a folder of csrc/ uses only those before it; a use that goes up is reported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def check(csrc: Path) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "layers.py"), str(csrc)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@pytest.fixture
def csrc(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "csrc", tmp_path / "csrc"))


def test_of_the_tree() -> None:
    assert check(ROOT / "csrc") == (0, ["every folder uses only those before it"])


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("mem/stack.c", '#include "sched/g.h"', "includes sched/g.h"),
        ("arch/arch.h", '#include "base/base.h"', "includes base/base.h"),
        ("sync/chan.c", '#include "py/host/host.h"', "includes py/host/host.h"),
        ("base/lock.c", "void planted(void) { gosched(); }", "uses gosched of"),
        ("sched/wake.c", "void *planted(void) { return take(chanclose); }", "uses chanclose of"),
        ("py/host/go.c", "void planted(void) { wake_error(0); }", "uses wake_error of"),
        ("arch/amd64/switch.S", "    call gosched", "uses gosched of"),
        ("py/types/chan.c", "#ifdef HAVE_DICT_WATCHERS\n#endif", "HAVE_DICT_WATCHERS belongs to"),
        ("py/module.c", "#if PY_VERSION_HEX\n#endif", "PY_VERSION_HEX belongs to"),
    ],
)
def test_what_goes_up_is_reported(csrc: Path, file: str, line: str, complaint: str) -> None:
    with open(csrc / file, "a") as f:
        f.write(line + "\n")
    status, said = check(csrc)
    assert status == 1
    assert len(said) == 1
    assert said[0].startswith(f"{csrc / file}: {complaint}")


def test_down_and_in_comments_is_allowed(csrc: Path) -> None:
    with open(csrc / "py" / "module.c", "a") as f:
        f.write(
            '#include "base/base.h"\nvoid down(void) { gosched(); }\n/* HAVE_DICT_WATCHERS */\n'
        )
    with open(csrc / "base" / "lock.c", "a") as f:
        f.write("/* gosched() */\n")
    assert check(csrc)[0] == 0
