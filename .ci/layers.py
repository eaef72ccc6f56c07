"""The layers of csrc/: a folder uses what stands before it, never what comes after.

Reads includes, and the names of functions wherever they are used, assembly included.  What a
folder needs from above is handed in as a pointer:

  base   throw_describe    who runs here, for the last words of a process
  arch   entry, yield      the first function of a stack, and what preempted code is made to call
  sched  host              the language: sched/host.h
  api    gm_start_hook     how the runtime is started where there is a host
  py     preempt_barred    cpython/preempt.h: no yield now, a fork is under way
         above             host/above.h: activation, and what is looked after per thread

    python .ci/layers.py [CSRC]      prints each use that goes up; exit status 1 if there is one
"""

import re
import sys
from pathlib import Path

ORDER = [
    "arch",
    "base",
    "mem",
    "sched",
    "sync",
    "api",
    "py/cpython",
    "py/host",
    "py/types",
    "py/interpose",
    "py/interpose/hooks",
    "py",
]
# Which version of CPython it is, is told here alone.
VERSIONS = "py/cpython"
OF_A_VERSION = re.compile(
    r"\b(PY_VERSION_HEX|HAVE_[A-Z_]+|_PyInterpreterFrame|_PyRuntime|TS_FRAME)\b"
)
ALLOWED = re.compile(r"Py_TPFLAGS_HAVE_\w+")

COMMENT = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.S)
DEFINITION = re.compile(r"^(?!static|typedef|#|\s|return|else)[\w *]+?\b(\w+)\([^;{]*\) \{", re.M)
STATIC = re.compile(r"^static [\w *]+?\b(\w+)\(", re.M)


def layer(file: Path, root: Path) -> int:
    """The folder's place in ORDER; arch/amd64 and the like belong to the folder above."""
    folder = file.parent.relative_to(root).as_posix()
    folder = re.sub(r"(^|/)(arch)/\w+$", r"\1\2", folder).replace("hooks/arch", "hooks")
    return ORDER.index(folder)


def main(root: Path) -> int:
    files = sorted(p for p in root.rglob("*") if p.suffix in (".c", ".h", ".S"))
    text = {f: COMMENT.sub(lambda m: m[0] if m[0][0] == '"' else " ", f.read_text()) for f in files}
    home = {
        name: f for f in files if f.suffix == ".c" for name in DEFINITION.findall(text[f])
    }  # function -> the file that defines it
    wrong = []
    for file in files:
        here = layer(file, root)
        own = set(STATIC.findall(text[file])) | set(DEFINITION.findall(text[file]))
        for name in re.findall(r'#include "([\w./]+)"', text[file]):
            if (root / name).exists() and layer(root / name, root) > here:
                wrong.append(f"{file}: includes {name}")
        code = re.sub(r'"[^"\n]*"', "", text[file])
        for name in sorted(set(re.findall(r"\b[a-z_]\w+\b", code)) - own):
            if name in home and layer(home[name], root) > here and is_called(name, code, file):
                wrong.append(f"{file}: uses {name} of {home[name]}")
        if ORDER[here] != VERSIONS:
            for name in sorted(set(OF_A_VERSION.findall(ALLOWED.sub("", code)))):
                wrong.append(f"{file}: {name} belongs to {VERSIONS}")
    print("\n".join(wrong) or "every folder uses only those before it")
    return bool(wrong)


def is_called(name: str, code: str, file: Path) -> bool:
    """Called, or its address taken; no field, parameter or variable of that name."""
    if file.suffix == ".S":
        return re.search(rf"\b(call|bl|jmp)\s+{name}\b", code) is not None
    return (
        re.search(rf"(?<![\w.>*]){name}\(|[=,&(]\s*{name}\s*[,;)}}]", re.sub(r"->\s*", "->", code))
        is not None
    )


if __name__ == "__main__":
    default = Path(__file__).resolve().parent.parent / "csrc"
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else default))
