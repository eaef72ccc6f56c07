/* lock.c - the runtime's own locks (lockrank.h).
 *
 * Two kinds.  A spinlock guards a few instructions and is the lock of channels, semaphores and timer
 * heaps: uncontended it costs one xchg and one store.  Its holder may be descheduled by the kernel, so
 * a waiter yields the processor after a while.  A mutex may be held over a system call (starting a
 * thread): its waiters sleep on a futex, the usual three-state word.
 *
 * A native channel's spinlock is held across a stack switch and released by the lander (sched/park.c): both
 * happen on one M, so the per-thread record of ranks stays right. */
#include <sched.h>

#include "arch/arch.h"
#include "base/lockrank.h"
#include "base/os.h"

#ifdef GM_TSAN
_Atomic uint32_t tsan_fence_word;
#endif

void spin_lock_slow(spinlock *l) {
  for (uint32_t n = 0;; n++) {
    if (load_rlx(&l->word) == 0 && xchg(&l->word, 1) == 0) return;
    if (n < 200)
      cpu_relax();
    else
      sched_yield(); /* the holder has lost its processor */
  }
}

void lock(mutex *l) {
  lockrank_enter(l->rank, l);
  if (cas(&l->word, 0, 1)) return;
  for (int i = 0; i < 100; i++) {
    cpu_relax();
    if (load_rlx(&l->word) == 0 && cas(&l->word, 0, 1)) return;
  }
  while (xchg(&l->word, 2) != 0) futexsleep(&l->word, 2, -1);
}

bool trylock(mutex *l) {
  if (!cas(&l->word, 0, 1)) return false;
  lockrank_enter(l->rank, l);
  return true;
}

void unlock(mutex *l) {
  lockrank_leave(l->rank, l);
  uint32_t old = xchg(&l->word, 0);
  gm_debug_assert(old != 0);
  if (old == 2) futexwakeup(&l->word, 1);
}

#ifdef GM_DEBUG
enum { HELD_MAX = 64 };
static __thread struct {
  const void *lock;
  uint8_t rank;
} held[HELD_MAX];
static __thread int nheld;

/* Equal ranks are allowed in address order only: the channels of a select, the descriptors of a poll. */
noinline void lockrank_enter(uint8_t rank, const void *l) {
  if (rank == 0) return; /* a zero-initialised gm_mutex or gm_sema: unranked */
  if (nheld > 0) {
    uint8_t top = held[nheld - 1].rank;
    if (top > rank || (top == rank && held[nheld - 1].lock >= l))
      throw("lock rank %d taken while holding rank %d", rank, top);
  }
  if (nheld < HELD_MAX) {
    held[nheld].lock = l;
    held[nheld].rank = rank;
  }
  nheld++;
}

noinline void lockrank_leave(uint8_t rank, const void *l) {
  if (rank == 0) return;
  for (int i = nheld - 1; i >= 0; i--) {
    if (i < HELD_MAX && held[i].lock == l) {
      memmove(&held[i], &held[i + 1], (size_t)(nheld - 1 - i) * sizeof held[0]);
      nheld--;
      return;
    }
  }
  throw("unlock of a lock that is not held");
}

noinline void lockrank_none(void) {
  if (nheld > 0) throw("a lock of rank %d is held", held[nheld - 1].rank);
}
#endif
