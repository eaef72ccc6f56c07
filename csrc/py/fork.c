/* fork.c - a forked child starts with a fresh runtime.
 *
 * In the child only the forking thread exists, and the interpreter has freed every other thread state, so
 * all other goroutines are gone: their handles say so, their units are abandoned where they are (the Gs
 * stay in their slabs, never to be used again).  Ms, Ps, queues and the poller start anew at the next
 * use (csrc/fork.c).
 *
 * If the forking thread ran a goroutine, that one goes on: it is the child's main goroutine, its ident the
 * main thread's, its signal mask the thread's.  The thread plays the part of the one that waits in run()
 * (pyrun.c).  If it was the main goroutine of a run(), that run() returns in the child, too.  Another
 * goroutine runs to its end, and the process ends with it, as a script does. */
#include <unistd.h>

#include "interpose.h"

/* A goroutine of the parent: joining it must not hang. */
static void bury(G *gp) {
  Goroutine *self = gp->handle;
  gp->handle = NULL;
  store_rlx(&gp->status, Gidle);
  wait_void(gp); /* what waits in the child's copy of a queue is not to be served */
  self->left = true;
  self->cpu_ticks = 0;
  if (!self->done) {
    self->done = true;
    self->collected = true;
    self->failed = true;
    Py_XSETREF(self->outcome, PyObject_CallFunction(errs.Error, "s", "the goroutine does not exist in the forked child"));
  }
  self->joiners = (waitq){NULL, NULL};
  Py_DECREF(self);
}

static G *forked_g; /* the goroutine that is this process, if nothing follows it */

/* The goroutine that forked has returned in the child: the process ends as a script does. */
void fork_child_end(G *gp, PyObject *result) {
  if (likely(gp != forked_g)) return;
  if (!result) PyErr_Print(); /* SystemExit ends the process here */
  Py_Exit(result ? 0 : 1);
}

/* Called by the interpreter in the child, on the thread that forked. */
void after_fork_child(void) {
  fork_in_child(); /* perhaps inside the C library's fork: see hook_fork.c */
  M *m = getm();
  G *me = m ? load_rlx(&m->curg) : NULL;
  if (me || load_rlx(&sched.gcwaiting)) { /* the runtime ran when it was forked */
    uint32_t cursor = 0;
    for (G *gp; (gp = allg_next(&cursor)) != NULL;) {
      if (gp == me || gp->kind != GK_HOST) continue;
      if (gp->handle)
        bury(gp);
      else
        store_rlx(&gp->status, Gidle);
    }
    if (me && me->handle && homes_of(me->handle)) homes_forget(me->handle);
    sched_afterfork(m);
    semroot_afterfork();
    py_preempt_afterfork(m);
    tstate_afterfork();
    if (me && m->host) { /* its base state was freed with the others */
      PyMem_RawFree(m->host);
      m->host = pym_new();
      if (!m->host) fatal("no memory for a thread state in a forked child");
    }
    bool returns = lender_afterfork(me, m);
    forked_g = returns ? NULL : me;
  }
  interpose_fork_over();
}
