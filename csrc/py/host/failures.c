/* failures.c - what becomes of a failure that nobody collects.
 *
 * A failure is never lost: if the handle goes without result or exception having been asked for,
 * its finalizer puts it on a list, and an ordinary goroutine reports it (never the collector itself). */
#include "py/cpython/exception.h"
#include "py/host/life.h"

PyObject *reporter_hook;
static PyObject *failed; /* list: handles that failed and were dropped */
static bool report_scheduled;
static Goroutine *held; /* handles that failed and live, and nobody has asked: through extras.fnext */

/* ---- those whose handle lives --------------------------------------------------------------------------- */

bool worth_reporting(Goroutine *self) {
  return self->failed && self->outcome && !self->cancelled && !self->collected && !self->reported && !self->lent &&
         !PyErr_GivenExceptionMatches(self->outcome, PyExc_SystemExit);
}

void failed_link(Goroutine *self) {
  if (!extras_of(self)) {
    PyErr_Clear(); /* it will be reported if it is dropped, but not if it is kept to the end */
    return;
  }
  self->more->fnext = held;
  if (held) held->more->fprev = self;
  held = self;
}

void failed_unlink(Goroutine *self) {
  extras *m = self->more;
  if (!m || (held != self && !m->fprev)) return;
  if (m->fprev)
    m->fprev->more->fnext = m->fnext;
  else
    held = m->fnext;
  if (m->fnext) m->fnext->more->fprev = m->fprev;
  m->fprev = m->fnext = NULL;
}

/* Calls the hook for a failure that nobody collects; on an ordinary goroutine or thread. */
void report_failure(Goroutine *self) {
  self->reported = true;
  failed_unlink(self);
  PyObject *r = reporter_hook ? PyObject_CallOneArg(reporter_hook, (PyObject *)self) : NULL;
  if (!r && PyErr_Occurred()) PyErr_WriteUnraisable((PyObject *)self);
  Py_XDECREF(r);
}

/* ---- those whose handle was dropped -------------------------------------------------------------------------- */

static PyObject *take_failed(void) {
  PyObject *list = failed;
  failed = NULL;
  report_scheduled = false;
  return list ? list : PyList_New(0);
}

/* Adds those whose handle was dropped, and that are still to be reported. */
static int add_dropped(PyObject *list, uint32_t run) {
  for (Py_ssize_t i = failed ? PyList_GET_SIZE(failed) : 0; i-- > 0;) {
    PyObject *g = PyList_GET_ITEM(failed, i);
    if (run && ((Goroutine *)g)->run != run) continue;
    if (PyList_Append(list, g) < 0 || PySequence_DelItem(failed, i) < 0) return -1;
  }
  return 0;
}

/* Adds those whose handle lives.  At the end of a run() somebody outside may have been woken to be told, and may
 * not have come to it yet; at the end of the process nobody will. */
static int add_held(PyObject *list, uint32_t run) {
  for (Goroutine *self = held, *next; self; self = next) {
    next = self->more->fnext;
    if (run && (self->run != run || self->asking)) continue;
    if (PyList_Append(list, (PyObject *)self) < 0) return -1;
    failed_unlink(self);
    self->reported = true;
  }
  return 0;
}

/* What nobody has collected of the goroutines of that run(), which ends; 0: of all, for the process ends. */
PyObject *py_failures(PyObject *module, PyObject *arg) {
  (void)module;
  unsigned long run = PyLong_AsUnsignedLong(arg);
  if (run == (unsigned long)-1 && PyErr_Occurred()) return NULL;
  PyObject *list = PyList_New(0);
  if (list && (add_dropped(list, (uint32_t)run) < 0 || add_held(list, (uint32_t)run) < 0)) Py_CLEAR(list);
  return list;
}

/* (goroutine, n): for aresult(), which waits in its own way. */
PyObject *py_asking(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  long n = nargs == 2 && Py_TYPE(args[0]) == Goroutine_Type ? PyLong_AsLong(args[1]) : 0;
  if (n != 1 && n != -1) {
    PyErr_SetString(PyExc_TypeError, "asking(goroutine, 1 or -1)");
    return NULL;
  }
  ((Goroutine *)args[0])->asking += (uint32_t)n;
  Py_RETURN_NONE;
}

static PyObject *report_all(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  PyObject *list = take_failed();
  for (Py_ssize_t i = 0; list && i < PyList_GET_SIZE(list); i++)
    report_failure((Goroutine *)PyList_GET_ITEM(list, i));
  Py_XDECREF(list);
  Py_RETURN_NONE;
}

static void schedule_report(void) {
  static PyMethodDef def = {"report_failures", report_all, METH_NOARGS, NULL};
  if (report_scheduled || !load_rlx(&sched.started) || load_rlx(&sched.stopping)) return;
  PyObject *fn = PyCFunction_New(&def, NULL);
  Goroutine *g = fn ? goroutine_go(&fn, 1, NULL) : NULL;
  report_scheduled = g != NULL;
  if (!g) PyErr_Clear(); /* reported at the end of run() or of the process */
  Py_XDECREF(g);
  Py_XDECREF(fn);
}

void failures_push(Goroutine *self) {
  if (!failed && !(failed = PyList_New(0))) return PyErr_Clear();
  if (PyList_Append(failed, (PyObject *)self) < 0) return PyErr_Clear();
  schedule_report();
}

void goroutine_finalize(PyObject *op) {
  Goroutine *self = (Goroutine *)op;
  failed_unlink(self);
  if (!self->done || !worth_reporting(self)) return;
  self->reported = true;
  ASIDE(failures_push(self));
}

/* ---- functions ------------------------------------------------------------------------------------------------ */

PyObject *py_set_reporter(PyObject *module, PyObject *fn) {
  (void)module;
  Py_XSETREF(reporter_hook, Py_NewRef(fn));
  Py_RETURN_NONE;
}
