/* pythread.c - a thread that the interpreter starts, as a goroutine.
 *
 * With threads(True) pthread_create makes a goroutine of what _thread would start (interpose/hooks/thread.c).  It calls
 * what the thread would have called: the interpreter's own function attaches the state that it has made for it, runs the
 * program's, clears and frees the state.  So everything that is done for a thread is done for the goroutine, by who does
 * it for threads: counts, hooks, audit events, handles, locks that are let go at the end.
 *
 * Two states.  T1 is the goroutine's own, pooled with its stack: it begins and ends with it, as all do.  T2 is the
 * interpreter's, and the goroutine's (G.host) in between:
 *
 *     T1 current -> T1 detached, T2 put in its place -> [bound, attached, the thread's life, cleared, deleted] -> T1
 *
 * T2 gets what a goroutine's state has: the chunk of the data stack above the stack (which saves mapping one, and is not
 * the interpreter's to unmap: hook_munmap), limits of recursion, the ident.  It counts as a thread's, not as ours.
 *
 * T2 is freed behind the last drop of the GIL, and others look through G.host without it (sysmon).  So T1 is put back in
 * that drop, which signals a condition (pythread_left), while nobody else can have the GIL yet.  Rejected: the moment in
 * which PyGILState's key is cleared, by a hook on pthread_setspecific: from 3.15 on there is no such call.
 *
 * Outside of T2's life no hook may park (pythread_may_park).  From 3.13 on the interpreter deletes a state that is not
 * current any more, with the GIL: a hook that took it for detached waited for its own GIL.
 *
 * Rejected: stand-ins for the functions of _thread, which would have to do again what those do, differently in each
 * version. */
#include <stdlib.h>

#include "base/clock.h"
#include "sync/sema.h"
#include "py/cpython/preempt.h"
#include "py/host/identity.h"
#include "py/host/life.h"
#include "py/host/pythread.h"

bool pythreads;
uint32_t pythreads_alive;
static waitq ends; /* who waits for one of them to end */

/* ---- start ---------------------------------------------------------------------------------------------------- */

/* ts: what the interpreter has made for it.  false: it shall be a thread after all, no exception set. */
bool pythread_go(pthread_t *t, void *(*fn)(void *), void *arg, PyThreadState *ts) {
  bool can = runtime_ensure() && PyThread_get_stacksize() <= stack_host_size();
  unsigned long ident = can ? identity_thread_new() : 0;
  if (!ident || !goroutine_go_pythread(fn, arg, ts)) {
    PyErr_Clear();
    if (ident) identity_thread_ended(ident), identity_thread_released(ident);
    return false;
  }
  ts->thread_id = ident; /* kept there until it runs, for which it needs the GIL */
  pythreads = true;
  pythreads_alive++;
  *t = (pthread_t)ident;
  return true;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

/* T1 is current: T2 takes its place, to be attached by the interpreter. */
static void exchange_in(G *gp, PyThreadState *t1, PyThreadState *t2) {
  tstate_leave_root(t1);
  tstate_root_chunk(t2, gp);
  tstate_on_stack(t2, gp);
  tstate_fresh_depth(t2, (size_t)(gp->stk.hi - gp->stk.lo));
  handle_of(gp)->thread.other = t1;
  handle_of(gp)->thread.ident = t2->thread_id;
  handle_of(gp)->alike = true;
  t2->thread_id = 0; /* as the interpreter has made it: it will ask */
  pym *pm = gp->m->host;
  PyEval_SaveThread();
  if (unlikely(pm->armed != NULL)) py_preempt_disarm(pm);
  tstate_unbind(t1);
  gilstate_set(NULL);
  store_rel(&gp->host, t2);
}

/* T2 is gone. */
static void exchange_out(G *gp) {
  PyThreadState *t1 = handle_of(gp)->thread.other;
  store_rel(&gp->host, t1); /* where it is, but if the interpreter, which ends, would not attach T2 any more */
  PyEval_RestoreThread(t1);
  tstate_bind(t1);
  tstate_root_chunk(t1, gp);
  handle_of(gp)->alike = false;
}

/* What such a goroutine runs, T1 current. */
PyObject *pythread_run(G *gp) {
  Goroutine *self = handle_of(gp);
  PyThreadState *t2 = self->thread.other;
  void *(*fn)(void *) = self->thread.fn;
  void *arg = self->thread.arg;
  exchange_in(gp, ts_of(gp), t2);
  fn(arg);
  exchange_out(gp);
  return Py_NewRef(Py_None);
}

/* Not outside of the life of T2, while that is its state. */
bool pythread_may_park(G *gp) {
  Goroutine *self = handle_of(gp);
  PyThreadState *ts = ts_of(gp);
  return !self->alike || (ts != self->thread.other && tstate_in_life(ts));
}

/* The GIL is being dropped on m, and nobody has it yet.  For the last time with T2? */
void pythread_left(M *m) {
  G *gp = load_rlx(&m->curg);
  Goroutine *self = gp && gp->kind == GK_HOST ? gp->handle : NULL;
  if (!self || !self->alike) return;
  PyThreadState *t1 = self->thread.other, *t2 = ts_of(gp);
  if (t2 == t1 || tstate_in_life(t2)) return;
  py_preempt_forget(m->host);
  store_rel(&gp->host, t1);
}

/* ---- end ------------------------------------------------------------------------------------------------------- */

/* The goroutine runs no code any more. */
void pythread_ended(Goroutine *self) {
  pythreads_alive--;
  identity_thread_ended(self->thread.ident);
  if (unlikely(ends.first != NULL)) waitq_wakeall(&ends);
}

/* By any thread, which has dropped the GIL as a rule; no signal ends it. */
void pythread_join(pthread_t t) {
  PyThreadState *ts = gilstate_get();
  bool detached = ts && !attached_here(ts);
  if (detached) PyEval_RestoreThread(ts);
  G *gp = curg();
  wake_t r = WAKE_OK;
  while (ts && r != WAKE_NOMEM && !identity_thread_has_ended(t) && !load_rlx(&sched.stopping)) {
    if (gp) gp->nocancel = true;
    r = waitq_wait(&ends, waitReasonJoin, 0);
    if (gp) gp->nocancel = false;
  }
  if (detached) PyEval_SaveThread();
  identity_thread_released(t);
}

/* ---- fork ------------------------------------------------------------------------------------------------------ */

/* In the child, which me goes on in; NULL: an ordinary thread does.  T1 was freed with the states of others. */
void pythread_afterfork(G *me) {
  ends = (waitq){NULL, NULL};
  pythreads_alive = me && handle_of(me)->pythread;
  if (!pythreads_alive) return;
  unsigned long ident = identity_new();
  PyThreadState *t1 = ident ? tstate_new(ident) : NULL;
  if (!t1) fatal("no memory for a thread state in a forked child");
  handle_of(me)->thread.other = t1;
}

/* The thread that forked has returned in the child.  As the C library has it: the process ends with its last thread, and
 * the interpreter hears nothing of that. */
_Noreturn void pythread_last(void) {
  enum { LOOK_NS = 100000000 }; /* others may be OS threads */
  while (tstate_foreign() > 0) waitq_wait(&ends, waitReasonJoin, nanotime() + LOOK_NS);
  exit(0);
}
