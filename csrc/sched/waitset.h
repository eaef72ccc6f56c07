/* waitset.h - a wait for any of several things, each with a queue and a lock of its own: waitset.c. */
#ifndef GMPRT_SCHED_WAITSET_H
#define GMPRT_SCHED_WAITSET_H

#include "base/lockrank.h"
#include "sched/g.h"

sudog *gsudogs(G *gp, uint32_t n);
void waitset_commit(void *gp);

static inline void waitset_lock(const sudog *sg, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (i == 0 || sg[i].lock != sg[i - 1].lock) spin_lock(sg[i].lock);
}

static inline void waitset_unlock(const sudog *sg, uint32_t n) {
  spinlock *l = sg[0].lock;
  for (uint32_t i = 1; i <= n; i++) {
    spinlock *next = i < n ? sg[i].lock : NULL;
    if (next != l) spin_unlock(l);
    l = next;
  }
}

/* The wait is over: all of them are taken out of their queues, wherever they still stand.  `left` (NULL: nothing) hears
 * of each, its lock held. */
static inline void waitset_leave(sudog *sg, uint32_t n, void (*left)(sudog *sg)) {
  for (uint32_t i = 0; i < n; i++) {
    spinlock *l = sg[i].lock;
    if (l) spin_lock(l);
    dequeue_sudog(&sg[i]);
    if (left) left(&sg[i]);
    if (l) spin_unlock(l);
  }
}

#endif
