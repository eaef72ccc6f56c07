/* sema.c - counting semaphores, Go's Mutex, and queues that are woken as a whole.
 *
 * Semaphore: a release hands its unit to the first waiter directly, so a waiter once served need not
 * compete, and the order is FIFO.
 *
 * Mutex, Go's two modes.  Normal: an unlock wakes the first waiter, which competes with newcomers; it
 * usually loses to one that is already running, and that is what makes it fast.  Starving: a waiter that
 * has waited more than 1 ms makes the mutex starving; then an unlock hands it over, newcomers queue at
 * once, and a waiter that lost before stands in front.  The last waiter, or one that waited less than
 * 1 ms, ends it.  Woken: one waiter is on its way, so an unlock need not wake another.
 * The state word is changed by CAS: its fast paths (0 -> locked -> 0) take no lock. */
#include "arch/arch.h"
#include "base/clock.h"
#include "sched/sched.h"
#include "sched/park.h"
#include "sync/sema.h"

/* ---- broadcast queues of the host (joiners, wait groups): host lock held ------------------------------ */

wake_t waitq_wait(waitq *q, waitreason why, int64_t deadline) {
  G *gp = getg(true);
  if (!gp) return WAKE_NOMEM;
  sudog_link(&gp->sg, gp);
  enqueue(q, &gp->sg);
  wake_t r = park_any(gp, NULL, NULL, why, deadline, true);
  if (gp->param == &gp->sg) return WAKE_OK;
  dequeue_sudog(&gp->sg);
  return r;
}

void waitq_wakeall(waitq *q) {
  for (sudog *sg; (sg = dequeue(q)) != NULL;) ready_any(sudog_served(sg, true, WAKE_OK), true);
}

/* The same for who waits for the end of the running goroutine. */
void waitq_ended(waitq *q) {
  for (sudog *sg; (sg = dequeue(q)) != NULL;) goready_ended(sudog_served(sg, true, WAKE_OK));
}

/* ---- semaphores ------------------------------------------------------------------------------------- */

static void unlock_commit(void *lock) { spin_unlock(lock); }

static inline void qlock(spinlock *l, bool hosted) {
  if (!hosted) spin_lock(l);
}
static inline void qunlock(spinlock *l, bool hosted) {
  if (!hosted) spin_unlock(l);
}

/* Queue locked, the caller's waiter in it: parks.  What was not served is taken out again. */
static wake_t qwait(spinlock *l, bool hosted, G *gp, waitreason why, int64_t deadline) {
  wake_t r = park_any(gp, hosted ? NULL : unlock_commit, l, why, deadline, hosted);
  if (gp->param == &gp->sg) return WAKE_OK;
  qlock(l, hosted);
  dequeue_sudog(&gp->sg);
  qunlock(l, hosted);
  return r;
}

wake_t semacquire(sema *s, waitreason why, bool block, int64_t deadline) {
  bool hosted = s->hosted;
  qlock(&s->lock, hosted);
  if (s->value > 0) {
    s->value--;
    qunlock(&s->lock, hosted);
    return WAKE_OK;
  }
  G *gp = block ? getg(hosted) : NULL;
  if (!gp) {
    qunlock(&s->lock, hosted);
    return block ? WAKE_NOMEM : WAKE_WOULDBLOCK;
  }
  sudog_link(&gp->sg, gp);
  enqueue(&s->q, &gp->sg);
  return qwait(&s->lock, hosted, gp, why, deadline);
}

void semrelease(sema *s, uint32_t n) {
  bool hosted = s->hosted;
  while (n-- > 0) {
    qlock(&s->lock, hosted);
    sudog *sg = dequeue(&s->q);
    if (!sg) {
      s->value += n + 1;
      n = 0;
    }
    qunlock(&s->lock, hosted);
    if (sg) ready_any(sudog_served(sg, true, WAKE_OK), hosted);
  }
}

/* ---- Mutex -------------------------------------------------------------------------------------------- */

/* Spin only for a native lock on a machine where its holder may be running. */
static void spin_a_little(gomutex *m) {
  if (m->hosted || load_rlx(&sched.gomaxprocs) == 1) return;
  for (int i = 0; i < MUTEX_SPINS; i++) {
    uint32_t s = load_rlx(&m->state);
    if (!(s & mutexLocked) || s & mutexStarving) return;
    for (int j = 0; j < MUTEX_PAUSES; j++) cpu_relax();
  }
}

/* Queue locked: the last waiter has gone, so its bits go too. */
static void mutex_tidy(gomutex *m) {
  uint32_t s = load_rlx(&m->state);
  while (!m->q.first) {
    if (atomic_compare_exchange_weak(&m->state, &s, s & ~(uint32_t)(mutexWaiters | mutexStarving)))
      return;
  }
}

/* Queue locked: take it if it is free, else announce a waiter.  True: ours. */
static bool mutex_try_or_announce(gomutex *m, bool awoke, bool starving) {
  uint32_t s = load_rlx(&m->state);
  for (;;) {
    uint32_t want = awoke ? s & ~(uint32_t)mutexWoken : s;
    bool take = !(s & mutexLocked) && !(s & mutexStarving);
    if (take)
      want |= mutexLocked;
    else
      want |= mutexWaiters | (starving ? mutexStarving : 0);
    if (atomic_compare_exchange_weak(&m->state, &s, want)) return take;
  }
}

static wake_t mutex_lock_slow(gomutex *m, int64_t deadline) {
  int64_t since = 0;
  bool awoke = false, starving = false;
  bool hosted = m->hosted;
  for (;;) {
    spin_a_little(m);
    G *gp = getg(hosted);
    if (!gp) return WAKE_NOMEM;
    qlock(&m->lock, hosted);
    if (mutex_try_or_announce(m, awoke, starving)) {
      qunlock(&m->lock, hosted);
      return WAKE_OK;
    }
    sudog_link(&gp->sg, gp);
    if (since)
      enqueue_front(&m->q, &gp->sg);
    else
      enqueue(&m->q, &gp->sg);
    if (!since) since = nanotime();
    wake_t r = qwait(&m->lock, hosted, gp, waitReasonMutexLock, deadline);
    if (r != WAKE_OK) {
      qlock(&m->lock, hosted);
      mutex_tidy(m);
      qunlock(&m->lock, hosted);
      return r;
    }
    bool brief = nanotime() - since < MUTEX_STARVE_NS;
    if (gp->sg.success) { /* handed over: ours */
      if (brief) atomic_fetch_and(&m->state, ~(uint32_t)mutexStarving);
      return WAKE_OK;
    }
    awoke = true;
    starving = !brief;
  }
}

/* block false: only if it is free and nobody starves (Go's TryLock). */
wake_t gomutex_lock(gomutex *m, bool block, int64_t deadline) {
  if (likely(cas(&m->state, 0, mutexLocked))) return WAKE_OK;
  if (block) return mutex_lock_slow(m, deadline);
  uint32_t s = load_rlx(&m->state);
  while (!(s & (mutexLocked | mutexStarving)))
    if (atomic_compare_exchange_weak(&m->state, &s, s | mutexLocked)) return WAKE_OK;
  return WAKE_WOULDBLOCK;
}

/* Queue locked, the mutex locked: free it, or keep it locked for the waiter returned in *next. */
static void mutex_pass(gomutex *m, sudog **next, bool *handoff) {
  uint32_t s = load_rlx(&m->state);
  *handoff = s & mutexStarving;
  *next = NULL;
  if (*handoff || !(s & mutexWoken)) *next = dequeue(&m->q);
  for (;;) {
    uint32_t want = s;
    if (!*next || !*handoff) want &= ~(uint32_t)mutexLocked;
    if (*next && !*handoff) want |= mutexWoken;
    if (!m->q.first) want &= ~(uint32_t)(mutexWaiters | mutexStarving);
    if (atomic_compare_exchange_weak(&m->state, &s, want)) return;
  }
}

/* false: it is not locked. */
bool gomutex_unlock(gomutex *m) {
  if (likely(cas(&m->state, mutexLocked, 0))) return true;
  sudog *next;
  bool handoff, hosted = m->hosted;
  qlock(&m->lock, hosted);
  if (!(load_rlx(&m->state) & mutexLocked)) {
    qunlock(&m->lock, hosted);
    return false;
  }
  mutex_pass(m, &next, &handoff);
  qunlock(&m->lock, hosted);
  if (next) ready_any(sudog_served(next, handoff, WAKE_OK), hosted);
  return true;
}
