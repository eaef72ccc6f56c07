/* sema.h - semaphores, mutexes and broadcast queues: sema.c; waiting by address: semaroot.c.
 *
 * What is hosted is guarded by the host lock. */
#ifndef GMPRT_SYNC_SEMA_H
#define GMPRT_SYNC_SEMA_H

#include "sched/g.h"

wake_t waitq_wait(waitq *q, waitreason why, int64_t deadline);
void waitq_wakeall(waitq *q);
void waitq_ended(waitq *q);

/* Layout of gm_sema. */
typedef struct sema {
  spinlock lock; /* native: guards value and q */
  uint32_t value;
  uint32_t hosted;
  waitq q;
} sema;

/* Layout of gm_mutex. */
enum { mutexLocked = 1, mutexWaiters = 2, mutexWoken = 4, mutexStarving = 8 };
typedef struct gomutex {
  spinlock lock; /* native: guards q, and state but for the fast paths */
  _Atomic uint32_t state;
  uint32_t hosted;
  waitq q;
} gomutex;

wake_t semacquire(sema *s, waitreason why, bool block, int64_t deadline);
void semrelease(sema *s, uint32_t n);
wake_t gomutex_lock(gomutex *m, bool block, int64_t deadline);
bool gomutex_unlock(gomutex *m);

/* semaroot.c */
wake_t semroot_wait(void *addr, bool (*try)(void *addr), int64_t deadline);
bool semroot_waited(const void *addr);
void semroot_wake(void *addr, bool hosted);
const void *semroot_addr(const G *gp);
void semroot_afterfork(void);

#endif
