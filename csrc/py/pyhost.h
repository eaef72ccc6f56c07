/* pyhost.h - the Python side: its objects, and the table of contents of csrc/py/.
 *
 * Everything here runs with the GIL held, which guards all fields. */
#ifndef GMPRT_PYHOST_H
#define GMPRT_PYHOST_H

#include "tstate.h"

#include "arch/arch.h"
#include "base/clock.h"
#include "base/ownfd.h"
#include "sched/chaos.h"
#include "sched/netpoll.h"
#include "sched/park.h"
#include "sync/chan.h"
#include "sync/sema.h"

bool interpose_sees_gil(void); /* interpose.c: M.wants is kept */

/* What few goroutines have: kept apart, for the handle is part of the price of a goroutine. */
typedef struct extras {
  PyObject *name;      /* as set; NULL: derived from the id */
  PyObject *reason;    /* of the last cancel() */
  PyObject *callbacks; /* list */
  PyObject *kwnames;   /* until the function has returned */
  uint64_t sigmask;    /* `masked`: its signal mask */
  _Atomic uint64_t sigpending; /* sent to it alone while it blocks them (hook_signal.c) */
  _Atomic uint64_t sigwaits;   /* it waits for these, on the thread sigtid */
  pid_t sigtid;
  struct homes *homes; /* C code that came back from an interposed call on another thread: homes.c */
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
  PyObject *few[3]; /* argv, if that is enough */
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
  uint16_t gilstate_base; /* gilstate_counter of its thread state at the start */
  bool started : 1, done : 1, failed : 1, cancelled : 1, detached : 1, collected : 1, reported : 1,
      lent : 1;
  bool left : 1;       /* done, and it runs no code any more: its G is not its own */
  bool threaded : 1;   /* it has an object in threading's table */
  bool masked : 1;     /* its signal mask differs from the program's: more->sigmask */
  bool greenlets : 1;  /* locked to its thread to its end: greenlet.c */
  bool deadlocked : 1; /* main: shown as waiting while the dump of a Deadlock is made */
} Goroutine;

typedef struct Chan {
  PyObject_HEAD
  hchan c;
  PyObject *name;
  PyObject *weakrefs;
  bool is_timer;         /* a channel of timer_chan(): one-slot buffer that len() does not show */
  int64_t when, period;  /* nanotime() at which it fires next, 0: it does not; ns between two firings */
} Chan;

/* One direction of a channel. */
typedef struct View {
  PyObject_HEAD
  Chan *ch;
} View;

extern PyTypeObject *Goroutine_Type, *Chan_Type, *SendView_Type, *RecvView_Type, *Recv_Type, *Send_Type,
    *Select_Type, *Selected_Type, *Mutex_Type, *Semaphore_Type, *WaitGroup_Type;

/* Exceptions, from gmprt._errors. */
extern struct errors {
  PyObject *Error, *RuntimeNotRunning, *ChannelClosed, *EndOfChannel, *WouldBlock, *Cancelled,
      *GoroutineCancelled, *Deadlock, *TooManyThreads, *Timeout, *GoExit;
} errs;

/* module.c */
bool sigquit_install(void); /* false: the program has its own use for it */
PyObject *helper(const char *module, const char *name); /* new reference: gmprt.<module>.<name> */

/* wait.c: time-outs and the ends of waits */
typedef struct patience {
  bool block;
  int64_t deadline; /* 0: none */
} patience;
int patience_parse(const char *fn, PyObject *timeout, patience *out); /* NULL or None: for ever */
int patience_parse_strict(const char *fn, PyObject *timeout, patience *out);
int64_t deadline_after(double s);
bool seconds_arg(const char *fn, const char *name, PyObject *o, const char *or_else, double *s);
bool integer_arg(const char *fn, const char *name, PyObject *o, int64_t lo, int64_t hi, int64_t *value);
bool callable_arg(const char *fn, const char *name, PyObject *o);
int wake_error(wake_t r);  /* 0: nothing wrong, try again; -1: exception set */
int64_t seconds_to_ns(double s);

/* pygoroutine.c */
bool runtime_ensure(void); /* starts it on first use; false: exception set */
extras *extras_of(Goroutine *self);  /* NULL: exception set */
extras *extras_raw(Goroutine *self); /* NULL: no memory; the GIL is not needed, nobody else may ask */
G *goroutine_g(Goroutine *self); /* NULL: it has ended */
/* Of a Python goroutine that runs: it has one to its last instruction, whatever destructors its end calls. */
static inline Goroutine *handle_of(const G *gp) {
  gm_debug_assert(gp->handle != NULL); /* on the way of each park and hook */
  return gp->handle;
}

/* Borrowed, NULL in an ordinary thread. */
static inline Goroutine *current_handle(void) {
  M *m = getm();
  G *gp = m ? load_rlx(&m->curg) : NULL;
  return gp && gp->kind == GK_HOST ? handle_of(gp) : NULL;
}

host_after goroutine_run(G *gp);
PyObject *py_go(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
Goroutine *goroutine_new(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
void goroutine_start(Goroutine *self, G *gp);
void failures_push(Goroutine *self);
bool outcome_init(void);
extern PyMethodDef goroutine_functions[];
extern PyType_Spec goroutine_spec;

/* pychan.c, pyselect.c, pysync.c, pynative.c */
extern PyType_Spec chan_spec, sendview_spec, recvview_spec, recv_spec, send_spec, select_spec,
    selected_spec, mutex_spec, semaphore_spec, waitgroup_spec;
extern PyMethodDef chan_functions[], select_functions[], native_functions[];
bool chan_timer_poll(Chan *ch);
int64_t chan_timer_deadline(Chan *ch, int64_t deadline);

/* pyrun.c */
extern PyMethodDef run_functions[];
void lender_wake(M *m);
void lender_main_left(G *gp);
void lender_all_asleep(unsigned epoch);
void lender_set_mask(G *gp, uint64_t bits);
void lender_expose(G *gp);
void lender_sync(G *gp);
bool lender_takes(int sig);
void lender_lend(M *m);
bool thread_keep(G *gp); /* the running goroutine stays on this one to its end; false: exception set */
pid_t lent_tid(G *gp); /* of the thread that lends gp its state; 0: none does */

/* pythread.c */
bool threads_install(void); /* false: exception set */
void thread_start(void);
void thread_context(void);
void thread_forget(unsigned long ident);
extern PyMethodDef thread_functions[];

/* pypreempt.c */
bool py_preempt(M *m);
const char *py_preempt_mode(void); /* "on", or why not */
void py_preempt_refuse(const char *why);
void py_preempt_signal(M *m, G *gp);
void py_preempt_disarm(pym *pm);
void py_preempt_afterfork(M *m);

/* activate.c */
bool activate(void); /* once, at the first use; false: exception set, and nothing has happened */

/* selfcheck.c */
bool selfcheck(void); /* false: this interpreter has another layout, exception set */
const char *selfcheck_built_for(void);
extern PyMethodDef selfcheck_functions[];

/* fork.c */
bool fork_handlers_register(void); /* false: exception set */
void fork_handlers_unordered(void);
void after_fork_child(void);
void fork_child_end(G *gp, PyObject *result);
bool lender_afterfork(G *me, M *m); /* pyrun.c; true: run() returns in the child, too */
void lenders_forklock(bool on);

/* hook_signal.c */
uint64_t mask_of(G *gp);
bool mask_inherit(Goroutine *self, Goroutine *parent); /* NULL: an ordinary thread */

/* pyhost.c */
extern const host_t python_host;
extern PyObject *dump_hook, *deadlock_hook, *reporter_hook;

#endif
