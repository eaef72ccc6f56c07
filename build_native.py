"""Builds gmprt/_native: one shared object with two modules, the cffi one and gmprt._core.

The C sources are listed by folder: csrc/{base,mem,sched,sync,api} is the runtime, csrc/arch/<cpu>
the switch code of this machine, csrc/py/ the CPython host.
"""

import platform
import sys
import sysconfig
from pathlib import Path

import cffi

HERE = Path(__file__).resolve().parent
RUNTIME = ("base", "mem", "sched", "sync", "api")
CPU = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
ARCH = CPU.get(platform.machine().lower())
if ARCH is None or not sys.platform.startswith("linux"):
    raise SystemExit("gmprt runs on Linux, on x86-64 and arm64")

CDEF = """
typedef struct gm_chan gm_chan;
typedef enum gm_result {
  GM_OK, GM_CLOSED, GM_WOULDBLOCK, GM_TIMEOUT, GM_CANCELLED, GM_INTERRUPTED, GM_NOMEM,
  GM_INVALID, ...
} gm_result;
int gm_start(void);
gm_result gm_go(void (*fn)(void *), void *arg);
void gm_yield(void);
gm_result gm_sleep(int64_t ns);
uint64_t gm_goid(void);
gm_chan *gm_chan_make(size_t elemsize, size_t capacity);
void gm_chan_free(gm_chan *c);
gm_result gm_chan_send(gm_chan *c, const void *elem, int64_t timeout);
gm_result gm_chan_recv(gm_chan *c, void *elem, int64_t timeout);
gm_result gm_chan_close(gm_chan *c);
size_t gm_chan_len(gm_chan *c);
size_t gm_chan_cap(gm_chan *c);
bool gm_chan_closed(gm_chan *c);
const struct gm_api *gm_api_table(void);
"""

PRELUDE = '#include "gmprt.h"\n'


def sources() -> list[str]:
    """All C files, relative to the project: what setuptools wants."""
    found = [
        *(p for folder in RUNTIME for p in sorted((HERE / "csrc" / folder).glob("*.c"))),
        *sorted((HERE / "csrc" / "py").rglob("*.c")),
        *sorted((HERE / "csrc" / "arch" / str(ARCH)).glob("*.[cS]")),
        *sorted((HERE / "csrc" / "py" / "interpose" / "hooks" / "arch" / str(ARCH)).glob("*.S")),
    ]
    return [str(p.relative_to(HERE)) for p in found]


def headers() -> list[str]:
    found = [*(HERE / "csrc").rglob("*.h"), HERE / "gmprt/include/gmprt.h"]
    return [str(p.relative_to(HERE)) for p in sorted(found)]


def include_dirs() -> list[str]:
    python = Path(sysconfig.get_paths()["include"])
    dirs = ["csrc", "gmprt/include", str(python), str(python / "internal")]
    if sys.version_info >= (3, 13):
        dirs.append(str(python / "internal" / "mimalloc"))
    return dirs


# The runtime is one unit behind two doors: nothing of it is visible from outside.  No stack
# clash of ours with a debug -O0 default of some distribution: -O2 always.
CFLAGS = [
    "-std=gnu11",
    "-O2",
    "-fvisibility=hidden",
    "-fno-semantic-interposition",
    "-fno-strict-aliasing",
    "-Wno-missing-field-initializers",
]

ffi = cffi.FFI()
ffi.cdef(CDEF)
ffi.set_source(
    "gmprt._native",
    PRELUDE,
    sources=sources(),
    depends=headers(),
    include_dirs=include_dirs(),
    extra_compile_args=CFLAGS,
    # False, or cffi would name the file .abi3.so, which other minor versions would load.
    py_limited_api=False,
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
