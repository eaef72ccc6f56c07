/* rwmutex.h - a lock of many readers or one writer, and condition variables: rwmutex.c, cond.c.
 *
 * Both are hosted: guarded by the host lock. */
#ifndef GMPRT_SYNC_RWMUTEX_H
#define GMPRT_SYNC_RWMUTEX_H

#include "sched/g.h"

/* All zero is unlocked. */
typedef struct rwmutex {
  size_t readers; /* that hold it */
  bool writer;    /* one holds it */
  waitq readq, writeq;
} rwmutex;

/* All zero is one for which nobody waits. */
typedef struct cond {
  waitq q;
  size_t away, missed; /* waiters that handle a signal of the system; how many of these were woken meanwhile */
} cond;

/* rwmutex.c */
wake_t rwmutex_rlock(rwmutex *rw, bool block, int64_t deadline);
wake_t rwmutex_lock(rwmutex *rw, bool block, int64_t deadline);
bool rwmutex_runlock(rwmutex *rw);
bool rwmutex_unlock(rwmutex *rw);

/* cond.c */
wake_t cond_wait(cond *c, int64_t deadline);
void cond_away(cond *c);
bool cond_back(cond *c);
void cond_leave(cond *c);
void cond_signal(cond *c);
void cond_broadcast(cond *c);

#endif
