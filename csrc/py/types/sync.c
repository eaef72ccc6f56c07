/* sync.c - Mutex, Semaphore, WaitGroup: the runtime's, with the GIL as their lock.
 *
 * They work between goroutines and ordinary threads in any mix.  An object with waiters is alive: each
 * waiter's frame holds it. */
#include "sched/chaos.h"
#include "py/types/sync.h"
#include "py/types/types.h"

PyTypeObject *Mutex_Type, *Semaphore_Type, *WaitGroup_Type;

/* ---- Mutex ------------------------------------------------------------------------------------------- */

static PyObject *mutex_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  if (!no_arguments("Mutex", args, kwargs)) return NULL;
  Mutex *self = (Mutex *)type->tp_alloc(type, 0);
  if (self) self->m.hosted = true;
  return (PyObject *)self;
}

static PyObject *mutex_lock(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames) {
  chaos_point(true);
  patience p;
  if (patience_arg("lock", args, nargs, kwnames, &p) < 0) return NULL;
  return truth(WAIT(gomutex_lock(&((Mutex *)self)->m, p.block, p.deadline)));
}
static PyObject *mutex_try_lock(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  return PyBool_FromLong(gomutex_lock(&((Mutex *)self)->m, false, 0) == WAKE_OK);
}
static PyObject *mutex_unlock(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  if (likely(gomutex_unlock(&((Mutex *)self)->m))) Py_RETURN_NONE;
  PyErr_SetString(PyExc_RuntimeError, "unlock of unlocked mutex");
  return NULL;
}
static PyObject *mutex_locked(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  return PyBool_FromLong(load_rlx(&((Mutex *)self)->m.state) & mutexLocked);
}
static PyObject *mutex_enter(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  chaos_point(true);
  return WAIT(gomutex_lock(&((Mutex *)self)->m, true, 0)) < 0 ? NULL : Py_NewRef(self);
}
static PyObject *mutex_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
  (void)args, (void)nargs;
  return mutex_unlock(self, NULL);
}
static PyMethodDef mutex_methods[] = {
    {"lock", FN(mutex_lock), KW,
     "lock($self, timeout=None)\n--\n\nWait until it is ours. False: timeout seconds have passed."},
    {"try_lock", mutex_try_lock, METH_NOARGS, "try_lock($self, /)\n--\n\nLock it if it is free. Go's TryLock."},
    {"unlock", mutex_unlock, METH_NOARGS,
     "unlock($self, /)\n--\n\nAny goroutine or thread may. RuntimeError if it is not locked."},
    {"locked", mutex_locked, METH_NOARGS, "locked($self, /)\n--\n\nWhether somebody holds it now."},
    {"__enter__", mutex_enter, METH_NOARGS, NULL},
    {"__exit__", FN(mutex_exit), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL}};
static PyType_Slot mutex_slots[] = {
    {Py_tp_doc, "Mutex()\n--\n\nGo's sync.Mutex: not re-entrant, no owner, normal and starvation mode."},
    {Py_tp_new, mutex_new},
    {Py_tp_dealloc, plain_dealloc},
    {Py_tp_methods, mutex_methods},
    {0, NULL}};
PyType_Spec mutex_spec = {"gmprt.Mutex", sizeof(Mutex), 0, FLAGS, mutex_slots};

/* ---- Semaphore ------------------------------------------------------------------------------------------ */

typedef struct Semaphore {
  PyObject_HEAD
  sema s;
} Semaphore;

static PyObject *semaphore_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"value", NULL};
  PyObject *value = NULL;
  int64_t n = 1;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Semaphore", names, &value)) return NULL;
  if (value && !integer_arg("Semaphore", "value", value, 0, UINT32_MAX, &n)) return NULL;
  Semaphore *self = (Semaphore *)type->tp_alloc(type, 0);
  if (!self) return NULL;
  self->s.hosted = true;
  self->s.value = (uint32_t)n;
  return (PyObject *)self;
}

static PyObject *semaphore_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames) {
  chaos_point(true);
  patience p;
  if (nargs > 0) { /* what stands there is `blocking`, for threading's */
    PyErr_SetString(PyExc_TypeError, "acquire() takes no positional arguments; timeout goes by name");
    return NULL;
  }
  if (patience_arg("acquire", args, nargs, kwnames, &p) < 0) return NULL;
  return truth(WAIT(semacquire(&((Semaphore *)self)->s, waitReasonSemacquire, p.block, p.deadline)));
}
static PyObject *semaphore_try(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  wake_t r = semacquire(&((Semaphore *)self)->s, waitReasonSemacquire, false, 0);
  return PyBool_FromLong(r == WAKE_OK);
}
static PyObject *semaphore_release(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"n", NULL};
  PyObject *number = NULL;
  int64_t n = 1;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:release", names, &number)) return NULL;
  if (number && !integer_arg("release", "n", number, 1, UINT32_MAX, &n)) return NULL;
  sema *s = &((Semaphore *)self)->s;
  if (n > UINT32_MAX - s->value) {
    PyErr_SetString(PyExc_ValueError, "release(): the semaphore's value must stay below 2**32");
    return NULL;
  }
  semrelease(s, (uint32_t)n);
  Py_RETURN_NONE;
}
static PyObject *semaphore_enter(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  chaos_point(true);
  int r = WAIT(semacquire(&((Semaphore *)self)->s, waitReasonSemacquire, true, 0));
  return r < 0 ? NULL : Py_NewRef(self);
}
static PyObject *semaphore_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
  (void)args, (void)nargs;
  semrelease(&((Semaphore *)self)->s, 1);
  Py_RETURN_NONE;
}
static PyObject *semaphore_value(PyObject *self, void *Py_UNUSED(c)) {
  return PyLong_FromUnsignedLong(((Semaphore *)self)->s.value);
}
static PyMethodDef semaphore_methods[] = {
    {"acquire", FN(semaphore_acquire), KW,
     "acquire($self, *, timeout=None)\n--\n\nTake one unit, waiting for it; first come, first served. False: timeout\n"
     "seconds have passed."},
    {"try_acquire", semaphore_try, METH_NOARGS, "try_acquire($self, /)\n--\n\nTake one unit if there is one now."},
    {"release", FN(semaphore_release), METH_VARARGS | METH_KEYWORDS,
     "release($self, n=1)\n--\n\nGive n units; waiters get them first. ValueError: n < 1, or the value would\n"
     "exceed 2**32 - 1."},
    {"__enter__", semaphore_enter, METH_NOARGS, NULL},
    {"__exit__", FN(semaphore_exit), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef semaphore_getset[] = {{"value", semaphore_value, NULL, "units left", NULL},
                                         {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot semaphore_slots[] = {
    {Py_tp_doc, "Semaphore(value=1)\n--\n\nA counting semaphore, first come first served."},
    {Py_tp_new, semaphore_new},
    {Py_tp_dealloc, plain_dealloc},
    {Py_tp_methods, semaphore_methods},
    {Py_tp_getset, semaphore_getset},
    {0, NULL}};
PyType_Spec semaphore_spec = {"gmprt.Semaphore", sizeof(Semaphore), 0, FLAGS, semaphore_slots};

/* ---- WaitGroup --------------------------------------------------------------------------------------------- */

typedef struct WaitGroup {
  PyObject_HEAD
  Py_ssize_t count;
  waitq waiters;
} WaitGroup;

static PyObject *waitgroup_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  return no_arguments("WaitGroup", args, kwargs) ? type->tp_alloc(type, 0) : NULL;
}

static int waitgroup_change(WaitGroup *self, Py_ssize_t n) {
  if (self->count + n < 0) {
    PyErr_SetString(PyExc_ValueError, "the counter of a WaitGroup would become negative");
    return -1;
  }
  self->count += n;
  if (self->count == 0 && self->waiters.first) waitq_wakeall(&self->waiters);
  return 0;
}

static PyObject *waitgroup_add(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"n", NULL};
  PyObject *number = NULL;
  int64_t n = 1;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:add", names, &number)) return NULL;
  if (number && !integer_arg("add", "n", number, -PY_SSIZE_T_MAX, PY_SSIZE_T_MAX, &n)) return NULL;
  if (n > 0 && ((WaitGroup *)self)->count > PY_SSIZE_T_MAX - n) {
    PyErr_SetString(PyExc_ValueError, "add(): the counter would overflow");
    return NULL;
  }
  if (waitgroup_change((WaitGroup *)self, n) < 0) return NULL;
  Py_RETURN_NONE;
}
static PyObject *waitgroup_done(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  if (waitgroup_change((WaitGroup *)self, -1) < 0) return NULL;
  Py_RETURN_NONE;
}
static PyObject *waitgroup_wait(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames) {
  WaitGroup *self = (WaitGroup *)op;
  patience p;
  if (patience_arg("wait", args, nargs, kwnames, &p) < 0) return NULL;
  if (self->count == 0) Py_RETURN_TRUE;
  if (!p.block) Py_RETURN_FALSE;
  return truth(WAIT(self->count ? waitq_wait(&self->waiters, waitReasonWaitGroupWait, p.deadline)
                                : WAKE_OK));
}

/* go(): add(1), go, done() when it has ended, however it ends. */
static PyObject *waitgroup_member_done(PyObject *self, PyObject *goroutine) {
  (void)goroutine;
  return waitgroup_done(self, NULL);
}
static PyMethodDef member_done_def = {"done", waitgroup_member_done, METH_O, NULL};

static PyObject *waitgroup_go(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames) {
  PyObject *done = PyCFunction_New(&member_done_def, op);
  if (!done) return NULL;
  PyObject *g = py_go(NULL, args, nargs, kwnames);
  if (g) {
    ((WaitGroup *)op)->count++;
    PyObject *r = PyObject_CallMethod(g, "add_done_callback", "O", done);
    if (!r) {
      waitgroup_change((WaitGroup *)op, -1);
      Py_CLEAR(g);
    }
    Py_XDECREF(r);
  }
  Py_DECREF(done);
  return g;
}
static PyObject *waitgroup_count(PyObject *self, void *Py_UNUSED(c)) {
  return PyLong_FromSsize_t(((WaitGroup *)self)->count);
}
static PyMethodDef waitgroup_methods[] = {
    {"add", FN(waitgroup_add), METH_VARARGS | METH_KEYWORDS,
     "add($self, n=1)\n--\n\nRaise the counter by n. ValueError if it would become negative."},
    {"done", waitgroup_done, METH_NOARGS, "done($self, /)\n--\n\nadd(-1)."},
    {"wait", FN(waitgroup_wait), KW,
     "wait($self, timeout=None)\n--\n\nWait until the counter is 0. False: timeout seconds have passed."},
    {"go", FN(waitgroup_go), KW,
     "go($self, fn, /, *args, **kwargs)\n--\n\nadd(1) and start a goroutine; done() when it has ended, however it ends."},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef waitgroup_getset[] = {{"count", waitgroup_count, NULL, "the counter", NULL},
                                         {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot waitgroup_slots[] = {
    {Py_tp_doc, "WaitGroup()\n--\n\nGo's sync.WaitGroup: waits for a number of goroutines to finish."},
    {Py_tp_new, waitgroup_new},
    {Py_tp_dealloc, plain_dealloc},
    {Py_tp_methods, waitgroup_methods},
    {Py_tp_getset, waitgroup_getset},
    {0, NULL}};
PyType_Spec waitgroup_spec = {"gmprt.WaitGroup", sizeof(WaitGroup), 0, FLAGS, waitgroup_slots};
