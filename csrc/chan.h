/* chan.h - channels, select, semaphores, mutexes: what the native interface and the host build on. */
#ifndef GMPRT_CHAN_H
#define GMPRT_CHAN_H

#include "runtime2.h"

/* A channel.  `lock` guards all of it; a hosted channel is guarded by the host lock instead, and its
 * elements are 8-byte references that the host owns.  Readying a goroutine comes after the unlock. */
struct hchan {
  spinlock lock;
  bool hosted;
  _Atomic bool closed;
  uint16_t elemsize;
  _Atomic size_t qcount; /* elements in buf; read without the lock by len() and the fast paths */
  size_t dataqsiz;       /* capacity */
  size_t sendx, recvx;
  char *buf;
  waitq recvq, sendq;
};

typedef struct scase {
  hchan *c;   /* NULL: never ready */
  void *elem; /* hosted: address of the 8-byte reference */
  bool send;
} scase;

/* chan.c */
bool chan_init(hchan *c, uint16_t elemsize, size_t capacity, bool hosted);
void chan_fini(hchan *c);
wake_t chansend(hchan *c, const void *elem, bool block, int64_t deadline, bool attached);
wake_t chanrecv(hchan *c, void *elem, bool block, int64_t deadline, bool attached);
wake_t chanclose(hchan *c);
void *chanbuf(hchan *c, size_t i);
void copyelem(hchan *c, void *dst, const void *src);

/* select.c */
sudog *gsudogs(G *gp, uint32_t n);
int32_t selectgo(scase *cases, int32_t n, bool block, int64_t deadline, bool hosted, wake_t *result);

/* sema.c: queues of waiters. hosted objects are guarded by the host lock. */
void enqueue(waitq *q, sudog *sg);
void enqueue_front(waitq *q, sudog *sg);
sudog *dequeue(waitq *q);
void dequeue_sudog(waitq *q, sudog *sg);
void sudog_link(sudog *sg, G *gp, hchan *c);
wake_t waitq_wait(waitq *q, waitreason why, int64_t deadline);
void waitq_wakeall(waitq *q);

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

#endif
