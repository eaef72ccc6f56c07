/* tstate.c - thread states: made, cleared, used again; and what is seen of them from outside.
 *
 * A goroutine has a PyThreadState of its own, created with its stack and pooled with it.  The eval loop
 * keeps the state in a C local, so a suspended frame can be resumed with that state only: the state moves
 * with the goroutine, to whichever thread runs it.
 *
 * Recycling.  PyThreadState_Clear leaves a state that could be used again but for the list in
 * recycle; 80 ns against 5 us for New and Delete.  The destructors that Clear runs, and those of the handle,
 * may put anything into it anew (3.13 drops the key of threading.local first of all): tstate_dirty looks.
 *
 * First chunk of the data stack: ours, above the C stack in the slot (mem/stack.c), large in address space
 * and lazy in memory; the interpreter never pops a root chunk. */
#include "py/cpython/tstate.h"

PyInterpreterState *interp;
static uint64_t next_id = (uint64_t)1 << 40; /* own range: ContextVar caches key on it */

/* At import. false: exception set. */
bool tstate_init(void) {
  interp = PyInterpreterState_Main();
#ifdef HAVE_TLS_CURRENT
  if (!find_slot()) return false;
#endif
  return true;
}

/* ---- life -------------------------------------------------------------------------------------------- */

/* gp has got a stack: the chunk above it is the root of its state's data stack. */
void tstate_root_chunk(PyThreadState *ts, G *gp) {
  _PyStackChunk *chunk = (_PyStackChunk *)gp->stk.hi;
  chunk->previous = NULL;
  chunk->size = host->stack_top;
  chunk->top = 0;
  ts->datastack_chunk = chunk;
  ts->datastack_top = &chunk->data[1]; /* data[0] is never used in a root: it is never popped */
  ts->datastack_limit = (PyObject **)((char *)chunk + chunk->size);
}

/* Where the used part of its root chunk ends, at gp's stack; NULL: it has others. */
char *tstate_chunk_end(PyThreadState *ts, const G *gp) {
  return (char *)ts->datastack_chunk == gp->stk.hi ? (char *)ts->datastack_top : NULL;
}

/* No Python code runs on it; the interpreter may then free its chunks. */
void tstate_leave_root(PyThreadState *ts) {
  ts->datastack_chunk = NULL;
  ts->datastack_top = ts->datastack_limit = NULL;
}

/* From now on it runs on gp's C stack, whichever thread that is on.  Without limits of its own it would get those of the
 * thread that attaches it first. */
void tstate_on_stack(PyThreadState *ts, G *gp) {
#ifdef HAVE_STACK_LIMITS
  size_t size = (size_t)(gp->stk.hi - gp->stk.lo);
  if (size == 0) { /* not known: what the interpreter finds */
    PyUnstable_ThreadState_ResetStackProtection(ts);
  } else if (PyUnstable_ThreadState_SetStackProtection(ts, gp->stk.lo, size) != 0) {
    fatal("a stack of %zu bytes is too small for the interpreter", size);
  }
#else
  (void)ts, (void)gp;
#endif
}

/* thread: stands for the calling one, to whose stack a state will come back by tstate_on_stack.  Asking the
 * interpreter to find it would have it read all mappings of the process, and in a forked child another thread is on
 * that stack. */
void tstate_keep_stack(G *thread) {
#ifdef HAVE_STACK_LIMITS
  os_thread_stack(&thread->stk.lo, &thread->stk.hi);
#else
  (void)thread;
#endif
}

/* At the start of a goroutine on a stack of that many bytes: the interpreter's limit may have changed since the
 * state was used, and set_max_stack() since the stack was made. */
void tstate_fresh_depth(PyThreadState *ts, size_t stack) {
  ts->recursion_headroom = 0;
#ifdef HAVE_JOINT_RECURSION
  /* One counter for C and Python recursion, limit 1000 by default; list.sort takes 5.1 KB per two units.
   * What the slot cannot hold is not allowed, whatever limit the user has set: an error, and no crash. */
  int limit = interp->ceval.recursion_limit;
  size_t units = (stack - (64 << 10)) / 2700;
  ts->recursion_limit = limit;
  ts->recursion_remaining = units < (size_t)limit ? (int)units : limit;
#else
  ts->py_recursion_limit = interp->ceval.recursion_limit;
  ts->py_recursion_remaining = ts->py_recursion_limit;
#endif
#ifdef HAVE_C_RECURSION
  /* 1700 bytes a unit is what the hungriest pattern (sorted with a recursive key) was measured to need */
  size_t units = (stack - (32 << 10)) / 1700;
  bool enlarged = stack > host->stack_size; /* set_max_stack: more than a thread may */
  ts->c_recursion_remaining =
      enlarged || units < Py_C_RECURSION_LIMIT ? (int)units : Py_C_RECURSION_LIMIT;
#endif
#ifdef HAVE_STACK_LIMITS
  (void)stack; /* recursion through C ends by addresses: tstate_on_stack */
#endif
}

/* NULL: no memory. */
static PyThreadState *state_make(void) {
#ifdef HAVE_FRAGILE_NEW
  PyThreadState *ts = _PyThreadState_Prealloc(interp);
  if (ts) _PyThreadState_SetCurrent(ts); /* of this thread, if it has none yet */
  return ts;
#else
  return PyThreadState_New(interp);
#endif
}

static uint32_t ours; /* states made for goroutines; under the GIL */

/* GIL held. NULL: no memory. */
PyThreadState *tstate_new(unsigned long ident) {
  PyThreadState *ts = state_make();
  if (!ts) return NULL;
  ours++;
  ts->thread_id = ident;
  ts->id = next_id++;
  return ts;
}

/* One that no goroutine has any more, and whose stack is gone; GIL held, another state is current. */
void tstate_delete(PyThreadState *ts) {
  tstate_leave_root(ts);
  PyThreadState_Clear(ts);
  PyThreadState_Delete(ts);
  ours--;
}

static _Atomic uint32_t bases;

uint32_t tstate_foreign(void) {
  uint32_t n = 0;
  for (PyThreadState *ts = PyInterpreterState_ThreadHead(interp); ts; ts = PyThreadState_Next(ts)) n++;
  return n - ours - load_rlx(&bases);
}

/* What the interpreter calls in a forked child, in this order; borrowed, NULL: nothing yet. */
static bool no_fork_list;
void fork_child_list_unknown(void) { no_fork_list = true; }
PyObject *fork_child_list(void) { return no_fork_list ? NULL : interp->after_forkers_child; }

/* In a forked child one state is left.  If it is a goroutine's, that goroutine is now the one in run(), and its state
 * counts with those that are lent. */
void tstate_afterfork(void) {
  ours = 0;
  store_rlx(&bases, 0);
}

/* In such a child the interpreter is to end with ts, which may be a thread's.  Were it alone, nobody would look. */
void tstate_last(PyThreadState *ts) {
#ifdef HAVE_THREADS_AT_END
  ts->_whence = _PyThreadState_WHENCE_INIT;
#else
  (void)ts;
#endif
}

/* What PyThreadState_Clear leaves. */
static void recycle(PyThreadState *ts) {
  ts->context_ver++;
  ts->id = next_id++;
  ts->exc_info = &ts->exc_state;
  ts->exc_state.previous_item = NULL;
  ts->tracing = 0;
  ts->coroutine_origin_tracking_depth = 0;
  ts->gilstate_counter = 1;
#ifdef HAVE_ON_DELETE
  ts->on_delete = NULL;
  ts->on_delete_data = NULL;
#endif
#ifdef HAVE_CFRAME
  ts->cframe = &ts->root_cframe;
#endif
#ifdef HAVE_GLOBAL_CURRENT
  ts->tracing_what = 0;
  ts->root_cframe.use_tracing = 0;
#else
  ts->_status.cleared = 0;
  ts->_status.finalizing = 0;
  ts->what_event = -1;
#endif
#ifdef HAVE_TSTATE_BREAKER
  _Py_atomic_and_uintptr(&ts->eval_breaker,
                         ~(uintptr_t)(_PY_ASYNC_EXCEPTION_BIT | _PY_SIGNALS_PENDING_BIT));
#endif
}

#ifdef HAVE_TRACED_CALLS
static int see_nothing(PyObject *Py_UNUSED(o), PyFrameObject *Py_UNUSED(f), int Py_UNUSED(what), PyObject *Py_UNUSED(a)) {
  return 0;
}

/* The current state. Not PyEval_SetProfile(): audit hooks are told of that. */
bool tstate_traced(PyThreadState *ts, bool on) {
  if (ts->c_profilefunc && ts->c_profilefunc != see_nothing) return false; /* somebody does: so they are */
  ts->c_profilefunc = on ? see_nothing : NULL;
  _PyThreadState_UpdateTracingState(ts);
  return true;
}
#else
bool tstate_traced(PyThreadState *Py_UNUSED(ts), bool Py_UNUSED(on)) { return false; }
#endif

/* On a goroutine that has come to its end; GIL held, ts still current. */
void tstate_clear(PyThreadState *ts) {
  PyThreadState_Clear(ts);
  recycle(ts);
}

/* Everything that Python code can put into the state of its thread. */
bool tstate_dirty(PyThreadState *ts) {
  uintptr_t any = (uintptr_t)ts->dict | (uintptr_t)ts->context | (uintptr_t)ts->async_exc | (uintptr_t)ts->c_traceobj |
                  (uintptr_t)ts->c_profileobj | (uintptr_t)ts->async_gen_firstiter |
                  (uintptr_t)ts->async_gen_finalizer | (uintptr_t)ts->coroutine_origin_tracking_depth;
#ifdef HAVE_LOCAL_KEY
  any |= (uintptr_t)ts->threading_local_key | (uintptr_t)ts->threading_local_sentinel;
#endif
  return any != 0;
}

/* Destructors have made it anew each time it was cleared: the next goroutine must not see it. */
void tstate_abandon(PyThreadState *ts) {
  ts->dict = ts->context = ts->async_exc = ts->async_gen_firstiter = ts->async_gen_finalizer = NULL;
  ts->c_traceobj = ts->c_profileobj = NULL;
#ifdef HAVE_LOCAL_KEY
  ts->threading_local_key = ts->threading_local_sentinel = NULL;
#endif
  tstate_clear(ts); /* runs no code now */
}

/* ---- seen from outside ------------------------------------------------------------------------------------ */

bool tstate_attached(PyThreadState *ts) {
#if defined(HAVE_GLOBAL_CURRENT)
  return CURRENT_UNCHECKED() == ts;
#elif defined(HAVE_ATTACH_STATE)
  return _Py_atomic_load_int_relaxed(&ts->state) == _Py_THREAD_ATTACHED;
#else
  return ((volatile PyThreadState *)ts)->_status.active;
#endif
}

bool gil_locked(void) {
#if defined(HAVE_GLOBAL_CURRENT)
  return _Py_atomic_load_relaxed(&_PyRuntime.ceval.gil.locked) != 0;
#elif defined(HAVE_ATTACH_STATE)
  return _Py_atomic_load_int_relaxed(&interp->ceval.gil->locked) != 0;
#else
  return _Py_atomic_load_relaxed(&interp->ceval.gil->locked) != 0;
#endif
}

bool have_gil(void) {
  PyThreadState *ts = CURRENT_UNCHECKED();
  return ts && ts == gilstate_get();
}

bool signals_tripped(void) {
#ifdef HAVE_GLOBAL_BREAKER
  return _Py_atomic_load_relaxed(&_PyRuntime.ceval.signals_pending) != 0;
#else
  PyThreadState *ts = main_tstate();
  return ts && (_Py_atomic_load_uintptr_relaxed(&ts->eval_breaker) & _PY_SIGNALS_PENDING_BIT);
#endif
}

bool one_interpreter(void) { return PyInterpreterState_Next(PyInterpreterState_Head()) == NULL; }

bool collecting(void) { return interp->gc.collecting; }

bool attached_here(PyThreadState *ts) {
  PyThreadState *now = CURRENT_UNCHECKED();
#ifdef HAVE_GLOBAL_CURRENT
  if (now == ts || likely(one_interpreter())) return now == ts;
  return now && now->thread_id == ts->thread_id;
#else
  (void)ts;
  return now != NULL;
#endif
}

/* From 3.13 on a state that is being deleted is current no more, though its thread has the GIL. */
bool tstate_in_life(PyThreadState *ts) {
#ifdef HAVE_BOUND_GILSTATE
  return ts->_status.bound && !ts->_status.cleared;
#else
  return gilstate_get() == ts;
#endif
}

#ifdef HAVE_PENDING_ANYWHERE
bool pending_call_add(int (*f)(void *)) { return _PyEval_AddPendingCall(interp, f, NULL, 0) == 0; }

void pending_calls_leave(void) {
#ifdef HAVE_TSTATE_BREAKER
  interp->ceval.pending.handling_thread = NULL;
#else
  interp->ceval.pending.busy = 0;
#endif
}
#endif

/* The state of the interpreter's main thread: the oldest. */
static PyThreadState *main_ts;
PyThreadState *main_tstate(void) { return main_ts; }
void main_tstate_set(PyThreadState *ts) {
  main_ts = ts;
#ifdef HAVE_MAIN_TSTATE
  _PyRuntime.main_tstate = ts; /* in a forked child it still names one that was freed */
#endif
}

/* ---- Ms ------------------------------------------------------------------------------------------------------ */

/* An M gets its state without the GIL, and the interpreter locks its list meanwhile.  A child of a fork has a copy of
 * that, for ever locked.  3.11 waits for it there; later ones make it anew first, and from 3.13 on have it locked
 * themselves while they fork: who waits for this one with that one held would wait for ever.
 *
 * An M may wait for the GIL with `making` in hand: while tracemalloc traces, for the memory.  So who has the GIL must not
 * wait for it.  An M that has it does without, for who forks Python has the GIL, too; and who forks is refused, and
 * comes again when that M has its state. */
#ifdef HAVE_LATE_REINIT
static mutex making = {.rank = rank_states};

bool tstate_forklock(void) { return trylock(&making); }
void tstate_forkunlock(void) { unlock(&making); }

void tstate_forkwait(void) {
  PyThreadState *ts = have_gil() ? PyEval_SaveThread() : NULL;
  lock(&making);
  unlock(&making);
  if (ts) PyEval_RestoreThread(ts);
}

static PyThreadState *state_made(void) {
  if (have_gil()) return state_make();
  lock(&making);
  PyThreadState *ts = state_make();
  unlock(&making);
  return ts;
}
#else
bool tstate_forklock(void) { return true; }
void tstate_forkunlock(void) {}
void tstate_forkwait(void) {}
static PyThreadState *state_made(void) { return state_make(); }
#endif

/* On the thread that it is for.  NULL: no memory. */
pym *pym_new(void) {
  pym *m = tss_reserve() ? PyMem_RawCalloc(1, sizeof *m) : NULL;
  if (!m) return NULL;
  m->base = state_made(); /* binds itself if this thread has no state yet */
  if (!m->base) {
    PyMem_RawFree(m);
    return NULL;
  }
  atomic_fetch_add(&bases, 1); /* without the GIL, perhaps */
#ifdef HAVE_TLS_CURRENT
  m->slot = slot_of_this_thread();
#endif
  m->tss = tss_of_this_thread();
#ifdef CPU_THREAD_POINTER_KEPT
  m->tp = cpu_thread_pointer();
#endif
  m->tid = (unsigned long)os_gettid();
  return m;
}

/* GIL held, with another state or the base state current. */
void pym_free(pym *m) {
  PyThreadState_Clear(m->base);
  atomic_fetch_sub(&bases, 1);
  if (CURRENT_UNCHECKED() == m->base)
    PyThreadState_DeleteCurrent();
  else
    PyThreadState_Delete(m->base);
  PyMem_RawFree(m);
}

/* As PyThreadState.thread_id of the main thread. */
unsigned long main_thread_ident(void) { return _PyRuntime.main_thread; }
