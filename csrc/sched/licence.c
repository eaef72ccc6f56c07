/* licence.c - L: goroutines of a host with a lock of its own, and the licence to drive them.
 *
 * Safety comes from the host lock, liveness from the licence.  A thread learns late, or never, that
 * sysmon took its P or the licence away: re-taking the host lock is the interpreter's business and
 * cannot be made a CAS of ours.  So
 *   - ring, runnext, overflow list and pool of L are touched only with the host lock held: plain loads
 *     and stores, as cheap as they can be;
 *   - L.holder names the one M that drives them.  Only it pops.  It looks before each pop whether it
 *     still is, because sysmon may have given the licence to somebody else meanwhile.
 *
 * Push.  With the host lock: runnext or ring.  Without it (timer, poller, native waker): the inbox, a
 * stack pushed by CAS and drained by xchg.  Then, unless the pusher is the driver itself:
 *     push; fence; if holder is nobody: wakep
 * Release (drive's end):
 *     drop the host lock; holder := nobody; fence; look at L again, in findrunnable or by wakep
 * One of the two sees the other, so no wake-up is lost.  The same pair stands between a push and a P that
 * goes idle (find.c).  Model: tests/models/licence.pml, with the variants that lose work.
 *
 * "Unless the pusher is the driver" is a look without a fence, between two accesses of the hottest path: the store
 * of the push may still be on its way when sysmon, on another CPU, has taken the licence and looked at L in vain.
 * (On x86, too.)  Nobody else takes a licence from its driver.  So sysmon looks once more, in its next round, 20 us
 * later: the round that has taken a licence does not end in a long sleep, and `errands` wakes an M.
 *
 * A driver that blocks in C without the host lock loses P and licence to sysmon.  When its call returns
 * it holds the host lock without licence, and nothing is checked there; at its next park lget() answers
 * "none", the goroutine is pushed like any other, and drive() ends.
 *
 * Rejected: the ring owned by the licence instead of the host lock (two owners at once: model), a lock
 * around L (20 ns per operation), waking a sleeping M for each push of the driver. */
#include "arch/arch.h"
#include "base/clock.h"
#include "sched/hibernate.h"
#include "sched/sched.h"
#include "sched/park.h"
#include "sched/chaos.h"

static inline L *lpp(void) { return &sched.l; }

/* Host lock held. */
static void lputtail(L *l, G *gp) {
  if (likely(l->tail - l->head < RUNQ_SIZE && !l->ovhead)) {
    l->runq[l->tail++ % RUNQ_SIZE] = gp;
    return;
  }
  gp->schedlink = NULL;
  if (l->ovtail)
    l->ovtail->schedlink = gp;
  else
    l->ovhead = gp;
  l->ovtail = gp;
}

/* Host lock held: gp is runnable.  next: it runs next and inherits the slice. */
void lput(G *gp, bool next) {
  L *l = lpp();
  store_rlx(&l->nqueued, load_rlx(&l->nqueued) + 1);
  if (unlikely(chaos_on) && chaos_flip()) next = false;
  if (next) {
    G *kicked = l->runnext;
    l->runnext = gp;
    if (!kicked) return;
    gp = kicked;
  }
  lputtail(l, gp);
}

/* Is anything runnable in L?  After a fence: see the head of the file. */
bool lwaiting(void) {
  L *l = lpp();
  return load_rlx(&l->nqueued) != 0 || load_rlx(&l->inbox) != NULL || load_rlx(&l->call);
}

/* Host lock held; the wait of gp has been claimed by the caller. */
void goready_hosted(G *gp) {
  if (gp->kind != GK_HOST) {
    goready(gp);
    return;
  }
  casgstatus(gp, Gwaiting, Grunnable);
  newproc_host(gp);
}

/* Host lock held, something has been put. */
static inline void lpushed(void) {
  M *m = getm();
  if (m && load_rlx(&lpp()->holder) == m) return; /* the driver looks by itself */
  fence();
  if (!load_rlx(&lpp()->holder)) wakep();
}

/* Host lock held: gp is new and runnable, or has been made so. */
void newproc_host(G *gp) {
  lput(gp, true);
  lpushed();
}

/* Host lock held; gp, whose wait has been claimed, waited for the end of the running goroutine.  If the next one is new
 * it will go on with the stack of that one, which costs no switch (pass_on): then gp runs behind all that are runnable,
 * for who waits for one of a batch mostly waits for the next one, then.  Run in between it cost two switches for each
 * goroutine: of go + join in batches 550 of 1380 instructions, and four tenths of the time. */
void goready_ended(G *gp) {
  L *l = lpp();
  G *next = l->runnext;
  if (!next && l->head != l->tail) next = l->runq[l->head % RUNQ_SIZE];
  if (gp->kind != GK_HOST || !next || next->sp || next->saved) {
    goready_hosted(gp);
    return;
  }
  casgstatus(gp, Gwaiting, Grunnable);
  lput(gp, false);
  lpushed();
}

/* Without the host lock. */
void lpush_inbox(G *gp) {
  L *l = lpp();
  G *top = load_rlx(&l->inbox);
  do {
    gp->schedlink = top;
  } while (!atomic_compare_exchange_weak(&l->inbox, &top, gp));
  M *m = getm();
  if (m && m->p && !m->hostmode && !load_rlx(&m->curg)) return; /* in findrunnable: looks at L itself,
    at the latest when it has found something else (wake_for_others) */
  fence();
  if (!load_rlx(&l->holder)) wakep();
}

/* Host lock held, holder. The inbox is a stack: reversed, so that first come is first served. */
static void ldrain(L *l) {
  G *list = xchg(&l->inbox, NULL), *fifo = NULL;
  while (list) {
    G *link = list->schedlink;
    list->schedlink = fifo;
    fifo = list;
    list = link;
  }
  while (fifo) {
    G *link = fifo->schedlink;
    fifo->schedlink = NULL;
    store_rlx(&l->nqueued, load_rlx(&l->nqueued) + 1);
    lputtail(l, fifo);
    fifo = link;
  }
}

static G *lget_overflow(L *l) {
  G *gp = l->ovhead;
  if (!gp) return NULL;
  l->ovhead = gp->schedlink;
  if (!l->ovhead) l->ovtail = NULL;
  gp->schedlink = NULL;
  return gp;
}

/* ring empty, or a 61st pick: the overflow list refills the ring, oldest first */
static G *lget_refill(L *l) {
  G *gp = lget_overflow(l);
  while (l->ovhead && l->tail - l->head < RUNQ_SIZE)
    l->runq[l->tail++ % RUNQ_SIZE] = lget_overflow(l);
  return gp;
}

/* Every 61st pick: timers that are due, and whether native work has waited long enough for this P, or those who have been
 * parked for long are to be looked at, or what a crowd has left, which else waited for the end of a burst of work.  Returns
 * false if the turn is over. */
static noinline bool ltick(L *l) {
  bool native = native_waiting() && load_rlx(&sched.npidle) == 0;
  l->turnover = load_rlx(&l->doze) || load_rlx(&l->shed);
  if (!native && load_rlx(&l->timers.next) == INT64_MAX) return !l->turnover;
  int64_t now = nanotime();
  if (load_rlx(&l->timers.next) <= now) timers_run(&l->timers, now);
  l->turnover |= native && now - l->turnstart > TURN_NS;
  return !l->turnover;
}

static inline G *lpopped(L *l, G *gp, bool inherit) {
  store_rlx(&l->nqueued, load_rlx(&l->nqueued) - 1);
  if (!inherit) inc_rlx(&l->schedtick);
  return gp;
}

/* Host lock held, on an M in host mode: the goroutine to run next, or NULL: nothing to run, licence gone,
 * turn over, world stopping.  Then the caller goes to g0 and drive() ends. */
G *lget(M *m) {
  L *l = lpp();
  if (unlikely(load_rlx(&l->holder) != m)) return NULL;
  if (unlikely(++l->picks % SCHED_TICK_GLOBAL == 0) && !ltick(l)) return NULL;
  for (bool again = true;; again = false) {
    if (unlikely(load_rlx(&l->inbox) != NULL)) ldrain(l);
    G *gp = l->runnext;
    if (gp) {
      l->runnext = NULL;
      if (likely(!load_rlx(&l->expired))) return lpopped(l, gp, true);
      store_rlx(&l->expired, false); /* the slice that it would inherit is over */
      lputtail(l, gp);
    }
    if (l->head != l->tail) return lpopped(l, l->runq[l->head++ % RUNQ_SIZE], false);
    gp = lget_refill(l);
    if (gp) return lpopped(l, gp, false);
    if (!again || load_rlx(&l->timers.next) == INT64_MAX) return NULL;
    int64_t now = nanotime();
    if (load_rlx(&l->timers.next) > now) return NULL;
    timers_run(&l->timers, now);
  }
}

/* ---- driving ------------------------------------------------------------------------------------- */

/* The end of a drive: the host lock is held, the base state current. */
static void lrelease(M *m) {
  L *l = lpp();
  if (unlikely(load_rlx(&l->call))) store_rlx(&l->call, false);
  if (unlikely(load_rlx(&l->trim)) && xchg(&l->trim, false)) gtrim_take();
  if (unlikely(load_rlx(&l->shed)) && xchg(&l->shed, false)) gtrim_states();
  if (unlikely(load_rlx(&l->doze)) && xchg(&l->doze, false)) hibernate_some();
  store_rlx(&l->idle_units, l->ngfree);
  host->detach(m); /* may wait until a thread that asked for the lock has it: HOST, licence still ours */
  cas(&l->holder, m, (M *)NULL);
  m->hostmode = false;
  fence();
  if (pin(m)) {
    m->p->hostfirst = false; /* the look that follows is findrunnable's */
    m->p->nativefirst = true; /* also in the global queue: the turn may have ended for what lies there */
    m->p->turnstart = nanotime();
    /* The turn may have ended because no P was idle.  One that became idle meanwhile saw the licence taken
     * and slept; this M may now find native work and keep it. */
    if (lwaiting() && load_rlx(&sched.npidle) > 0) wakep();
    return;
  }
  m->p = NULL;
  wake_for_rest();
}

/* On g0 with the licence just taken and a P: run hosted goroutines until there is none, or it is taken
 * away.  May return without the P. */
void drive(M *m) {
  L *l = lpp();
  m->hostmode = true;
  store_rlx(&m->g0.since, cputicks()); /* for sysmon: it waits for the host lock from now on */
  store_rel(&m->p->status, PWORD(m->id, Phost));
  host->attach(m);
  l->turnstart = nanotime();
  l->turnover = false;
  for (;;) {
    G *gp = m->nextg;
    m->nextg = NULL;
    if (!gp && (l->turnover || !(gp = lget(m)))) break; /* turnover: what the lget of a switch has found */
    if (unlikely(gp->lockedm && gp->lockedm != m)) {
      wake_wired(gp->lockedm, gp);
      break; /* drops the host lock, which that thread wants now */
    }
    execute(m, gp);
    if (unlikely(m->lockedg != NULL || m->reap)) break;
  }
  gm_assert(!m->nextg);
  lrelease(m);
}
