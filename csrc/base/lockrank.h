/* lockrank.h - every lock of the runtime and the order in which they may be taken: low ranks first.
 * Debug builds keep the held ranks per thread and throw when the order is broken (lock.c).
 *
 * The host lock (the GIL) stands above all of them: it may be held while any is taken, and is never
 * waited for while one is held.
 *
 * Without a rank (0): those of zeroed objects of the program's; of the descriptors (ownfd.c), under which nothing is
 * taken; of the new poller (netpoll_epoll.c), which is taken first, with nothing held. */
#ifndef GMPRT_LOCKRANK_H
#define GMPRT_LOCKRANK_H

#include "base/base.h"

typedef enum {
  rank_worldsema = 1, /* one stop-the-world at a time */
  rank_poll,          /* who waits for a descriptor; several of them in address order (netpoll.c) */
  rank_chan,          /* hchan.lock; several of them in address order (select.c) */
  rank_sema,          /* a semaphore's or mutex's waiters (sema.c) */
  rank_timers,        /* a heap (time.c): its callbacks run after it is dropped */
  rank_foreign,       /* list of foreign threads (foreign.c) */
  rank_sched,         /* sched.lock: idle lists, global queue, depot */
  rank_gtable,        /* growth of the table of Gs (g.c) */
  rank_tidying,       /* free stacks are being looked at (stacks_tidy in stack.c) */
  rank_stack,         /* stack depot (stack.c); the ranges of gm_preemptible (preempt.c) */
  rank_lenders,       /* their list (py/host/lender.c): a fork takes it when it has all the others */
  rank_states         /* an M gets its thread state (py/cpython/tstate.c): a fork takes it last */
} lockrank;

/* Held for a few instructions: spins, then yields the processor. */
typedef struct spinlock {
  _Atomic uint32_t word;
  uint8_t rank;
} spinlock;

/* May be held over a system call: spins a little, then sleeps on a futex. */
typedef struct mutex {
  _Atomic uint32_t word; /* 0 free, 1 held, 2 held and somebody may sleep */
  uint8_t rank;
} mutex;

void spin_lock_slow(spinlock *l);
void lock(mutex *l);
void unlock(mutex *l);
bool trylock(mutex *l);
/* In a forked child, on a thread that does not hold it.  true: somebody did who is not there, and what it guards may be
 * half changed. */
static inline bool lock_anew(mutex *l) {
  bool held = load_rlx(&l->word) != 0;
  store_rlx(&l->word, 0);
  return held;
}

#ifdef GM_DEBUG
void lockrank_enter(uint8_t rank, const void *l);
void lockrank_leave(uint8_t rank, const void *l);
void lockrank_none(void); /* the calling thread holds none */
#else
#define lockrank_enter(rank, l) ((void)0)
#define lockrank_leave(rank, l) ((void)0)
#define lockrank_none() ((void)0)
#endif

static inline void spin_lock(spinlock *l) {
  lockrank_enter(l->rank, l);
  if (unlikely(atomic_exchange_explicit(&l->word, 1, memory_order_acquire))) spin_lock_slow(l);
}
static inline void spin_unlock(spinlock *l) {
  lockrank_leave(l->rank, l);
  store_rel(&l->word, 0);
}

#endif
