/* waitq.c - queues of waiters.
 *
 * A queue is a FIFO of sudogs, under the lock of the object it is part of.  dequeue() returns a waiter whose
 * wait it has claimed; those that a deadline or a cancel has claimed before are dropped on the way. */
#include "sched/park.h"

/* For gp's next wait. */
void sudog_link(sudog *sg, G *gp) {
  sg->g = gp;
  sg->seq = wait_next(gp);
  sg->success = sg->many = false;
}

void enqueue(waitq *q, sudog *sg) {
  sg->next = NULL;
  sg->prev = q->last;
  if (q->last)
    q->last->next = sg;
  else
    q->first = sg;
  q->last = sg;
  sg->q = q;
}

void enqueue_front(waitq *q, sudog *sg) {
  sg->prev = NULL;
  sg->next = q->first;
  if (q->first)
    q->first->prev = sg;
  else
    q->last = sg;
  q->first = sg;
  sg->q = q;
}

/* Takes sg out, wherever it stands; nothing if it does not. */
void dequeue_sudog(sudog *sg) {
  waitq *q = sg->q;
  if (!q) return;
  sg->q = NULL;
  if (sg->prev)
    sg->prev->next = sg->next;
  else
    q->first = sg->next;
  if (sg->next)
    sg->next->prev = sg->prev;
  else
    q->last = sg->prev;
}

/* The first waiter whose wait could be claimed.  The caller says how it ended (sudog_served) and readies it. */
sudog *dequeue(waitq *q) {
  for (sudog *sg; (sg = q->first) != NULL;) {
    dequeue_sudog(sg);
    if (likely(wait_claim(sg->g, sg->seq))) return sg;
  }
  return NULL;
}

/* All of them, their waits claimed, pushed to *list: the last to come is first. */
void dequeue_all(waitq *q, bool success, uint8_t why, G **list) {
  for (sudog *sg; (sg = dequeue(q)) != NULL;) {
    G *gp = sudog_served(sg, success, why);
    gp->schedlink = *list;
    *list = gp;
  }
}
