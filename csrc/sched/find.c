/* find.c - what an M does next: finding work, and sleeping when there is none.
 *
 * findrunnable looks, in this order: timers; every 61st time the global queue; the own ring; L (before the
 * ring when a native turn has just ended, behind the global queue when one of Python has); the global queue;
 * the poller; other Ps' rings; and, when the P has been given up, everything once more.  Then the M sleeps: in the
 * poller if somebody must, else on its note.
 *
 * Where this differs from Go, because waking an idle core costs 16 us here and a thief that polls a busy
 * owner's indices triples the owner's ping-pong:
 *   - goready wakes nobody for a goroutine that is alone in runnext (park.c);
 *   - a spinning M looks SPIN_LOOKS times, SPIN_PAUSES apart, and takes only from rings whose head stood
 *     still between two looks; the last look takes anything, runnext included;
 *   - an M that takes the licence wakes another only if native work is in sight.
 *
 * Rejected, as in Go: handing a new goroutine to an idle M directly (threads ping-pong, no locality), and
 * one central queue (its lock). */
#include "arch/arch.h"
#include "base/clock.h"
#include "sched/sched.h"
#include "sched/park.h"
#include "sched/netpoll.h"

static bool lacquire(M *m) {
  return lwaiting() && !load_rlx(&sched.l.holder) && cas(&sched.l.holder, (M *)NULL, m);
}

/* Other Ps' rings, in random order.  calm: only rings whose head has not moved since `heads`. */
static G *steal_round(M *m, uint32_t *heads, bool calm) {
  uint32_t n = (uint32_t)sched.gomaxprocs, at = fastrandn(&m->rand, n);
  for (uint32_t i = 0; i < n; i++, at = at + 1 == n ? 0 : at + 1) {
    P *victim = sched.allp[at];
    if (victim == m->p) continue;
    uint32_t head = load_rlx(&victim->runqhead);
    bool moved = head != heads[at];
    heads[at] = head;
    if (calm && moved) continue;
    G *gp = runqsteal(m->p, victim, !calm);
    if (gp) return gp;
  }
  return NULL;
}

static G *stealwork(M *m) {
  uint32_t heads[MAX_PROCS];
  uint32_t n = (uint32_t)sched.gomaxprocs;
  if (n == 1) return NULL;
  for (uint32_t i = 0; i < n; i++) heads[i] = load_rlx(&sched.allp[i]->runqhead) - 1;
  for (int look = 0; look < SPIN_LOOKS; look++) {
    G *gp = steal_round(m, heads, look + 1 < SPIN_LOOKS);
    if (gp) return gp;
    if (load_rlx(&sched.gcwaiting) || load_rlx(&sched.runqsize) > 0) return NULL;
    if (lwaiting() && !load_rlx(&sched.l.holder)) return NULL;
    for (int i = 0; i < SPIN_PAUSES && look + 1 < SPIN_LOOKS; i++) cpu_relax();
  }
  return NULL;
}

static G *globalget(M *m, uint32_t max) {
  if (load_rlx(&sched.runqsize) == 0) return NULL;
  lock(&sched.lock);
  G *gp = globrunqget(m->p, max);
  unlock(&sched.lock);
  return gp;
}

static void run_due_timers(P *pp) {
  int64_t next = load_rlx(&pp->timers.next), lnext = load_rlx(&sched.l.timers.next);
  if (next == INT64_MAX && lnext == INT64_MAX) return;
  int64_t now = nanotime();
  if (next <= now) timers_run(&pp->timers, now);
  if (lnext <= now) timers_run(&sched.l.timers, now);
}

/* Everything but stealing.  *hosted: the licence was taken. */
static G *pickwork(M *m, bool *hosted) {
  P *pp = m->p;
  bool inherit;
  run_due_timers(pp);
  G *gp = NULL;
  if (pp->hostfirst && (*hosted = lacquire(m))) return NULL;
  if (++pp->picks % SCHED_TICK_GLOBAL == 0) gp = globalget(m, 1);
  if (!gp && (gp = runqget(pp, &inherit)) && inherit) return gp;
  if (!gp && pp->nativefirst) gp = globalget(m, GLOBAL_BATCH);
  pp->nativefirst = false;
  if (!gp && (*hosted = lacquire(m))) return NULL;
  if (!gp) gp = globalget(m, GLOBAL_BATCH);
  if (!gp && netpoll_waiters() > 0 && load_rlx(&sched.lastpoll) != 0) {
    injectglist(netpoll(0));
    gp = runqget(pp, &inherit);
    if (!gp && (*hosted = lacquire(m))) return NULL;
  }
  if (gp) inc_rlx(&pp->schedtick);
  return gp;
}

static bool may_spin(M *m) {
  if (m->spinning) return true;
  if (sched.gomaxprocs == 1) return false;
  uint32_t busy = (uint32_t)sched.gomaxprocs - load_rlx(&sched.npidle);
  if (2 * load_rlx(&sched.nmspinning) >= busy) return false;
  becomespinning(m);
  return true;
}

/* A P for an M that found work after it had given its own up. */
static bool regainp(M *m) {
  P *pp = pidleget();
  if (!pp) return false;
  acquirep(m, pp);
  if (!m->spinning) becomespinning(m);
  return true;
}

/* Sleeps in the poller if nobody does and somebody must.  True: woken with a P. */
static bool sleep_in_poller(M *m) {
  if (driver_polls()) return false;
  int64_t next = timers_next();
  if (next == INT64_MAX && netpoll_waiters() == 0) return false;
  if (xchg(&sched.lastpoll, 0) == 0) { /* somebody sleeps there: long enough for our timers? */
    int64_t until = load_rlx(&sched.polluntil);
    if (until == 0 || until > next) netpollbreak();
    return false;
  }
  store_rlx(&sched.polluntil, next);
  fence();
  int64_t again = timers_next(); /* a timer added before it saw the announcement */
  if (again < next) next = again;
  int64_t delay = next == INT64_MAX ? -1 : next - nanotime();
  xadd(&counts.netpolls, 1);
  G *list = next == INT64_MAX || delay > 0 ? netpoll(delay) : NULL;
  /* Counted as spinning while it is about to look, and with a P, before anybody is made runnable: else the first of them
   * would wake another M, take the idle P for that, and leave this one, which is awake, nothing to do. */
  becomespinning(m);
  store_rlx(&sched.polluntil, 0);
  store_rel(&sched.lastpoll, nanotime());
  bool got = regainp(m);
  injectglist(list);
  int64_t now = nanotime(); /* all heaps: those of busy and of idle Ps too, nobody else sleeps for them */
  for (int32_t i = 0; i < sched.gomaxprocs; i++) timers_run(&sched.allp[i]->timers, now);
  timers_run(&sched.l.timers, now);
  if (got) return true;
  stopspinning(m);
  fence(); /* whoever had work for us, or left us the poller, saw a spinning M and woke nobody */
  if (work_in_sight() || poller_missing()) wakep();
  return false;
}

/* The P has been given up: is there anything after all?  See the head of the file. */
static bool look_again(M *m) {
  if (m->spinning) stopspinning(m);
  fence();
  if (!work_in_sight()) return false;
  return regainp(m);
}

/* A native goroutine to run, or NULL with the licence (*hosted).  Sleeps until there is one.  NULL
 * without licence: the M shall end. */
static G *findrunnable(M *m, bool *hosted) {
  for (;;) {
    *hosted = false;
    if (load_rlx(&sched.stopping) || m->reap) return NULL;
    if (load_rlx(&sched.gcwaiting)) {
      gcstopm(m);
      continue;
    }
    if (!m->p) {
      stopm(m);
      continue;
    }
    G *gp = pickwork(m, hosted);
    if (gp || *hosted) return gp;
    if (may_spin(m) && (gp = stealwork(m))) {
      inc_rlx(&m->p->schedtick);
      return gp;
    }
    lock(&sched.lock);
    if (load_rlx(&sched.gcwaiting) || load_rlx(&sched.runqsize) > 0) {
      unlock(&sched.lock);
      continue;
    }
    P *pp = m->p;
    m->p = NULL;
    pidleput_locked(pp);
    unlock(&sched.lock);
    if (look_again(m)) continue;
    if (sleep_in_poller(m)) continue;
    stopm(m);
  }
}

/* Direct switches of native goroutines: the next one from this P, or NULL to go to g0. */
G *pget(M *m) {
  P *pp = m->p;
  if (unlikely(load_rlx(&sched.gcwaiting))) return NULL;
  if (unlikely(++pp->picks % SCHED_TICK_GLOBAL == 0)) {
    run_due_timers(pp);
    if (lwaiting() && !load_rlx(&sched.l.holder) && load_rlx(&sched.npidle) == 0 &&
        nanotime() - pp->turnstart > TURN_NS) {
      pp->hostfirst = true; /* the native turn is over */
      return NULL;
    }
    G *gp = globalget(m, 1);
    if (gp) {
      inc_rlx(&pp->schedtick);
      return gp;
    }
  }
  bool inherit;
  G *gp = runqget(pp, &inherit);
  if (gp && !inherit) inc_rlx(&pp->schedtick);
  return gp;
}

/* g0 of an M, until it ends. */
void schedule(M *m) {
  for (;;) {
    if (unlikely(m->lender)) { /* a forked child: from now on this thread stands for the one in run() */
      wired_asleep(true);
      host->lend(m);
    }
    if (unlikely(m->lockedg != NULL)) {
      if (!run_wired(m)) return;
      continue;
    }
    bool hosted;
    G *gp = findrunnable(m, &hosted);
    if (!gp && !hosted) break;
    if (m->spinning)
      resetspinning(m);
    else
      wake_for_others(m, hosted);
    if (hosted)
      drive(m);
    else
      execute(m, gp);
  }
  if (m->spinning) stopspinning(m);
  if (m->p) {
    P *pp = m->p;
    m->p = NULL;
    if (load_rlx(&sched.stopping))
      releasep_idle(pp); /* to nobody */
    else
      handoffp(pp); /* what locked this thread has ended */
  }
}
