/* life.c - the life of a Python goroutine on its stack, and its end.
 *
 * The end of a goroutine, on the goroutine itself, its state still current, as at a thread's end: store
 * the result; drop the call; report a failure that nobody can collect; clear the thread state; publish `done`
 * and wake the joiners; call the callbacks; drop the handle.  The unit enters the pool in the lander's commit
 * (park.c), no earlier: another M would start on a stack in use.
 *
 * All of these run code of the program's, destructors too, which may do whatever a goroutine may: park, call what
 * is interposed, start goroutines, ask for current() and current_thread().  So the G has a handle until no code
 * can run any more.  If nobody else holds the handle, what it holds goes before it does (hollow); and what that
 * code leaves in the state, in threading's table or in the handle goes in further turns, as often as POSIX
 * calls the destructors of a thread's data. */
#include "sync/sema.h"
#include "py/cpython/exception.h"
#include "py/host/above.h"
#include "py/host/errors.h"
#include "py/host/fork.h"
#include "py/host/identity.h"
#include "py/host/lender.h"
#include "py/host/life.h"
#include "py/host/pythread.h"
#include "py/host/scope.h"
#include "py/host/thread.h"

static void store_outcome(Goroutine *self, PyObject *result) {
  if (unlikely(!result)) {
    PyObject *exc = take_exception();
    if (PyErr_GivenExceptionMatches(exc, errs.GoExit)) {
      Py_DECREF(exc);
      result = Py_NewRef(Py_None);
    } else {
      self->failed = true;
      self->cancelled = PyErr_GivenExceptionMatches(exc, errs.Cancelled);
      result = exc;
    }
  }
  self->outcome = result;
}

static void run_callbacks(Goroutine *self) {
  PyObject *list = self->more->callbacks;
  self->more->callbacks = NULL;
  for (Py_ssize_t i = 0; list && i < PyList_GET_SIZE(list); i++) {
    PyObject *r = PyObject_CallOneArg(PyList_GET_ITEM(list, i), (PyObject *)self);
    if (!r) PyErr_WriteUnraisable(PyList_GET_ITEM(list, i));
    Py_XDECREF(r);
  }
  Py_XDECREF(list);
}

/* The last to hold it is the goroutine itself: nobody will ever ask. */
static void report_if_last(Goroutine *self) {
  if (unlikely(self->failed) && Py_REFCNT(self) == 1 && worth_reporting(self)) report_failure(self);
}

static bool unsettled(G *gp, Goroutine *self) {
  return self->threaded || has_homes(self) || (!self->lent && tstate_dirty(ts_of(gp)));
}

/* What a thread's end does away with. */
static void settle(G *gp, Goroutine *self) {
  PyThreadState *ts = ts_of(gp);
  if (unlikely(self->threaded)) {
    self->threaded = false;
    thread_forget(ts->thread_id);
  }
  if (!self->lent) tstate_clear(ts);
  if (unlikely(has_homes(self))) above.homes_drop(self);
}

/* Its time is over.  Who does not drive may have run while nobody looked at the clock. */
static void leave(G *gp, Goroutine *self) {
  goroutine_ran(gp, load_rlx(&sched.l.holder) == gp->m ? switch_time() : look_at_clock());
  self->cpu_ticks = (int64_t)gp->runticks;
  self->left = true;
}

/* A cancel or an interrupt that has come when nothing waits any more.  One that comes behind the look would have come
 * behind an exchange, too, which costs as much as a switch. */
static inline void too_late(G *gp) {
  if (unlikely(load_rlx(&gp->wait) & (WAIT_C | WAIT_I))) atomic_fetch_and(&gp->wait, ~(WAIT_C | WAIT_I));
}

static bool holds_something(Goroutine *self) {
  extras *x = self->more;
  return self->outcome || self->context || self->created_by || self->weakrefs ||
         (x && (x->name || x->reason || x->callbacks));
}

/* A goroutine without a result that runs the callbacks of weak references to self. NULL: no memory. */
static Goroutine *stand_in(Goroutine *self) {
  Goroutine *next = PyObject_GC_New(Goroutine, Goroutine_Type);
  if (!next) return NULL;
  memcpy((char *)next + sizeof(PyObject), (char *)self + sizeof(PyObject), sizeof *self - sizeof(PyObject));
  self->more = NULL; /* the signal mask, and what else is the goroutine's, not its handle's */
  next->argv = next->few;
  next->weakrefs = NULL;
  PyObject_GC_Track(next);
  return next;
}

/* The handle goes with its goroutine: what it holds goes now, while that still has it.  true: code may have run. */
static bool hollow(G *gp) {
  Goroutine *self = gp->handle;
  if (Py_REFCNT(self) > 1 || !holds_something(self)) return false;
  goroutine_clear((PyObject *)self);
  if (likely(Py_REFCNT(self) > 1 || !self->weakrefs)) return true;
  Goroutine *next = stand_in(self); /* a weak reference ends with its object, no sooner */
  if (next) {
    gp->handle = next;
    leave(gp, self);
    Py_DECREF(self);
  } else {
    PyErr_Clear();
    Py_INCREF(self); /* better lost than called back in nobody's name */
  }
  return true;
}

enum { TURNS = 4 }; /* PTHREAD_DESTRUCTOR_ITERATIONS */

/* There is always more: it is lost, but the next goroutine on this unit sees nothing of it. */
static void abandon(G *gp) {
  Goroutine *self = gp->handle;
  unsigned long other = self->threaded ? identity_new() : 0;
  if (other) ts_of(gp)->thread_id = other;
  self->threaded = false;
  if (!self->lent) tstate_abandon(ts_of(gp));
  settle(gp, self);
  if (Py_REFCNT(self) == 1 && holds_something(self)) Py_INCREF(self);
}

/* The handle's end, and what the code that it runs leaves behind. */
static void let_go(G *gp) {
  for (int turn = 0;; turn++) {
    Goroutine *self = gp->handle;
    report_if_last(self);
    bool more = hollow(gp);
    self = gp->handle;
    bool rest = unsettled(gp, self);
    if (likely(!more && !rest)) break;
    if (turn == TURNS) {
      abandon(gp);
      break;
    }
    if (rest) settle(gp, self);
  }
}

/* Settles a goroutine that has returned; the caller then leaves its stack for good. */
static void goroutine_finish(G *gp, Goroutine *self, PyObject *result) {
  store_outcome(self, result);
  drop_call(self);
  report_if_last(self);
  if (unlikely(self->failed) && worth_reporting(self)) failed_link(self);
  settle(gp, self);
  self->done = true;
  scopes_end(self);
  too_late(gp);
  if (self->joiners.first) waitq_ended(&self->joiners);
  if (unlikely(self->more && self->more->callbacks)) run_callbacks(self);
  if (unlikely(self->more && self->more->group)) above.member_ended(self);
  let_go(gp);
  fork_child_end(gp, Py_None); /* it has forked since it returned */
  self = gp->handle;
  scopes_end(self);
  leave(gp, self);
  too_late(gp); /* its callbacks wait no more */
  if (unlikely(self->joiners.first)) waitq_wakeall(&self->joiners);
  if (unlikely(self->pythread)) pythread_ended(self);
  gp->handle = NULL;
  Py_DECREF(self); /* runs no code */
}

static inline PyObject *call(Goroutine *self) {
  if (!self->lent) thread_start();
  PyObject *kwnames = self->more ? self->more->kwnames : NULL;
  size_t nkw = kwnames ? (size_t)PyTuple_GET_SIZE(kwnames) : 0;
  size_t n = (self->nargs - nkw) | PY_VECTORCALL_ARGUMENTS_OFFSET;
  return PyObject_Vectorcall(self->fn, self->argv + 1, n, kwnames);
}

/* host->main: the whole life of a goroutine, on its stack, its state current. */
host_after goroutine_run(G *gp) {
  Goroutine *self = gp->handle;
  PyThreadState *ts = ts_of(gp);
  self->started = true;
  self->gilstate_base = (uint16_t)ts_entered(ts);
  if (!self->lent) tstate_fresh_depth(ts, (size_t)(gp->stk.hi - gp->stk.lo));
  if (self->context && !self->lent) {
    ts->context = self->context; /* the handle's reference; kept there too, for .context */
    Py_INCREF(ts->context);
    ts->context_ver++;
    thread_context();
  }
  PyObject *result = likely(!self->pythread) ? call(self) : pythread_run(gp);
  fork_child_end(gp, result);
  bool lent = self->lent;
  goroutine_finish(gp, self, result);
  return lent ? lender_main_left : NULL;
}
