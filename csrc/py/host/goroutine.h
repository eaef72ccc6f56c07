/* goroutine.h - a goroutine's handle: what was asked for, and what came of it.  handle.c.
 *
 * All fields are guarded by the GIL. */
#ifndef GMPRT_PY_HOST_GOROUTINE_H
#define GMPRT_PY_HOST_GOROUTINE_H

#include "py/cpython/tstate.h"
#include "sched/park.h"

/* What few goroutines have: kept apart, for the handle is part of the price of a goroutine. */
typedef struct extras {
  PyObject *name;      /* as set; NULL: derived from the id */
  PyObject *reason;    /* of the last cancel() */
  PyObject *callbacks; /* list */
  PyObject *kwnames;   /* until the function has returned */
  uint64_t sigmask;    /* `masked`: its signal mask */
  _Atomic uint64_t sigpending; /* sent to it alone while it blocks them (hooks/signal.c) */
  _Atomic uint64_t sigwaits;   /* it waits for these, on the thread sigtid */
  pid_t sigtid;
  struct scope *scopes; /* blocks that may be cancelled, innermost first (scope.c) */
  uint32_t cancels;     /* times that Cancelled was raised in it */
  char osname[16];      /* as set for the thread that it is to Python (hooks/identity.c) */
  struct homes *homes; /* C code that came back from an interposed call on another thread: homes.c */
  PyObject *group;      /* of which it is a member, owned until it has ended (types/group.c) */
  struct Goroutine *gprev, *gnext; /* there */
  struct Goroutine *fprev, *fnext; /* failed, and nobody has asked: borrowed, see failed_link */
} extras;

/* A goroutine's handle. The G owns a reference to it while it lives. */
typedef struct Goroutine {
  PyObject_HEAD
  union {
    G *g;              /* left is false */
    int64_t cpu_ticks; /* left: cputicks it has run */
  };
  uint64_t id, parent;
  PyObject *fn;    /* until it has returned */
  PyObject **argv; /* argv[0] is scratch for the callee (vectorcall), arguments from argv[1] */
  union {
    PyObject *few[3]; /* argv, if that is enough */
    struct {          /* `pythread`: what the interpreter starts as a thread (pythread.c) */
      void *(*fn)(void *);
      union {
        void *arg;
        unsigned long ident; /* from then on, when that has been called */
      };
      PyThreadState *other; /* the one of its two states that is not its own now */
    } thread;
  };
  uint32_t nargs;   /* keyword arguments included */
  int32_t created_instr;
  PyCodeObject *created_by; /* where go() was called, NULL: not from Python code */
  PyObject *context;
  PyObject *outcome; /* NULL: none yet, or dropped; the exception if `failed`, else the result */
  PyObject *weakrefs;
  extras *more; /* NULL: nothing of it */
  waitq joiners;
  struct shim *shim; /* the innermost call of a function that can be cancelled, or NULL (shim.h) */
  uint32_t asking;   /* calls that wait to be told how it ends */
  uint32_t run;      /* number of the run() that it descends from, 0: none */
  uint16_t gilstate_base; /* ts_entered() of its thread state at the start */
  bool started : 1, done : 1, failed : 1, cancelled : 1, detached : 1, collected : 1, reported : 1,
      lent : 1;
  bool left : 1;       /* done, and it runs no code any more: its G is not its own */
  bool threaded : 1;   /* it has an object in threading's table */
  bool masked : 1;     /* its signal mask differs from the program's: more->sigmask */
  bool pythread : 1;   /* to Python it is a thread, which the interpreter has started */
  bool alike : 1;      /* it has the state of that thread, and its ident: thread.ident */
  bool greenlets : 1;  /* locked to its thread to its end: greenlet.c */
  bool direct : 1;     /* cancel() was called, and nothing was raised for it yet */
  bool deadlocked : 1; /* main: shown as waiting while the dump of a Deadlock is made */
} Goroutine;

extern PyTypeObject *Goroutine_Type;

G *goroutine_g(Goroutine *self); /* NULL: it has ended */
extras *extras_raw(Goroutine *self); /* NULL: no memory; the GIL is not needed, nobody else may ask */
extras *extras_of(Goroutine *self);  /* NULL: exception set */
int goroutine_clear(PyObject *op);
int goroutine_traverse(PyObject *op, visitproc visit, void *arg);
void goroutine_dealloc(PyObject *op);

/* C code of its may know the errno of a thread (interpose/homes.c). */
static inline bool has_homes(const Goroutine *self) { return self->more && self->more->homes; }

/* Of a Python goroutine that runs: it has one to its last instruction, whatever destructors its end calls. */
static inline Goroutine *handle_of(const G *gp) {
  gm_debug_assert(gp->handle != NULL); /* on the way of each park and hook */
  return gp->handle;
}

/* Borrowed, NULL in an ordinary thread. */
static inline Goroutine *current_handle(void) {
  G *gp = curg();
  return gp && gp->kind == GK_HOST ? handle_of(gp) : NULL;
}

#endif
