/* shim.c - stand-ins for Python-callable C functions.
 *
 * A hook (interpose.h) must not simply fail when its goroutine is cancelled: the C code above would take the
 * failure for a result, say False, and run the body of `with lock:` without the lock.  So a cancel ends an
 * interposed call only below a shim of the same kind that was called by the frame that runs now.  The shim
 * then throws away what the function made of the failure, and raises Cancelled.  Without a shim the cancel
 * stays pending until a wait that it may end.  What was done wins: bytes that have come, a lock that was
 * taken, a child that was reaped are returned, and the cancel waits.
 *
 * A shim replaces PyMethodDef.ml_meth by a function of the same calling convention.  Flags, name, identity,
 * `from time import sleep` and specialised bytecode stay valid: all of them load ml_meth when they call.
 *
 * The same mechanism hears of modules being loaded, so that their tables are patched before they are used.
 *
 * Frames in which a cancel must wait: they re-acquire a lock that the caller will release whatever happens, or
 * take the lock of a running thread for their own.
 *
 * Rejected: EINTR and an exception from a pending call (no effect in half of the calls), cancelling at any
 * bytecode (Go never does, and no finally block is safe from it). */
#include "shim.h"

#include "interpose.h"

/* ---- the table --------------------------------------------------------------------------------------------- */

enum { LOADS = FAM_CHILD + 1 }; /* no call that blocks: it may load a module */

static const struct {
  uint8_t family;
  const char *module, *type, *name; /* type NULL: a function of the module */
} table[] = {
    {FAM_SLEEP, "time", NULL, "sleep"},
    {FAM_SEM, "_thread", "LockType", "acquire"},
    {FAM_SEM, "_thread", "LockType", "acquire_lock"},
    {FAM_SEM, "_thread", "LockType", "__enter__"},
    {FAM_SEM, "_thread", "RLock", "acquire"},
    {FAM_SEM, "_thread", "RLock", "__enter__"},
    {FAM_SEM, "_queue", "SimpleQueue", "get"},
    {FAM_SEM, "_multiprocessing", "SemLock", "acquire"},
    {FAM_SEM, "_multiprocessing", "SemLock", "__enter__"},
    {FAM_FD, "_socket", "socket", "_accept"},
    {FAM_FD, "_socket", "socket", "connect"},
    {FAM_FD, "_socket", "socket", "connect_ex"},
    {FAM_FD, "_socket", "socket", "recv"},
    {FAM_FD, "_socket", "socket", "recv_into"},
    {FAM_FD, "_socket", "socket", "recvfrom"},
    {FAM_FD, "_socket", "socket", "recvfrom_into"},
    {FAM_FD, "_socket", "socket", "recvmsg"},
    {FAM_FD, "_socket", "socket", "recvmsg_into"},
    {FAM_FD, "_socket", "socket", "send"},
    {FAM_FD, "_socket", "socket", "sendall"},
    {FAM_FD, "_socket", "socket", "sendto"},
    {FAM_FD, "_socket", "socket", "sendmsg"},
    {FAM_FD, "_ssl", "_SSLSocket", "do_handshake"},
    {FAM_FD, "_ssl", "_SSLSocket", "read"},
    {FAM_FD, "_ssl", "_SSLSocket", "write"},
    {FAM_FD, "_ssl", "_SSLSocket", "shutdown"},
    {FAM_FD, "select", NULL, "select"},
    {FAM_FD, "select", "poll()", "poll"},
    {FAM_FD, "select", "epoll", "poll"},
    {FAM_FD, "_io", "FileIO", "read"},
    {FAM_FD, "_io", "FileIO", "readinto"},
    {FAM_FD, "_io", "FileIO", "readall"},
    {FAM_FD, "_io", "FileIO", "write"},
    {FAM_FD, "posix", NULL, "read"},
    {FAM_FD, "posix", NULL, "readv"},
    {FAM_FD, "posix", NULL, "write"},
    {FAM_FD, "posix", NULL, "writev"},
    {FAM_FD, "posix", NULL, "sendfile"},
    {FAM_FD, "posix", NULL, "splice"},
    {FAM_CHILD, "posix", NULL, "waitpid"},
    {FAM_CHILD, "posix", NULL, "wait"},
    {FAM_CHILD, "posix", NULL, "wait3"},
    {FAM_CHILD, "posix", NULL, "wait4"},
    {FAM_CHILD, "posix", NULL, "waitid"},
    {FAM_CHILD, "_signal", NULL, "pause"},
    {LOADS, "_imp", NULL, "create_dynamic"},
    {LOADS, "_imp", NULL, "exec_dynamic"},
    {LOADS, "_imp", NULL, "exec_builtin"},
    {LOADS, "_ctypes", NULL, "dlopen"},
    {LOADS, "_cffi_backend", NULL, "load_library"},
    {LOADS, "_cffi_backend", "FFI", "dlopen"},
};
enum { SHIMS = nelem(table) };

static struct installed {
  PyMethodDef *def; /* NULL: not yet */
  PyCFunction original;
} installed[SHIMS];

/* ---- frames in which a cancel must wait ----------------------------------------------------------------- */

static const struct {
  const char *module, *type, *name;
} untouchable[] = {
    {"threading", "Condition", "_acquire_restore"},
    {"threading", "Thread", "_wait_for_tstate_lock"},
    {"multiprocessing.synchronize", "Condition", "wait"},
};
static PyCodeObject *untouchable_code[nelem(untouchable)]; /* borrowed from functions that live for ever */

static bool may_cancel(PyCodeObject *code) {
  for (size_t i = 0; i < nelem(untouchable); i++)
    if (code && code == untouchable_code[i]) return false;
  return true;
}

/* ---- a call ---------------------------------------------------------------------------------------------------- */

static Goroutine *shim_enter(shim *s, uint8_t family) {
  Goroutine *self = current_handle();
  if (likely(!self)) return NULL;
  PyThreadState *ts = ts_of(self->g);
  bool cancels = family != LOADS && (family != FAM_SEM || may_cancel(ts_code(ts)));
  *s = (shim){cancels ? (enum family)family : FAM_NONE, ts_position(ts).frame, WAKE_OK, self->shim};
  self->shim = s;
  return self;
}

static PyObject *shim_leave(shim *s, Goroutine *self, PyObject *result) {
  self->shim = s->outer;
  if (unlikely(homes_of(self) != NULL)) homes_leave_shim(self, s);
  if (likely(s->substituted == WAKE_OK)) return result;
  Py_XDECREF(result);
  PyErr_Clear();
  wake_error(s->substituted);
  return NULL;
}

/* A module may have been loaded. */
static PyObject *loaded(PyObject *result) {
  if (!result) return NULL;
  interpose_refresh();
  shims_install();
  return result;
}

#define SHIM_CALL(i, original) \
  shim s; \
  Goroutine *self_ = table[i].family == LOADS ? NULL : shim_enter(&s, table[i].family); \
  PyObject *r = (original); \
  if (table[i].family == LOADS) return loaded(r); \
  return likely(!self_) ? r : shim_leave(&s, self_, r)

typedef PyObject *(*fn_plain)(PyObject *, PyObject *);
typedef PyObject *(*fn_keywords)(PyObject *, PyObject *, PyObject *);
typedef PyObject *(*fn_fast)(PyObject *, PyObject *const *, Py_ssize_t);
typedef PyObject *(*fn_fast_keywords)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
typedef PyObject *(*fn_method)(PyObject *, PyTypeObject *, PyObject *const *, Py_ssize_t, PyObject *);

#define ORIGINAL(type, i) ((type)(void (*)(void))installed[i].original)

static noinline PyObject *plain(int i, PyObject *o, PyObject *a) {
  SHIM_CALL(i, ORIGINAL(fn_plain, i)(o, a));
}
static noinline PyObject *keywords(int i, PyObject *o, PyObject *a, PyObject *k) {
  SHIM_CALL(i, ORIGINAL(fn_keywords, i)(o, a, k));
}
static noinline PyObject *fast(int i, PyObject *o, PyObject *const *a, Py_ssize_t n) {
  SHIM_CALL(i, ORIGINAL(fn_fast, i)(o, a, n));
}
static noinline PyObject *fast_keywords(int i, PyObject *o, PyObject *const *a, Py_ssize_t n, PyObject *k) {
  SHIM_CALL(i, ORIGINAL(fn_fast_keywords, i)(o, a, n, k));
}
static noinline PyObject *method(int i, PyObject *o, PyTypeObject *t, PyObject *const *a, Py_ssize_t n,
                               PyObject *k) {
  SHIM_CALL(i, ORIGINAL(fn_method, i)(o, t, a, n, k));
}

/* An ordinary thread goes straight through. */
#define THROUGH(i, type, ...) \
  if (table[i].family != LOADS && likely(!on_m())) return ORIGINAL(type, i)(__VA_ARGS__)

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
  }
#define ENTRY(i) {(void (*)(void))plain_##i, (void (*)(void))keywords_##i, (void (*)(void))fast_##i, \
                  (void (*)(void))fast_keywords_##i, (void (*)(void))method_##i},
#define EACH(X) \
  X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) \
  X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31) X(32) X(33) X(34) X(35) \
  X(36) X(37) X(38) X(39) X(40) X(41) X(42) X(43) X(44) X(45) X(46) X(47) X(48) X(49) X(50)

EACH(TRAMPOLINES)
static const struct {
  void (*plain)(void), (*keywords)(void), (*fast)(void), (*fast_keywords)(void), (*method)(void);
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

/* The module if it has been imported; borrowed. */
static PyObject *module_if_loaded(const char *name) {
  return PyDict_GetItemString(PyImport_GetModuleDict(), name);
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

/* Where the interpreter keeps the function's address; NULL: no C function, or not there. */
static PyMethodDef *definition(PyObject *owner, const char *name) {
  PyObject *f = PyObject_GetAttrString(owner, name);
  PyMethodDef *def = NULL;
  if (f && PyCFunction_Check(f)) def = ((PyCFunctionObject *)f)->m_ml;
  if (f && Py_IS_TYPE(f, &PyMethodDescr_Type)) def = ((PyMethodDescrObject *)f)->d_method;
  PyErr_Clear();
  Py_XDECREF(f); /* the type or the module keeps it */
  return def;
}

static void install(int i) {
  PyObject *module = module_if_loaded(table[i].module);
  if (!module) return;
  PyObject *owner = table[i].type ? type_in(module, table[i].type) : Py_NewRef(module);
  PyMethodDef *def = owner ? definition(owner, table[i].name) : NULL;
  void (*f)(void) = def ? trampoline(i, def->ml_flags) : NULL;
  PyErr_Clear();
  Py_XDECREF(owner);
  if (!f || (void (*)(void))def->ml_meth == f) return;
  installed[i].def = def;
  installed[i].original = def->ml_meth;
  def->ml_meth = (PyCFunction)f;
}

static void find_untouchable(size_t i) {
  PyObject *module = module_if_loaded(untouchable[i].module);
  PyObject *type = module ? PyObject_GetAttrString(module, untouchable[i].type) : NULL;
  PyObject *f = type ? PyObject_GetAttrString(type, untouchable[i].name) : NULL;
  if (f && PyFunction_Check(f)) untouchable_code[i] = (PyCodeObject *)PyFunction_GET_CODE(f);
  PyErr_Clear();
  Py_XDECREF(f);
  Py_XDECREF(type);
}

void shims_install(void) {
  bool parks = interpose_parks();
  for (int i = 0; i < (int)SHIMS; i++)
    if (!installed[i].def && (parks || table[i].family == LOADS)) install(i);
  for (size_t i = 0; i < nelem(untouchable); i++)
    if (!untouchable_code[i]) find_untouchable(i);
}

void shims_remove(void) {
  for (size_t i = 0; i < SHIMS; i++) {
    if (installed[i].def) installed[i].def->ml_meth = installed[i].original;
    installed[i].def = NULL;
  }
}
