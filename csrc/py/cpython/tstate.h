/* tstate.h - a goroutine's PyThreadState: what the host needs of it, whatever the CPython version. */
#ifndef GMPRT_PY_CPYTHON_TSTATE_H
#define GMPRT_PY_CPYTHON_TSTATE_H

#include "py/cpython/version.h"

#include "sched/sched.h"

/* A goroutine's stack is larger than a thread's 8 MiB by what colours and the host take of a slot: so the same recursion
 * works, and ends in the same error, also where the interpreter or a library counts none (a chain of iterators, the parser, a
 * deep structure's end).  Where the interpreter counts calls instead of looking at addresses each is allowed for as if it
 * were the hungriest, and 1000 levels of up to seven calls each take more, of address space: what is not below 2 MiB costs a
 * page-table page, and hardly more the larger it is. */
#ifdef HAVE_STACK_LIMITS
enum { TSTATE_STACK = 10 << 20 };
#else
enum { TSTATE_STACK = 20 << 20 };
#endif

/* What an M keeps for the host. */
typedef struct pym {
  PyThreadState *base;  /* the state of the thread itself: current while it is on g0 */
  PyThreadState **slot; /* where this thread's current state lives (HAVE_TLS_CURRENT) */
  void **tss;           /* where its TSS entry lives, for PyGILState_*; NULL: not known */
#ifdef CPU_THREAD_POINTER_KEPT
  char *tp; /* its thread pointer */
#endif
  unsigned long tid;    /* kernel's thread id */
  /* 3.11: a request to yield stands before the program's trace function (preempt.c). */
  PyThreadState *armed;  /* the current state, NULL: none */
  Py_tracefunc traced;   /* the program's own */
  PyFrameObject *marked; /* made to report its instructions; borrowed */
} pym;

/* The state that belongs to G: the one accessor.  (Free-threaded builds will answer: the M's.) */
static inline PyThreadState *ts_of(G *gp) { return load_rlx(&gp->host); }

/* How often C code has entered the interpreter on it as a thread does. */
static inline Py_ssize_t ts_entered(PyThreadState *ts) {
#ifdef HAVE_ENSURE_COUNTER
  return ts->gilstate_counter + (Py_ssize_t)ts->ensure.counter;
#else
  return ts->gilstate_counter;
#endif
}

/* tstate.c */
bool tstate_init(void);        /* once, GIL held: false and an exception if this build is not understood */
void tstate_root_chunk(PyThreadState *ts, G *gp);
char *tstate_chunk_end(PyThreadState *ts, const G *gp);
void tstate_leave_root(PyThreadState *ts);
void tstate_on_stack(PyThreadState *ts, G *gp);
void tstate_keep_stack(G *thread);
void tstate_fresh_depth(PyThreadState *ts, size_t stack);
PyThreadState *tstate_new(unsigned long ident);
void tstate_delete(PyThreadState *ts);
uint32_t tstate_foreign(void); /* states that are neither a goroutine's nor an M's own; GIL held */
PyObject *fork_child_list(void); /* borrowed; NULL: it is not known where */
void fork_child_list_unknown(void);
void tstate_afterfork(void); /* the interpreter has freed all others */
void tstate_last(PyThreadState *ts); /* the child ends with it */
void tstate_clear(PyThreadState *ts);    /* its contents go, as at a thread's end, but it can be used on */
bool tstate_dirty(PyThreadState *ts);    /* has code that ran since put something into it? */
void tstate_abandon(PyThreadState *ts);  /* what is in it is lost */
bool tstate_attached(PyThreadState *ts); /* any thread, no lock */
bool tstate_traced(PyThreadState *ts, bool on); /* its calls are made as if somebody traced; false: as always */
bool gil_locked(void);                   /* any thread, no lock */
bool have_gil(void);                     /* does the calling thread hold it? */
bool signals_tripped(void); /* any thread: has a C signal handler asked for Python's? */
bool one_interpreter(void);
bool collecting(void); /* a collection of garbage is under way, perhaps waiting for a finalizer; GIL held */
bool tstate_in_life(PyThreadState *ts); /* a thread of the interpreter's, on it: between its binding and its end */
bool attached_here(PyThreadState *ts);   /* is ts, or a subinterpreter's that runs on it, current? own thread */
bool pending_call_add(int (*f)(void *)); /* any thread, no lock */
void pending_calls_leave(void); /* in a pending call that is about to switch: others may run theirs */
PyThreadState *main_tstate(void);
void main_tstate_set(PyThreadState *ts);
pym *pym_new(void); /* on the thread that it is for */
bool tstate_forklock(void); /* before a fork: nobody makes a state; false: somebody does */
void tstate_forkunlock(void);
void tstate_forkwait(void); /* until he has made it; lets go of the GIL meanwhile */
void pym_free(pym *m);
extern PyInterpreterState *interp;  /* the one that there is */
unsigned long main_thread_ident(void);

/* locate.c */
bool tls_addresses_kept(const char *compiler, bool shared, int version); /* such a build is refused */
bool tss_reserve(void);
void **tss_of_this_thread(void);
#ifdef HAVE_TLS_GILSTATE
void gilstate_set(PyThreadState *ts);
static inline PyThreadState *gilstate_get(void) { return PyGILState_GetThisThreadState(); }
#else
static inline void gilstate_set(PyThreadState *ts) { pthread_setspecific(AUTO_TSS_KEY, ts); }
static inline PyThreadState *gilstate_get(void) { return pthread_getspecific(AUTO_TSS_KEY); }
#endif

/* swap.c */
void tstate_bind(PyThreadState *ts);     /* make ts what PyGILState_* finds on this thread */
void tstate_unbind(PyThreadState *ts);
void tstate_swap(pym *m, PyThreadState *from, PyThreadState *to);
#ifdef HAVE_TLS_CURRENT
bool find_slot(void);
PyThreadState **slot_of_this_thread(void);
#endif

#endif
