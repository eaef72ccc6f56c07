/* tstate.h - a goroutine's PyThreadState: what the host needs of it, whatever the CPython version. */
#ifndef GMPRT_TSTATE_H
#define GMPRT_TSTATE_H

#include "compat.h"

#include "../runtime2.h"

/* What an M keeps for the host. */
typedef struct pym {
  PyThreadState *base;  /* the state of the thread itself: current while it is on g0 */
  PyThreadState **slot; /* where this thread's current state lives (HAVE_TLS_CURRENT) */
  unsigned long tid;    /* kernel's thread id */
} pym;

/* The state that belongs to G: the one accessor.  (Free-threaded builds will answer: the M's.) */
static inline PyThreadState *ts_of(G *gp) { return load_rlx(&gp->host); }

bool tstate_init(void);        /* once, GIL held: false and an exception if this build is not understood */
const char *tstate_swap_mode(void);
bool tstate_is_direct(void);
PyThreadState *tstate_new(void);
void tstate_root_chunk(PyThreadState *ts, G *gp);
void tstate_fresh_depth(PyThreadState *ts, size_t stack);
void tstate_recycle(PyThreadState *ts); /* after PyThreadState_Clear, before the next goroutine */
void tstate_swap(pym *m, PyThreadState *from, PyThreadState *to);
bool tstate_attached(PyThreadState *ts); /* any thread, no lock */
bool gil_locked(void);                   /* any thread, no lock */
void tstate_bind(PyThreadState *ts);     /* make ts what PyGILState_* finds on this thread */
void tstate_unbind(PyThreadState *ts);
pym *pym_new(void); /* on the thread that it is for */
void pym_free(pym *m);
bool signals_tripped(void); /* any thread: has a C signal handler asked for Python's? */
PyThreadState *main_tstate(void);
void main_tstate_set(PyThreadState *ts);

/* Where the caller's Python code is now: a borrowed code object, NULL if there is none. */
PyCodeObject *caller_position(PyThreadState *ts, int *instr);

/* identity.c */
bool identity_install(void);
void identity_remove(void);
unsigned identity_patched(void);
unsigned long identity_new(void);

#endif
