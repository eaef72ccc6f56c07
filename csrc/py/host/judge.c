/* judge.c - Deadlock: are all goroutines asleep, and every thread that could wake one?
 *
 * Asked when the last M goes idle, answered by the thread that waits in run(), never by one of the scheduler's.  In doubt
 * nothing is reported. */
#include <signal.h>

#include "py/host/lender.h"
#include "py/host/pythread.h"

_Atomic uint32_t asleep_epoch;

/* ---- wake-ups, from any thread --------------------------------------------------------------------------- */

void lender_all_asleep(unsigned epoch) {
  store_rel(&asleep_epoch, epoch);
  lock(&lenders.lock);
  for (lender *l = lenders.first; l; l = l->next) poke(l);
  unlock(&lenders.lock);
}

/* ---- the deadlock judge: T0, GIL held with the spare state --------------------------------------------------- */

/* Is a Python handler installed for any signal, but the default ones? */
static bool signals_handled(void) {
  PyObject *mod = PyImport_ImportModule("_signal");
  PyObject *dfl = mod ? PyObject_GetAttrString(mod, "default_int_handler") : NULL;
  bool found = dfl == NULL; /* in doubt: yes */
  for (int sig = 1; sig < NSIG && !found; sig++) {
    PyObject *h = PyObject_CallMethod(mod, "getsignal", "i", sig);
    if (!h)
      PyErr_Clear();
    else
      found = PyCallable_Check(h) && h != dfl;
    Py_XDECREF(h);
  }
  if (PyErr_Occurred()) PyErr_Clear();
  Py_XDECREF(dfl);
  Py_XDECREF(mod);
  return found;
}

/* Threads that wait in run().  One whose main goroutine has ended is about to go on: its state is the program's
 * again, and whatever others wait for may come from there. */
static uint32_t lenders_waiting(void) {
  uint32_t n = 0;
  lock(&lenders.lock);
  for (lender *l = lenders.first; l; l = l->next) n += !load_acq(&l->ended);
  unlock(&lenders.lock);
  return n;
}

/* Every thread that has a state, daemons and those just being started too, must wait in run() or in one of our
 * operations without a deadline.  Threads that are goroutines hang as threads do: in silence. */
static bool threads_asleep(void) {
  return pythreads_alive == 0 && one_interpreter() && foreign_waiting(NULL, NULL) + lenders_waiting() >= tstate_foreign();
}

/* In doubt nothing is reported. */
void judge(lender *l) {
  uint32_t epoch = load_acq(&asleep_epoch);
  if (!epoch || !sched_asleep(epoch)) return;
  pym *pm = l->m->host;
  PyEval_RestoreThread(pm->base);
  bool dead = threads_asleep() && !signals_handled() && sched_asleep(epoch) &&
              load_acq(&l->g->status) == Gwaiting && wait_claim_open(l->g, WAKE_DEADLOCK);
  if (dead) goready_hosted(l->g);
  PyEval_SaveThread();
}
