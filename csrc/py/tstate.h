/* tstate.h - a goroutine's PyThreadState: what the host needs of it, whatever the CPython version. */
#ifndef GMPRT_TSTATE_H
#define GMPRT_TSTATE_H

#include "compat.h"

#include "sched/sched.h"

/* What an M keeps for the host. */
typedef struct pym {
  PyThreadState *base;  /* the state of the thread itself: current while it is on g0 */
  PyThreadState **slot; /* where this thread's current state lives (HAVE_TLS_CURRENT) */
  void **tss;           /* where its TSS entry lives, for PyGILState_*; NULL: not known */
  unsigned long tid;    /* kernel's thread id */
  /* 3.11: a request to yield stands before the program's trace function (pypreempt.c). */
  PyThreadState *armed;  /* the current state, NULL: none */
  Py_tracefunc traced;   /* the program's own */
  PyFrameObject *marked; /* made to report its instructions; borrowed */
} pym;

/* The state that belongs to G: the one accessor.  (Free-threaded builds will answer: the M's.) */
static inline PyThreadState *ts_of(G *gp) { return load_rlx(&gp->host); }

bool tstate_init(void);        /* once, GIL held: false and an exception if this build is not understood */
bool tls_addresses_kept(const char *compiler, bool shared, int version); /* such a build is refused */
PyThreadState *tstate_new(void);
void tstate_afterfork(void);
PyObject *fork_child_list(void); /* the interpreter has freed all others */
uint32_t tstate_foreign(void); /* states that are neither a goroutine's nor an M's own; GIL held */
void tstate_root_chunk(PyThreadState *ts, G *gp);
void tstate_fresh_depth(PyThreadState *ts, size_t stack);
void tstate_clear(PyThreadState *ts);    /* its contents go, as at a thread's end, but it can be used on */
bool tstate_dirty(PyThreadState *ts);    /* has code that ran since put something into it? */
void tstate_abandon(PyThreadState *ts);  /* what is in it is lost */
void tstate_swap(pym *m, PyThreadState *from, PyThreadState *to);
bool tstate_attached(PyThreadState *ts); /* any thread, no lock */
bool gil_locked(void);                   /* any thread, no lock */
bool have_gil(void);                     /* does the calling thread hold it? */
bool attached_here(PyThreadState *ts);   /* is ts, or a subinterpreter's that runs on it, current? own thread */
bool one_interpreter(void);
void tstate_bind(PyThreadState *ts);     /* make ts what PyGILState_* finds on this thread */
void tstate_unbind(PyThreadState *ts);
pym *pym_new(void); /* on the thread that it is for */
void pym_free(pym *m);
bool signals_tripped(void); /* any thread: has a C signal handler asked for Python's? */
PyThreadState *main_tstate(void);
void main_tstate_set(PyThreadState *ts);

/* The instruction that the interpreter executes for ts: equal as long as it is the same one. */
typedef struct position {
  void *frame;
  const void *instr;
} position;
static inline position ts_position(PyThreadState *ts) {
  _PyInterpreterFrame *f = TS_FRAME(ts);
#ifdef HAVE_PREV_INSTR
  return (position){f, f ? f->prev_instr : NULL};
#else
  return (position){f, f ? f->instr_ptr : NULL};
#endif
}

/* The interpreter has not gone on from there: the call that it made there has not returned. */
static inline bool ts_stands_at(PyThreadState *ts, position at) {
  _PyInterpreterFrame *f = TS_FRAME(ts);
  while (f && f != at.frame) f = f->previous;
#ifdef HAVE_PREV_INSTR
  return f && (const void *)f->prev_instr == at.instr;
#else
  return f && (const void *)f->instr_ptr == at.instr;
#endif
}

const char *ts_loop(PyThreadState *ts, const char *lo, const char *hi);

/* The code of a frame; only to be compared, for there are frames that have none. */
static inline const void *frame_code(const _PyInterpreterFrame *f) {
#ifdef HAVE_PREV_INSTR
  return f ? f->f_code : NULL;
#else
  return f ? f->f_executable : NULL;
#endif
}

/* An address in the C frame of the innermost evaluation loop, and of the one around it; may be of another stack. */
#ifdef HAVE_CFRAME
static inline const char *ts_inner_loop(PyThreadState *ts) { return (const char *)ts->cframe; }
static inline const char *outer_loop(const char *loop) { return (const char *)((const _PyCFrame *)loop)->previous; }
#else
static inline const char *loop_from(const _PyInterpreterFrame *f) {
  while (f && f->owner != FRAME_OWNED_BY_CSTACK) f = f->previous;
  return (const char *)f;
}
static inline const char *ts_inner_loop(PyThreadState *ts) { return loop_from(ts->current_frame); }
static inline const char *outer_loop(const char *loop) {
  return loop_from(((const _PyInterpreterFrame *)loop)->previous);
}
#endif

/* Where the caller's Python code is now: a borrowed code object, NULL if there is none. */
PyCodeObject *caller_position(PyThreadState *ts, int *instr);

#ifdef HAVE_PENDING_ANYWHERE
bool pending_call_add(int (*f)(void *)); /* any thread, no lock */
void pending_calls_leave(void); /* in a pending call that is about to switch: others may run theirs */
#endif

/* identity.c */
unsigned long identity_new(void);

#endif
