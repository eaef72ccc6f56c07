/* fork.c - a forked child starts with a fresh runtime.
 *
 * In the child only the forking thread exists, and the interpreter has freed every other thread state, so
 * all other goroutines are gone: their handles say so, their units are abandoned where they are (the Gs
 * stay in their slabs, never to be used again).  Ms, Ps, queues and the poller start anew at the next
 * use.  If the forking thread ran a goroutine, that one goes on, on an M without P and licence, like one
 * whose blocking call has just returned. */
#include <unistd.h>

#include "pyhost.h"

/* A goroutine of the parent: joining it must not hang. */
static void bury(G *gp) {
  Goroutine *self = gp->handle;
  gp->handle = NULL;
  store_rlx(&gp->status, Gidle);
  self->done = true;
  self->cpu_ticks = 0;
  self->collected = true;
  self->failed = true;
  Py_XSETREF(self->outcome, PyObject_CallFunction(errs.Error, "s", "the goroutine does not exist in the forked child"));
  self->joiners = (waitq){NULL, NULL};
  Py_DECREF(self);
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
  pym *pm = m->host;
  if (pm) { /* its base state was freed with the others */
    PyMem_RawFree(pm);
    m->host = pym_new();
  }
  if (!schedinit()) throw("the runtime cannot be started in a forked child");
}
