/* pypreempt.c - how a Python goroutine is asked to yield (preempt.c).
 *
 * Everywhere the interpreter itself might drop the GIL and run another thread, a goroutine may yield: it looks
 * like a thread that waits for the GIL.
 *
 * 3.12 and later: sysmon posts a pending call, which whoever runs Python next executes at a bytecode boundary:
 * with the GIL the goroutine in question.  The interpreter lets nobody else run pending calls while one
 * is running, so that mark is taken off before the switch.  One call is outstanding at a time.
 *
 * 3.11 runs pending calls on the main thread only.  There SIGURG arms a trace function on the goroutine's state:
 * plain stores to what only this thread touches.  It is called at the next line, backward jump, call or
 * return, takes itself off, and yields.  A goroutine that is traced already (debuggers, coverage) is left
 * alone, and shares the GIL with others by the interpreter's own switching.
 *
 * Never while the collector runs: its finalizers reach bytecode boundaries, too, and others would find no
 * collector until this one runs again. */
#include "pyhost.h"

static inline bool collecting(void) { return PyInterpreterState_Main()->gc.collecting; }

static void yield_now(void) {
  xadd(&counts.preemptions, 1);
  gosched();
}

#ifdef HAVE_PENDING_ANYWHERE

static _Atomic bool posted;

static int preempt_call(void *arg) {
  (void)arg;
  store_rlx(&posted, false);
  M *m = getm();
  G *gp = m ? load_rlx(&m->curg) : NULL;
  if (!gp || gp->kind != GK_HOST || !preempt_wanted(m) || collecting()) return 0;
  pending_calls_leave();
  yield_now();
  return 0;
}

bool py_preempt(M *m) {
  (void)m;
  if (load_rlx(&sched.stopping) || xchg(&posted, true)) return true;
  if (!pending_call_add(preempt_call)) store_rlx(&posted, false); /* the queue is full: next time */
  return true;
}

void py_preempt_signal(M *m, G *gp) { (void)m, (void)gp; }
void py_preempt_afterfork(void) { store_rlx(&posted, false); }

#else

static int preempt_trace(PyObject *obj, PyFrameObject *frame, int what, PyObject *arg) {
  (void)obj, (void)frame, (void)what, (void)arg;
  PyThreadState_Get()->c_tracefunc = NULL; /* the caller puts use_tracing right when it goes on */
  M *m = getm();
  G *gp = m ? load_rlx(&m->curg) : NULL;
  if (gp && gp->kind == GK_HOST && preempt_wanted(m) && !collecting()) yield_now();
  return 0;
}

bool py_preempt(M *m) {
  G *gp = load_acq(&m->curg);
  PyThreadState *ts = gp ? load_acq(&gp->host) : NULL;
  if (!ts || (ts->c_tracefunc && ts->c_tracefunc != preempt_trace)) return false;
  preempt_signalM(m);
  return true;
}

/* In the handler of SIGURG, on m's thread. */
void py_preempt_signal(M *m, G *gp) {
  (void)m;
  PyThreadState *ts = ts_of(gp);
  if (!tstate_attached(ts) || ts->tracing || (ts->c_tracefunc && ts->c_tracefunc != preempt_trace)) return;
  ts->c_tracefunc = preempt_trace;
  ts->cframe->use_tracing = 255;
}
void py_preempt_afterfork(void) {}

#endif
