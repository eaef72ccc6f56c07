/* cond.c - Cond: Go's sync.Cond, over a Mutex, an RWMutex or the reader's side of one.
 *
 * wait() holds the lock again when it ends, however it ends, or the `with` around it would unlock somebody else's.  So
 * a cancel, or an exception of a signal handler, that comes while it locks waits until it has the lock.  Who was
 * signalled returns, and a cancel that came too late for the wait stays for the next one: no signal is swallowed. */
#include "sched/chaos.h"
#include "sched/park.h"
#include "py/cpython/exception.h"
#include "py/host/scope.h"
#include "py/types/sync.h"
#include "py/types/types.h"

PyTypeObject *Cond_Type;

/* What wait() unlocks and locks again: a mutex, or a side of an rwmutex. */
typedef struct locker {
  void *of;
  wake_t (*lock)(void *of, bool block, int64_t deadline);
  bool (*unlock)(void *of);
} locker;

typedef struct Cond {
  PyObject_HEAD
  cond c;
  locker l;
  PyObject *lock; /* what `l` is part of */
} Cond;

static wake_t lock_mutex(void *m, bool block, int64_t deadline) { return gomutex_lock(m, block, deadline); }
static bool unlock_mutex(void *m) { return gomutex_unlock(m); }
static wake_t lock_writer(void *rw, bool block, int64_t deadline) { return rwmutex_lock(rw, block, deadline); }
static bool unlock_writer(void *rw) { return rwmutex_unlock(rw); }
static wake_t lock_reader(void *rw, bool block, int64_t deadline) { return rwmutex_rlock(rw, block, deadline); }
static bool unlock_reader(void *rw) { return rwmutex_runlock(rw); }

static PyObject *cond_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"lock", NULL};
  PyObject *lock;
  locker l;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Cond", names, &lock)) return NULL;
  if (Py_TYPE(lock) == Mutex_Type) {
    l = (locker){&((Mutex *)lock)->m, lock_mutex, unlock_mutex};
  } else if (Py_TYPE(lock) == RWMutex_Type) {
    l = (locker){&((RWMutex *)lock)->rw, lock_writer, unlock_writer};
  } else if (Py_TYPE(lock) == RLocker_Type) {
    l = (locker){&((RLocker *)lock)->of->rw, lock_reader, unlock_reader};
  } else {
    PyErr_Format(PyExc_TypeError, "Cond(): lock must be a Mutex, an RWMutex or its rlocker(), not %.100s",
                 Py_TYPE(lock)->tp_name);
    return NULL;
  }
  Cond *self = (Cond *)type->tp_alloc(type, 0);
  if (!self) return NULL;
  self->l = l;
  self->lock = Py_NewRef(lock);
  return (PyObject *)self;
}

static void cond_dealloc(PyObject *self) {
  Py_XDECREF(((Cond *)self)->lock);
  plain_dealloc(self);
}

/* The handlers of what has interrupted the wait.  WAKE_OK: it was signalled meanwhile. */
static wake_t interrupted(cond *c) {
  cond_away(c);
  if (wake_error(WAKE_INTERRUPTED) == 0) return cond_back(c) ? WAKE_OK : WAKE_INTERRUPTED;
  cond_leave(c);
  return WAKE_CLOSED;
}

/* Until signalled.  A knock for nothing (host/scope.c) would look like a signal: one that is pending, as that of a cancel
 * which a shield has put off since, is taken back first.  One that comes while it waits, a bell that rings late, has
 * taken it out of the queue, and a signal may have passed it over since: it counts as one, for callers look again anyway.
 * WAKE_OK, WAKE_TIMEOUT, WAKE_CANCELLED; WAKE_CLOSED: exception set. */
static wake_t until_signalled(cond *c, int64_t deadline) {
  Goroutine *self = current_handle();
  for (;;) {
    if (self) knock_settle(self);
    wake_t r = cond_wait(c, deadline);
    if (r == WAKE_INTERRUPTED) r = interrupted(c);
    if (r == WAKE_CANCELLED && !cancel_due(self)) return WAKE_OK;
    if (r == WAKE_INTERRUPTED) continue;
    if (likely(r == WAKE_OK) || r == WAKE_TIMEOUT || r == WAKE_CANCELLED || r == WAKE_CLOSED) return r;
    wake_error(r);
    return WAKE_CLOSED;
  }
}

/* The lock is ours again, or an exception says why it is not: a deadlock, no memory, no thread to keep.  What handlers
 * of signals raise meanwhile goes on when it is.  true: a cancel came. */
static bool lock_again(Cond *self) {
  bool cancelled = false;
  for (;;) {
    wake_t r = self->l.lock(self->l.of, true, 0);
    if (likely(r == WAKE_OK)) return cancelled;
    if (r == WAKE_CANCELLED) {
      cancelled = true;
    } else if (r != WAKE_INTERRUPTED) {
      PyErr_Clear();
      wake_error(r);
      return cancelled;
    } else if (PyErr_Occurred()) {
      ASIDE(if (PyErr_CheckSignals() < 0) PyErr_Clear()); /* one of them is enough to end it */
    } else {
      wake_error(r);
    }
  }
}

static PyObject *py_wait(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  Cond *self = (Cond *)op;
  chaos_point(true);
  patience p;
  if (patience_kwarg("wait", args, nargs, kwnames, &p) < 0) return NULL;
  G *gp = getg(true);
  if (!gp) return PyErr_NoMemory();
  if (!self->l.unlock(self->l.of)) {
    PyErr_SetString(PyExc_RuntimeError, "wait() of a Cond whose lock is not locked");
    return NULL;
  }
  wake_t r = p.block ? until_signalled(&self->c, p.deadline) : WAKE_TIMEOUT;
  bool late = lock_again(self);
  if (PyErr_Occurred()) {
    if (late || r == WAKE_CANCELLED) gocancel(gp, true);
    return NULL;
  }
  if (late) gocancel(gp, true);
  if (r == WAKE_CANCELLED && wake_error(r) != 0) return NULL; /* else a handler of a signal has had it meanwhile */
  return PyBool_FromLong(r != WAKE_TIMEOUT);
}

static PyObject *py_signal(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  cond_signal(&((Cond *)self)->c);
  Py_RETURN_NONE;
}
static PyObject *py_broadcast(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  cond_broadcast(&((Cond *)self)->c);
  Py_RETURN_NONE;
}
static PyObject *py_enter(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  Cond *self = (Cond *)op;
  chaos_point(true);
  return WAIT(self->l.lock(self->l.of, true, 0)) < 0 ? NULL : Py_NewRef(op);
}
static PyObject *py_exit(PyObject *op, PyObject *const *args, Py_ssize_t nargs) {
  (void)args, (void)nargs;
  if (likely(((Cond *)op)->l.unlock(((Cond *)op)->l.of))) Py_RETURN_NONE;
  PyErr_SetString(PyExc_RuntimeError, "the lock of the Cond is not locked");
  return NULL;
}
static PyObject *get_lock(PyObject *self, void *Py_UNUSED(c)) { return Py_NewRef(((Cond *)self)->lock); }

static PyMethodDef cond_methods[] = {
    {"wait", FN(py_wait), KW,
     "wait($self, *, timeout=None)\n--\n\nUnlock, wait for a signal, lock again. False: timeout seconds passed first.\n"
     "RuntimeError if the lock is not locked. The lock is locked again also if it raises."},
    {"signal", py_signal, METH_NOARGS,
     "signal($self, /)\n--\n\nWake one that waits, the first to come, if there is one. The lock need not be held."},
    {"broadcast", py_broadcast, METH_NOARGS,
     "broadcast($self, /)\n--\n\nWake all that wait. The lock need not be held."},
    {"__enter__", py_enter, METH_NOARGS, NULL},
    {"__exit__", FN(py_exit), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef cond_getset[] = {{"lock", get_lock, NULL, "the lock given", NULL}, {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot cond_slots[] = {
    {Py_tp_doc, "Cond(lock)\n--\n\nGo's sync.Cond: wait for something to change that a Mutex, an RWMutex or its\n"
                "rlocker() protects. `with` locks that."},
    {Py_tp_new, cond_new},
    {Py_tp_dealloc, cond_dealloc},
    {Py_tp_methods, cond_methods},
    {Py_tp_getset, cond_getset},
    {0, NULL}};
PyType_Spec cond_spec = {"gmprt.Cond", sizeof(Cond), 0, FLAGS, cond_slots};
