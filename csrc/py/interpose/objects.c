/* objects.c - which functions are replaced in which objects.
 *
 * Objects.  The interpreter and the extension modules of the standard library: everything.  Other extension
 * modules: what has to do with signal masks and new processes and threads, so that these come out as from
 * an ordinary thread; parking only if listed below.  Trusted libraries: the calls on descriptors.
 * Everything else is left alone, and its blocking calls are handed off by sysmon.
 *
 * A library may be trusted if across such a call it holds no lock that has an owner (unlocking on another
 * thread would fail), no lock that somebody takes with the GIL held, and no thread-local that points into its
 * stack.
 *   libssl, libcrypto   as _ssl links them: blocking SSL sockets read and write through them (errqueue.c).
 *   libpq, _psycopg     psycopg2 and psycopg wait in them, whatever their bundled copies are called.
 *
 * Modules that are loaded later are patched when a shim on the interpreter's loader sees that something was
 * loaded (interpose_refresh).
 *
 * GMPRT_INTERPOSE, read when gmprt becomes active (activate.c): with 0 nothing parks, and what is replaced is what
 * identity, masks, processes and the runtime's descriptors need (ALWAYS).  With none, nothing is replaced, here or in
 * shim.c, and no signal has a handler of ours (os_leave_signals).  A goroutine then has the identity and the signal
 * mask of the thread that runs it; the main goroutine stays on the thread that called run() (host/lender.c), so that
 * signals and thread-locals of C are as ever there.  Forks are heard of by pthread_atfork alone (host/atfork.c). */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>

#include "py/host/above.h"
#include "py/interpose/homes.h"
#include "py/interpose/objects.h"

/* Libraries in which goroutines may park, by the stem of their file name. */
static const char *const trusted[] = {"libssl.so", "libcrypto.so", "libpq.so", "libpq-"};
/* Extension modules that park though they are not of the standard library. */
static const char *const parking_extensions[] = {"_psycopg."};

static char *dynload; /* where the standard library keeps its extension modules, with a slash */
static enum { NOTHING, WITHOUT_PARKING, PARKING } wanted;

static bool starts_with(const char *s, const char *prefix) {
  return strncmp(s, prefix, strlen(prefix)) == 0;
}

static bool is_this(const char *path) {
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
  return starts_with(name, "_native.") && strstr(path, "/gmprt/");
}

static unsigned kind_of(const char *path) {
  if (!path[0]) return IN_INTERPRETER; /* the executable */
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
  if (starts_with(name, "libpython")) return IN_INTERPRETER;
  if (is_this(path)) return 0;
  for (size_t i = 0; i < nelem(trusted); i++)
    if (starts_with(name, trusted[i])) return IN_TRUSTED;
  for (size_t i = 0; i < nelem(parking_extensions); i++)
    if (starts_with(name, parking_extensions[i])) return IN_EXTENSION | IN_TRUSTED;
  if (dynload && starts_with(path, dynload)) return IN_STDLIB;
  if (strstr(name, ".cpython-") || strstr(name, ".abi3.")) return IN_EXTENSION;
  return 0;
}

/* What the interpreter itself stands on, and this module.  cffi and libffi enter Python like a thread (entered_below). */
bool interpose_knows(const char *path) {
  static const char *const base[] = {"libc.so", "libc-2.",   "ld-linux", "ld-2.",      "libpthread",    "libm.so",
                                     "libdl",   "librt.so",  "libutil",  "linux-vdso", "libgcc_s",      "libasan",
                                     "libtsan", "libubsan",  "libffi",   "_cffi_backend."};
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
  for (size_t i = 0; i < nelem(base); i++)
    if (starts_with(name, base[i])) return true;
  return kind_of(path) & (IN_INTERPRETER | IN_STDLIB | IN_TRUSTED) || is_this(path);
}

static unsigned long long seen; /* generation of the last pass */
static got_walk walk;
static hook *table; /* handed in */
static size_t ntable;
static unsigned entries;        /* of ours in the interpreter itself; some are counted more than once */
static const char *unproven;    /* a function whose original is not to be found */

static void read_environment(void) {
  const char *env = getenv("GMPRT_INTERPOSE");
  wanted = PARKING;
  if (env && strcmp(env, "0") == 0) wanted = WITHOUT_PARKING;
  if (env && strcmp(env, "none") == 0) wanted = NOTHING;
  interposed.nothing = wanted == NOTHING;
}

/* The folder of the interpreter's own extension modules.  Not asked of sysconfig, whose import takes longer than
 * gmprt's, and whose answer is wrong where an installation has been moved.  false: exception set. */
static bool find_dynload(void) {
  PyObject *prefix = PySys_GetObject("base_exec_prefix"), *lib = PySys_GetObject("platlibdir"); /* borrowed */
  if (dynload || !prefix || !lib || !PyUnicode_Check(prefix) || !PyUnicode_Check(lib)) return true;
  PyObject *dir =
      PyUnicode_FromFormat("%U/%U/python%d.%d/lib-dynload", prefix, lib, PY_MAJOR_VERSION, PY_MINOR_VERSION);
  const char *text = dir ? PyUnicode_AsUTF8(dir) : NULL;
  char *resolved = text ? realpath(text, NULL) : NULL;
  bool memory = text && (resolved || errno != ENOMEM);
  if (resolved && (memory = (dynload = malloc(strlen(resolved) + 2)) != NULL)) {
    strcpy(dynload, resolved);
    strcat(dynload, "/");
  }
  free(resolved);
  if (text && !memory) PyErr_NoMemory();
  Py_XDECREF(dir);
  return memory;
}

static void count_entry(const char *path, const char *name, void *arg) {
  (void)name;
  if (kind_of(path) & IN_INTERPRETER) ++*(unsigned *)arg;
}

/* 0, or an errno. */
static int patch(void) {
  seen = got_generation();
  int e = wanted == NOTHING ? 0 : got_patch(&walk, table, ntable, kind_of, count_entry, &entries);
  errqueue_find();
  affinity_find();
  return e;
}

/* What is to be replaced where. */
static void choose_hooks(void) {
  for (size_t i = 0; i < ntable && wanted != PARKING; i++)
    if (!(table[i].where & ALWAYS)) table[i].where = 0;
  unproven = got_resolve(table, ntable, kind_of);
  for (size_t i = 0; i < ntable && unproven; i++) table[i].where = 0; /* they stand or fall together */
}

bool interpose_install(hook *hooks, size_t n) {
  table = hooks;
  ntable = n;
  read_environment();
  if (!find_dynload()) return false;
  if (wanted == NOTHING)
    os_leave_signals();
  else
    choose_hooks();
  int e = patch();
  if (e) {
    interpose_remove();
    errno = e;
    e == ENOMEM ? PyErr_NoMemory() : PyErr_SetFromErrno(PyExc_OSError);
    return false;
  }
  interposed.gil = entries > 0;
  return true;
}

/* Cheap when nothing was loaded. */
bool interpose_refresh(void) {
  if (got_generation() == seen) return false;
  patch();
  return true;
}

void interpose_remove(void) {
  if (wanted != NOTHING) got_restore(table, ntable, kind_of);
  entries = 0;
  interposed.gil = false;
  got_forget(&walk);
}

bool interpose_parks(void) { return wanted == PARKING && entries > 0; }
bool interpose_possible(void) { return wanted == NOTHING || entries > 0; }

const char *interpose_mode(void) {
  static char text[96];
  if (wanted == NOTHING) return "none (GMPRT_INTERPOSE=none)";
  if (unproven) {
    PyOS_snprintf(text, sizeof text, "not possible: the C library's %s is hidden by a wrapper", unproven);
    return text;
  }
  if (!entries) return "not possible: the interpreter calls the C library directly";
  return wanted == PARKING ? "on" : "off (GMPRT_INTERPOSE=0)";
}

/* What a pass has found.  It is made into Python objects afterwards: see got_visit. */
typedef struct report {
  struct found {
    char *path; /* NULL: as before */
    const char *name;
  } *at;
  size_t n, room;
  const char *last;
  bool failed;
} report;

static void report_one(const char *path, const char *name, void *arg) {
  report *r = arg;
  if (r->n == r->room) {
    size_t room = r->room ? 2 * r->room : 256;
    struct found *at = realloc(r->at, room * sizeof *at);
    if (!at) {
      r->failed = true;
      return;
    }
    r->at = at;
    r->room = room;
  }
  char *copy = path != r->last ? strdup(path[0] ? path : "(executable)") : NULL;
  r->failed |= path != r->last && !copy;
  r->last = path;
  r->at[r->n++] = (struct found){copy, name};
}

static bool report_add(PyObject *d, PyObject **names, const struct found *f) {
  if (f->path) {
    PyObject *key = PyUnicode_DecodeFSDefault(f->path), *fresh = PyList_New(0);
    *names = key && fresh ? PyDict_SetDefault(d, key, fresh) : NULL;
    Py_XDECREF(fresh);
    Py_XDECREF(key);
  }
  PyObject *name = *names ? PyUnicode_FromString(f->name) : NULL;
  bool ok = name && PyList_Append(*names, name) == 0;
  Py_XDECREF(name);
  return ok;
}

/* {path: [function, ...]}: what a pass that puts them there finds, so there must be some already. */
PyObject *interpose_report(void) {
  report r = {0};
  if (entries > 0) got_patch(NULL, table, ntable, kind_of, report_one, &r);
  PyObject *d = r.failed ? PyErr_NoMemory() : PyDict_New(), *names = NULL;
  for (size_t i = 0; i < r.n; i++) {
    if (d && !report_add(d, &names, &r.at[i])) Py_CLEAR(d);
    free(r.at[i].path);
  }
  free(r.at);
  return d;
}
