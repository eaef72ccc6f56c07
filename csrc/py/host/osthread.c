/* osthread.c - lock_os_thread: a goroutine that keeps its thread. */
#include "py/host/above.h"
#include "py/host/errors.h"
#include "py/host/lender.h"

pid_t lent_tid(G *gp) {
  if (!handle_of(gp)->lent) return 0;
  lender *l = lender_of(gp);
  return l ? l->m->tid : 0;
}

static bool thread_to_spare(M *m) {
  if (spare_m_had(m)) return true;
  PyErr_SetString(errs.TooManyThreads, "no thread would be left for the other goroutines");
  return false;
}

/* Does gp run on the thread that called run()?  (In a forked child that one is as any other: lender_close.) */
static bool on_callers(const G *gp) { return gp->m->lender && gp->m->g0.stk.lo; }

/* For good, where it is: the main goroutine, too.  The thread that called run() may have greenlets on its own stack,
 * and those of a thread must be on one. */
bool thread_keep(G *gp) {
  if (gp->locked == 0 && on_callers(gp)) gosched(); /* not locked to it any more: it goes on elsewhere */
  if (on_callers(gp)) {
    PyErr_SetString(PyExc_RuntimeError, "the main goroutine is locked to the thread that called run(): use greenlets "
                                        "in another goroutine, or before lock_os_thread()");
    return false;
  }
  if (gp->locked == 0) {
    if (!thread_to_spare(gp->m)) return false;
    wire(gp, gp->m);
  }
  gp->locked++;
  handle_of(gp)->greenlets = true;
  return true;
}

/* Nests. The main goroutine moves to the thread that called run(), others stay where they are. */
PyObject *py_lock_os_thread(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  G *gp = curg();
  if (!gp) Py_RETURN_NONE; /* an ordinary thread is locked to itself */
  lender *l = lender_of(gp);
  if (l && gp->locked > 0 && gp->lockedm != l->m) {
    PyErr_SetString(PyExc_RuntimeError, "the main goroutine uses greenlets, and cannot leave the thread they are of");
    return NULL;
  }
  if (!l && gp->locked == 0 && !thread_to_spare(gp->m)) return NULL;
  if (gp->locked++ > 0) Py_RETURN_NONE;
  wire(gp, l ? l->m : gp->m);
  if (gp->m != gp->lockedm) gosched(); /* to be picked up there */
  Py_RETURN_NONE;
}

static bool stays(const Goroutine *self) { return self->greenlets || (self->lent && interposed.nothing); }

/* What greenlets have locked stays so, and the main goroutine where it has to be there. */
PyObject *py_unlock_os_thread(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  G *gp = curg();
  if (!gp || gp->locked == stays(handle_of(gp))) Py_RETURN_NONE;
  if (--gp->locked == 0) unwire(gp);
  Py_RETURN_NONE;
}
