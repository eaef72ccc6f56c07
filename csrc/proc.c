/* proc.c - Ms and Ps: finding work, sleeping when there is none, waking when there is.
 *
 * findrunnable looks, in this order: timers; every 61st time the global queue; the own ring; L (before
 * the ring when a native turn has just ended); the global queue; the poller; other Ps' rings; and, when
 * the P has been given up, everything once more.  Then the M sleeps: in the poller if somebody must, else
 * on its note.
 *
 * No lost wake-up (Go's protocol; model: tests/models/idle.pml).
 *   submit:  enqueue; fence; if no M spins and a P idles, start one that spins        (wakep)
 *   sleep:   P to the idle list, nmspinning--; fence; look at every source again
 * Either the submitter sees nobody spinning and wakes somebody, or the sleeper sees the new work.  A
 * spinning M that finds work wakes the next (resetspinning), so wake-ups chain until work or Ps run out.
 * L is one more source in both halves; the pusher first looks whether somebody drives it (licence.c).  Only
 * an M in findrunnable pushes to it without a look: what it then picks, it looks at L before it runs that
 * (wake_for_others).
 *
 * The poller is a source that somebody must sleep in while there are deadlines or descriptors to wait for.
 *   idle:    P to the idle list; fence; lastpoll?  0: somebody sleeps there.  Else sleep there, or, if the M
 *            does something else now (handoffp, wake_for_rest), start another
 *   wake:    lastpoll := now; a P from the idle list?  There is none: nmspinning--; fence; poller_missing?
 * Either the one that idles its P sees that the poller has been left, or the one that has left it sees the idle
 * P.  It counts as spinning while it looks, so a wake for its sake may be swallowed in the meantime: hence the
 * look behind the decrement.
 *
 * The fences.  wakep() loads npidle and nmspinning, and its caller orders them after the push:
 *   - by fence();
 *   - by fence_after_rmw() when the push has ended with a read-modify-write (the unlock of sched.lock): on x86
 *     that is nothing, but on ARMv8.0 a later load may pass the store half of an exclusive pair;
 *   - a goroutine that is alone in runnext is left to its waker and to sysmon: no wake, no fence.
 * The sleeper's half: its fence stands in look_again, for the poller too.  What sysmon needs (a P taken; then
 * sysmonwait?) is ordered by the two read-modify-writes of pidleget: a later one is not passed, by the loads behind
 * it, before the earlier one's store is seen.
 *
 * Where this differs from Go, because waking an idle core costs 16 us here and a thief that polls a busy
 * owner's indices triples the owner's ping-pong:
 *   - goready wakes nobody for a goroutine that is alone in runnext (park.c);
 *   - a spinning M looks SPIN_LOOKS times, SPIN_PAUSES apart, and takes only from rings whose head stood
 *     still between two looks; the last look takes anything, runnext included;
 *   - an M that takes the licence wakes another only if native work is in sight.
 *
 * Threads that are to be had no more.  A goroutine that keeps its thread while it is parked (wired) takes an M away
 * from all others, and they would wait for ever for one to run L: for their deadlines, for Ctrl-C.  So the last M that
 * is not wired stays so: lock_os_thread(), and a park below C code, fail if there is no other M and none can be
 * had (spare_m).  A blocking call says nothing before.  If its P finds no M it goes to the idle list and `needm` is
 * set: the next M that has nothing to do takes it (stopm), and until then sysmon tries to make one.
 *
 * Who has locked its thread may have changed it (priority, affinity, namespaces), and new threads inherit that.
 * So they are made by sysmon, or by an M that nobody has locked; and a goroutine that ends without unlocking takes
 * its thread with it.  As in Go.
 *
 * Rejected, as in Go: handing a new goroutine to an idle M directly (threads ping-pong, no locality), and
 * one central queue (its lock). */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "runtime2.h"

#ifdef GM_TSAN
void *__tsan_get_current_fiber(void);
#endif

sched_t sched = {.lock = {.rank = rank_sched}, .maxm = MAX_MS};
counters counts;
const host_t *host;

/* ---- the current M -------------------------------------------------------------------------------- */

__thread M *tls_m __attribute__((tls_model("initial-exec")));

/* noinline: a compiler that keeps the address of tls_m over a switch would read another thread's. */
noinline M *getm(void) {
  M *m = tls_m;
  __asm__ volatile("" : "+r"(m));
  return m;
}
noinline void setm(M *m) { tls_m = m; }

/* ---- idle lists ------------------------------------------------------------------------------------ */

static void pidleput_locked(P *pp) {
  store_rel(&pp->status, PWORD(0, Pidle));
  pp->link = sched.pidle;
  sched.pidle = pp;
  xadd(&sched.npidle, 1);
}

static P *pidleget_locked(void) {
  P *pp = sched.pidle;
  if (!pp || load_rlx(&sched.gcwaiting)) return NULL;
  sched.pidle = pp->link;
  pp->link = NULL;
  xadd(&sched.npidle, (uint32_t)-1);
  return pp;
}

/* An idle P, taken off the list, or NULL. */
P *pidleget(void) {
  if (load_rlx(&sched.npidle) == 0) return NULL;
  lock(&sched.lock);
  P *pp = pidleget_locked();
  unlock(&sched.lock);
  return pp;
}

/* Puts pp on the idle list; the caller then looks at every source again. */
void releasep_idle(P *pp) {
  lock(&sched.lock);
  pidleput_locked(pp);
  unlock(&sched.lock);
}

void acquirep(M *m, P *pp) {
  m->p = pp;
  store_rel(&pp->status, PWORD(m->id, Prunning));
  pp->hostfirst = false;
  pp->turnstart = nanotime();
  if (load_rlx(&sched.sysmonwait)) sysmon_wake(); /* order: npidle--, unlock, this load; see the head */
}

/* Back from host code: is the P still ours?  Waits while the world is stopped.  What the CAS has seen decides: a
 * second load may see HOST again, given back meanwhile, and a P that is ours would be taken for lost. */
bool pin(M *m) {
  P *pp = m->p;
  if (!pp) return false;
  for (;;) {
    uint64_t seen = PWORD(m->id, Phost);
    if (atomic_compare_exchange_strong(&pp->status, &seen, PWORD(m->id, Prunning))) return true;
    if (seen != PWORD(m->id, Pstopped)) return false;
    os_usleep(50); /* stopped in HOST: starttheworld gives it back */
  }
}

/* ---- Ms -------------------------------------------------------------------------------------------- */

static void g0_init(M *m) {
  g_init_static(&m->g0, GK_G0);
  m->g0.m = m;
  store_rlx(&m->g0.status, Grunning);
#ifdef GM_TSAN
  m->g0.fiber = __tsan_get_current_fiber();
#endif
#ifdef GM_ASAN
  pthread_attr_t attr;
  void *lo = NULL;
  size_t size = 0;
  if (pthread_getattr_np(pthread_self(), &attr) == 0) {
    pthread_attr_getstack(&attr, &lo, &size);
    pthread_attr_destroy(&attr);
  }
  m->g0.stk.lo = lo;
  m->g0.stk.hi = (char *)lo + size;
#endif
}

/* sched.lock held: an M struct with an id, counted. NULL: no memory. */
static M *malloc_m(void) {
  M *m = sched.mfree;
  if (m) {
    sched.mfree = m->schedlink;
  } else {
    if (sched.nextmid + 1 >= nelem(sched.allm)) return NULL;
    m = calloc(1, sizeof *m);
    if (!m) return NULL;
    m->id = ++sched.nextmid;
    sched.allm[m->id] = m;
  }
  m->schedlink = NULL;
  m->reap = false;
  store_rlx(&m->dying, false);
  m->rand = cputicks() * 0x9e3779b97f4a7c15u + m->id;
  noteclear(&m->park);
  sched.mcount++;
  return m;
}

static void mfree_locked(M *m) {
  m->schedlink = sched.mfree;
  sched.mfree = m;
  sched.mcount--;
}

static void checkdead_locked(void);

/* C code of other goroutines may know this thread's errno: it ends when none does.  mreap_idle looks. */
static void wait_unhomed(M *m) {
  lock(&sched.lock);
  while (load_acq(&m->homed) && !load_rlx(&sched.stopping)) {
    m->schedlink = sched.mleaving;
    sched.mleaving = m;
    sched.lockedwait++;
    checkdead_locked();
    unlock(&sched.lock);
    notesleep(&m->park);
    noteclear(&m->park);
    lock(&sched.lock);
    sched.lockedwait--;
  }
  unlock(&sched.lock);
}

/* What an M needs that may be refused: before it takes part in anything. */
static bool minit(M *m) {
  if (!os_minit()) return false;
  if (!host->m_init || host->m_init(m)) return true;
  os_mexit();
  return false;
}

static void mend(M *m) {
  setm(NULL);
  m->errno_at = NULL;
  lock(&sched.lock);
  m->tid = 0; /* nobody sends signals any more */
  mfree_locked(m);
  if (!load_rlx(&sched.stopping)) checkdead_locked(); /* the others may have been asleep before */
  unlock(&sched.lock);
}

/* schedinit waits for its first M. */
static struct {
  M *m;
  bool ok;
  note up;
} first;

/* No M could be had for pp, which its caller has counted in nmspinning if it was to spin: pp is idle again (NULL: it
 * was taken meanwhile), and sysmon tries later, whoever sleeps meanwhile. */
static void startm_failed(P *pp, bool spinning) {
  lock(&sched.lock);
  if (pp) pidleput_locked(pp);
  store_rlx(&sched.needm, 1); /* also for those whose wake it has swallowed as a spinning one */
  unlock(&sched.lock);
  if (spinning) xadd(&sched.nmspinning, (uint32_t)-1);
  fence(); /* sysmon says that it sleeps, then looks at needm */
  sysmon_wake();
}

static void resetspinning(M *m);

/* The host may let a new M wait for a lock that somebody holds who stops the world (CPython 3.13 forks with the list of
 * thread states locked).  So it waits as host code does, its P to be taken or stopped by anybody. */
static bool minit_in_host(M *m, P *pp) {
  m->p = pp;
  m->hostmode = true;
  store_rlx(&m->g0.since, cputicks());
  if (pp) store_rel(&pp->status, PWORD(m->id, Phost));
  bool ok = minit(m);
  if (!pin(m)) m->p = NULL;
  m->hostmode = false;
  return ok;
}

static void *mstart(void *arg) {
  M *m = arg;
  bool awaited = m == first.m;
  P *pp = m->nextp;
  m->nextp = NULL;
  setm(m);
  m->tid = os_gettid();
  m->thread = pthread_self();
  m->errno_at = &errno;
  g0_init(m);
  bool ok = minit_in_host(m, pp), spinning = m->spinning;
  xadd(&sched.nstarting, (uint32_t)-1);
  pp = m->p;
  if (!ok) {
    m->p = NULL;
    m->spinning = false;
    mend(m);
    startm_failed(pp, spinning);
  } else if (pp) {
    acquirep(m, pp);
  } else if (spinning) {
    resetspinning(m); /* who pushed meanwhile saw a spinning M and woke nobody */
  }
  if (awaited) {
    first.ok = ok;
    notewakeup(&first.up);
  }
  if (!ok) return NULL;
  schedule(m);
  wait_unhomed(m);
  if (m->reap && m->host) host->m_exit(m); /* else the runtime stops, and the host is not touched again */
  os_mexit();
  mend(m);
  xadd(&counts.mreaped, 1);
  return NULL;
}

/* pp NULL: an M that waits for one.  await: no other M can be starting. */
static bool newm(P *pp, bool spinning, bool await) {
  lock(&sched.lock);
  bool may = !load_rlx(&sched.stopping) && sched.mcount - sched.nlenders < sched.maxm;
  M *m = may ? malloc_m() : NULL;
  if (m) xadd(&sched.nstarting, 1);
  unlock(&sched.lock);
  if (!m) return false;
  m->nextp = pp;
  m->spinning = spinning;
  if (await) first.m = m;
  if (os_newthread(&m->thread, M_STACK, mstart, m) == 0) {
    xadd(&counts.mspawned, 1);
    return true;
  }
  lock(&sched.lock);
  mfree_locked(m);
  xadd(&sched.nstarting, (uint32_t)-1);
  unlock(&sched.lock);
  return false;
}

/* Does the calling thread make threads like the runtime's others?  See the head of the file.  A lender never does, which
 * is asked first: its lockedg is written by the thread on which main locks itself, under the host lock.  Everybody
 * else's is its own. */
static bool unchanged(void) {
  M *m = getm();
  return m ? !m->lender && !m->lockedg && !m->reap : pthread_equal(pthread_self(), sched.sysmonthread) != 0;
}

/* Runs pp on some M.  spinning: the caller has counted it in nmspinning.  false: no M could be had; pp is
 * idle again, and the next M that is, or sysmon, sees to it. */
bool startm(P *pp, bool spinning) {
  lock(&sched.lock);
  M *m = sched.midle;
  if (m) {
    sched.midle = m->schedlink;
    sched.nmidle--;
  }
  unlock(&sched.lock);
  if (m) {
    m->spinning = spinning;
    m->nextp = pp;
    xadd(&counts.wakes, 1);
    notewakeup(&m->park);
    return true;
  }
  if (unchanged() && newm(pp, spinning, false)) return true;
  startm_failed(pp, spinning);
  return false;
}

/* The caller's push is ordered before: see the head of the file. */
void wakep(void) {
  if (load_rlx(&sched.npidle) == 0 || load_rlx(&sched.nmspinning) != 0) return;
  if (!cas(&sched.nmspinning, 0, 1)) return;
  lock(&sched.lock);
  P *pp = pidleget_locked();
  /* Under the lock: whoever saw us spin and woke nobody has pushed before, and an M that idles its P gets the
   * lock after us, so it finds that push when it looks again. */
  if (!pp) xadd(&sched.nmspinning, (uint32_t)-1);
  unlock(&sched.lock);
  if (pp) startm(pp, true);
}

/* Is there a deadline, or a descriptor that somebody waits for, and nobody sleeps in the poller for it? */
bool poller_missing(void) {
  return load_rlx(&sched.lastpoll) != 0 && (netpoll_waiters() > 0 || timers_any());
}

/* The caller, on an M without a P, has left work behind, or something that the poller must serve: an M with a
 * P looks at both before it sleeps, this one will not. */
void wake_for_rest(void) {
  fence();
  bool work = lwaiting() && !load_rlx(&sched.l.holder);
  if (work || poller_missing()) wakep();
}

/* Is native work in sight that a P could run? */
bool native_waiting(void) {
  if (load_rlx(&sched.runqsize) > 0) return true;
  for (int32_t i = 0; i < sched.gomaxprocs; i++) {
    P *pp = sched.allp[i];
    if (!runqempty(pp)) return true;
  }
  return false;
}

/* Work that a P could do, L included if nobody drives it. */
static bool work_in_sight(void) {
  return native_waiting() || (lwaiting() && !load_rlx(&sched.l.holder));
}

/* The caller gives pp away: to an M if there is anything to do with it, else to the idle list. */
void handoffp(P *pp) {
  bool work = !runqempty(pp) || work_in_sight();
  if ((work || poller_missing()) && !load_rlx(&sched.gcwaiting)) {
    store_rel(&pp->status, PWORD(0, Pidle));
    startm(pp, false);
    return;
  }
  releasep_idle(pp);
  fence(); /* work or a deadline may have come, and who slept in the poller may have left it without a P */
  if (work_in_sight() || poller_missing()) wakep();
}

/* sysmon: an M was wanted, and there was none. */
void startm_late(void) {
  if (!load_rlx(&sched.needm)) return;
  store_rlx(&sched.needm, 0);
  if (work_in_sight() || poller_missing()) wakep();
}

/* Can m run other goroutines, now or when what it runs parks or ends?  Not while that blocks, nor if it is wired:
 * the host lock guards lockedg. */
static bool taken(M *m) {
  G *gp = load_acq(&m->curg);
  if (m->lender) return false; /* not counted */
  if (m->lockedg) return true;
  return gp && (gp->kind == GK_HOST ? host->where(gp) == HOST_OUT : load_acq(&gp->status) == Gsyscall);
}

/* The host lock is held, and m is about to be lost to all goroutines but one.  Is there another M for them? */
bool spare_m(M *m) {
  lock(&sched.lock);
  uint32_t n = sched.mcount - sched.nlenders;
  for (uint32_t i = 1; i <= sched.nextmid && !sched.midle; i++) n -= sched.allm[i] == m || taken(sched.allm[i]);
  bool spare = sched.midle || n > 0;
  unlock(&sched.lock);
  return spare || newm(NULL, false, false);
}

/* ---- all asleep ------------------------------------------------------------------------------------ */

/* sched.lock held. */
static bool all_asleep_locked(void) {
  return sched.nmidle + sched.lockedwait == sched.mcount && load_rlx(&sched.nmspinning) == 0 &&
         load_rlx(&sched.runqsize) == 0 && load_rlx(&sched.nblocked) == 0 && !lwaiting() &&
         !timers_any() && netpoll_waiters() == 0;
}

/* Is the runtime still in the sleep that `epoch` named? */
bool sched_asleep(uint32_t epoch) {
  lock(&sched.lock);
  bool yes = load_rlx(&sched.idle_epoch) == epoch && all_asleep_locked();
  unlock(&sched.lock);
  return yes;
}

/* sched.lock held, an M has just been counted as asleep. */
static void checkdead_locked(void) {
  if (all_asleep_locked()) host->all_asleep(xadd(&sched.idle_epoch, 1) + 1);
}

/* Sleeps without a P until somebody gives one. */
void stopm(M *m) {
  if (load_rlx(&sched.stopping)) return;
  lock(&sched.lock);
  P *left = load_rlx(&sched.needm) ? pidleget_locked() : NULL;
  if (unlikely(left != NULL)) { /* nobody was there to take it */
    store_rlx(&sched.needm, 0);
    unlock(&sched.lock);
    acquirep(m, left);
    return;
  }
  m->idlesince = nanotime();
  m->schedlink = sched.midle;
  sched.midle = m;
  sched.nmidle++;
  checkdead_locked();
  unlock(&sched.lock);
  notesleep(&m->park);
  noteclear(&m->park);
  if (m->nextp) {
    P *pp = m->nextp;
    m->nextp = NULL;
    acquirep(m, pp);
  }
}

/* sysmon: ends Ms that have been idle for long.  The oldest idle are at the list's end. */
void mreap_idle(int64_t now) {
  lock(&sched.lock);
  M **at = &sched.midle;
  for (M *m; (m = *at) != NULL;) {
    if (sched.nmidle <= 2 || load_rlx(&m->homed) || now - m->idlesince < (int64_t)M_IDLE_REAP_S * 1000000000) {
      at = &m->schedlink;
      continue;
    }
    *at = m->schedlink;
    sched.nmidle--;
    m->reap = true;
    notewakeup(&m->park);
  }
  at = &sched.mleaving;
  for (M *m; (m = *at) != NULL;) {
    if (load_acq(&m->homed)) {
      at = &m->schedlink;
      continue;
    }
    *at = m->schedlink;
    notewakeup(&m->park);
  }
  unlock(&sched.lock);
}

/* ---- finding work ---------------------------------------------------------------------------------- */

static bool lacquire(M *m) {
  return lwaiting() && !load_rlx(&sched.l.holder) && cas(&sched.l.holder, (M *)NULL, m);
}

/* Found work while spinning: the next wake-up is this M's duty.  Whoever pushed meanwhile, native or hosted,
 * saw a spinning M and woke nobody. */
static void resetspinning(M *m) {
  m->spinning = false;
  xadd(&sched.nmspinning, (uint32_t)-1);
  fence();
  if (work_in_sight()) wakep();
}

/* Found work without spinning.  What this M itself has made runnable while it looked (deadlines, descriptors) woke
 * nobody: native work lay alone in its runnext, and hosted work was its own to find (lpush_inbox).  It has picked
 * one of the two; who runs the other, if this one runs for long? */
static void wake_for_others(M *m, bool hosted) {
  if (hosted ? runqempty(m->p) : !lwaiting()) return;
  fence();
  if (hosted || !load_rlx(&sched.l.holder)) wakep();
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
static G *look(M *m, bool *hosted) {
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
    netpoll(0);
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
  m->spinning = true;
  xadd(&sched.nmspinning, 1);
  return true;
}

/* A P for an M that found work after it had given its own up. */
static bool retakep(M *m) {
  P *pp = pidleget();
  if (!pp) return false;
  acquirep(m, pp);
  if (!m->spinning) {
    m->spinning = true;
    xadd(&sched.nmspinning, 1);
  }
  return true;
}

/* Sleeps in the poller if nobody does and somebody must.  True: woken with a P. */
static bool sleep_in_poller(M *m) {
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
  if (next == INT64_MAX || delay > 0) netpoll(delay);
  /* Counted as spinning while it is about to look: keeps the wakep() of its own timers quiet. */
  m->spinning = true;
  xadd(&sched.nmspinning, 1);
  store_rlx(&sched.polluntil, 0);
  store_rel(&sched.lastpoll, nanotime());
  bool got = retakep(m);
  int64_t now = nanotime(); /* all heaps: those of busy and of idle Ps too, nobody else sleeps for them */
  for (int32_t i = 0; i < sched.gomaxprocs; i++) timers_run(&sched.allp[i]->timers, now);
  timers_run(&sched.l.timers, now);
  if (got) return true;
  m->spinning = false;
  xadd(&sched.nmspinning, (uint32_t)-1);
  fence(); /* whoever had work for us, or left us the poller, saw a spinning M and woke nobody */
  if (work_in_sight() || poller_missing()) wakep();
  return false;
}

/* The P has been given up: is there anything after all?  See the head of the file. */
static bool look_again(M *m) {
  bool was = m->spinning;
  if (was) {
    m->spinning = false;
    xadd(&sched.nmspinning, (uint32_t)-1);
  }
  fence();
  if (!work_in_sight()) return false;
  return retakep(m);
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
    G *gp = look(m, hosted);
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

/* A thread with a goroutine wired to it counts as idle while it waits for that to become runnable. */
static void wired_asleep(bool asleep) {
  lock(&sched.lock);
  sched.lockedwait += asleep ? 1 : (uint32_t)-1;
  if (asleep) checkdead_locked();
  unlock(&sched.lock);
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
  if (m->spinning) {
    m->spinning = false;
    xadd(&sched.nmspinning, (uint32_t)-1);
  }
  if (m->p) {
    P *pp = m->p;
    m->p = NULL;
    if (load_rlx(&sched.stopping))
      releasep_idle(pp); /* to nobody */
    else
      handoffp(pp); /* what locked this thread has ended */
  }
}

/* ---- wired goroutines ------------------------------------------------------------------------------ */

/* A hosted goroutine locked to an M runs there with the host lock alone, without P and licence, like one
 * whose blocking call has returned.  Whoever picks it hands it to that M and drops the host lock. */
void wire(G *gp, M *m) {
  gp->lockedm = m;
  m->lockedg = gp;
}

void unwire(G *gp) {
  M *m = gp->lockedm;
  gp->lockedm = NULL;
  m->lockedg = NULL;
}

/* gp, wired to m, has ended.  If it had locked the thread, nobody shall meet what it has done to it: the thread ends,
 * too.  A lender's does not: it is the caller's of run(), who gets it back as main has left it. */
void unwire_ended(M *m, G *gp) {
  unwire(gp);
  if (gp->locked && !m->lender) m->reap = true;
  gp->locked = 0;
}

/* From now on m is not asleep, though its thread may take a while to notice: else everybody might be. */
void wake_wired(M *m, G *gp) {
  wired_asleep(false);
  store_rel(&m->wiredg, gp);
  if (m->lender)
    host->wake_lender(m);
  else
    notewakeup(&m->park);
}

/* On the g0 of an M with a goroutine wired to it: sleep until that is runnable, run it, come back when
 * it has parked.  false: the runtime stops. */
bool run_wired(M *m) {
  if (m->p) {
    P *pp = m->p;
    m->p = NULL;
    handoffp(pp);
  }
  if (!m->lender) {
    wired_asleep(true); /* until wake_wired, which may have been here first */
    notesleep(&m->park);
    noteclear(&m->park);
  }
  if (load_rlx(&sched.stopping)) {
    if (!m->lender && !load_rlx(&m->wiredg)) wired_asleep(false);
    return false;
  }
  G *gp = xchg(&m->wiredg, NULL);
  if (!gp) return true; /* a lender that has looked in vain */
  m->hostmode = true;
  host->attach(m);
  execute(m, gp);
  host->detach(m);
  m->hostmode = false;
  wake_for_rest();
  if (m->lender) wired_asleep(true);
  return true;
}

/* The thread that waits in run() is an M while its main goroutine is locked to it. */
M *lender_m(void) {
  lock(&sched.lock);
  M *m = malloc_m();
  if (m) {
    sched.nlenders++;
    sched.lockedwait++; /* it waits, and is no reason against "all asleep" */
  }
  unlock(&sched.lock);
  if (!m) return NULL;
  m->lender = true;
  m->p = NULL;
  m->lockedg = NULL;
  m->spinning = false;
  m->thread = pthread_self();
  m->tid = os_gettid();
  m->errno_at = &errno;
  g0_init(m);
  return m;
}

void lender_m_free(M *m) {
  m->lender = false;
  m->errno_at = NULL;
  m->host = NULL;
  lock(&sched.lock);
  m->tid = 0;
  sched.lockedwait--;
  sched.nlenders--;
  mfree_locked(m);
  unlock(&sched.lock);
}

/* ---- blocking calls of native goroutines ------------------------------------------------------------ */

void entersyscallblock(void) {
  M *m = getm();
  G *gp = m ? load_rlx(&m->curg) : NULL;
  if (!gp || gp->kind != GK_NATIVE) return;
  xadd(&sched.nblocked, 1);
  casgstatus(gp, Grunning, Gsyscall);
  P *pp = m->p;
  m->p = NULL;
  xadd(&counts.handoffs, 1);
  handoffp(pp);
}

/* The goroutine on m, hosted, detached, is about to block for certain: what sysmon would do after two looks. */
void entersyscall_host(M *m) {
  P *pp = m->p;
  bool had = pp && cas(&pp->status, PWORD(m->id, Phost), PWORD(0, Pidle));
  bool drove = cas(&sched.l.holder, m, (M *)NULL);
  if (!had && !drove) return;
  xadd(&counts.handoffs, 1);
  if (had)
    handoffp(pp);
  else
    wake_for_rest();
}

static void exitsyscall_commit(M *m, G *gp) {
  (void)m;
  casgstatus(gp, Gsyscall, Grunnable);
  lock(&sched.lock);
  globrunqput(gp);
  unlock(&sched.lock);
  fence_after_rmw();
  wakep();
}

void exitsyscall(void) {
  M *m = getm();
  G *gp = m ? load_rlx(&m->curg) : NULL;
  if (!gp || gp->kind != GK_NATIVE) return;
  xadd(&sched.nblocked, (uint32_t)-1);
  P *pp = pidleget();
  if (pp) {
    acquirep(m, pp);
    casgstatus(gp, Gsyscall, Grunning);
    return;
  }
  leave_to_g0(gp, exitsyscall_commit);
}

static bool base, monitored; /* schedinit has set up what is never made again; sysmon runs */

/* ---- start and stop --------------------------------------------------------------------------------- */

static const host_t host_none = {.name = "none", .stack_size = 256 << 10};
static bool none_false(void) { return false; }
static void none_asleep(unsigned epoch) { (void)epoch; }

static void base_init(void) {
  time_init();
  chaos_init();
  os_init_signals();
  preempt_init();
  stack_init();
  sched.l.timers.lock.rank = rank_timers;
  store_rlx(&sched.l.timers.next, INT64_MAX);
  store_rlx(&sched.lastpoll, nanotime());
  base = true;
}

/* One M from the start: if no thread can be had, the caller hears of it before anything is queued. 0 or an errno.  In a
 * forked child sysmon may have started one already, and its goroutine has come to the end of the process. */
static int first_m(void) {
  P *pp = pidleget();
  if (!pp) return 0;
  noteclear(&first.up);
  if (!newm(pp, false, true)) {
    releasep_idle(pp);
    return load_acq(&sched.stopping) ? 0 : EAGAIN;
  }
  notesleep(&first.up);
  first.m = NULL;
  return first.ok ? 0 : ENOMEM;
}

/* Starts the runtime: once, by a thread that keeps others out (Python: the GIL).  false: errno says what is refused;
 * what has been made stays, and the next call goes on from there.  In a forked child it starts what that needs. */
bool schedinit(void) {
  if (load_acq(&sched.started)) return true;
  static host_t none;
  if (!host) {
    none = host_none;
    none.locked = none_false;
    none.all_asleep = none_asleep;
    host = &none;
  }
  if (!base) base_init();
  if (netpollinit() != 0) return false;
  if (sched.gomaxprocs == 0 && !procresize(gomaxprocs_default())) {
    errno = ENOMEM;
    return false;
  }
  int err = monitored ? 0 : os_newthread(&sched.sysmonthread, M_STACK, sysmon_main, NULL);
  if (!err) {
    monitored = true;
    err = first_m();
  }
  if (err) {
    errno = err;
    return false;
  }
  store_rel(&sched.started, true);
  return true;
}

/* No M touches the host any more.  Those asleep end now, those in host code when they next look for work:
 * a thread that stayed would keep the process alive when the main thread ends without exit(), as it does if
 * CPython 3.11 takes down a subinterpreter at its own end.
 *
 * Those whose threads are about to start come to the host first of all (minit); who takes it down waits until there
 * are none (nstarting).  No more follow: newm looks at `stopping` under the lock. */
void schedstop(void) {
  lock(&sched.lock);
  store_rel(&sched.stopping, true);
  for (uint32_t i = 1; i <= sched.nextmid; i++) notewakeup(&sched.allm[i]->park);
  sched.midle = NULL;
  sched.nmidle = 0;
  unlock(&sched.lock);
  sysmon_wake();
  netpollbreak();
}

/* In a forked child the tables are set up, and no thread runs: the next schedinit starts them. */
void sched_restart(void) {
  monitored = false;
  store_rlx(&sched.started, false);
}

/* A new native goroutine, runnable.  NULL: no memory. */
G *newproc_native(void (*fn)(void *), void *arg) {
  M *m = getm();
  bool local = m && m->p && !m->hostmode;
  G *gp = gfget_native(local ? m->p : NULL);
  if (!gp) return NULL;
  static _Thread_local uint64_t cache, end;
  if (local)
    goid_assign(gp, &m->p->goidcache, &m->p->goidcacheend);
  else
    goid_assign(gp, &cache, &end);
  gp->fn = fn;
  gp->arg = arg;
  xadd(&counts.started, 1);
  casgstatus(gp, Gdead, Grunnable);
  if (local) {
    bool behind = load_rlx(&m->p->runnext) != NULL;
    runqput(m->p, gp, true);
    if (behind) {
      fence();
      wakep();
    }
  } else {
    lock(&sched.lock);
    globrunqput(gp);
    unlock(&sched.lock);
    fence_after_rmw();
    wakep();
  }
  return gp;
}
