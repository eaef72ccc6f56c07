/* waitq.c - queues of waiters.
 *
 * A queue is a FIFO of sudogs, under the lock of the object it is part of.  dequeue() returns a waiter whose
 * wait it has claimed; those that a deadline or a cancel has claimed before are dropped on the way. */
#include <sched.h>
#include <stdlib.h>

#include "sched/park.h"
#include "sync/chan.h"

/* Room for n waiters, kept for the next time. NULL: no memory. */
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

void sudog_link(sudog *sg, G *gp, hchan *c) {
  sg->g = gp;
  sg->c = c;
  sg->seq = wait_next(gp);
  sg->success = false;
}

void enqueue(waitq *q, sudog *sg) {
  sg->next = NULL;
  sg->prev = q->last;
  if (q->last)
    q->last->next = sg;
  else
    q->first = sg;
  q->last = sg;
  sg->queued = true;
}

void enqueue_front(waitq *q, sudog *sg) {
  sg->prev = NULL;
  sg->next = q->first;
  if (q->first)
    q->first->prev = sg;
  else
    q->last = sg;
  q->first = sg;
  sg->queued = true;
}

/* Takes sg out, wherever it stands; nothing if it does not. */
void dequeue_sudog(waitq *q, sudog *sg) {
  if (!sg->queued) return;
  sg->queued = false;
  if (sg->prev)
    sg->prev->next = sg->next;
  else
    q->first = sg->next;
  if (sg->next)
    sg->next->prev = sg->prev;
  else
    q->last = sg->prev;
}

/* The first waiter whose wait could be claimed. The caller fills in the result and readies it. */
sudog *dequeue(waitq *q) {
  for (sudog *sg; (sg = q->first) != NULL;) {
    dequeue_sudog(q, sg);
    if (likely(wait_claim(sg->g, sg->seq))) return sg;
  }
  return NULL;
}
