/* sysmon.c - the monitor: a thread without a P that takes Ps back from Ms that block.
 *
 * Each round it looks at
 *   - Ps in host code whose goroutine is detached (blocked in C without the host lock): seen so in two
 *     looks 20 us apart, with the same switch count and within the same call (the host counts how often it
 *     drops its lock: Go's syscalltick), P and licence are taken and handed off.  A host that
 *     cannot tell whether a detached thread blocks or merely waits for the host lock says HOST_UNKNOWN: that
 *     counts only if the lock was free in both looks, or after 10 ms of the same detachment;
 *   - Ps whose driver has run one goroutine for a slice: if hosted goroutines wait it is asked to yield
 *     (preempt.c); if that is no use it loses P and licence, and shares the host lock with the next driver
 *     as two threads do; if only native work waits and no P idles it loses the P.  So does a driver that has
 *     waited for the host lock as long, or C code that keeps the lock would stop native goroutines;
 *   - the driver, if it has no P any more: it may block all the same;
 *   - hosted goroutines that run beside the driver, their call having returned, or because they did not answer:
 *     after a slice they are asked to get in line (each would cost a thread and a share of the host lock);
 *   - slices: a P or L whose tick stands still for 10 ms gets `expired`, and the pair that shares runnext
 *     gives way;
 *   - timers and the poller, when every M is busy;
 *   - work behind a running goroutine that woke nobody for it (goready).
 *
 * Its pace: 20 us at most attentive, doubled after 50 rounds in which it took nothing, up to 10 ms, or
 * 1 ms while work waits behind a running goroutine, or the driver switches; never past the end of that one's slice, nor
 * past the next timer that nobody else would serve; 20 us after a first blocked look.  With all Ps idle and
 * nobody driving it sleeps until an M wakes it.
 *
 * That sleep.  sysmon:  clear the note; sysmonwait (release); fence; is there anything for it?
 *              others:  what there is; sysmon_wake, or, if it is a P that they have taken: sysmonwait? sysmon_wake
 * - Release: before `sysmonwait` is seen the note has been cleared.  Seen the other way round, the wake-up is cleared
 *   with it, and sysmon sleeps for ten seconds.  (Stores stay in order on x86, not on ARM.)
 * - sysmon_wake exchanges, whatever it finds.  Before `true`: sysmon's look, behind a fence, sees what the caller has
 *   stored, for the exchange is a release.  After it: it wakes.
 * - acquirep only loads, behind two read-modify-writes, with a load that is sequentially consistent, like those.  So
 *   it is not satisfied before the P is seen to be taken.
 * A P and a licence that sysmon has taken itself: licence.c.  Litmus tests: tests/models/litmus. */
#include "arch/arch.h"
#include "base/clock.h"
#include "base/memory.h"
#include "sched/hibernate.h"
#include "sched/sched.h"
#include "sched/netpoll.h"

static bool behind(void) { return lwaiting() || native_waiting(); }

/* The time of switches goes on, but never back: who has stored another one meanwhile has looked later (park.c). */
static void stamp(void) {
  uint64_t seen = load_rlx(&sched.l.now), now = cputicks();
  if ((int64_t)(now - seen) > 0) cas(&sched.l.now, seen, now);
}

/* A look at the M that runs host code on pp.  True: blocked, for the second time. */
static bool blocked(M *m, int64_t now, bool *first) {
  G *gp = load_acq(&m->curg);
  uint32_t switches = load_rlx(&m->switches), drops = load_rlx(&m->drops);
  host_where at = gp && gp->kind == GK_HOST ? host->where(gp) : HOST_INSIDE;
  if (at == HOST_INSIDE || at == HOST_WANTS) {
    m->seen_out = false;
    return false;
  }
  bool unlocked = !host->locked();
  if (!m->seen_out || m->seen_g != gp || m->seen_switches != switches || m->seen_drops != drops) {
    m->seen_out = true;
    m->seen_drops = drops;
    m->seen_g = gp;
    m->seen_switches = switches;
    m->seen_since = now;
    m->seen_unlocked = unlocked;
    *first = true;
    return false;
  }
  bool sure = at == HOST_OUT || (m->seen_unlocked && unlocked);
  if ((sure && now - m->seen_since >= 20000) || now - m->seen_since >= DETACHED_NS) return true;
  m->seen_unlocked = unlocked;
  *first = true;
  return false;
}

/* Takes pp, and the licence if `licence`, from the M in host code that `word` names. */
static bool takep(P *pp, uint64_t word, M *m, bool licence) {
  if (!cas(&pp->status, word, PWORD(0, Pidle))) return false;
  if (licence) cas(&sched.l.holder, m, (M *)NULL);
  xadd(&counts.handoffs, 1);
  m->seen_out = false;
  pp->nativefirst = true; /* its turn of Python is over */
  handoffp(pp);
  return true;
}

/* A slice is timed here, not by who switches: it began, as far as is known, a millisecond before the look that first sees
 * it, or at the look before.  now: the time of this look. */
static void time_slice(M *m, int64_t now, int64_t before) {
  uint32_t switches = load_rlx(&m->switches);
  if (m->slice_switches == switches) return;
  m->slice_switches = switches;
  m->slice_since = now - before < SYSMON_BUSY_US * 1000 ? before : now - SYSMON_BUSY_US * 1000;
}

/* How long has m been in one stretch of host code: in one goroutine, or on g0, which waits for the host lock?
 * A goroutine that waits for it is in none. */
static int64_t stretch(M *m, int64_t now) {
  G *gp = load_acq(&m->curg);
  if (!gp) return ticks_to_ns(cputicks() - load_rlx(&m->g0.since));
  if (gp->kind != GK_HOST || host->where(gp) != HOST_INSIDE) return 0;
  return m->slice_switches == load_rlx(&m->switches) ? now - m->slice_since : 0;
}

/* The driver m hogs and others wait: it is asked to yield, again and again.  false: it cannot be asked, or has not
 * answered for some slices; then it shall share the host lock with another M. */
static bool preempted(M *m, int64_t now) {
  if (!load_rlx(&m->preempt) || load_rlx(&m->preempt_at) != load_rlx(&m->switches)) m->preempt_since = now;
  return preemptone(m) && now - m->preempt_since < PATIENT_SLICES * SLICE_NS;
}

/* Shall m lose the licence to those who wait?  Not on g0: the next driver would only wait for the lock, too. */
static bool hogs(M *m, int64_t now) {
  return load_rlx(&m->curg) && lwaiting() && stretch(m, now) >= SLICE_NS && !preempted(m, now);
}

/* A driver that has lost its P alone, and then blocks, stands in no P's word: it loses the licence.
 * (Without this look all hosted goroutines would wait for its call: models/licence.pml,
 * BROKEN_LICENCE_NEEDS_P.) */
static uint32_t retake_licence(M *m, int64_t now, bool *first) {
  bool take = blocked(m, now, first) || hogs(m, now);
  if (!take || !cas(&sched.l.holder, m, (M *)NULL)) return 0;
  xadd(&counts.handoffs, 1);
  m->seen_out = false;
  wake_for_rest();
  return 1;
}

/* Returns how many Ps, or the licence alone, were taken.  before: when that was last asked. */
static uint32_t retake(int64_t now, int64_t before, bool *first) {
  uint32_t n = 0;
  M *driver = load_acq(&sched.l.holder); /* acquire: it may be brand new */
  for (int32_t i = 0; i < sched.gomaxprocs; i++) {
    P *pp = sched.allp[i];
    uint64_t w = load_acq(&pp->status);
    if (PSTATE(w) == Prunning) {
      uint32_t tick = load_rlx(&pp->schedtick);
      if (tick != pp->seen_tick) {
        pp->seen_tick = tick;
        pp->seen_when = now;
      } else if (now - pp->seen_when >= SLICE_NS) {
        store_rlx(&pp->expired, true);
        if (behind()) preemptone(sched.allm[PMID(w)]); /* until the tick moves */
      }
      continue;
    }
    if (PSTATE(w) != Phost) continue;
    M *m = sched.allm[PMID(w)];
    if (m == driver) driver = NULL; /* looked at here */
    time_slice(m, now, before);
    if (blocked(m, now, first) || hogs(m, now))
      n += takep(pp, w, m, true);
    else if (stretch(m, now) >= SLICE_NS && native_waiting() && load_rlx(&sched.npidle) == 0)
      n += takep(pp, w, m, false);
  }
  if (driver) {
    time_slice(driver, now, before);
    n += retake_licence(driver, now, first);
  }
  return n;
}

/* The M other than the driver that has the host lock. */
static M *inside_besides(M *driver) {
  M *found = NULL;
  lock(&sched.lock);
  for (uint32_t i = 1; i <= sched.nextmid && !found; i++) {
    M *m = sched.allm[i];
    G *gp = m != driver ? load_acq(&m->curg) : NULL;
    if (gp && gp->kind == GK_HOST && host->where(gp) == HOST_INSIDE) found = m;
  }
  unlock(&sched.lock);
  return found;
}

/* A hosted goroutine that runs without the licence, while others wait for the host lock or their turn. */
static bool strays(int64_t now) {
  static int64_t looked;
  M *driver = load_acq(&sched.l.holder);
  if (now - looked < (int64_t)SYSMON_BUSY_US * 1000 || (!driver && !lwaiting())) return false;
  looked = now;
  M *m = inside_besides(driver);
  if (!m) return false;
  uint32_t switches = load_rlx(&m->switches);
  if (m->stray_switches != switches) {
    m->stray_switches = switches;
    m->stray_since = now;
  } else if (now - m->stray_since >= SLICE_NS) {
    preemptone(m);
  }
  return true;
}

static void slice_of_l(int64_t now) {
  L *l = &sched.l;
  uint32_t tick = load_rlx(&l->schedtick);
  if (tick != l->seen_tick) {
    l->seen_tick = tick;
    l->seen_when = now;
  } else if (now - l->seen_when >= SLICE_NS) {
    store_rlx(&l->expired, true);
    l->seen_when = now;
  }
}

/* When all Ms are busy nobody sleeps in the poller: sysmon serves timers and descriptors. */
static void poll_late(int64_t now) {
  int64_t last = load_rlx(&sched.lastpoll);
  if (last == 0) return;
  for (int32_t i = 0; i < sched.gomaxprocs; i++) {
    P *pp = sched.allp[i];
    if (load_rlx(&pp->timers.next) <= now) timers_run(&pp->timers, now);
  }
  if (load_rlx(&sched.l.timers.next) <= now) timers_run(&sched.l.timers, now);
  if (netpoll_waiters() > 0 && now - last >= SYSMON_POLL_NS) {
    if (cas(&sched.lastpoll, last, now)) injectglist(netpoll(0));
  }
}

static void *dump_thread(void *arg) {
  (void)arg;
  host->dump();
  return NULL;
}

/* All Ps idle, and no driver that has lost its own (to native work, or to a smaller GOMAXPROCS) and may block or hog:
 * nothing can expire.  A new driver takes a P first, and that wakes sysmon.  Nor is an M owed that could not be had.
 * Acquire: what was stored before the last P was given up is seen, too. */
static bool all_rest(void) {
  return load_acq(&sched.npidle) == (uint32_t)load_rlx(&sched.gomaxprocs) && !load_rlx(&sched.l.holder) &&
         !load_rlx(&sched.needm);
}

/* Of the next driver; when all rest, of one that comes for that. */
static void call_for(_Atomic bool *what) {
  store_rlx(what, true);
  if (!all_rest()) return;
  store_rlx(&sched.l.call, true);
  fence();
  wakep();
}

/* After a crowd of `arg`. */
static void *tidy_thread(void *arg) {
  gtrim_slabs();
  stacks_tidy();
  if (os_resident() / HEAP_SHARE <= (uintptr_t)arg) os_heap_trim();
  return NULL;
}

/* What a crowd has left goes a second later, unless there is another one by then: some host states in each millisecond, a
 * tenth of that while others run Python.  In the end its Gs go, the page tables of its stacks, and what the C library's
 * heap has between the pieces: when all rest, for that keeps them from the heap, 0.1 ms for each megabyte of it (so
 * not if most of it is the program's); and on a thread of its own, for sysmon has others to look after. */
static void shed(int64_t now) {
  L *l = &sched.l;
  pthread_t t;
  uintptr_t crowd = l->shed_asked * STATES_BATCH;
  if (!gtrim_left()) {
    l->shed_due = INT64_MAX;
    if (crowd > 0 && crowd < CROWD_LEAST) l->shed_asked = 0; /* not worth it */
    if (crowd >= CROWD_LEAST && all_rest() && os_newthread(&t, 1 << 20, tidy_thread, (void *)crowd) == 0) l->shed_asked = 0;
  } else if (l->shed_due == INT64_MAX) {
    l->shed_due = now + (int64_t)SHED_S * 1000000000;
  } else if (now >= l->shed_due) {
    l->shed_due = now + (all_rest() ? SYSMON_BUSY_US : SYSMON_MAX_US) * 1000;
    l->shed_asked++;
    call_for(&l->shed);
  }
}

static void errands(int64_t now, int64_t *reaped) {
  if (load_rlx(&sched.dumpreq) && xchg(&sched.dumpreq, false) && host->dump) {
    pthread_t t;
    os_newthread(&t, 1 << 20, dump_thread, NULL);
  }
  netpollrepair();
  startm_late();
  if (load_rlx(&sched.npidle) > 0 && work_in_sight()) wakep(); /* L's too: who pushed may have seen a driver that had
    just lost the licence */
  if (load_rlx(&sched.l.cold)) gtrim_some();
  if (load_rlx(&sched.l.ndrop) > 0) hibernate_drop();
  if (hibernate_due(now)) call_for(&sched.l.doze);
  shed(now);
  if (now - *reaped >= (int64_t)AUDIT_S * 1000000000) {
    *reaped = now;
    mreap_idle(now);
    netpollaudit();
    os_check_signals();
  }
}

void sysmon_wake(void) {
  if (xchg(&sched.sysmonwait, false)) notewakeup(&sched.sysmonnote);
}

static void deep_sleep(void) {
  noteclear(&sched.sysmonnote);
  store_rel(&sched.sysmonwait, true);
  fence();
  if (all_rest() && !load_rlx(&sched.stopping) && !load_rlx(&sched.dumpreq) &&
      !load_rlx(&sched.l.cold) && load_rlx(&sched.l.ndrop) == 0 && !netpoll_broken()) {
    int64_t doze = hibernate_next(), now = nanotime(), due = doze < sched.l.shed_due ? doze : sched.l.shed_due;
    bool nap = netpoll_unaudited() || due != INT64_MAX;
    int64_t most = (int64_t)(nap ? AUDIT_S : M_IDLE_REAP_S) * 1000000000;
    if (due < now + most) most = due > now ? due - now : 1;
    if (!notetsleep(&sched.sysmonnote, most) && !nap && load_rlx(&sched.l.idle_units) > GFREE_KEEP)
      call_for(&sched.l.trim); /* idle for long: stacks are given back */
  }
  store_rlx(&sched.sysmonwait, false);
}

static int64_t pace(int64_t delay, int64_t now, uint32_t idle, bool stray) {
  if (idle > SYSMON_IDLE_ROUNDS) delay *= 2;
  if (load_rlx(&sched.l.cold) || load_rlx(&sched.l.ndrop) > 0) return SYSMON_MIN_US * 1000; /* stacks to give back */
  M *driver = load_acq(&sched.l.holder); /* acquire: it may be brand new */
  bool lively = driver && now - driver->slice_since <= SYSMON_BUSY_US * 1000;
  int64_t most = (stray || lively || behind() ? SYSMON_BUSY_US : SYSMON_MAX_US) * 1000;
  if (delay > most) delay = most;
  if (driver && behind()) { /* not past the end of its slice */
    int64_t rest = SLICE_NS - stretch(driver, now);
    if (rest > 0 && rest < delay) delay = rest;
  }
  if (load_rlx(&sched.lastpoll) != 0) { /* nobody else serves these */
    int64_t next = timers_next(), left = next == INT64_MAX ? INT64_MAX : next - now;
    if (driver_polls() && left < SYSMON_BUSY_US * 1000) left = SYSMON_BUSY_US * 1000; /* that one looks, and oftener */
    if (left < delay) delay = left;
    if (netpoll_waiters() > 0 && delay > SYSMON_POLL_NS) delay = SYSMON_POLL_NS;
  }
  return delay < SYSMON_MIN_US * 1000 ? SYSMON_MIN_US * 1000 : delay;
}

void *sysmon_main(void *arg) {
  (void)arg;
  os_minit();
  uint32_t idle = 0;
  int64_t delay = SYSMON_MIN_US * 1000, reaped = nanotime(), before = reaped;
  while (!load_acq(&sched.stopping)) {
    int64_t now = nanotime();
    bool first = false;
    stamp();
    poll_late(now);
    if (retake(now, before, &first) > 0)
      idle = 0;
    else
      idle++;
    before = now;
    bool stray = strays(now);
    slice_of_l(now);
    errands(now, &reaped);
    if (idle > 0 && all_rest()) { /* not in a round that has taken a licence: licence.c */
      deep_sleep();
      idle = 0;
      delay = SYSMON_MIN_US * 1000;
      continue;
    }
    if (idle == 0) delay = SYSMON_MIN_US * 1000;
    delay = pace(delay, now, idle, stray);
    int64_t us = (first ? SYSMON_MIN_US * 1000 : delay) / 1000;
    os_usleep((uint32_t)us);
  }
  return NULL;
}
