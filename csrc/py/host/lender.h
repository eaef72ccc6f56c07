/* lender.h - run(): the thread that lends its state, lender.c; Deadlock, judge.c; lock_os_thread, osthread.c. */
#ifndef GMPRT_PY_HOST_LENDER_H
#define GMPRT_PY_HOST_LENDER_H

#include "base/ownfd.h"
#include "py/host/goroutine.h"

typedef struct lender {
  M *m;          /* T0's M; its g0 is the stack to wait on */
  G *g;          /* the main goroutine */
  G t0;          /* where T0 came from: entered when the main goroutine has ended */
  bool returns;  /* in a forked child, too */
  ownfd *_Atomic wake; /* an eventfd */
  _Atomic bool ended;
  _Atomic uint64_t mask; /* of the main goroutine: in force inside ppoll only, and while exposed */
  _Atomic bool exposed;
  _Atomic uint32_t sync_asked, sync_done;
  struct lender *next;
} lender;

/* Several threads may be in run(): the list is guarded by `lock`, not by the GIL, since all_asleep comes
 * from a scheduler thread. */
extern struct lenders {
  mutex lock;
  lender *first;
} lenders;

/* lender.c */
void poke(lender *l);
void lender_wake(M *m);
void lender_main_left(G *gp);
lender *lender_of(G *gp);
void lender_expose(G *gp);
void lender_sync(G *gp);
bool lender_takes(int sig);
void lender_set_mask(G *gp, uint64_t bits);
void lenders_forklock(bool on);
void lender_lend(M *m);
bool lender_afterfork(G *me, M *m); /* true: run() returns in the child, too */

/* judge.c */
void lender_all_asleep(unsigned epoch);
void judge(lender *l);
extern _Atomic uint32_t asleep_epoch; /* the last sleep of which the runtime has told; 0: none */

/* osthread.c */
pid_t lent_tid(G *gp); /* of the thread that lends gp its state; 0: none does */
bool thread_keep(G *gp); /* the running goroutine stays on this one to its end; false: exception set */
PyObject *py_lock_os_thread(PyObject *module, PyObject *Py_UNUSED(ignored));
PyObject *py_unlock_os_thread(PyObject *module, PyObject *Py_UNUSED(ignored));
extern PyMethodDef run_functions[];

#endif
