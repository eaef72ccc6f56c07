/* lock.c - waiting for a lock of the interpreter with the GIL in hand.
 *
 * The interpreter drops the GIL before it waits for a lock, and takes it again behind that; the hook on sem_wait (sem.c)
 * takes it in between to park, and drops it afterwards.  For a lock that is handed to and fro that was more than half
 * of the price: the GIL dropped and taken four times in a round trip, 26 operations on mutexes and conditions.  So
 * acquire() and __enter__() without arguments take the semaphore here and wait for it as for a channel, in the queue
 * in which the hook waits (semaroot.c).  What is no common end of a wait is put back, and the interpreter's own
 * function meets it: a cancel, which it may or may not let through (cancel.c), and an interrupt.
 *
 * A lock that is free is taken with one instruction, as the interpreter does, without parsing that there are no
 * arguments.
 *
 * Rejected: to wait here until the lock is free, and let the interpreter take it.  Another may be faster, and it then
 * waits as before. */
#include "sync/sema.h"
#include "py/cpython/lock.h"
#include "py/host/fork.h"
#include "py/host/pythread.h"
#include "py/interpose/call.h"

static bool take(void *s) { return sem_trywait(s) == 0; }

/* Not in the places where no hook may, either (call_begin); nor where code below has called Python, which a park would
 * tie to its thread. */
static bool may_park(Goroutine *self) {
  G *gp = self->g;
  if (load_rlx(&sched.stopping) || fork_in_progress() || entered_below(gp)) return false;
  return likely(!self->alike) || pythread_may_park(gp);
}

/* Below the shim of acquire(), the lock is not free.  NULL, without an exception: the interpreter's function shall do it. */
PyObject *lock_wait(Goroutine *self, PyObject *lock) {
  if (unlikely(!may_park(self))) return NULL;
  G *gp = self->g;
  wake_t w = semroot_wait(lock_semaphore(lock), take, 0);
  switch (w) {
    case WAKE_OK: lock_taken(lock); Py_RETURN_TRUE;
    case WAKE_CANCELLED: gocancel(gp, true); return NULL;
    case WAKE_INTERRUPTED: gointerrupt(gp, true); return NULL;
    default: self->shim->substituted = (uint8_t)w; Py_RETURN_FALSE; /* shim.c raises what it says */
  }
}
