/* waitset.c - a wait for any of several things: select of channels, poll of descriptors.
 *
 * One waiter for each, in an array of the G that is kept for the next time, in the order in which their locks are taken:
 * by address, each lock once however many of its waiters follow each other.  All carry the same wait seq, so the claim
 * that serves one makes all others lose, and the goroutine never meets itself.
 *
 * The whole set is locked when the waiters enter their queues and until the wait is open: the lander unlocks
 * (waitset_commit), reading the array.  By then a waker may serve a waiter whose lock is free, and the goroutine may run
 * again elsewhere; but it comes to change a waiter only through that one's lock (waitset_leave), one after the other in the
 * same order.  So the lander may still read those that it has not unlocked.
 *
 * lock NULL: the host lock guards the queue, and nothing is locked. */
#include "sched/waitset.h"

#include <stdlib.h>

/* Room for n waiters. NULL: no memory. */
sudog *gsudogs(G *gp, uint32_t n) {
  if (n > UINT16_MAX) return NULL;
  if (gp->nsgs < n) {
    sudog *more = realloc(gp->sgs, n * sizeof *more);
    if (!more) return NULL;
    gp->sgs = more;
    gp->nsgs = (uint16_t)n;
  }
  gp->nwait = (uint16_t)n;
  return gp->sgs;
}

/* For gopark. */
void waitset_commit(void *arg) {
  G *gp = arg;
  waitset_unlock(gp->sgs, gp->nwait);
}
