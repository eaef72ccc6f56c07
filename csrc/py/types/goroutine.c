/* goroutine.c - Goroutine: the methods and properties of a handle. */
#include "arch/arch.h"
#include "base/clock.h"
#include "sync/sema.h"
#include "sched/hibernate.h"
#include "py/host/above.h"
#include "py/host/errors.h"
#include "py/host/life.h"
#include "py/host/scope.h"
#include "py/types/args.h"

/* Somebody has been told how it ended. */
static void mark_collected(Goroutine *self) {
  self->collected = true;
  failed_unlink(self);
}

/* 1: it has ended. 0: its time is up. -1: exception set. */
static int wait_for(Goroutine *self, const char *fn, PyObject *timeout) {
  patience p;
  if (patience_parse_strict(fn, timeout, &p) < 0) return -1;
  if (self->done) return 1;
  bool own = current_handle() == self;
  if (own && self->outcome) return 1; /* its own reporter may ask before it is done */
  if (own) {
    PyObject *exc = PyObject_CallFunction(errs.Deadlock, "ss", "", "a goroutine cannot join itself");
    if (exc) PyErr_SetObject(errs.Deadlock, exc);
    Py_XDECREF(exc);
    return -1;
  }
  while (!self->done) {
    if (!p.block) return 0;
    wake_t r = waitq_wait(&self->joiners, waitReasonJoin, p.deadline);
    if (r == WAKE_TIMEOUT && !self->done) return 0;
    if (r != WAKE_OK && r != WAKE_TIMEOUT && wake_error(r) != 0) return -1;
  }
  return 1;
}

static PyObject *py_join(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  PyObject *timeout;
  if (timeout_arg("join", args, nargs, kwnames, &timeout) < 0) return NULL;
  int r = wait_for((Goroutine *)op, "join", timeout); /* tells nobody how it ended: a failure is still to be collected */
  return r < 0 ? NULL : PyBool_FromLong(r);
}

/* Waits to be told how it ended, which collects its failure.  0: it has ended. */
static int ask(PyObject *op, const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  Goroutine *self = (Goroutine *)op;
  PyObject *timeout;
  if (timeout_arg(name, args, nargs, kwnames, &timeout) < 0) return -1;
  self->asking++;
  int r = wait_for(self, name, timeout);
  self->asking--;
  if (r == 1) mark_collected(self);
  if (r == 0) PyErr_SetString(errs.Timeout, "timed out");
  return r == 1 ? 0 : -1;
}

/* Who finds a handle by current() in a destructor of what it held, or of a garbage cycle, comes too late. */
static bool has_outcome(Goroutine *self) {
  if (likely(self->outcome != NULL)) return true;
  PyErr_SetString(PyExc_RuntimeError, "the result has been dropped, for nobody held the goroutine's handle");
  return false;
}

static PyObject *cancelled_error(Goroutine *self) {
  PyObject *reason = PyObject_GetAttrString(self->outcome, "reason");
  PyObject *e = reason ? PyObject_CallOneArg(errs.GoroutineCancelled, reason) : NULL;
  Py_XDECREF(reason);
  if (e) PyException_SetCause(e, Py_NewRef(self->outcome));
  return e;
}

static PyObject *py_result(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  Goroutine *self = (Goroutine *)op;
  if (ask(op, "result", args, nargs, kwnames) < 0 || !has_outcome(self)) return NULL;
  if (likely(!self->failed)) return Py_NewRef(self->outcome);
  PyObject *exc = self->cancelled ? cancelled_error(self) : Py_NewRef(self->outcome);
  if (exc) PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
  Py_XDECREF(exc);
  return NULL;
}

static PyObject *py_exception(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames) {
  Goroutine *self = (Goroutine *)op;
  if (ask(op, "exception", args, nargs, kwnames) < 0 || !has_outcome(self)) return NULL;
  if (self->cancelled) return cancelled_error(self);
  return Py_NewRef(self->failed ? self->outcome : Py_None);
}

static PyObject *py_cancel(PyObject *op, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"reason", NULL};
  PyObject *reason = Py_None;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", names, &reason)) return NULL;
  Goroutine *self = (Goroutine *)op;
  if (!above.cancel_learn()) return NULL; /* runs Python code, in which it may end */
  if (self->done) Py_RETURN_FALSE;
  if (reason != Py_None || self->more) {
    if (!extras_of(self)) return NULL;
    Py_XSETREF(self->more->reason, Py_NewRef(reason));
  }
  if (!self->done) cancel_direct(self); /* the old reason's destructor may have run anything */
  Py_RETURN_TRUE;
}

static PyObject *py_detach(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  ((Goroutine *)op)->detached = true;
  Py_RETURN_NONE;
}
static PyObject *py_done(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  return PyBool_FromLong(((Goroutine *)op)->done);
}
static PyObject *py_cancelled(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  return PyBool_FromLong(((Goroutine *)op)->cancelled);
}

static PyObject *py_add_done_callback(PyObject *op, PyObject *fn) {
  Goroutine *self = (Goroutine *)op;
  if (!callable_arg("add_done_callback", "fn", fn)) return NULL;
  extras *more = extras_of(self);
  if (!more) return NULL;
  if (!more->callbacks) { /* the collector may run here, and let the goroutine end: `done` is read after it */
    PyObject *list = PyList_New(0);
    if (!list) return NULL;
    if (more->callbacks)
      Py_DECREF(list);
    else
      more->callbacks = list;
  }
  if (!self->done) return PyList_Append(more->callbacks, fn) < 0 ? NULL : Py_NewRef(Py_None);
  PyObject *r = PyObject_CallOneArg(fn, op);
  if (!r) PyErr_WriteUnraisable(fn);
  Py_XDECREF(r);
  Py_RETURN_NONE;
}

/* Innermost Python frame, also of a parked goroutine. */
static PyObject *py_frame(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  Goroutine *self = (Goroutine *)op;
  if (self->left || !self->started) Py_RETURN_NONE;
  roused(self->g);
  PyFrameObject *f = PyThreadState_GetFrame(ts_of(self->g));
  return f ? (PyObject *)f : Py_NewRef(Py_None);
}

static PyObject *py_creation(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  Goroutine *self = (Goroutine *)op;
  if (!self->created_by) Py_RETURN_NONE;
  int line = PyCode_Addr2Line(self->created_by, self->created_instr);
  return Py_BuildValue("(Oi)", self->created_by, line);
}

static PyObject *call_helper(PyObject *op, const char *name) {
  PyObject *fn = helper("_view.goroutine", name);
  PyObject *r = fn ? PyObject_CallOneArg(fn, op) : NULL;
  Py_XDECREF(fn);
  return r;
}
static PyObject *py_stack(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  return call_helper(op, "stack");
}
static PyObject *py_aresult(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  return call_helper(op, "aresult");
}
/* `await g` is `await g.aresult()`. */
static PyObject *goroutine_await(PyObject *op) {
  PyObject *coro = call_helper(op, "aresult");
  PyObject *r = coro ? PyObject_CallMethod(coro, "__await__", NULL) : NULL;
  Py_XDECREF(coro);
  return r;
}
static PyObject *get_created_by(PyObject *op, void *Py_UNUSED(c)) {
  return call_helper(op, "created_by");
}

static const char *state_name(Goroutine *self) {
  if (self->done) return "dead";
  uint32_t s = self->deadlocked ? Gwaiting : load_acq(&self->g->status);
  if (s == Grunning && !tstate_attached(ts_of(self->g))) s = Gsyscall;
  return gstatus_name(s);
}
static PyObject *get_state(PyObject *op, void *Py_UNUSED(c)) {
  return PyUnicode_FromString(state_name((Goroutine *)op));
}
static PyObject *get_wait_reason(PyObject *op, void *Py_UNUSED(c)) {
  Goroutine *self = (Goroutine *)op;
  G *gp = goroutine_g(self);
  bool waits = gp && (self->deadlocked || load_acq(&gp->status) == Gwaiting);
  return PyUnicode_FromString(waits ? waitreason_name(load_rlx(&gp->reason)) : "");
}
static PyObject *get_since(PyObject *op, void *Py_UNUSED(c)) {
  G *gp = goroutine_g((Goroutine *)op);
  return PyFloat_FromDouble(gp ? (double)ticks_to_ns(cputicks() - load_rlx(&gp->since)) * 1e-9 : 0.0);
}
static PyObject *get_cpu_time(PyObject *op, void *Py_UNUSED(c)) {
  Goroutine *self = (Goroutine *)op;
  store_rlx(&sched.l.exact, true);
  if (self->left) return PyFloat_FromDouble((double)ticks_to_ns((uint64_t)self->cpu_ticks) * 1e-9);
  uint64_t ticks = self->g->runticks;
  if (load_acq(&self->g->status) == Grunning) ticks += cputicks() - load_rlx(&self->g->since);
  return PyFloat_FromDouble((double)ticks_to_ns(ticks) * 1e-9);
}
static PyObject *get_id(PyObject *op, void *Py_UNUSED(c)) {
  return PyLong_FromUnsignedLongLong(((Goroutine *)op)->id);
}
static PyObject *get_parent(PyObject *op, void *Py_UNUSED(c)) {
  return PyLong_FromUnsignedLongLong(((Goroutine *)op)->parent);
}
static PyObject *get_run(PyObject *op, void *Py_UNUSED(c)) {
  return PyLong_FromUnsignedLong(((Goroutine *)op)->run);
}
static PyObject *get_is_main(PyObject *op, void *Py_UNUSED(c)) {
  return PyBool_FromLong(((Goroutine *)op)->lent);
}
static PyObject *get_is_thread(PyObject *op, void *Py_UNUSED(c)) {
  return PyBool_FromLong(((Goroutine *)op)->pythread);
}
static PyObject *get_ident(PyObject *op, void *Py_UNUSED(c)) {
  G *gp = goroutine_g((Goroutine *)op);
  bool runs = gp && ((Goroutine *)op)->started; /* before, it has no stack and no state to keep */
  return PyLong_FromUnsignedLong(runs ? ts_of(gp)->thread_id : 0);
}
static PyObject *get_detached(PyObject *op, void *Py_UNUSED(c)) {
  return PyBool_FromLong(((Goroutine *)op)->detached);
}
static PyObject *get_locked(PyObject *op, void *Py_UNUSED(c)) {
  G *gp = goroutine_g((Goroutine *)op);
  return PyBool_FromLong(gp && gp->lockedm);
}
static PyObject *get_reason(PyObject *op, void *Py_UNUSED(c)) {
  extras *more = ((Goroutine *)op)->more;
  return Py_NewRef(more && more->reason ? more->reason : Py_None);
}
static PyObject *get_function(PyObject *op, void *Py_UNUSED(c)) {
  PyObject *fn = ((Goroutine *)op)->fn;
  return Py_NewRef(fn ? fn : Py_None);
}
static PyObject *get_context(PyObject *op, void *Py_UNUSED(c)) {
  PyObject *ctx = ((Goroutine *)op)->context;
  return Py_NewRef(ctx ? ctx : Py_None);
}

static PyObject *get_gname(PyObject *op, void *Py_UNUSED(c)) {
  Goroutine *self = (Goroutine *)op;
  if (self->more && self->more->name) return Py_NewRef(self->more->name);
  return PyUnicode_FromFormat("goroutine-%llu", (unsigned long long)self->id);
}
static int set_gname(PyObject *op, PyObject *value, void *Py_UNUSED(c)) {
  if (!value || !PyUnicode_Check(value)) {
    PyErr_SetString(PyExc_TypeError, "name must be a str");
    return -1;
  }
  extras *more = extras_of((Goroutine *)op);
  if (!more) return -1;
  Py_XSETREF(more->name, Py_NewRef(value));
  return 0;
}

static PyObject *goroutine_repr(PyObject *op) {
  Goroutine *self = (Goroutine *)op;
  if (self->more && self->more->name)
    return PyUnicode_FromFormat("<gmprt.Goroutine %llu %R %s>", (unsigned long long)self->id,
                                self->more->name, state_name(self));
  return PyUnicode_FromFormat("<gmprt.Goroutine %llu %s>", (unsigned long long)self->id,
                              state_name(self));
}

static PyMethodDef goroutine_methods[] = {
    {"join", FN(py_join), KW,
     "join($self, timeout=None)\n--\n\nWait until it has ended. False if timeout (seconds) passed first. Never\n"
     "raises its error, which is still to be collected. Joining oneself raises Deadlock."},
    {"result", FN(py_result), KW,
     "result($self, timeout=None)\n--\n\nWait, then return its result or raise its exception;\n"
     "GoroutineCancelled if it was cancelled, Timeout after timeout seconds."},
    {"exception", FN(py_exception), KW,
     "exception($self, timeout=None)\n--\n\nWait, then return its exception, or None; Timeout after timeout\n"
     "seconds."},
    {"cancel", FN(py_cancel), METH_VARARGS | METH_KEYWORDS,
     "cancel($self, reason=None)\n--\n\nIts current or next wait raises Cancelled, once. False: it has ended."},
    {"detach", py_detach, METH_NOARGS,
     "detach($self, /)\n--\n\nrun() neither cancels it nor waits for it when its main function ends."},
    {"done", py_done, METH_NOARGS, "done($self, /)\n--\n\nWhether it has ended."},
    {"cancelled", py_cancelled, METH_NOARGS, "cancelled($self, /)\n--\n\nWhether it ended by a cancel."},
    {"add_done_callback", py_add_done_callback, METH_O,
     "add_done_callback($self, fn, /)\n--\n\nfn(goroutine) runs in the goroutine when it has ended; at once if it has."},
    {"frame", py_frame, METH_NOARGS, "frame($self, /)\n--\n\nIts innermost Python frame, or None."},
    {"creation", py_creation, METH_NOARGS, "creation($self, /)\n--\n\n(code, line) of the go() call, or None."},
    {"stack", py_stack, METH_NOARGS,
     "stack($self, /)\n--\n\nIts stack as a traceback.StackSummary, also while it is parked."},
    {"aresult", py_aresult, METH_NOARGS,
     "aresult($self, /)\n--\n\nAwaitable result, for asyncio. Cancelling the waiting task leaves it alone."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "Goroutine[R] for type checkers."},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef goroutine_getset[] = {
    {"id", get_id, NULL, "number, never used again", NULL},
    {"name", get_gname, set_gname, "name, settable", NULL},
    {"state", get_state, NULL, "runnable, running, syscall, waiting or dead", NULL},
    {"wait_reason", get_wait_reason, NULL, "why it waits, in Go's words; empty if it does not", NULL},
    {"since", get_since, NULL, "seconds since it was last switched in or out", NULL},
    {"cpu_time", get_cpu_time, NULL, "seconds it has run, calls that block an OS thread included", NULL},
    {"context", get_context, NULL, "its contextvars.Context, None: empty", NULL},
    {"parent_id", get_parent, NULL, "id of the goroutine that called go(), 0: a thread", NULL},
    {"run_id", get_run, NULL, "number of the run() that it descends from, 0: none", NULL},
    {"is_main", get_is_main, NULL, "whether it is the main goroutine of a run()", NULL},
    {"is_thread", get_is_thread, NULL, "whether it is a thread of Python's: threads()", NULL},
    {"ident", get_ident, NULL, "threading.get_ident() inside it, 0 if it has not begun, or has ended", NULL},
    {"detached", get_detached, NULL, "whether detach() was called", NULL},
    {"locked_to_thread", get_locked, NULL, "whether it is locked to an OS thread", NULL},
    {"reason", get_reason, NULL, "reason of the last cancel(), or None", NULL},
    {"function", get_function, NULL, "what it runs, None when it has returned", NULL},
    {"created_by", get_created_by, NULL, "where go() was called", NULL},
    {NULL, NULL, NULL, NULL, NULL}};
static PyMemberDef goroutine_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Goroutine, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL}};
static PyType_Slot goroutine_slots[] = {{Py_tp_doc, "A goroutine's handle, returned by go()."},
                                        {Py_tp_dealloc, goroutine_dealloc},
                                        {Py_tp_traverse, goroutine_traverse},
                                        {Py_tp_clear, goroutine_clear},
                                        {Py_tp_finalize, goroutine_finalize},
                                        {Py_tp_methods, goroutine_methods},
                                        {Py_tp_getset, goroutine_getset},
                                        {Py_tp_members, goroutine_members},
                                        {Py_tp_repr, goroutine_repr},
                                        {Py_am_await, goroutine_await},
                                        {0, NULL}};
PyType_Spec goroutine_spec = {"gmprt.Goroutine", sizeof(Goroutine), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                                  Py_TPFLAGS_DISALLOW_INSTANTIATION,
                              goroutine_slots};
