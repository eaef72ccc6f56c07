/* preempt.c - how a Python goroutine is asked to yield (sched/preempt.c).
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
 * return, takes itself off, and yields.  A trace function of the program's own (debuggers, coverage) stands
 * behind it meanwhile: it gets the event, and is put back.
 *   `while True: pass` is one instruction that jumps to itself, of which no event tells.  If SIGURG finds itself
 * armed already, the running frame is made to report each instruction, once.  Not beside a trace function of the
 * program's own: the interpreter may hold that in a local already, and would report to it.  Such a loop shares
 * the GIL with others by the interpreter's own switching.
 *
 *   A debug build of 3.11 asserts at the start of specialised instructions that tracing is off, which is where a signal
 * may switch it on.  Without assertions nothing comes of it: tracing begins with the next instruction.  There is no
 * other way into 3.11's loop: pending calls are the main thread's, a request to drop the GIL waits for a taker,
 * and an asynchronous exception unwinds.  So in such a build nobody is asked, and hogs share the GIL as threads do.
 *
 * Never while the collector runs: its finalizers reach bytecode boundaries, too, and others would find no
 * collector until this one runs again.  Nor in the middle of a fork: the world stands still, in the child for good. */
#include "sched/park.h"
#include "py/cpython/preempt.h"

bool (*preempt_barred)(void);

static inline bool must_go_on(void) {
  return collecting() || (preempt_barred && preempt_barred());
}

static void yield_now(void) {
  xadd(&counts.preemptions, 1);
  gosched();
}

#ifdef ASSERTS_UNTRACED
static const char *refused = "off (a debug build of Python 3.11 has no place for it)";
#else
static const char *refused; /* why there is none in this process; NULL: there is */
#endif

/* Before the runtime starts. */
void py_preempt_refuse(const char *why) { refused = why; }

const char *py_preempt_mode(void) {
  if (!preempt_enabled()) return "off (GMPRT_PREEMPT=0)";
#ifndef HAVE_PENDING_ANYWHERE
  if (os_signals_left()) return "off (GMPRT_INTERPOSE=none: it takes a handler for SIGURG)";
#endif
  return refused ? refused : "on";
}

#ifdef HAVE_PENDING_ANYWHERE

static _Atomic bool posted;

/* Not on a state that C code has made for itself and put in the place of the goroutine's: who leaves that one's evaluation
 * loop comes back with the goroutine's, and the loop looks for its exceptions in its own. */
static bool may_yield(M *m, G *gp) {
  return gp && gp->kind == GK_HOST && preempt_wanted(m) && !must_go_on() && PyThreadState_Get() == ts_of(gp);
}

static int preempt_call(void *arg) {
  (void)arg;
  store_rlx(&posted, false);
  M *m = getm();
  if (!m || !may_yield(m, load_rlx(&m->curg))) return 0;
  pending_calls_leave();
  yield_now();
  return 0;
}

bool py_preempt(M *m) {
  (void)m;
  if (refused) return false;
  if (load_rlx(&sched.stopping) || xchg(&posted, true)) return true;
  if (!pending_call_add(preempt_call)) store_rlx(&posted, false); /* the queue is full: next time */
  return true;
}

void py_preempt_signal(M *m, G *gp) { (void)m, (void)gp; }
void py_preempt_disarm(pym *pm) { (void)pm; }
void py_preempt_forget(pym *pm) { (void)pm; }
void py_preempt_afterfork(M *m) {
  (void)m;
  store_rlx(&posted, false);
}

#else

/* The running frame, if its memory is certain to be there: the interpreter lets go of it while it is popped. */
static _PyInterpreterFrame *frame_here(PyThreadState *ts) {
  char *f = (char *)ts->cframe->current_frame, *chunk = (char *)ts->datastack_chunk;
  if (chunk && f >= chunk && f < chunk + ts->datastack_chunk->size) return (_PyInterpreterFrame *)f;
  if (ts->exc_info == &ts->exc_state) return NULL;
  PyGenObject *gen = (PyGenObject *)((char *)ts->exc_info - offsetof(PyGenObject, gi_exc_state));
  return f == (char *)gen->gi_iframe ? (_PyInterpreterFrame *)f : NULL;
}

static void mark(PyThreadState *ts, pym *pm) {
  _PyInterpreterFrame *f = frame_here(ts);
  PyFrameObject *o = f ? f->frame_obj : NULL;
  if (!o || o->f_trace_opcodes || pm->marked) return;
  o->f_trace_opcodes = 1;
  pm->marked = o;
}

/* The frame that was marked, if it still runs; NULL: none was, or it is gone. */
static PyFrameObject *unmark(pym *pm, _PyInterpreterFrame *f) {
  PyFrameObject *o = pm->marked;
  pm->marked = NULL;
  for (; o && f; f = f->previous) {
    if (f->frame_obj != o) continue;
    o->f_trace_opcodes = 0;
    return o;
  }
  return NULL;
}

static int preempt_trace(PyObject *obj, PyFrameObject *frame, int what, PyObject *arg) {
  pym *pm = getm()->host;
  PyThreadState *ts = PyThreadState_Get();
  if (ts->c_tracefunc == preempt_trace) { /* else it is disarmed, and a second event of the same instruction */
    ts->c_tracefunc = pm->traced;         /* the caller sees to use_tracing */
    pm->armed = NULL;
  }
  Py_tracefunc behind = ts->c_tracefunc;
  bool made = unmark(pm, frame->f_frame) == frame && what == PyTrace_OPCODE;
  int r = behind && !made ? behind(obj, frame, what, arg) : 0;
  M *m = getm();
  if (r == 0 && preempt_wanted(m) && !must_go_on()) yield_now();
  return r;
}

bool py_preempt(M *m) {
  if (refused) return false;
  return preempt_signalM(m);
}

/* In the handler of SIGURG, on m's thread. */
void py_preempt_signal(M *m, G *gp) {
  pym *pm = m->host;
  PyThreadState *ts = ts_of(gp);
  if (!tstate_attached(ts) || ts->tracing) return;
  if (ts->c_tracefunc == preempt_trace) {
    if (!pm->traced) mark(ts, pm);
  } else {
    pm->traced = ts->c_tracefunc;
    pm->armed = ts;
    ts->c_tracefunc = preempt_trace;
  }
  ts->cframe->use_tracing = 255;
}

/* The goroutine leaves this M before an event has come: it yields anyway. */
void py_preempt_disarm(pym *pm) {
  PyThreadState *ts = pm->armed;
  pm->armed = NULL;
  unmark(pm, ts->cframe->current_frame);
  if (ts->c_tracefunc != preempt_trace) return; /* the program has set another one */
  ts->c_tracefunc = pm->traced;
  _PyThreadState_UpdateTracingState(ts);
}

void py_preempt_forget(pym *pm) {
  pm->armed = NULL;
  pm->marked = NULL;
}

void py_preempt_afterfork(M *m) {
  pym *pm = m ? m->host : NULL;
  if (pm && pm->armed) py_preempt_disarm(pm);
}

#endif
