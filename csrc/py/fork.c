/* fork.c - a forked child starts with a fresh runtime.
 *
 * In the child only the forking thread exists, and the interpreter has freed every other thread state, so
 * all other goroutines are gone: their handles say so, their units are abandoned where they are (the Gs
 * stay in their slabs, never to be used again).  Ms, Ps, queues and the poller start anew at the next
 * use, at once if a goroutine forked.  If the forking thread ran a goroutine, that one goes on, on an M without P and licence, like one
 * whose blocking call has just returned, and with the signal mask that the program had: the Ms' own would
 * keep signals from the child.  When it ends the child ends: the thread that waits in run() stayed behind in the
 * parent, so what follows run() is not executed in the child. */
#include <unistd.h>

#include "pyhost.h"

/* A goroutine of the parent: joining it must not hang. */
static void bury(G *gp) {
  Goroutine *self = gp->handle;
  gp->handle = NULL;
  store_rlx(&gp->status, Gidle);
  wait_void(gp); /* what waits in the child's copy of a queue is not to be served */
  self->done = true;
  self->cpu_ticks = 0;
  self->collected = true;
  self->failed = true;
  Py_XSETREF(self->outcome, PyObject_CallFunction(errs.Error, "s", "the goroutine does not exist in the forked child"));
  self->joiners = (waitq){NULL, NULL};
  Py_DECREF(self);
}

static G *forked_g; /* the goroutine that is this process */

/* The goroutine that forked has returned in the child: the process ends as a script does. */
void fork_child_end(G *gp, PyObject *result) {
  if (likely(gp != forked_g)) return;
  if (!result) PyErr_Print(); /* SystemExit ends the process here */
  Py_Exit(result ? 0 : 1);
}

void after_fork_child(void) {
  if (!load_rlx(&sched.started)) return;
  M *m = getm();
  G *me = m ? load_rlx(&m->curg) : NULL;
  uint32_t cursor = 0;
  for (G *gp; (gp = allg_next(&cursor)) != NULL;) {
    if (gp == me || gp->kind != GK_HOST) continue;
    if (gp->handle)
      bury(gp);
    else
      store_rlx(&gp->status, Gidle);
  }
  sched_afterfork(m);
  lenders_afterfork();
  if (!me) return;
  forked_g = me;
  os_program_mask();
  pym *pm = m->host;
  if (pm) { /* its base state was freed with the others */
    PyMem_RawFree(pm);
    m->host = pym_new();
  }
  if (!schedinit()) throw("the runtime cannot be started in a forked child");
}
