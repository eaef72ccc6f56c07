/* host.h - the table through which the runtime reaches CPython: host.c; SIGQUIT: sigquit.c. */
#ifndef GMPRT_PY_HOST_HOST_H
#define GMPRT_PY_HOST_HOST_H

#include "sched/host.h"
#include "py/cpython/frames.h"
#include "py/host/goroutine.h"

extern const host_t python_host;
extern PyObject *dump_hook, *deadlock_hook;

bool sigquit_install(void); /* false: the program has its own use for it */
PyObject *py_install_sigquit(PyObject *module, PyObject *Py_UNUSED(ignored));

/* ---- C frames below: shims are entered and left by interpose/shim.c ---- */

/* Kinds of blocking calls, as hooks and shims name them. */
typedef enum __attribute__((packed)) family { FAM_NONE, FAM_SLEEP, FAM_SEM, FAM_FD, FAM_CHILD } family;

/* What a file object lets through that holds data in C code between Python and the call that waits.  PASS_END: all, and
 * what those below it hold is lost with the rest. */
typedef enum __attribute__((packed)) passage { PASS_NONE, PASS_UNTOUCHED, PASS_ALL, PASS_END } passage;

/* One call of a Python-callable function that may be cancelled, or must not be, on the stack of the goroutine. */
typedef struct shim {
  family family; /* FAM_NONE: of a file object, which waits in calls of its own below, or has others do so */
  passage passes;
  bool touched;        /* it has taken data that it would lose */
  bool reader, waits;  /* a BufferedReader's, which has taken nothing yet and waits for its own lock */
  uint8_t substituted; /* WAKE_OK, or why a hook made up a failure: wake_t */
  void *frame;        /* the interpreter frame that called: code that runs below has another one */
  PyObject *object;   /* whose method it is; borrowed */
  struct shim *outer;
} shim;

bool in_a_call_of(const shim *s, const void *frame);

/* C frames lie below: they have called Python by PyGILState_Ensure, or from an interposed function, for a signal
 * handler after EINTR. */
static inline bool entered_below(G *gp) {
  Goroutine *self = handle_of(gp);
  PyThreadState *ts = ts_of(gp);
  const shim *s = self->shim;
  return ts_entered(ts) > self->gilstate_base || (s && in_a_call_of(s, ts_position(ts).frame));
}

#endif
