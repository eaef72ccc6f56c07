/* cond.c - condition variables: Go's notifyList.
 *
 * The caller unlocks its lock and waits with the host lock in hand all the while, so no signal falls in between.
 * A signal claims one waiter (dequeue), a broadcast all that stand there: who has been cancelled, or is late, is passed
 * over, so a signal reaches somebody who waits on.  Who was claimed has it, whatever comes afterwards.
 *
 * Signals of the operating system take a waiter out of the queue while their Python handlers run.  It counts as
 * waiting then (`away`): who would wake it notes that in `missed`, and it takes the note when it is back.  Should its
 * handler raise it leaves, and a note that others who are away can use stays theirs. */
#include "sched/park.h"
#include "sync/rwmutex.h"
#include "sync/sema.h"

wake_t cond_wait(cond *c, int64_t deadline) { return waitq_wait(&c->q, waitReasonCondWait, deadline); }

/* Before the handlers run. */
void cond_away(cond *c) { c->away++; }

/* After them.  true: woken meanwhile. */
bool cond_back(cond *c) {
  c->away--;
  if (c->missed == 0) return false;
  c->missed--;
  return true;
}

/* After handlers of which one has raised. */
void cond_leave(cond *c) {
  if (c->missed > --c->away) c->missed = c->away;
}

void cond_signal(cond *c) {
  sudog *sg = dequeue(&c->q);
  if (sg)
    ready_any(sudog_served(sg, true, WAKE_OK), true);
  else if (c->missed < c->away)
    c->missed++;
}

void cond_broadcast(cond *c) {
  waitq_wakeall(&c->q);
  c->missed = c->away;
}
