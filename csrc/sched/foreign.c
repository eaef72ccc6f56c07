/* foreign.c - threads that are not ours: full citizens of every operation.
 *
 * An ordinary OS thread (Python's main thread, a threading.Thread, a thread of a C library) that must
 * wait stands in the queue like a goroutine, as a G of kind GK_FOREIGN, and sleeps on that G's futex with
 * the host lock dropped.  The record belongs to the thread and goes to a free list when it ends; it is
 * never freed, since a late waker may still look at it.  A thread whose end we cannot hear of gets none.
 *
 * futex: 1 armed, 2 fired.  The wait is opened by the thread itself under the object's lock: there is no
 * switch, so no lander.  Waker: claim, value, unlock, xchg(futex, 2), and a futex wake by address if it
 * was 1.  After the xchg the waker touches nothing. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "arch/arch.h"
#include "base/clock.h"
#include "sched/sched.h"
#include "sched/park.h"

static struct {
  mutex lock; /* guards free and all */
  G *all[4096];
  uint32_t n;
  G *free;
  pthread_key_t key;
  bool keyed;
} fthreads = {.lock = {.rank = rank_foreign}};

static __thread G *tls_foreign __attribute__((tls_model("initial-exec")));

static void foreign_free(G *gp) {
  lock(&fthreads.lock);
  store_rlx(&gp->status, Gdead);
  gp->schedlink = fthreads.free;
  fthreads.free = gp;
  unlock(&fthreads.lock);
}

/* The destructor of a thread-local.  Destructors that run later may wait, too: with a new record, for this one may
 * be another thread's by then.  (The C library goes round several times; a record made in the last is lost.) */
static void foreign_exit(void *arg) {
  tls_foreign = NULL;
  foreign_free(arg);
}

/* lock held. */
static G *foreign_take(void) {
  if (!fthreads.keyed) fthreads.keyed = pthread_key_create(&fthreads.key, foreign_exit) == 0;
  if (!fthreads.keyed) return NULL;
  G *gp = fthreads.free;
  if (gp) {
    fthreads.free = gp->schedlink;
    gp->schedlink = NULL;
  } else if ((gp = calloc(1, sizeof *gp))) {
    g_init_static(gp, GK_FOREIGN);
    if (fthreads.n < nelem(fthreads.all)) fthreads.all[fthreads.n++] = gp;
  }
  return gp;
}

static noinline G *foreign_make(void) {
  lock(&fthreads.lock);
  G *gp = foreign_take();
  unlock(&fthreads.lock);
  if (!gp) return NULL;
  if (pthread_setspecific(fthreads.key, gp) != 0) {
    foreign_free(gp);
    return NULL;
  }
  store_rlx(&gp->status, Grunning);
  return gp;
}

/* The record of the calling thread, which is not an M. NULL: no memory, or no key for a thread-local. */
G *foreign_g(void) {
  if (likely(tls_foreign != NULL)) return tls_foreign;
  return tls_foreign = foreign_make();
}

/* Who waits: the running goroutine, or the thread's record.  hosted: the caller holds the host lock.  A hosted
 * goroutine that has dropped it cannot park, for its state is not current: it blocks its thread like any
 * C call does, and sysmon hands its P off. */
G *getg(bool hosted) {
  G *gp = curg();
  return likely(gp && (gp->kind == GK_HOST) == hosted) ? gp : foreign_g();
}

void foreign_wake(G *gp) {
  if (xchg(&gp->futex, 2) == 1) futexwakeup(&gp->futex, 1);
}

/* Sleeps until fired, deadline, or a signal. */
static wake_t foreign_sleep(G *gp, int64_t deadline, uint64_t seq) {
  while (load_acq(&gp->futex) != 2) {
    int64_t left = -1;
    if (deadline && (left = deadline - nanotime()) <= 0) {
      if (wait_claim(gp, seq)) return WAKE_TIMEOUT;
      sched_yield(); /* claimed by a waker that is about to fire */
      continue;
    }
    futexsleep(&gp->futex, 1, left);
    if (load_acq(&gp->futex) == 2) break;
    /* A signal, perhaps: its Python handler must run.  Losing the claim means that the value is here. */
    if ((!deadline || nanotime() < deadline) && wait_claim(gp, seq)) return WAKE_INTERRUPTED;
  }
  return (wake_t)gp->wakeres;
}

/* Like gopark, for the thread whose record gp is.  hosted: it holds the host lock. */
wake_t foreign_park(G *gp, void (*unlockf)(void *), void *unlockarg, waitreason why, int64_t deadline,
                    bool hosted) {
  uint64_t seq = wait_next(gp);
  store_rlx(&gp->reason, why);
  store_rlx(&gp->since, cputicks());
  gp->param = NULL;
  gp->wakeres = WAKE_OK;
  store_rlx(&gp->timer.when, deadline);
  store_rlx(&gp->futex, 1);
  store_rel(&gp->status, Gwaiting);
  atomic_store(&gp->wait, seq | WAIT_S);
  if (unlockf) unlockf(unlockarg);
  void *state = hosted ? host->leave() : NULL;
  wake_t r = foreign_sleep(gp, deadline, seq);
  store_rel(&gp->status, Grunning);
  if (hosted) host->enter(state);
  if (r == WAKE_TIMEOUT || r == WAKE_INTERRUPTED) gp->param = NULL;
  return r;
}

/* gopark or foreign_park, whichever fits the caller. */
wake_t park_any(G *gp, void (*unlockf)(void *), void *unlockarg, waitreason why, int64_t deadline,
                bool hosted) {
  if (likely(gp->kind != GK_FOREIGN)) return gopark(unlockf, unlockarg, why, deadline);
  return foreign_park(gp, unlockf, unlockarg, why, deadline, hosted);
}

/* Calls each(gp) for every foreign thread now asleep in one of our waits without a deadline it could
 * reach by itself; returns how many.  One whose wait has been claimed is about to run. */
uint32_t foreign_waiting(void (*each)(G *gp, void *arg), void *arg) {
  uint32_t n = 0;
  lock(&fthreads.lock);
  for (uint32_t i = 0; i < fthreads.n; i++) {
    G *gp = fthreads.all[i];
    if (load_acq(&gp->status) != Gwaiting || load_rlx(&gp->timer.when)) continue;
    if (!(load_acq(&gp->wait) & WAIT_S)) continue;
    n++;
    if (each) each(gp, arg);
  }
  unlock(&fthreads.lock);
  return n;
}

/* Around fork: see fork.c. */
void foreign_forklock(bool on) {
  if (on)
    lock(&fthreads.lock);
  else
    unlock(&fthreads.lock);
}

/* In a forked child the other threads are gone; the caller's record stays. */
void foreign_afterfork(void) {
  lock_anew(&fthreads.lock);
  while (fthreads.n > 0 && !fthreads.all[fthreads.n - 1]) fthreads.n--; /* half entered */
  fthreads.free = NULL;
  for (uint32_t i = 0; i < fthreads.n; i++) {
    G *gp = fthreads.all[i];
    if (gp == tls_foreign) continue;
    store_rlx(&gp->status, Gdead);
    wait_void(gp);
  }
}
