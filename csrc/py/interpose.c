/* interpose.c - which functions are replaced in which objects, and the frame that all hooks share.
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
 * shim.c, and no signal has a handler of ours (os_leave_signals).  A goroutine then has the identity and the signal mask of
 * the thread that runs it; the main goroutine stays on the thread that called run() (pyrun.c), so that signals and
 * thread-locals of C are as ever there.  Forks are heard of by pthread_atfork alone (hook_fork.c). */
#define _GNU_SOURCE
#include "interpose.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "got.h"

struct real real;

enum {
  PARK = IN_INTERPRETER | IN_STDLIB,
  PARK_FD = PARK | IN_TRUSTED,
  PYTHON = IN_INTERPRETER | IN_STDLIB | IN_EXTENSION,
  ALL = PYTHON | IN_TRUSTED,
  /* where GMPRT_INTERPOSE=0 leaves a hook in place: identity, masks, processes, the runtime's descriptors */
  ALWAYS = 1 << 8,
};

#define HOOK(name, where) {#name, (void *)hook_##name, (void **)&real.name, where}
#define HOOK_AS(name, fn, like, where) {name, (void *)(fn), (void **)&real.like, where}
static hook hooks[] = {
    HOOK(clock_nanosleep, PARK),
    HOOK(pause, PARK),
    HOOK(sem_wait, PARK),
    HOOK(sem_timedwait, PARK),
    HOOK(sem_clockwait, PARK),
    HOOK(sem_post, PARK),
    {"sem_trywait", NULL, (void **)&real.sem_trywait, 0}, /* not replaced: only called */
    HOOK_AS("sem_open", hook_sem_open, sem_open, PARK),
    HOOK(sem_close, PARK),
    HOOK(perror, IN_INTERPRETER),
    HOOK(pthread_cond_signal, IN_INTERPRETER | ALWAYS),
    HOOK(pthread_cond_timedwait, IN_INTERPRETER | ALWAYS),
    HOOK(poll, PARK_FD),
    HOOK_AS("__poll_chk", hook_poll_chk, poll_chk, PARK_FD),
    HOOK(ppoll, PARK_FD),
    HOOK(select, PARK_FD),
    HOOK(pselect, PARK_FD),
    HOOK(epoll_wait, PARK),
    HOOK(epoll_pwait, PARK),
    HOOK(recv, PARK_FD),
    HOOK_AS("__recv_chk", hook_recv_chk, recv_chk, PARK_FD),
    HOOK(recvfrom, PARK_FD),
    HOOK_AS("__recvfrom_chk", hook_recvfrom_chk, recvfrom_chk, PARK_FD),
    HOOK(recvmsg, PARK_FD),
    HOOK(send, PARK_FD),
    HOOK(sendto, PARK_FD),
    HOOK(sendmsg, PARK_FD),
    HOOK(accept, PARK),
    HOOK(accept4, PARK),
    HOOK(connect, PARK_FD),
    HOOK(read, PARK_FD),
    HOOK_AS("__read_chk", hook_read_chk, read_chk, PARK_FD),
    HOOK(write, PARK_FD),
    HOOK(readv, PARK_FD),
    HOOK(writev, PARK_FD),
    HOOK(sendfile64, PARK),
    HOOK(splice, PARK),
    HOOK(close, PARK_FD | ALWAYS),
    HOOK(close_range, ALL | ALWAYS),
    HOOK(closefrom, ALL | ALWAYS),
    HOOK(dup2, ALL | ALWAYS),
    HOOK(dup3, ALL | ALWAYS),
    HOOK_AS("socket", hook_socket_new, socket, PARK_FD),
    HOOK(socketpair, PARK_FD),
    HOOK(pipe, PARK_FD),
    HOOK(pipe2, PARK_FD),
    HOOK(dup, PARK_FD),
    HOOK(eventfd, PARK_FD),
    HOOK_AS("open64", hook_open64, open64, PARK),
    HOOK_AS("fcntl64", hook_fcntl64, fcntl64, ALL),
    HOOK_AS("fcntl", hook_fcntl64, fcntl64, ALL),
    HOOK(ioctl, ALL),
    HOOK(setsockopt, ALL),
    HOOK(flock, PARK),
    HOOK(lockf64, PARK),
    HOOK(fsync, PARK),
    HOOK(fdatasync, PARK),
    HOOK(getaddrinfo, PARK_FD),
    HOOK(getnameinfo, PARK),
    HOOK(gethostbyname_r, PARK),
    HOOK(gethostbyaddr_r, PARK),
    HOOK(waitpid, PARK),
    HOOK(wait, PARK),
    HOOK(wait3, PARK),
    HOOK(wait4, PARK),
    HOOK(waitid, PARK),
    HOOK(pthread_self, IN_INTERPRETER | ALWAYS),
    HOOK(syscall, IN_INTERPRETER | ALWAYS),
    HOOK(pthread_kill, IN_INTERPRETER | ALWAYS),
    HOOK(pthread_sigmask, PYTHON | ALWAYS),
    HOOK(sigprocmask, PYTHON | ALWAYS),
    HOOK(sigpending, IN_INTERPRETER | ALWAYS),
    HOOK(sigwait, PARK | ALWAYS),
    HOOK(sigwaitinfo, PARK | ALWAYS),
    HOOK(sigtimedwait, PARK | ALWAYS),
    HOOK(kill, PARK | ALWAYS),
    HOOK(killpg, PARK | ALWAYS),
    HOOK(raise, PARK | ALWAYS),
    HOOK(sigaction, PYTHON | ALWAYS),
    HOOK(sigaltstack, PARK | ALWAYS),
    HOOK(fork, PYTHON | ALWAYS),
    HOOK(vfork, PYTHON | ALWAYS),
    HOOK(forkpty, PARK | ALWAYS),
    HOOK(posix_spawn, PYTHON | ALWAYS),
    HOOK(posix_spawnp, PYTHON | ALWAYS),
    HOOK(system, PARK | ALWAYS),
    HOOK(popen, PYTHON | ALWAYS),
    HOOK(pthread_create, PYTHON | ALWAYS),
    HOOK(fopen64, IN_INTERPRETER | ALWAYS),
    HOOK(pthread_getcpuclockid, IN_INTERPRETER | ALWAYS),
    HOOK(pthread_getname_np, IN_INTERPRETER | ALWAYS),
    HOOK(pthread_setname_np, IN_INTERPRETER | ALWAYS),
    HOOK(pthread_getattr_np, IN_INTERPRETER | ALWAYS),
};

/* ---- objects --------------------------------------------------------------------------------------------- */

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

/* ---- install ----------------------------------------------------------------------------------------------- */

static unsigned long long seen; /* generation of the last pass */
static got_walk walk;
static unsigned entries;        /* of ours in the interpreter itself; some are counted more than once */
static const char *unproven;    /* a function whose original is not to be found */

static void read_environment(void) {
  const char *env = getenv("GMPRT_INTERPOSE");
  wanted = PARKING;
  if (env && strcmp(env, "0") == 0) wanted = WITHOUT_PARKING;
  if (env && strcmp(env, "none") == 0) wanted = NOTHING;
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
  int e = wanted == NOTHING ? 0 : got_patch(&walk, hooks, nelem(hooks), kind_of, count_entry, &entries);
  errqueue_find();
  affinity_find();
  return e;
}

/* What is to be replaced where. */
static void choose_hooks(void) {
  for (size_t i = 0; i < nelem(hooks) && wanted != PARKING; i++)
    if (!(hooks[i].where & ALWAYS)) hooks[i].where = 0;
  unproven = got_resolve(hooks, nelem(hooks), kind_of);
  for (size_t i = 0; i < nelem(hooks) && unproven; i++) hooks[i].where = 0; /* they stand or fall together */
}

bool interpose_install(void) {
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
  if (entries > 0) signals_relay(true);
  return true;
}

/* Cheap when nothing was loaded. */
bool interpose_refresh(void) {
  if (got_generation() == seen) return false;
  patch();
  return true;
}

void interpose_remove(void) {
  if (entries > 0) signals_relay(false);
  if (wanted != NOTHING) got_restore(hooks, nelem(hooks), kind_of);
  entries = 0;
  got_forget(&walk);
}

bool interpose_parks(void) { return wanted == PARKING && entries > 0; }
bool interpose_sees_gil(void) { return entries > 0; }
bool interpose_nothing(void) { return wanted == NOTHING; }
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
  if (entries > 0) got_patch(NULL, hooks, nelem(hooks), kind_of, report_one, &r);
  PyObject *d = r.failed ? PyErr_NoMemory() : PyDict_New(), *names = NULL;
  for (size_t i = 0; i < r.n; i++) {
    if (d && !report_add(d, &names, &r.at[i])) Py_CLEAR(d);
    free(r.at[i].path);
  }
  free(r.at);
  return d;
}

/* ---- the frame of a hook ---------------------------------------------------------------------------------- */

bool in_vfork_child(M *m) {
  if (likely(!m->vforked)) return false;
  if (getpid() != m->vforked) return true;
  m->vforked = 0; /* the child has gone its way */
  return false;
}

G *detached_g_of_m(void) {
  M *m = getm();
  G *gp = load_rlx(&m->curg);
  if (!gp || gp->kind != GK_HOST || attached_here(ts_of(gp)) || in_vfork_child(m) || interpose_in_fork())
    return NULL;
  return gp;
}

/* May a cancel end this call?  Only below a shim of the same family that the running frame has called; what else
 * that depends on is asked when one has come (call_woken). */
static bool cancellable(Goroutine *self, family f) {
  shim *s = self->shim;
  return s && s->family == f && s->frame == ts_position(ts_of(self->g)).frame;
}

/* false: not on a goroutine, or one that must not park here; the original is to be called. */
bool call_begin(call *c, family f) {
  G *gp = detached_g();
  if (likely(!gp) || entered_below(gp) || load_rlx(&sched.stopping)) return false;
  Goroutine *self = handle_of(gp);
  c->g = gp;
  c->home = gp->m;
  c->e = errno_get();
  c->early = f == FAM_FD;
  if (unlikely(homes_of(self) != NULL)) homes_prune(self);
  c->nocancel = !cancellable(self, f);
  if (self->shim && self->shim->family == FAM_NONE)
    self->shim->touched = true; /* a file object waits for its own lock: others may leave it anything */
  return true;
}

/* After a park, still attached.  A cancel that must not end this call is put off: WAKE_OK, wait on. */
wake_t call_woken(call *c, wake_t w) {
  if (likely(w != WAKE_CANCELLED) || cancel_ends(c->g->handle)) return w;
  c->nocancel = c->g->nocancel = true;
  gocancel(c->g, true);
  return WAKE_OK;
}

/* The goroutine is about to park. */
void call_attach(call *c) {
  xadd(&c->home->homed, 1);
  PyEval_RestoreThread(ts_of(c->g));
  c->g->nocancel = c->nocancel;
}

/* Back below the C code, on whichever thread. */
void call_detach(call *c) {
  G *gp = c->g;
  gp->nocancel = false;
  bool moved = gp->m != c->home;
  if (unlikely(moved && c->early)) homes_note(c, c->home);
  PyEval_SaveThread();
  if (unlikely(moved)) errqueue_clear();
  errno_set(c->e); /* a success must not leave what happened on this thread before */
  xadd(&c->home->homed, (uint32_t)-1);
}

int call_fail(call *c, int e) {
  if (unlikely(e == EINTR || homes_of(handle_of(c->g)))) homes_store(c, e);
  errno_set(e);
  return -1;
}

/* The errno of a wait that was not served.  A cancel makes up one, which the shim will replace. */
int call_errno(call *c, wake_t w) {
  switch (w) {
    case WAKE_INTERRUPTED: return EINTR;
    case WAKE_CANCELLED:
    case WAKE_NOTHREAD:
    case WAKE_DEADLOCK: {
      shim *s = handle_of(c->g)->shim;
      s->substituted = (uint8_t)w;
      return s->family == FAM_SEM ? ETIMEDOUT : ECANCELED;
    }
    default: throw("a blocking call ended with %d", (int)w);
  }
}

void call_handoff(void) {
  M *m = getm();
  if (m && detached_g()) entersyscall_host(m);
}
