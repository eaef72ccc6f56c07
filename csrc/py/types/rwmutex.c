/* rwmutex.c - RWMutex, its reader's side, and what its lock() and rlock() return: for `with`. */
#include "sched/chaos.h"
#include "py/host/errors.h"
#include "py/types/sync.h"
#include "py/types/types.h"

PyTypeObject *RWMutex_Type, *RLocker_Type, *Held_Type;

/* What lock() and rlock() return: true if it is ours; `with` unlocks at the end. */
typedef struct Held {
  PyObject_HEAD
  RWMutex *of;
  bool reads, held;
} Held;

static wake_t lock_side(RWMutex *self, bool reads, patience p) {
  return reads ? rwmutex_rlock(&self->rw, p.block, p.deadline) : rwmutex_lock(&self->rw, p.block, p.deadline);
}

static PyObject *unlock_side(RWMutex *self, bool reads) {
  if (likely(reads ? rwmutex_runlock(&self->rw) : rwmutex_unlock(&self->rw))) Py_RETURN_NONE;
  PyErr_Format(PyExc_RuntimeError, "%s of unlocked RWMutex", reads ? "runlock" : "unlock");
  return NULL;
}

/* ---- RWMutex ------------------------------------------------------------------------------------------ */

static PyObject *rwmutex_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  return no_arguments("RWMutex", args, kwargs) ? type->tp_alloc(type, 0) : NULL;
}

static PyObject *hold(PyObject *op, bool reads, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  chaos_point(true);
  patience p;
  if (patience_kwarg(reads ? "rlock" : "lock", args, nargs, kwnames, &p) < 0) return NULL;
  Held *held = (Held *)Held_Type->tp_alloc(Held_Type, 0); /* now: a lock that is ours could not be reported */
  if (!held) return NULL;
  held->of = (RWMutex *)Py_NewRef(op);
  held->reads = reads;
  int r = WAIT(lock_side((RWMutex *)op, reads, p));
  if (r < 0) Py_CLEAR(held);
  if (r > 0) held->held = true;
  return (PyObject *)held;
}
static PyObject *py_lock(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  return hold(self, false, args, nargs, kwnames);
}
static PyObject *py_rlock(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  return hold(self, true, args, nargs, kwnames);
}
static PyObject *py_try_lock(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  return PyBool_FromLong(rwmutex_lock(&((RWMutex *)self)->rw, false, 0) == WAKE_OK);
}
static PyObject *py_try_rlock(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  return PyBool_FromLong(rwmutex_rlock(&((RWMutex *)self)->rw, false, 0) == WAKE_OK);
}
static PyObject *py_unlock(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  return unlock_side((RWMutex *)self, false);
}
static PyObject *py_runlock(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  return unlock_side((RWMutex *)self, true);
}
static PyObject *py_rlocker(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  RLocker *side = (RLocker *)RLocker_Type->tp_alloc(RLocker_Type, 0);
  if (side) side->of = (RWMutex *)Py_NewRef(self);
  return (PyObject *)side;
}
static PyObject *get_locked(PyObject *self, void *Py_UNUSED(c)) {
  return PyBool_FromLong(((RWMutex *)self)->rw.writer);
}
static PyObject *get_readers(PyObject *self, void *Py_UNUSED(c)) {
  return PyLong_FromSize_t(((RWMutex *)self)->rw.readers);
}

static PyMethodDef rwmutex_methods[] = {
    {"lock", FN(py_lock), KW,
     "lock($self, *, timeout=None)\n--\n\nLock it for writing: wait until nobody holds it. What is returned is true,\n"
     "and unlocks at the end of a `with`; false: timeout seconds have passed."},
    {"rlock", FN(py_rlock), KW,
     "rlock($self, *, timeout=None)\n--\n\nLock it for reading: wait while a writer holds it or waits. What is returned\n"
     "is true, and unlocks at the end of a `with`; false: timeout seconds have passed."},
    {"try_lock", py_try_lock, METH_NOARGS, "try_lock($self, /)\n--\n\nLock it for writing if it is free."},
    {"try_rlock", py_try_rlock, METH_NOARGS,
     "try_rlock($self, /)\n--\n\nLock it for reading if no writer holds it or waits."},
    {"unlock", py_unlock, METH_NOARGS,
     "unlock($self, /)\n--\n\nEnd a lock(); any goroutine or thread may. RuntimeError if no writer holds it."},
    {"runlock", py_runlock, METH_NOARGS,
     "runlock($self, /)\n--\n\nEnd an rlock(); any goroutine or thread may. RuntimeError if no reader holds it."},
    {"rlocker", py_rlocker, METH_NOARGS,
     "rlocker($self, /)\n--\n\nIts reader's side as a lock, for Cond. Go's RLocker."},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef rwmutex_getset[] = {{"locked", get_locked, NULL, "whether a writer holds it now", NULL},
                                       {"readers", get_readers, NULL, "how many readers hold it now", NULL},
                                       {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot rwmutex_slots[] = {
    {Py_tp_doc, "RWMutex()\n--\n\nGo's sync.RWMutex: many readers or one writer; a writer that waits keeps new\n"
                "readers out. No owner, not re-entrant."},
    {Py_tp_new, rwmutex_new},
    {Py_tp_dealloc, plain_dealloc},
    {Py_tp_methods, rwmutex_methods},
    {Py_tp_getset, rwmutex_getset},
    {0, NULL}};
PyType_Spec rwmutex_spec = {"gmprt.RWMutex", sizeof(RWMutex), 0, FLAGS, rwmutex_slots};

/* ---- Held --------------------------------------------------------------------------------------------- */

static void held_dealloc(PyObject *self) {
  Py_XDECREF(((Held *)self)->of);
  plain_dealloc(self);
}
static int held_bool(PyObject *self) { return ((Held *)self)->held; }
static PyObject *held_enter(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  if (likely(((Held *)self)->held)) return Py_NewRef(self);
  PyErr_SetString(errs.Timeout, "timed out");
  return NULL;
}
static PyObject *held_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
  (void)args, (void)nargs;
  return unlock_side(((Held *)self)->of, ((Held *)self)->reads);
}
static PyMethodDef held_methods[] = {{"__enter__", held_enter, METH_NOARGS, NULL},
                                     {"__exit__", FN(held_exit), METH_FASTCALL, NULL},
                                     {NULL, NULL, 0, NULL}};
static PyType_Slot held_slots[] = {
    {Py_tp_doc, "What lock() and rlock() of an RWMutex return: true if it is ours; `with` unlocks it."},
    {Py_nb_bool, held_bool},
    {Py_tp_dealloc, held_dealloc},
    {Py_tp_methods, held_methods},
    {0, NULL}};
PyType_Spec held_spec = {"gmprt._core.Held", sizeof(Held), 0, FLAGS | Py_TPFLAGS_DISALLOW_INSTANTIATION, held_slots};

/* ---- RLocker ------------------------------------------------------------------------------------------ */

static RWMutex *of(PyObject *self) { return ((RLocker *)self)->of; }

static void rlocker_dealloc(PyObject *self) {
  Py_XDECREF(of(self));
  plain_dealloc(self);
}
static PyObject *rlocker_lock(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  chaos_point(true);
  patience p;
  if (patience_kwarg("lock", args, nargs, kwnames, &p) < 0) return NULL;
  return truth(WAIT(lock_side(of(self), true, p)));
}
static PyObject *rlocker_try_lock(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  return py_try_rlock((PyObject *)of(self), NULL);
}
static PyObject *rlocker_unlock(PyObject *self, PyObject *Py_UNUSED(ignored)) { return unlock_side(of(self), true); }
static PyObject *rlocker_enter(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  chaos_point(true);
  return WAIT(lock_side(of(self), true, (patience){true, 0})) < 0 ? NULL : Py_NewRef(self);
}
static PyObject *rlocker_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
  (void)args, (void)nargs;
  return unlock_side(of(self), true);
}
static PyMethodDef rlocker_methods[] = {
    {"lock", FN(rlocker_lock), KW,
     "lock($self, *, timeout=None)\n--\n\nThe RWMutex's rlock(). False: timeout seconds have passed."},
    {"try_lock", rlocker_try_lock, METH_NOARGS, "try_lock($self, /)\n--\n\nThe RWMutex's try_rlock()."},
    {"unlock", rlocker_unlock, METH_NOARGS, "unlock($self, /)\n--\n\nThe RWMutex's runlock()."},
    {"__enter__", rlocker_enter, METH_NOARGS, NULL},
    {"__exit__", FN(rlocker_exit), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL}};
static PyType_Slot rlocker_slots[] = {{Py_tp_doc, "The reader's side of an RWMutex, a lock: RWMutex.rlocker()."},
                                      {Py_tp_dealloc, rlocker_dealloc},
                                      {Py_tp_methods, rlocker_methods},
                                      {0, NULL}};
PyType_Spec rlocker_spec = {"gmprt.RLocker", sizeof(RLocker), 0, FLAGS | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                            rlocker_slots};
