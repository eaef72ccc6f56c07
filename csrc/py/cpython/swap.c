/* swap.c - another thread state becomes the current one, without the GIL changing hands.
 *
 * Swap, GIL held throughout.  After it, on this thread: current state == what PyGILState_* finds == the
 * new goroutine's.  3.11: current is one global.  From 3.12 on it is a private thread-local of the
 * interpreter, and the public PyThreadState_Swap gives the GIL away: whoever takes it then finds a goroutine
 * that has queued itself and whose wait is not open yet, and its wake-up is lost.  So the slot is located
 * once (locate.c), verified, and written directly; an interpreter where it cannot be found is refused at import.
 *
 * The TSS entry that PyGILState_* looks at is written on every swap, too.  pthread_setspecific checks key and
 * sequence for 4 ns; the entry of a low key lies in the thread's descriptor, so each M finds its own once
 * and verifies it.  Another C library: not found, and the function is called.  From 3.15 on the entry is a
 * thread-local as the slot is.
 *
 * What a direct swap must carry over, and what happens if it is forgotten:
 *   TSS key            ctypes/cffi callbacks deadlock on the GIL (3.11, 3.12) or abort (3.13+)
 *   bound_gilstate     the next attach elsewhere would not rebind (3.12+)
 *   last_holder        waiters ask a parked state to drop the GIL: starvation (3.13+: a freed one: crash)
 *   version bits       of eval_breaker: RESUME would loop for ever (3.13+)
 *   drop request       one more 5 ms interval for the waiter; kept by a parked state: a hang (3.13+)
 *   eval_breaker       a pending signal stays hidden from the main goroutine, an exception that was set from outside from
 *                      the one that it was set for (3.11, 3.12) */
#include "py/cpython/tstate.h"

static inline void tss_set(pym *m, PyThreadState *ts) {
  if (likely(m->tss != NULL))
    *m->tss = ts;
  else
    gilstate_set(ts); /* cannot fail: tss_reserve */
}

void tstate_bind(PyThreadState *ts) {
  gilstate_set(ts); /* cannot fail: pym_new was here */
#ifdef HAVE_BOUND_GILSTATE
  if (ts) ts->_status.bound_gilstate = 1;
#endif
}

void tstate_unbind(PyThreadState *ts) {
#ifdef HAVE_BOUND_GILSTATE
  ts->_status.bound_gilstate = 0;
#else
  (void)ts;
#endif
}

#ifdef HAVE_GLOBAL_BREAKER
/* Signals are the main state's business, and exceptions from outside that of the state that has one: eval_breaker was
 * computed for another thread.  (The interpreter counts such exceptions as one: the first that is raised unsays all.) */
static inline void show_events(PyThreadState *to) {
  bool signals = unlikely(_Py_atomic_load_relaxed(&_PyRuntime.ceval.signals_pending)) && to == main_tstate();
  if (unlikely(signals || to->async_exc)) _Py_atomic_store_relaxed(&interp->ceval.eval_breaker, 1);
}
#endif

#if defined(HAVE_GLOBAL_CURRENT)
static inline void swap_direct(pym *m, PyThreadState *from, PyThreadState *to) {
  (void)from;
  tss_set(m, to);
  _Py_atomic_store_relaxed(&_PyRuntime.gilstate.tstate_current, (uintptr_t)to);
}
#elif defined(HAVE_GLOBAL_BREAKER)
static inline void swap_direct(pym *m, PyThreadState *from, PyThreadState *to) {
  tss_set(m, to);
  from->_status.active = 0;
  from->_status.bound_gilstate = 0;
  to->_status.active = 1;
  to->_status.bound_gilstate = 1;
  *m->slot = to;
  _Py_atomic_store_relaxed(&interp->ceval.gil->last_holder, (uintptr_t)to);
}
#else
/* The new state must see what the interpreter would have shown it on attaching.
 *
 * Before it is the holder: the version, and no request to drop the GIL.  Who waits for the GIL reads the
 * holder, then sets the bit on it; a swap in between leaves the request on a parked state.  Found there when
 * nobody waits any more, it would make drop_gil wait for ever for somebody to take the GIL. */
static inline void fresh_breaker(PyThreadState *to) {
  const uintptr_t events = _PY_EVAL_EVENTS_MASK & ~(uintptr_t)_PY_GIL_DROP_REQUEST_BIT;
  uintptr_t version = _Py_atomic_load_uintptr_relaxed(&interp->ceval.instrumentation_version);
  uintptr_t old = _Py_atomic_load_uintptr_relaxed(&to->eval_breaker), want = (old & events) | version;
  while (unlikely(want != old) && !_Py_atomic_compare_exchange_uintptr(&to->eval_breaker, &old, want))
    want = (old & events) | version;
}

/* After it: a request that was made to the old state; one that comes later goes to the new holder. */
static inline void carry_requests(PyThreadState *from, PyThreadState *to) {
  uintptr_t move = _Py_atomic_load_uintptr_relaxed(&from->eval_breaker) & _PY_GIL_DROP_REQUEST_BIT;
  if (_Py_atomic_load_int32_relaxed(&interp->ceval.pending.npending)) move |= _PY_CALLS_TO_DO_BIT;
  if (likely(!move)) return;
  _Py_atomic_or_uintptr(&to->eval_breaker, move);
  _Py_atomic_and_uintptr(&from->eval_breaker, ~(uintptr_t)_PY_GIL_DROP_REQUEST_BIT);
}

static inline void swap_direct(pym *m, PyThreadState *from, PyThreadState *to) {
  tss_set(m, to);
  from->_status.active = 0;
  from->_status.bound_gilstate = 0;
  HOLDS_GIL(from) = 0;
  _Py_atomic_store_int_relaxed(&from->state, _Py_THREAD_DETACHED);
  _Py_atomic_store_int_relaxed(&to->state, _Py_THREAD_ATTACHED);
  to->_status.active = 1;
  to->_status.bound_gilstate = 1;
  HOLDS_GIL(to) = 1;
  *m->slot = to;
  fresh_breaker(to);
  _Py_atomic_store_ptr_relaxed(&interp->ceval.gil->last_holder, to);
  carry_requests(from, to);
}
#endif

/* On the thread of m, GIL held, `from` current. */
void tstate_swap(pym *m, PyThreadState *from, PyThreadState *to) {
  to->native_thread_id = m->tid;
  swap_direct(m, from, to);
#ifdef HAVE_GLOBAL_BREAKER
  show_events(to);
#endif
}
