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
 * queue, so that a crowd on one semaphore is no burden to its neighbour's.  List and queues lie in the waiters, and
 * those in their Gs: **a wait needs no memory**, so it cannot fail for want of it.  (It once did, and CPython
 * entered the body of `with lock:` without the lock: __enter__ returned False.)  The lock is held across the
 * switch and dropped by the lander (park.c), so that no post falls between the try and the park.
 *
 * The queue of an address: its first waiter stands in the bucket's list (nextaddr) and its `prev` is the last one;
 * the others are linked as in any queue.
 *
 * Rejected: a queue in the semaphore (it has no room), a retry after a sleep, one global lock (every
 * contended lock of the program would meet there). */
#include "arch/arch.h"
#include "sched/park.h"
#include "sync/sema.h"

enum { SEMTAB = 1024 };

static struct semroot {
  spinlock lock; /* guards the waiters */
  _Atomic uint32_t nwait; /* read by posters without the lock */
  sudog *first;
} table[SEMTAB];

static struct semroot *root_of(const void *addr) {
  uint64_t h = ((uintptr_t)addr >> 3) * 0x9e3779b97f4a7c15u;
  return &table[h >> 54];
}

static void root_lock(struct semroot *r) {
  r->lock.rank = rank_sema; /* the table is all zeros at first */
  spin_lock(&r->lock);
}

/* Where the list refers to the first waiter of addr; to NULL if there is none. */
static sudog **first_of(struct semroot *r, const void *addr) {
  sudog **at = &r->first;
  while (*at && (*at)->addr != addr) at = &(*at)->nextaddr;
  return at;
}

static void join_queue(struct semroot *r, void *addr, sudog *sg) {
  sudog **at = first_of(r, addr), *first = *at;
  sg->addr = addr;
  sg->next = NULL;
  sg->root = r;
  if (first) {
    sg->prev = first->prev;
    first->prev = first->prev->next = sg;
  } else {
    sg->prev = sg;
    sg->nextaddr = NULL;
    *at = sg;
  }
}

static void take_out(struct semroot *r, sudog *sg) {
  sudog **at = first_of(r, sg->addr), *first = *at, *next = sg->next;
  sg->root = NULL;
  if (sg != first) {
    sg->prev->next = next;
    (next ? next : first)->prev = sg->prev;
  } else if (next) {
    next->prev = sg->prev;
    next->nextaddr = sg->nextaddr;
    *at = next;
  } else {
    *at = sg->nextaddr;
  }
}

static void root_unlock(void *arg) { spin_unlock(&((struct semroot *)arg)->lock); }

/* The caller's waiter, if it still stands there. */
static void leave_queue(struct semroot *r, sudog *sg) {
  root_lock(r);
  store_rlx(&r->nwait, load_rlx(&r->nwait) - 1);
  if (sg->root) take_out(r, sg);
  spin_unlock(&r->lock);
}

/* On a hosted goroutine that holds the host lock: waits until try(addr) succeeds (WAKE_OK), deadline
 * (nanotime, 0: none), a cancel or an interrupt. */
wake_t semroot_wait(void *addr, bool (*try)(void *addr), int64_t deadline) {
  struct semroot *r = root_of(addr);
  G *gp = getg(true);
  for (;;) {
    root_lock(r);
    sudog_link(&gp->sg, gp);
    join_queue(r, addr, &gp->sg);
    store_rlx(&r->nwait, load_rlx(&r->nwait) + 1);
    fence();
    if (try(addr)) {
      spin_unlock(&r->lock);
      leave_queue(r, &gp->sg);
      return WAKE_OK;
    }
    wake_t w = gopark(root_unlock, r, waitReasonSemacquire, deadline);
    leave_queue(r, &gp->sg);
    /* Work that is done wins: what was posted is taken, whatever else has ended the wait.  A cancel stays. */
    if (try(addr)) {
      if (w == WAKE_CANCELLED) gocancel(gp, true);
      return WAKE_OK;
    }
    if (w != WAKE_OK) return w;
  }
}

/* The semaphore at addr has been posted: may anybody wait for it? */
bool semroot_waited(const void *addr) {
  fence_after_rmw();
  return load_rlx(&root_of(addr)->nwait) != 0;
}

/* Wakes one of them.  hosted: the caller holds the host lock. */
void semroot_wake(void *addr, bool hosted) {
  struct semroot *r = root_of(addr);
  root_lock(r);
  sudog *sg;
  while ((sg = *first_of(r, addr)) != NULL) {
    take_out(r, sg);
    if (likely(wait_claim(sg->g, sg->seq))) break;
  }
  spin_unlock(&r->lock);
  if (sg) ready_any(sudog_served(sg, true, WAKE_OK), hosted);
}

/* What gp, which is parked, waits for here; NULL: nothing. */
const void *semroot_addr(const G *gp) {
  const struct semroot *r = gp->sg.root; /* or a queue */
  return r >= table && r < table + SEMTAB ? gp->sg.addr : NULL;
}

/* In a forked child nobody waits any more. */
void semroot_afterfork(void) { memset(table, 0, sizeof table); }
