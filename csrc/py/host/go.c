/* go.c - go(): a handle, a G, and the runtime started at the first use.
 *
 * The handle (Goroutine) holds what was asked for and what came of it; the G holds the stack and the
 * thread state, comes from L's pool, and returns there.  While the goroutine lives its G owns one
 * reference to the handle. */
#include <errno.h>

#include "arch/arch.h"
#include "py/cpython/frames.h"
#include "py/host/above.h"
#include "py/host/errors.h"
#include "py/host/life.h"
#include "py/host/sigmask.h"

/* The end of the process goes on meanwhile: a daemon thread ends without a word, as it would anywhere else. */
static void raise_stopped(void) {
  PyObject *fn = helper("_life.run", "stopped"), *exc = fn ? PyObject_CallNoArgs(fn) : NULL;
  if (exc)
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
  else /* of a destructor at the very end, when nothing can be imported */
    PyErr_SetString(errs.RuntimeNotRunning, "the runtime has been stopped: the interpreter is exiting");
  Py_XDECREF(exc);
  Py_XDECREF(fn);
}

static bool not_stopped(void) {
  if (likely(!load_rlx(&sched.stopping))) return true;
  raise_stopped();
  return false;
}

static noinline bool runtime_start(void) {
  if (!not_stopped() || !above.activate()) return false;
  if (schedinit()) return true;
  if (errno == EAGAIN)
    PyErr_SetString(errs.TooManyThreads, "can't start a new thread for the runtime");
  else if (errno == ENOMEM)
    PyErr_NoMemory();
  else
    PyErr_SetFromErrno(PyExc_OSError);
  return false;
}

/* Starts the runtime if it does not run. */
bool runtime_ensure(void) { return likely(load_rlx(&sched.started)) ? not_stopped() : runtime_start(); }

/* ---- creation ------------------------------------------------------------------------------------------ */

/* Not tracked yet.  NULL: exception set. */
static inline Goroutine *blank(void) {
  Goroutine *self = PyObject_GC_New(Goroutine, Goroutine_Type);
  if (!self) return NULL;
  memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
  self->argv = self->few;
  return self;
}

/* It will not be started. */
Goroutine *goroutine_drop(Goroutine *self) {
  PyObject_GC_Track(self);
  Py_DECREF(self);
  return NULL;
}

/* Where, and by whom it is started (ts is current), and with which signal mask.  false: exception set, and it is gone. */
static inline bool inherit(Goroutine *self, PyThreadState *ts, Goroutine *parent) {
  int instr = 0;
  PyCodeObject *code = caller_position(ts, &instr);
  self->created_by = (PyCodeObject *)Py_XNewRef((PyObject *)code);
  self->created_instr = instr;
  if (parent) self->parent = parent->id;
  return mask_inherit(self, parent) || goroutine_drop(self) != NULL;
}

static inline bool keep_call(Goroutine *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  Py_ssize_t nkw = kwnames ? PyTuple_GET_SIZE(kwnames) : 0, n = nargs - 1 + nkw;
  if (n >= (Py_ssize_t)nelem(self->few)) {
    PyObject **argv = PyMem_Malloc((size_t)(n + 1) * sizeof(PyObject *));
    if (!argv) {
      PyErr_NoMemory();
      return false;
    }
    argv[0] = NULL;
    self->argv = argv;
  }
  self->fn = Py_NewRef(args[0]);
  for (Py_ssize_t i = 0; i < n; i++) self->argv[i + 1] = Py_NewRef(args[i + 1]);
  self->nargs = (uint32_t)n;
  if (nkw) {
    if (!extras_of(self)) return false;
    self->more->kwnames = Py_NewRef(kwnames);
  }
  return true;
}

/* args[0] is the callable. */
Goroutine *goroutine_new(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  Goroutine *self = blank(), *parent = current_handle();
  if (!self) return NULL;
  if (!keep_call(self, args, nargs, kwnames)) return goroutine_drop(self);
  if (parent) self->run = parent->run;
  PyThreadState *ts = PyThreadState_Get();
  if (!inherit(self, ts, parent)) return NULL;
  if (ts->context && !(self->context = PyContext_CopyCurrent())) return goroutine_drop(self);
  return self;
}

/* Makes gp, fresh from the pool, the goroutine that self describes, and runnable. */
void goroutine_start(Goroutine *self, G *gp) {
  goid_assign(gp, &sched.l.goidcache, &sched.l.goidcacheend);
  gp->runticks = 0;
  gp->locked = 0;
  gp->handle = Py_NewRef(self);
  store_rlx(&gp->since, load_rlx(&sched.l.holder) ? switch_time() : look_at_clock()); /* nobody else looks */
  self->id = gp->goid;
  self->g = gp;
  PyObject_GC_Track(self);
  inc_rlx(&counts.started);
  casgstatus(gp, Gdead, Grunnable);
  newproc_host(gp);
}

/* Runnable, from now on.  NULL: exception set, and it is gone. */
Goroutine *goroutine_launch(Goroutine *self) {
  G *gp = gfget_host();
  if (!gp) {
    PyErr_NoMemory();
    return goroutine_drop(self);
  }
  goroutine_start(self, gp);
  return self;
}

/* A new goroutine, runnable. NULL: exception set. */
Goroutine *goroutine_go(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  if (!runtime_ensure()) return NULL;
  Goroutine *self = goroutine_new(args, nargs, kwnames);
  return self ? goroutine_launch(self) : NULL;
}

/* One that is a thread to Python (pythread.c).  It is no part of a run(), has no failure, and nobody its handle.  false:
 * exception set. */
bool goroutine_go_pythread(void *(*fn)(void *), void *arg, PyThreadState *ts) {
  Goroutine *self = blank();
  if (!self) return false;
  self->pythread = self->detached = self->collected = true;
  self->thread.fn = fn;
  self->thread.arg = arg;
  self->thread.other = ts;
  if (!inherit(self, PyThreadState_Get(), current_handle()) || !goroutine_launch(self)) return false;
  Py_DECREF(self);
  return true;
}

/* It has returned, or will never run. */
void drop_call(Goroutine *self) {
  PyObject *fn = self->fn, **argv = self->argv;
  uint32_t n = self->nargs;
  self->fn = NULL;
  self->nargs = 0;
  Py_XDECREF(fn);
  for (uint32_t i = 1; i <= n; i++) Py_CLEAR(argv[i]);
  if (argv != self->few) PyMem_Free(argv);
  self->argv = self->few;
  if (self->more) Py_CLEAR(self->more->kwnames);
}
