/* rwmutex.c - Go's RWMutex: many readers or one writer; a writer that waits keeps new readers out.
 *
 * Invariants, under the host lock.
 *  1. Not both: a writer holds it, and readers do.
 *  2. A reader waits only while a writer holds it or waits; a writer only while it is held.
 *  3. A lock is handed over: who is woken holds it already, so nobody can come in between.
 *
 * Go's order: the last reader that goes lets the first writer in; a writer that goes lets in all readers that wait, and
 * the next writer comes after those.  So neither kind starves the other.
 *
 * A writer that gives up (deadline, cancel) may have been the only reason for readers to wait: it admits whom it kept out
 * when it runs again (2).  Until then a newcomer that meets its waiter waits behind it, and is admitted with the others.
 *
 * Rejected: Go's readerCount, which is negative while a writer is pending.  It saves a lock that we do not have. */
#include "sched/park.h"
#include "sync/rwmutex.h"
#include "sync/sema.h"

static void admit_readers(rwmutex *rw) {
  for (sudog *sg; (sg = dequeue(&rw->readq)) != NULL;) {
    rw->readers++;
    ready_any(sudog_served(sg, true, WAKE_OK), true);
  }
}

static bool admit_writer(rwmutex *rw) {
  sudog *sg = dequeue(&rw->writeq);
  if (!sg) return false;
  rw->writer = true;
  ready_any(sudog_served(sg, true, WAKE_OK), true);
  return true;
}

wake_t rwmutex_rlock(rwmutex *rw, bool block, int64_t deadline) {
  if (likely(!rw->writer && !rw->writeq.first)) {
    rw->readers++;
    return WAKE_OK;
  }
  return block ? waitq_wait(&rw->readq, waitReasonRWMutexRLock, deadline) : WAKE_WOULDBLOCK;
}

wake_t rwmutex_lock(rwmutex *rw, bool block, int64_t deadline) {
  if (likely(!rw->writer && rw->readers == 0)) {
    rw->writer = true;
    return WAKE_OK;
  }
  if (!block) return WAKE_WOULDBLOCK;
  wake_t r = waitq_wait(&rw->writeq, waitReasonRWMutexLock, deadline);
  if (r != WAKE_OK && !rw->writer && !rw->writeq.first) admit_readers(rw);
  return r;
}

/* false: no reader holds it. */
bool rwmutex_runlock(rwmutex *rw) {
  if (unlikely(rw->readers == 0)) return false;
  if (--rw->readers == 0 && unlikely(rw->writeq.first != NULL) && !admit_writer(rw)) admit_readers(rw);
  return true;
}

/* false: no writer holds it. */
bool rwmutex_unlock(rwmutex *rw) {
  if (unlikely(!rw->writer)) return false;
  rw->writer = false;
  admit_readers(rw);
  if (rw->readers == 0) admit_writer(rw);
  return true;
}
