/* semaroot.c - waiting for a semaphore that is not ours, by its address (Go's semaRoot).
 *
 * A semaphore of the C library (the interpreter's locks are made of them) counts by itself; who blocks in it
 * blocks a thread.  A goroutine waits here instead, under the semaphore's address, and tries again when
 * it is woken:
 *     wait:  enqueue; fence; try; park      post:  the real post; fence; look for waiters
 * One of the two sees the other, so no post is lost.  A post wakes one waiter.  Threads that are not ours wait
 * in the kernel as ever, for the same semaphore: whoever tries first gets it, as with a futex, and who
 * loses waits again.
 *
 * The table has buckets with a lock each.  A bucket lists the addresses that are waited for, each with its
 * queue, so that a crowd on one semaphore is no burden to its neighbour's.  Entries are pooled per bucket;
 * the lock is held across the switch and dropped by the lander (park.c), so that no post falls between
 * the try and the park.
 *
 * Rejected: a queue in the semaphore (it has no room), a retry after a sleep, one global lock (every
 * contended lock of the program would meet there). */
#include <stdlib.h>

#include "chan.h"

enum { SEMTAB = 1024 };

typedef struct semaddr {
  void *addr;
  waitq q;
  struct semaddr *next;
} semaddr;

static struct semroot {
  spinlock lock; /* guards first, pool and the queues */
  _Atomic uint32_t nwait; /* read by posters without the lock */
  semaddr *first, *pool;
} table[SEMTAB];

static struct semroot *root_of(const void *addr) {
  uint64_t h = ((uintptr_t)addr >> 3) * 0x9e3779b97f4a7c15u;
  return &table[h >> 54];
}

static void root_lock(struct semroot *r) {
  r->lock.rank = rank_sema; /* the table is all zeros at first */
  spin_lock(&r->lock);
}

/* The entry of addr, from the pool if there is none; NULL: the pool is empty. */
static semaddr *entry(struct semroot *r, void *addr) {
  for (semaddr *e = r->first; e; e = e->next)
    if (e->addr == addr) return e;
  semaddr *e = r->pool;
  if (!e) return NULL;
  r->pool = e->next;
  *e = (semaddr){.addr = addr, .next = r->first};
  r->first = e;
  return e;
}

/* One more entry for the pool. false: no memory. */
static bool grow(struct semroot *r) {
  semaddr *e = malloc(sizeof *e);
  if (!e) return false;
  root_lock(r);
  e->next = r->pool;
  r->pool = e;
  spin_unlock(&r->lock);
  return true;
}

/* An entry whose queue has become empty goes back to the pool. */
static void release(struct semroot *r, semaddr *e) {
  if (e->q.first) return;
  semaddr **at = &r->first;
  while (*at != e) at = &(*at)->next;
  *at = e->next;
  e->next = r->pool;
  r->pool = e;
}

static void root_unlock(void *arg) { spin_unlock(&((struct semroot *)arg)->lock); }

/* Takes the caller's waiter out, if it still stands there. */
static void leave_queue(struct semroot *r, void *addr, sudog *sg) {
  root_lock(r);
  store_rlx(&r->nwait, load_rlx(&r->nwait) - 1);
  if (sg->queued) {
    semaddr *e = entry(r, addr);
    dequeue_sudog(&e->q, sg);
    release(r, e);
  }
  spin_unlock(&r->lock);
}

/* On a hosted goroutine that holds the host lock: waits until try(addr) succeeds (WAKE_OK), deadline
 * (nanotime, 0: none), a cancel or an interrupt. */
wake_t semroot_wait(void *addr, bool (*try)(void *addr), int64_t deadline) {
  struct semroot *r = root_of(addr);
  G *gp = getg(true);
  for (;;) {
    root_lock(r);
    semaddr *e = entry(r, addr);
    if (unlikely(!e)) {
      spin_unlock(&r->lock);
      if (!grow(r)) return WAKE_NOMEM;
      continue;
    }
    sudog_link(&gp->sg, gp, NULL);
    enqueue(&e->q, &gp->sg);
    store_rlx(&r->nwait, load_rlx(&r->nwait) + 1);
    fence();
    if (try(addr)) {
      spin_unlock(&r->lock);
      leave_queue(r, addr, &gp->sg);
      return WAKE_OK;
    }
    wake_t w = gopark(root_unlock, r, waitReasonSemacquire, deadline);
    leave_queue(r, addr, &gp->sg);
    /* Work that is done wins: what was posted is taken, whatever else has ended the wait.  A cancel stays. */
    if (try(addr)) {
      if (w == WAKE_CANCELLED) gocancel(gp, true);
      return WAKE_OK;
    }
    if (w != WAKE_OK) return w;
  }
}

/* The semaphore at addr has been posted.  hosted: the caller holds the host lock. */
void semroot_wake(void *addr, bool hosted) {
  struct semroot *r = root_of(addr);
  fence_after_rmw();
  if (likely(load_rlx(&r->nwait) == 0)) return;
  root_lock(r);
  semaddr *e = r->first;
  while (e && e->addr != addr) e = e->next;
  sudog *sg = e ? dequeue(&e->q) : NULL;
  if (e) release(r, e);
  spin_unlock(&r->lock);
  if (!sg) return;
  sg->g->param = sg;
  sg->g->wakeres = WAKE_OK;
  if (hosted)
    goready_hosted(sg->g);
  else
    goready(sg->g);
}

/* In a forked child nobody waits any more. */
void semroot_afterfork(void) { memset(table, 0, sizeof table); }
