/* shim.c - stand-ins for Python-callable C functions.
 *
 * A hook (call.h) must not simply fail when its goroutine is cancelled: the C code above would take the
 * failure for a result, say False, and run the body of `with lock:` without the lock.  So a cancel ends an
 * interposed call only below a shim of the same kind that was called by the frame that runs now, and under the
 * conditions of cancel.c.  The shim then throws away what the function made of the failure, and raises Cancelled.
 * Without a shim the cancel stays pending until a wait that it may end.
 *
 * What was done wins: bytes that have come, a lock that was taken, a child that was reaped are returned, and the
 * cancel waits.  That a hook has made up a failure does not mean that the function has failed: the interpreter may
 * have handed over the lock, or the item of a queue, after the wait had ended and before it looked again (its
 * parking lot then waits once more).  So each entry of the table says how its failure shows.
 *
 * Methods of file objects that buffer are in the table for what they hold: see cancel.c.
 *
 * A shim replaces PyMethodDef.ml_meth by a function of the same calling convention.  Flags, name, identity,
 * `from time import sleep` and specialised bytecode stay valid: all of them load ml_meth when they call.
 *
 * The same mechanism hears of modules being loaded, so that their tables are patched before they are used, of
 * the first use of greenlets (greenlet.c), and of who wants to see all frames (sched/hibernate.c).
 *
 * Rejected: EINTR and an exception from a pending call (no effect in half of the calls), cancelling at any
 * bytecode (Go never does, and no finally block is safe from it). */
#include <errno.h>

#include "sched/hibernate.h"
#include "py/cpython/lock.h"
#include "py/host/above.h"
#include "py/host/errors.h"
#include "py/types/args.h"
#include "py/interpose/homes.h"
#include "py/interpose/objects.h"

/* ---- the table --------------------------------------------------------------------------------------------- */

/* No calls that block. */
enum {
  LOADS = FAM_CHILD + 1, /* it may load a module */
  WIRES,                 /* it asks for the state of its thread: greenlet.c */
  SEES,                  /* it looks at the frames of all threads, those that sleep without theirs included */
};

/* How a failure shows, or what a file object does. */
enum {
  RAISES,     /* an exception */
  FALSE,      /* it returns False */
  NUMBER,     /* it returns an errno */
  NOTHING,    /* not at all */
  READS,      /* takes data from below, and loses what it has if an exception comes */
  READS_SOME, /* the same; without a number, or with a negative one, all that there is */
  KEEPS,      /* writes, and after an exception still has what it had */
  WRITES,     /* may write what others have left in it, and lose it if an exception comes */
};

static const struct {
  uint8_t family, how;
  const char *module, *type, *name; /* type NULL: a function of the module */
} table[] = {
    {FAM_SLEEP, RAISES, "time", NULL, "sleep"},
    {FAM_SEM, FALSE, "_thread", "LockType", "acquire"},
    {FAM_SEM, FALSE, "_thread", "LockType", "acquire_lock"},
    {FAM_SEM, FALSE, "_thread", "LockType", "__enter__"},
    {FAM_SEM, FALSE, "_thread", "RLock", "acquire"},
    {FAM_SEM, FALSE, "_thread", "RLock", "__enter__"},
    {FAM_SEM, RAISES, "_queue", "SimpleQueue", "get"},
    {FAM_SEM, FALSE, "_multiprocessing", "SemLock", "acquire"},
    {FAM_SEM, FALSE, "_multiprocessing", "SemLock", "__enter__"},
    {FAM_FD, RAISES, "_socket", "socket", "_accept"},
    {FAM_FD, RAISES, "_socket", "socket", "connect"},
    {FAM_FD, NUMBER, "_socket", "socket", "connect_ex"},
    {FAM_FD, RAISES, "_socket", "socket", "recv"},
    {FAM_FD, RAISES, "_socket", "socket", "recv_into"},
    {FAM_FD, RAISES, "_socket", "socket", "recvfrom"},
    {FAM_FD, RAISES, "_socket", "socket", "recvfrom_into"},
    {FAM_FD, RAISES, "_socket", "socket", "recvmsg"},
    {FAM_FD, RAISES, "_socket", "socket", "recvmsg_into"},
    {FAM_FD, RAISES, "_socket", "socket", "send"},
    {FAM_FD, RAISES, "_socket", "socket", "sendall"},
    {FAM_FD, RAISES, "_socket", "socket", "sendto"},
    {FAM_FD, RAISES, "_socket", "socket", "sendmsg"},
    {FAM_FD, RAISES, "_ssl", "_SSLSocket", "do_handshake"},
    {FAM_FD, RAISES, "_ssl", "_SSLSocket", "read"},
    {FAM_FD, RAISES, "_ssl", "_SSLSocket", "write"},
    {FAM_FD, RAISES, "_ssl", "_SSLSocket", "shutdown"},
    {FAM_FD, RAISES, "select", NULL, "select"},
    {FAM_FD, RAISES, "select", "poll()", "poll"},
    {FAM_FD, RAISES, "select", "epoll", "poll"},
    {FAM_FD, RAISES, "_io", "FileIO", "read"},
    {FAM_FD, RAISES, "_io", "FileIO", "readinto"},
    {FAM_FD, RAISES, "_io", "FileIO", "readall"},
    {FAM_FD, RAISES, "_io", "FileIO", "write"},
    {FAM_FD, RAISES, "posix", NULL, "read"},
    {FAM_FD, RAISES, "posix", NULL, "readv"},
    {FAM_FD, RAISES, "posix", NULL, "write"},
    {FAM_FD, RAISES, "posix", NULL, "writev"},
    {FAM_FD, RAISES, "posix", NULL, "sendfile"},
    {FAM_FD, RAISES, "posix", NULL, "splice"},
    {FAM_CHILD, RAISES, "posix", NULL, "waitpid"},
    {FAM_CHILD, RAISES, "posix", NULL, "wait"},
    {FAM_CHILD, RAISES, "posix", NULL, "wait3"},
    {FAM_CHILD, RAISES, "posix", NULL, "wait4"},
    {FAM_CHILD, RAISES, "posix", NULL, "waitid"},
    {FAM_CHILD, NOTHING, "_signal", NULL, "pause"},
    {FAM_NONE, READS_SOME, "_io", "BufferedReader", "read"},
    {FAM_NONE, READS, "_io", "BufferedReader", "read1"},
    {FAM_NONE, READS, "_io", "BufferedReader", "readinto"},
    {FAM_NONE, READS, "_io", "BufferedReader", "readinto1"},
    {FAM_NONE, READS, "_io", "BufferedReader", "readline"},
    {FAM_NONE, READS, "_io", "BufferedReader", "peek"},
    {FAM_NONE, READS, "_io", "BufferedReader", "__next__"},
    {FAM_NONE, KEEPS, "_io", "BufferedWriter", "write"},
    {FAM_NONE, KEEPS, "_io", "BufferedWriter", "flush"},
    {FAM_NONE, WRITES, "_io", "BufferedWriter", "seek"},
    {FAM_NONE, WRITES, "_io", "BufferedWriter", "truncate"},
    {FAM_NONE, WRITES, "_io", "BufferedWriter", "close"},
    {FAM_NONE, WRITES, "_io", "BufferedWriter", "detach"},
    {FAM_NONE, WRITES, "_io", "BufferedRandom", "read"},
    {FAM_NONE, WRITES, "_io", "BufferedRandom", "read1"},
    {FAM_NONE, WRITES, "_io", "BufferedRandom", "readinto"},
    {FAM_NONE, WRITES, "_io", "BufferedRandom", "readinto1"},
    {FAM_NONE, WRITES, "_io", "BufferedRandom", "readline"},
    {FAM_NONE, WRITES, "_io", "BufferedRandom", "peek"},
    {FAM_NONE, WRITES, "_io", "BufferedRandom", "write"},
    {FAM_NONE, WRITES, "_io", "BufferedRandom", "flush"},
    {FAM_NONE, WRITES, "_io", "BufferedRandom", "seek"},
    {FAM_NONE, WRITES, "_io", "BufferedRandom", "truncate"},
    {FAM_NONE, WRITES, "_io", "BufferedRandom", "close"},
    {FAM_NONE, WRITES, "_io", "BufferedRandom", "detach"},
    {FAM_NONE, READS, "_io", "BufferedRWPair", "read"},
    {FAM_NONE, READS, "_io", "BufferedRWPair", "read1"},
    {FAM_NONE, READS, "_io", "BufferedRWPair", "readinto"},
    {FAM_NONE, READS, "_io", "BufferedRWPair", "readinto1"},
    {FAM_NONE, READS, "_io", "BufferedRWPair", "peek"},
    {FAM_NONE, READS_SOME, "_io", "TextIOWrapper", "read"},
    {FAM_NONE, READS, "_io", "TextIOWrapper", "readline"},
    {FAM_NONE, READS, "_io", "TextIOWrapper", "__next__"},
    {FAM_NONE, WRITES, "_io", "TextIOWrapper", "write"},
    {FAM_NONE, WRITES, "_io", "TextIOWrapper", "flush"},
    {FAM_NONE, WRITES, "_io", "TextIOWrapper", "seek"},
    {FAM_NONE, WRITES, "_io", "TextIOWrapper", "tell"},
    {FAM_NONE, WRITES, "_io", "TextIOWrapper", "truncate"},
    {FAM_NONE, WRITES, "_io", "TextIOWrapper", "reconfigure"},
    {FAM_NONE, WRITES, "_io", "TextIOWrapper", "close"},
    {FAM_NONE, WRITES, "_io", "TextIOWrapper", "detach"},
    {FAM_NONE, READS, "_io", "_IOBase", "readline"},
    {FAM_NONE, READS_SOME, "_io", "_IOBase", "readlines"},
    {FAM_NONE, WRITES, "_io", "_IOBase", "writelines"},
    {FAM_NONE, WRITES, "_io", "_IOBase", "close"},
    {SEES, RAISES, "sys", NULL, "_current_frames"},
    {SEES, RAISES, "faulthandler", NULL, "dump_traceback"},
    {SEES, RAISES, "sys", "monitoring", "set_events"}, /* from 3.12 on: they change the code that any frame runs now */
    {SEES, RAISES, "sys", "monitoring", "restart_events"},
    {SEES, RAISES, "sys", "monitoring", "free_tool_id"},
    {SEES, RAISES, "sys", "monitoring", "clear_tool_id"},
    {SEES, RAISES, "sys", NULL, "settrace"}, /* the first one, and the last */
    {SEES, RAISES, "sys", NULL, "setprofile"},
    {SEES, RAISES, "sys", NULL, "_settraceallthreads"},
    {SEES, RAISES, "sys", NULL, "_setprofileallthreads"},
    {LOADS, RAISES, "_imp", NULL, "create_dynamic"},
    {LOADS, RAISES, "_imp", NULL, "exec_dynamic"},
    {LOADS, RAISES, "_imp", NULL, "exec_builtin"},
    {LOADS, RAISES, "_ctypes", NULL, "dlopen"},
    {LOADS, RAISES, "_cffi_backend", NULL, "load_library"},
    {LOADS, RAISES, "_cffi_backend", "FFI", "dlopen"},
    {WIRES, RAISES, "greenlet._greenlet", NULL, "getcurrent"},
    {WIRES, RAISES, "greenlet._greenlet", NULL, "settrace"},
    {WIRES, RAISES, "greenlet._greenlet", NULL, "gettrace"},
    {WIRES, RAISES, "greenlet._greenlet", "greenlet", "switch"},
    {WIRES, RAISES, "greenlet._greenlet", "greenlet", "throw"},
    {WIRES, RAISES, "greenlet._greenlet", "greenlet", "__new__"},
};
enum { SHIMS = nelem(table) };

typedef void (*function)(void);
static struct installed {
  function *at; /* where the interpreter keeps its address; NULL: not yet */
  function original;
} installed[SHIMS];

/* ---- a call ---------------------------------------------------------------------------------------------------- */

static passage passage_of(int i, bool all) {
  if (table[i].how == WRITES) return PASS_NONE;
  if (table[i].how == KEEPS) return PASS_ALL;
  return table[i].how == READS_SOME && all ? PASS_END : PASS_UNTOUCHED;
}

static bool is_reader(int i) { return strcmp(table[i].type, "BufferedReader") == 0; }

/* Does the object hold data that this call will take first? */
static bool has_data(int i, PyObject *o) {
  bool text = table[i].type[0] == 'T', buffered = is_reader(i);
  return (text || buffered) && !file_untouched(buffered ? o : NULL, text ? o : NULL);
}

static noinline void of_a_file(shim *s, int i, PyObject *o, bool all) {
  s->passes = passage_of(i, all);
  s->reader = is_reader(i);
  s->touched = s->passes == PASS_UNTOUCHED && has_data(i, o);
}

/* The running goroutine has a lock for which it has waited, perhaps the one of the file object that it is in: nobody else
 * leaves anything in that from now on.  Without the GIL. */
void shim_has_lock(shim *s) {
  if (likely(!s->waits)) return;
  s->waits = false;
  s->touched = !file_untouched(s->object, NULL);
}

/* all: a file object is to read to the end. */
static inline Goroutine *shim_enter(shim *s, int i, PyObject *o, bool all) {
  Goroutine *self = current_handle();
  if (likely(!self) || unlikely(self->greenlets)) return NULL;
  *s = (shim){.family = (family)table[i].family, .object = o, .outer = self->shim,
              .frame = ts_position(ts_of(self->g)).frame};
  if (table[i].family == FAM_NONE) of_a_file(s, i, o, all);
  self->shim = s;
  return self;
}

/* A failure has been made up: is it what the function fails with? */
static bool has_failed(int i, PyObject *result) {
  switch (table[i].how) {
    case NOTHING: return result != NULL;
    case FALSE: return result == Py_False;
    case NUMBER: return result && PyLong_AsLong(result) == ECANCELED;
    default: return !result && PyErr_ExceptionMatches(table[i].family == FAM_SEM ? PyExc_Exception : PyExc_OSError);
  }
}

static noinline PyObject *was_substituted(int i, shim *s, Goroutine *self, PyObject *result) {
  if (!has_failed(i, result)) {
    if (s->substituted == WAKE_CANCELLED) gocancel(self->g, true);
    return result;
  }
  Py_XDECREF(result);
  PyErr_Clear();
  if (s->family == FAM_SEM && cancel_notified(self, s)) {
    if (s->substituted == WAKE_CANCELLED) gocancel(self->g, true);
    Py_RETURN_TRUE;
  }
  if (wake_error(s->substituted) == 0) PyErr_SetNone(errs.Cancelled); /* Python code in between has taken it */
  return NULL;
}

/* File objects above, if any, have been given something. */
static inline void touch(shim *s, const PyObject *result) {
  if (result && result != Py_None && (s->family == FAM_FD || s->family == FAM_NONE))
    for (shim *o = s->outer; o; o = o->outer) {
      o->touched = true;
      o->waits = false;
    }
}

static bool of_openssl(int i) { return strcmp(table[i].module, "_ssl") == 0; }

static noinline PyObject *shim_leave_rare(int i, shim *s, Goroutine *self, PyObject *result) {
  if (unlikely(self->greenlets)) self->shim = NULL;
  if (!result && of_openssl(i)) errqueue_clear();
  if (unlikely(homes_of(self) != NULL)) homes_leave_shim(self, s);
  if (self->shim) touch(s, result);
  return likely(s->substituted == WAKE_OK) ? result : was_substituted(i, s, self, result);
}

static inline PyObject *shim_leave(int i, shim *s, Goroutine *self, PyObject *result) {
  self->shim = s->outer;
  bool rare = s->outer || s->substituted != WAKE_OK || homes_of(self) || self->greenlets || !result;
  return likely(!rare) ? result : shim_leave_rare(i, s, self, result);
}

/* A module may have been loaded. */
static PyObject *loaded(PyObject *result) {
  if (!result) return NULL;
  interpose_refresh();
  if (!shims_install()) PyErr_Clear(); /* those that are missing come with the next module */
  return result;
}

#define SHIM_CALL(i, o, all, original) \
  if (unlikely(table[i].family >= LOADS)) { \
    if (table[i].family == WIRES) return greenlet_wire() ? (original) : NULL; \
    if (table[i].family == LOADS) return loaded(original); \
    rouse_all(); \
    return original; \
  } \
  shim s; \
  Goroutine *self_ = shim_enter(&s, i, o, all); \
  PyObject *r = (original); \
  return likely(self_ != NULL) ? shim_leave(i, &s, self_, r) : r

/* The argument of read(): a number of bytes, or all. */
static bool to_the_end(PyObject *n) {
  if (n == Py_None) return true;
  if (!PyLong_CheckExact(n)) return false;
  int beyond; /* as the positions in a text of a decoder that has a state are */
  long value = PyLong_AsLongAndOverflow(n, &beyond);
  return beyond ? beyond < 0 : value < 0;
}

typedef PyObject *(*fn_plain)(PyObject *, PyObject *);
typedef PyObject *(*fn_keywords)(PyObject *, PyObject *, PyObject *);
typedef PyObject *(*fn_fast)(PyObject *, PyObject *const *, Py_ssize_t);
typedef PyObject *(*fn_fast_keywords)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
typedef PyObject *(*fn_method)(PyObject *, PyTypeObject *, PyObject *const *, Py_ssize_t, PyObject *);

#define ORIGINAL(type, i) ((type)installed[i].original)

static noinline PyObject *plain(int i, PyObject *o, PyObject *a) {
  SHIM_CALL(i, o, false, ORIGINAL(fn_plain, i)(o, a));
}
/* A cancelled wait for a lock ends as if its time were over, and a debug build asserts that it had one.  So one that has
 * none gets one that never is.  A new reference. */
static PyObject *patient(int i, PyObject *a, PyObject *k) {
  static char *names[] = {"blocking", "timeout", NULL};
  int blocking = 1;
  double timeout = -1;
  bool lock = table[i].type && strcmp(table[i].type, "LockType") == 0;
  if (!lock || !PyArg_ParseTupleAndKeywords(a, k, "|pd", names, &blocking, &timeout) || !blocking || timeout != -1) {
    PyErr_Clear();
    return Py_NewRef(a);
  }
  return Py_BuildValue("(Od)", Py_True, 1e9);
}

static inline PyObject *call_keywords(int i, PyObject *o, PyObject *a, PyObject *k) {
  if (!LOCK_NEEDS_TIMEOUT) return ORIGINAL(fn_keywords, i)(o, a, k);
  PyObject *args = patient(i, a, k);
  PyObject *r = args ? ORIGINAL(fn_keywords, i)(o, args, args == a ? k : NULL) : NULL;
  Py_XDECREF(args);
  return r;
}

/* acquire() and __enter__() of a lock, without arguments. */
static PyObject *acquire(int i, PyObject *o, PyObject *a) {
  if (lock_try(o)) Py_RETURN_TRUE;
  shim s;
  Goroutine *self = shim_enter(&s, i, o, false);
  PyObject *r = likely(self != NULL) ? lock_wait(self, o) : NULL;
  if (unlikely(!r)) r = call_keywords(i, o, a, NULL);
  return likely(self != NULL) ? shim_leave(i, &s, self, r) : r;
}

/* acquire(False), by which a condition asks whether its lock is taken.  Parsing that takes the interpreter 900 bytes of
 * stack, more than anything else in the life of a thread that waits for an event: a page of each. */
static bool only_asks(PyObject *a) { return PyTuple_GET_SIZE(a) == 1 && PyTuple_GET_ITEM(a, 0) == Py_False; }

static noinline PyObject *keywords(int i, PyObject *o, PyObject *a, PyObject *k) {
  if (Py_IS_TYPE(o, semaphore_lock) && !k) {
    if (PyTuple_GET_SIZE(a) == 0) return acquire(i, o, a);
    if (only_asks(a)) return PyBool_FromLong(lock_try(o));
  }
  SHIM_CALL(i, o, false, call_keywords(i, o, a, k));
}
static noinline PyObject *fast(int i, PyObject *o, PyObject *const *a, Py_ssize_t n) {
  SHIM_CALL(i, o, n == 0 || to_the_end(a[0]), ORIGINAL(fn_fast, i)(o, a, n));
}
static noinline PyObject *fast_keywords(int i, PyObject *o, PyObject *const *a, Py_ssize_t n, PyObject *k) {
  SHIM_CALL(i, o, false, ORIGINAL(fn_fast_keywords, i)(o, a, n, k));
}
static noinline PyObject *method(int i, PyObject *o, PyTypeObject *t, PyObject *const *a, Py_ssize_t n,
                               PyObject *k) {
  SHIM_CALL(i, o, false, ORIGINAL(fn_method, i)(o, t, a, n, k));
}

static noinline PyObject *next(int i, PyObject *o) { SHIM_CALL(i, o, false, ORIGINAL(iternextfunc, i)(o)); }

/* An ordinary thread goes straight through. */
#define THROUGH(i, type, ...) \
  if (table[i].family != LOADS && table[i].family != SEES && likely(!on_m())) return ORIGINAL(type, i)(__VA_ARGS__)

/* A function has no room for a number, so there is one of each convention for each entry of the table. */
#define TRAMPOLINES(i) \
  static PyObject *plain_##i(PyObject *o, PyObject *a) { \
    THROUGH(i, fn_plain, o, a); \
    return plain(i, o, a); \
  } \
  static PyObject *keywords_##i(PyObject *o, PyObject *a, PyObject *k) { \
    THROUGH(i, fn_keywords, o, a, k); \
    return keywords(i, o, a, k); \
  } \
  static PyObject *fast_##i(PyObject *o, PyObject *const *a, Py_ssize_t n) { \
    THROUGH(i, fn_fast, o, a, n); \
    return fast(i, o, a, n); \
  } \
  static PyObject *fast_keywords_##i(PyObject *o, PyObject *const *a, Py_ssize_t n, PyObject *k) { \
    THROUGH(i, fn_fast_keywords, o, a, n, k); \
    return fast_keywords(i, o, a, n, k); \
  } \
  static PyObject *method_##i(PyObject *o, PyTypeObject *t, PyObject *const *a, Py_ssize_t n, PyObject *k) { \
    THROUGH(i, fn_method, o, t, a, n, k); \
    return method(i, o, t, a, n, k); \
  } \
  static PyObject *next_##i(PyObject *o) { \
    THROUGH(i, iternextfunc, o); \
    return next(i, o); \
  }
#define ENTRY(i) {(void (*)(void))plain_##i, (void (*)(void))keywords_##i, (void (*)(void))fast_##i, \
                  (void (*)(void))fast_keywords_##i, (void (*)(void))method_##i, (void (*)(void))next_##i},
#define EACH(X) \
  X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) \
  X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31) X(32) X(33) X(34) X(35) \
  X(36) X(37) X(38) X(39) X(40) X(41) X(42) X(43) X(44) X(45) X(46) X(47) X(48) X(49) X(50) X(51) X(52) \
  X(53) X(54) X(55) X(56) X(57) X(58) X(59) X(60) X(61) X(62) X(63) X(64) X(65) X(66) X(67) X(68) X(69) \
  X(70) X(71) X(72) X(73) X(74) X(75) X(76) X(77) X(78) X(79) X(80) X(81) X(82) X(83) X(84) X(85) X(86) \
  X(87) X(88) X(89) X(90) X(91) X(92) X(93) X(94) X(95) X(96) X(97) X(98) X(99) X(100) X(101) \
  X(102) X(103) X(104) X(105) X(106) X(107) X(108) X(109) X(110) X(111)

EACH(TRAMPOLINES)
static const struct {
  void (*plain)(void), (*keywords)(void), (*fast)(void), (*fast_keywords)(void), (*method)(void), (*next)(void);
} trampolines[] = {EACH(ENTRY)};
_Static_assert(nelem(trampolines) == SHIMS, "one set of trampolines for each shim: see EACH");

static void (*trampoline(int i, int flags))(void) {
  switch (flags & (METH_VARARGS | METH_KEYWORDS | METH_NOARGS | METH_O | METH_FASTCALL | METH_METHOD)) {
    case METH_NOARGS:
    case METH_O:
    case METH_VARARGS: return trampolines[i].plain;
    case METH_VARARGS | METH_KEYWORDS: return trampolines[i].keywords;
    case METH_FASTCALL: return trampolines[i].fast;
    case METH_FASTCALL | METH_KEYWORDS: return trampolines[i].fast_keywords;
    case METH_METHOD | METH_FASTCALL | METH_KEYWORDS: return trampolines[i].method;
    default: return NULL;
  }
}

/* ---- install ----------------------------------------------------------------------------------------------------- */

/* The module if it has been imported; borrowed.  NULL without an exception: it has not. */
static PyObject *module_if_loaded(const char *name) {
  PyObject *key = PyUnicode_FromString(name);
  PyObject *module = key ? PyDict_GetItemWithError(PyImport_GetModuleDict(), key) : NULL;
  Py_XDECREF(key);
  return module;
}

/* The type, or of "name()" the type of what it returns; a new reference. */
static PyObject *type_in(PyObject *module, const char *name) {
  size_t n = strlen(name);
  if (n < 2 || strcmp(name + n - 2, "()") != 0) return PyObject_GetAttrString(module, name);
  char function[32];
  PyOS_snprintf(function, sizeof function, "%.*s", (int)(n - 2), name);
  PyObject *made = PyObject_CallMethod(module, function, NULL);
  PyObject *type = made ? Py_NewRef((PyObject *)Py_TYPE(made)) : NULL;
  Py_XDECREF(made);
  return type;
}

/* Where the interpreter keeps the function's address; NULL: no C function, or an exception says why. */
static PyMethodDef *definition(PyObject *owner, const char *name) {
  PyObject *f = PyObject_GetAttrString(owner, name);
  PyMethodDef *def = NULL;
  if (f && PyCFunction_Check(f)) def = ((PyCFunctionObject *)f)->m_ml;
  if (f && Py_IS_TYPE(f, &PyMethodDescr_Type)) def = ((PyMethodDescrObject *)f)->d_method;
  Py_XDECREF(f); /* the type or the module keeps it */
  return def;
}

static void replace(int i, function *at, function f) {
  if (!f || *at == f) return;
  installed[i].at = at;
  installed[i].original = *at;
  *at = f;
}

static void install_in(int i, PyObject *module, PyObject *owner) {
  if (strcmp(table[i].name, "__new__") == 0) { /* so is what makes an object, and its subclasses have copies */
    replace(i, (function *)&((PyTypeObject *)owner)->tp_new, trampolines[i].keywords);
    greenlet_found(module, owner, ORIGINAL(newfunc, i), ((PyTypeObject *)owner)->tp_new);
    return;
  }
  if (strcmp(table[i].name, "__next__") == 0) { /* what `for` calls is a slot of the type */
    replace(i, (function *)&((PyTypeObject *)owner)->tp_iternext, trampolines[i].next);
    return;
  }
  bool is_lock = table[i].type && strcmp(table[i].type, "LockType") == 0;
  if (is_lock && !semaphore_lock && PyType_Check(owner) && !lock_learn((PyTypeObject *)owner)) return;
  PyMethodDef *def = definition(owner, table[i].name);
  if (def) replace(i, (function *)&def->ml_meth, trampoline(i, def->ml_flags));
}

/* false: no memory, and the exception.  (A function that got no shim for want of it could never be cancelled.) */
static bool install(int i) {
  PyObject *module = module_if_loaded(table[i].module), *owner = NULL;
  if (module) owner = table[i].type ? type_in(module, table[i].type) : Py_NewRef(module);
  if (owner) install_in(i, module, owner);
  Py_XDECREF(owner);
  if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_MemoryError)) return false;
  PyErr_Clear();
  return true;
}

bool shims_install(void) {
  bool parks = interpose_parks(), all = true;
  if (interposed.nothing) return true;
  for (int i = 0; i < (int)SHIMS && all; i++)
    if (!installed[i].at && (parks || table[i].family >= LOADS)) all = install(i);
  return all;
}

void shims_remove(void) {
  for (size_t i = 0; i < SHIMS; i++) {
    if (table[i].family == WIRES) continue; /* the type's is in its subclasses, and none does more than it has to */
    if (installed[i].at) *installed[i].at = installed[i].original;
    installed[i].at = NULL;
  }
}
