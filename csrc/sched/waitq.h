/* waitq.h - waiters, and the queues in which they stand: waitq.c. */
#ifndef GMPRT_SCHED_WAITQ_H
#define GMPRT_SCHED_WAITQ_H

#include "base/base.h"

typedef struct G G;
typedef struct sudog sudog;

/* One (goroutine, wait object) pair: the only thing that ever stands in a queue of waiters. */
struct sudog {
  G *g;
  sudog *next, *prev;
  union { /* where it stands; NULL: nowhere */
    struct waitq *q;
    struct semroot *root; /* semaroot.c */
  };
  union {
    void *elem;     /* where the value goes to or comes from; hosted channels: &val */
    sudog *nextaddr; /* semaroot, the first waiter of an address: that of another one */
  };
  uint64_t val;   /* a hosted value in hand-off, an owned reference of the host; if `many`, how many lie at elem */
  uint64_t seq;   /* the wait this belongs to: WAIT_SEQ multiples */
  union {
    struct spinlock *lock; /* one of a wait set: what guards its queue, NULL: the host lock (waitset.c) */
    void *addr;            /* semaroot: which semaphore */
  };
  union {
    int32_t kase;   /* select: index of the case */
    uint32_t moved; /* many: how many of them went or came, if it was served */
  };
  bool success;   /* value moved (true) or woken by close (false) */
  bool many;      /* a channel's waiter that brings or takes several elements: chansome.c */
};

/* FIFO of sudogs; guarded by the lock of the object it is part of, or by the host lock. */
typedef struct waitq {
  sudog *first, *last;
} waitq;

void sudog_link(sudog *sg, G *gp);
void enqueue(waitq *q, sudog *sg);
void enqueue_front(waitq *q, sudog *sg);
sudog *dequeue(waitq *q);
void dequeue_sudog(sudog *sg);
void dequeue_all(waitq *q, bool success, uint8_t why, G **list);

#endif
