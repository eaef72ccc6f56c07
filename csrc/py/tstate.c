/* tstate.c - thread states: the one file that depends on the CPython version.
 *
 * A goroutine has a PyThreadState of its own, created with its stack and pooled with it.  The eval loop
 * keeps the state in a C local, so a suspended frame can be resumed with that state only: the state moves
 * with the goroutine, to whichever thread runs it.
 *
 * Swap, GIL held throughout.  After it, on this thread: current state == what PyGILState_* finds == the
 * new goroutine's.  3.11: current is one global.  3.12 and 3.13: it is a private thread-local of the
 * interpreter, and the public PyThreadState_Swap gives the GIL away: whoever takes it then finds a goroutine
 * that has queued itself and whose wait is not open yet, and its wake-up is lost.  So the slot is located
 * once, verified, and written directly; an interpreter where it cannot be found is refused at import.
 *
 * The TSS entry that PyGILState_* looks at is written on every swap, too.  pthread_setspecific checks key and
 * sequence for 4 ns; the entry of a low key lies in the thread's descriptor, so each M finds its own once
 * and verifies it.  Another C library: not found, and the function is called.
 *
 * What a direct swap must carry over, and what happens if it is forgotten:
 *   TSS key            ctypes/cffi callbacks deadlock on the GIL (3.11, 3.12) or abort (3.13)
 *   bound_gilstate     the next attach elsewhere would not rebind (3.12+)
 *   last_holder        waiters ask a parked state to drop the GIL: starvation (3.13: a freed one: crash)
 *   version bits       of eval_breaker: RESUME would loop for ever (3.13)
 *   drop request       one more 5 ms interval for the waiter; kept by a parked state: a hang (3.13)
 *   eval_breaker       a pending signal stays hidden from the main goroutine (3.11, 3.12)
 *
 * Recycling.  PyThreadState_Clear leaves a state that could be used again but for the list in
 * recycle; 80 ns against 5 us for New and Delete.  The destructors that Clear runs, and those of the handle,
 * may put anything into it anew (3.13 drops the key of threading.local first of all): tstate_dirty looks.
 *
 * First chunk of the data stack: ours, above the C stack in the slot (stack.c), large in address space
 * and lazy in memory; the interpreter never pops a root chunk. */
#define _GNU_SOURCE
#include "tstate.h"

#include <link.h>
#include <unistd.h>

static PyInterpreterState *interp;
static uint64_t next_id = (uint64_t)1 << 40; /* own range: ContextVar caches key on it */

/* ---- the private slot (3.12+) ----------------------------------------------------------------------- */

#ifdef HAVE_TLS_CURRENT
typedef struct {
  unsigned long module, offset;
} tls_index;
void *__tls_get_addr(tls_index *);

static tls_index slot_index;

static PyThreadState **slot_at(tls_index at) { return __tls_get_addr(&at); }

/* Does the interpreter take for the current state what is written there? */
static bool believed(tls_index at) {
  static PyThreadState probe;
  PyThreadState *ts = PyThreadState_Get(), **slot = slot_at(at);
  *slot = &probe;
  bool so = CURRENT_UNCHECKED() == &probe;
  *slot = ts;
  return so && CURRENT_UNCHECKED() == ts;
}

/* The object that holds the interpreter. */
typedef struct home {
  bool shared; /* not the executable */
  uint32_t found;
  tls_index at;
} home;

static bool holds(const struct dl_phdr_info *info, const void *address) {
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
    if (ph->p_type == PT_LOAD && (uintptr_t)address - (info->dlpi_addr + ph->p_vaddr) < ph->p_memsz) return true;
  }
  return false;
}

/* Its TLS block of this thread is searched for the current state.  Others' are not: a library may well keep the state
 * of its thread in a thread-local of its own. */
static int scan_object(struct dl_phdr_info *info, size_t size, void *arg) {
  (void)size;
  home *h = arg;
  if (!holds(info, &_PyRuntime)) return 0;
  h->shared = info->dlpi_name[0] != 0;
  for (int i = 0; i < info->dlpi_phnum && info->dlpi_tls_data; i++) {
    if (info->dlpi_phdr[i].p_type != PT_TLS) continue;
    void **words = info->dlpi_tls_data;
    for (size_t w = 0; w < info->dlpi_phdr[i].p_memsz / sizeof *words; w++) {
      tls_index at = {info->dlpi_tls_modid, w * sizeof *words};
      if (words[w] != PyThreadState_Get() || !believed(at)) continue;
      h->found++;
      h->at = at;
    }
  }
  return 1;
}

static PyThreadState **slot_of_this_thread(void) { return slot_at(slot_index); }

/* Exactly one word is believed. */
static bool find_slot(void) {
  home h = {.found = 0};
  dl_iterate_phdr(scan_object, &h);
  if (tls_addresses_kept(Py_GetCompiler(), h.shared, PY_VERSION_HEX)) {
    PyErr_Format(PyExc_ImportError,
                 "gmprt cannot run on a shared libpython that was built by Clang (%s): such code keeps the addresses "
                 "of thread-locals while its thread changes; use a Python built by GCC, or one whose executable "
                 "contains the interpreter",
                 Py_GetCompiler());
    return false;
  }
  slot_index = h.at;
  if (h.found != 1)
    PyErr_SetString(PyExc_ImportError, "gmprt cannot find where this interpreter keeps its current thread state");
  return h.found == 1;
}
#endif

/* Clang computes the address of a thread-local of a shared object once in a function, and keeps it over calls: in
 * functools.reduce, gen_close, subtype_dealloc and some 70 others, whose callees may park and come back on another
 * thread.  Then the state that is current on the old thread is taken for one's own.  GCC's functions that do so
 * (11 in 3.12, 14 in 3.13) run no Python meanwhile.  In an executable the address is relative to the thread's own
 * register; in 3.11 it is no thread-local.  To keep each goroutine on the thread where it began would be possible
 * only at the price of a thread for each: so the interpreter is refused. */
bool tls_addresses_kept(const char *compiler, bool shared, int version) {
  return shared && version >= 0x030c0000 && strstr(compiler, "Clang") != NULL;
}

/* ---- the TSS entry --------------------------------------------------------------------------------- */

/* The first value of a key that is no low one needs memory in each thread (glibc: 16 bytes for each of 32 keys), the next
 * ones do not.  The interpreter aborts where it is refused; so it is had here, where that can be told. */
static bool tss_reserve(void) {
  static PyThreadState none;
  if (pthread_getspecific(AUTO_TSS_KEY)) return true;
  return pthread_setspecific(AUTO_TSS_KEY, &none) == 0 && pthread_setspecific(AUTO_TSS_KEY, NULL) == 0;
}

/* Where this thread's value of the key lies, NULL if not where glibc has it: among the first words of what
 * pthread_self() points to.  (The descriptor is longer than that on every glibc.) */
static void **tss_of_this_thread(void) {
  enum { WORDS = 1536 / sizeof(void *) };
  static PyThreadState probe[2]; /* never looked into: a state to whoever comes across it */
  void *own = pthread_getspecific(AUTO_TSS_KEY), **self = (void **)pthread_self(), **at = NULL;
  if (pthread_setspecific(AUTO_TSS_KEY, &probe[0]) != 0) return NULL;
  int hits = 0;
  for (int i = 0; i < WORDS; i++) {
    if (self[i] != &probe[0]) continue;
    at = &self[i];
    hits++;
  }
  bool sure = hits == 1;
  if (sure) {
    *at = &probe[1];
    sure = pthread_getspecific(AUTO_TSS_KEY) == &probe[1];
  }
  pthread_setspecific(AUTO_TSS_KEY, own);
  return sure && *at == own ? at : NULL;
}

static inline void tss_set(pym *m, PyThreadState *ts) {
  if (likely(m->tss != NULL))
    *m->tss = ts;
  else
    pthread_setspecific(AUTO_TSS_KEY, ts); /* cannot fail: tss_reserve */
}

/* false: exception set. */
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

/* At the start of a goroutine on a stack of that many bytes: the interpreter's limit may have changed since the
 * state was used, and set_max_stack() since the stack was made. */
void tstate_fresh_depth(PyThreadState *ts, size_t stack) {
  ts->recursion_headroom = 0;
#ifdef HAVE_JOINT_RECURSION
  /* One counter for C and Python recursion, limit 1000 by default; list.sort takes 4.9 KB per two units.
   * What the slot cannot hold is not allowed, whatever limit the user has set: an error, and no crash. */
  int limit = interp->ceval.recursion_limit;
  size_t units = (stack - (64 << 10)) / 2450;
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
PyThreadState *tstate_new(void) {
  unsigned long ident = identity_new();
  PyThreadState *ts = ident ? state_make() : NULL;
  if (!ts) return NULL;
  ours++;
  ts->thread_id = ident;
  ts->id = next_id++;
  return ts;
}

static _Atomic uint32_t bases;

uint32_t tstate_foreign(void) {
  uint32_t n = 0;
  for (PyThreadState *ts = PyInterpreterState_ThreadHead(interp); ts; ts = PyThreadState_Next(ts)) n++;
  return n - ours - load_rlx(&bases);
}

/* What the interpreter calls in a forked child, in this order; borrowed, NULL: nothing yet. */
PyObject *fork_child_list(void) { return interp->after_forkers_child; }

/* In a forked child one state is left.  If it is a goroutine's, that goroutine is now the one in run(), and its state
 * counts with those that are lent. */
void tstate_afterfork(void) {
  ours = 0;
  store_rlx(&bases, 0);
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

/* ---- the swap ------------------------------------------------------------------------------------------ */

void tstate_bind(PyThreadState *ts) {
  pthread_setspecific(AUTO_TSS_KEY, ts); /* cannot fail: pym_new was here */
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
/* Signals are the main state's business, and its eval_breaker was computed for another thread. */
static inline void show_signals(PyThreadState *to) {
  if (unlikely(_Py_atomic_load_relaxed(&_PyRuntime.ceval.signals_pending)) && to == main_tstate())
    _Py_atomic_store_relaxed(&interp->ceval.eval_breaker, 1);
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
  from->_status.holds_gil = 0;
  _Py_atomic_store_int_relaxed(&from->state, _Py_THREAD_DETACHED);
  _Py_atomic_store_int_relaxed(&to->state, _Py_THREAD_ATTACHED);
  to->_status.active = 1;
  to->_status.bound_gilstate = 1;
  to->_status.holds_gil = 1;
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
  show_signals(to);
#endif
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
  return ts && ts == pthread_getspecific(AUTO_TSS_KEY);
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

/* On the thread that it is for.  NULL: no memory. */
pym *pym_new(void) {
  pym *m = tss_reserve() ? PyMem_RawCalloc(1, sizeof *m) : NULL;
  if (!m) return NULL;
  m->base = state_make(); /* binds itself if this thread has no state yet */
  if (!m->base) {
    PyMem_RawFree(m);
    return NULL;
  }
  atomic_fetch_add(&bases, 1); /* without the GIL, perhaps */
#ifdef HAVE_TLS_CURRENT
  m->slot = slot_of_this_thread();
#endif
  m->tss = tss_of_this_thread();
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

/* ---- evaluation loops -------------------------------------------------------------------------------------------- */

#ifdef HAVE_CFRAME
/* An address in the C frame of the innermost evaluation loop on the stack [lo, hi), if it is the only one there;
 * else NULL. */
const char *ts_loop(PyThreadState *ts, const char *lo, const char *hi) {
  const char *loop = (const char *)ts->cframe, *outer = (const char *)ts->cframe->previous;
  bool only = loop >= lo && loop < hi && !(outer >= lo && outer < hi);
  return only ? loop : NULL;
}
#else
/* Each loop has a frame of its own on the C stack, before those that it runs. */
const char *ts_loop(PyThreadState *ts, const char *lo, const char *hi) {
  int looks = 16; /* beyond, it is cheaper to look at the whole stack */
  const char *found = NULL;
  for (const _PyInterpreterFrame *f = ts->current_frame; f; f = f->previous) {
    if (looks-- == 0) return NULL;
    if (f->owner != FRAME_OWNED_BY_CSTACK) continue;
    const char *at = (const char *)f;
    if (at < lo || at >= hi) break;
    if (found) return NULL;
    found = at;
  }
  return found;
}
#endif

/* ---- positions -------------------------------------------------------------------------------------------------- */

PyCodeObject *caller_position(PyThreadState *ts, int *instr) {
  _PyInterpreterFrame *f = TS_FRAME(ts);
  while (f && _PyFrame_IsIncomplete(f)) f = f->previous;
  if (!f) return NULL;
  *instr = _PyInterpreterFrame_LASTI(f) * (int)sizeof(_Py_CODEUNIT);
#ifdef HAVE_PREV_INSTR
  return f->f_code;
#else
  return _PyFrame_GetCode(f);
#endif
}
