/* runq.c - the ring of a P, stealing from it, and the global queue.  Go's runqput, runqget, runqgrab.
 *
 * Invariants.
 *  1. Only the owner writes runqtail and the slots between tail and tail+RUNQ_SIZE.
 *  2. Anybody takes from the head, by a CAS; whoever wins it owns what it copied out before.
 *  3. Only the owner sets runnext to non-NULL; anybody may CAS it to NULL.
 *
 * Order: the owner publishes a slot by a release store of the tail; a thief acquires head, then tail,
 * copies, and commits by CAS on the head.  A copy that was torn by a wrapping owner loses that CAS.
 * More than half a ring between head and tail means that the two loads do not belong together: retry.
 *
 * Tried and dropped: a store where runnext is empty, which only its owner fills.  With that in it the compiler does not
 * inline runqput, and to start a native goroutine took 19 instructions more.
 *
 * runnext is the goroutine that was made ready last: it runs next and inherits the slice, so a pair that
 * talks to each other runs as one.  When the slice is over (P.expired, set by sysmon) it goes to the
 * tail instead, or such a pair would starve the ring. */
#include "sched/sched.h"
#include "sched/chaos.h"

/* ring full: the older half and gp go to the global queue */
static bool runqputslow(P *pp, G *gp, uint32_t h, uint32_t t) {
  G *batch[RUNQ_SIZE / 2 + 1];
  uint32_t n = (t - h) / 2;
  gm_debug_assert(n == RUNQ_SIZE / 2);
  for (uint32_t i = 0; i < n; i++) batch[i] = load_rlx(&pp->runq[(h + i) % RUNQ_SIZE]);
  if (!cas(&pp->runqhead, h, h + n)) return false; /* somebody stole meanwhile: there is room now */
  batch[n] = gp;
  for (uint32_t i = 0; i < n; i++) batch[i]->schedlink = batch[i + 1];
  batch[n]->schedlink = NULL;
  lock(&sched.lock);
  if (sched.runqtail)
    sched.runqtail->schedlink = batch[0];
  else
    sched.runqhead = batch[0];
  sched.runqtail = batch[n];
  store_rlx(&sched.runqsize, load_rlx(&sched.runqsize) + n + 1);
  unlock(&sched.lock);
  xadd(&counts.overflows, 1);
  return true;
}

static void runqputtail(P *pp, G *gp) {
  for (;;) {
    uint32_t h = load_acq(&pp->runqhead), t = load_rlx(&pp->runqtail);
    if (t - h < RUNQ_SIZE) {
      store_rlx(&pp->runq[t % RUNQ_SIZE], gp);
      store_rel(&pp->runqtail, t + 1);
      return;
    }
    if (runqputslow(pp, gp, h, t)) return;
  }
}

/* Owner only. */
void runqput(P *pp, G *gp, bool next) {
  if (unlikely(chaos_on) && chaos_flip()) next = false;
  if (next) {
    /* Release: a thief that takes gp out of runnext must see all of it. */
    G *kicked = xchg(&pp->runnext, gp);
    if (!kicked) return;
    gp = kicked;
  }
  runqputtail(pp, gp);
}

static G *runnext_take(P *pp) {
  G *next = load_rlx(&pp->runnext);
  if (next && atomic_compare_exchange_strong(&pp->runnext, &next, NULL)) return next;
  return NULL; /* only a thief can have taken it: no need to look again */
}

/* Owner only.  *inherit: it came from runnext and shares the slice of whoever made it ready. */
G *runqget(P *pp, bool *inherit) {
  *inherit = true;
  if (unlikely(load_rlx(&pp->expired))) {
    store_rlx(&pp->expired, false);
    G *next = runnext_take(pp);
    if (next) runqputtail(pp, next);
  }
  G *gp = runnext_take(pp);
  if (gp) return gp;
  *inherit = false;
  for (;;) {
    uint32_t h = load_acq(&pp->runqhead), t = load_rlx(&pp->runqtail);
    if (t == h) return NULL;
    gp = load_rlx(&pp->runq[h % RUNQ_SIZE]);
    if (atomic_compare_exchange_weak(&pp->runqhead, &h, h + 1)) return gp;
  }
}

/* Reads tail twice: head == tail and runnext == NULL alone may be seen while runnext is being kicked. */
bool runqempty(P *pp) {
  for (;;) {
    uint32_t h = load_acq(&pp->runqhead), t = load_acq(&pp->runqtail);
    G *next = load_acq(&pp->runnext);
    if (t == load_acq(&pp->runqtail)) return h == t && !next;
  }
}

/* Copies up to half of victim's ring behind pp's tail (not yet published); returns how many. */
static uint32_t runqgrab(P *pp, P *victim, bool runnext) {
  for (;;) {
    uint32_t h = load_acq(&victim->runqhead), t = load_acq(&victim->runqtail);
    uint32_t n = t - h;
    n -= n / 2;
    uint32_t tail = load_rlx(&pp->runqtail);
    if (n == 0) {
      G *next = runnext ? load_acq(&victim->runnext) : NULL;
      if (!next || !atomic_compare_exchange_strong(&victim->runnext, &next, NULL)) return 0;
      store_rlx(&pp->runq[tail % RUNQ_SIZE], next);
      return 1;
    }
    if (n > RUNQ_SIZE / 2) continue; /* head and tail are of different moments */
    for (uint32_t i = 0; i < n; i++) {
      G *gp = load_rlx(&victim->runq[(h + i) % RUNQ_SIZE]);
      store_rlx(&pp->runq[(tail + i) % RUNQ_SIZE], gp);
    }
    if (cas(&victim->runqhead, h, h + n)) return n;
  }
}

/* Owner of pp only, whose ring is empty.  Returns one, publishes the rest. */
G *runqsteal(P *pp, P *victim, bool runnext) {
  uint32_t n = runqgrab(pp, victim, runnext);
  if (n == 0) return NULL;
  xadd(&counts.steals, 1);
  xadd(&counts.stolen, n);
  uint32_t t = load_rlx(&pp->runqtail);
  G *gp = load_rlx(&pp->runq[(t + --n) % RUNQ_SIZE]);
  if (n > 0) store_rel(&pp->runqtail, t + n);
  return gp;
}

/* pp dies; the world is stopped and sched.lock held: its goroutines go to the global queue. */
void runqdrain(P *pp) {
  bool inherit;
  store_rlx(&pp->expired, false);
  for (G *gp; (gp = runqget(pp, &inherit)) != NULL;) globrunqput(gp);
}

/* sched.lock held. */
void globrunqput(G *gp) {
  gp->schedlink = NULL;
  if (sched.runqtail)
    sched.runqtail->schedlink = gp;
  else
    sched.runqhead = gp;
  sched.runqtail = gp;
  store_rlx(&sched.runqsize, load_rlx(&sched.runqsize) + 1);
}

/* sched.lock held: a batch, of which the first is returned and the others go to pp's ring. */
G *globrunqget(P *pp, uint32_t max) {
  uint32_t size = load_rlx(&sched.runqsize);
  if (size == 0) return NULL;
  uint32_t n = size / (uint32_t)sched.gomaxprocs + 1;
  if (n > size) n = size;
  if (n > max) n = max;
  if (n > GLOBAL_BATCH) n = GLOBAL_BATCH;
  G *first = sched.runqhead;
  store_rlx(&sched.runqsize, size - n);
  G *gp = first->schedlink;
  for (uint32_t i = 1; i < n; i++) {
    G *link = gp->schedlink;
    gp->schedlink = NULL;
    runqputtail(pp, gp); /* max leaves room in the ring: never takes sched.lock again */
    gp = link;
  }
  sched.runqhead = gp;
  if (!gp) sched.runqtail = NULL;
  first->schedlink = NULL;
  return first;
}
