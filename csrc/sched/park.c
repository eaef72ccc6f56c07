/* park.c - leaving a stack and entering another: gopark, goready, gosched, goexit, cancel.
 *
 * A goroutine that parks switches directly to the next one; there is no detour over g0 unless nothing is
 * runnable or the kind of work changes.  What must happen after its context is saved (open the wait,
 * arm the deadline, unlock the channel, push it to a queue, put it into the pool) is left in the M as
 * `commit` and done by whoever lands: the next goroutine, on its own stack, before anything else.
 *
 * Invariants.
 *  1. A stack is entered only after its leaver has left it: every publication of a G is in a commit.  (A
 *     goroutine that ends may pass its stack to the next, new one, which then goes on with it: pass_on.)
 *  2. A wait is opened (S set) by the lander, claimed by exactly one CAS, and its winner alone makes the
 *     G runnable.  seq grows with each wait, so a waiter of an earlier wait claims nothing.
 *  3. The first publishing instruction of a commit is its last access to the G: arming the deadline or
 *     unlocking the object may let it run elsewhere.  Exception: a native select reads the waiters of
 *     channels it has not unlocked yet, and the woken G cannot pass those locks (select.c).
 *  4. A commit allocates nothing for what it finishes, and runs no host code but the `after` of a main
 *     goroutine.  It takes the lock of a timer heap or sched.lock (`after`: of the lenders), never an object's.
 *     What it makes ready may start an M (wakep), as its last act; if that is refused sysmon tries again, and
 *     nothing is lost.
 *
 * Order: the lander's CAS that sets S comes after the save (same thread, and the CAS is a release); the
 * claimer's CAS is an acquire; the claimer's push (release) and the next owner's pop (acquire) carry the
 * G on.  Deadlines are armed after the open: armed before, a timer that fires at once would find S clear
 * and its wake would be lost.
 *
 * The deadline and cancel claim without the object's lock.  The waiter then still stands in the object's
 * queue; the owner unlinks it when it runs again, and a waker that meets it before loses the CAS and goes
 * on to the next.
 *
 * Time.  A direct switch of hosted goroutines does not read the clock, which took a seventh of it (12 of 89 ns): what it
 * notes, and adds to what a goroutine has run, is L.now, when somebody last looked.  sysmon does in each of its rounds,
 * and it does not sleep while there is a driver; and who comes from g0 or goes there does.  So it stands still for a round
 * of sysmon at the most: a millisecond where switches follow each other.  Who is switched in between has run for
 * nothing, and who is met by the next look for all of it, which evens out.  It never runs backwards: it is stored with the
 * host lock in hand, or by sysmon with a CAS on what stood there before its look.
 *
 * Rejected: a hop over g0 for each park (Go's mcall; 2 switches instead of 1), and opening the wait before
 * the switch (two Ms run one stack: the Spin model in tests/models finds it in a few steps). */
#include "arch/arch.h"
#include "base/clock.h"
#include "sched/sched.h"
#include "sched/park.h"

#ifdef GM_TSAN
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
#endif
#ifdef GM_ASAN
void __asan_unpoison_memory_region(void const volatile *at, size_t size);
void __sanitizer_start_switch_fiber(void **save, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *fake, const void **bottom, size_t *size);
#endif

/* ---- the switch ---------------------------------------------------------------------------------- */

static inline void stackswitch(G *from, G *to) {
#ifdef GM_TSAN
  __tsan_switch_to_fiber(to->fiber, 0);
#endif
#ifdef GM_ASAN
  __sanitizer_start_switch_fiber(&from->fake_stack, to->stk.lo, (size_t)(to->stk.hi - to->stk.lo));
#endif
  gm_switch(&from->sp, to->sp);
#ifdef GM_ASAN
  __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#endif
}

/* The same, for a host that waits on a stack of its own. */
void waitstack_switch(G *from, G *to) { stackswitch(from, to); }

/* First thing wherever a switch can arrive: finish what the leaver left. */
void land(M *m) {
  G *prev = m->prev;
  if (!prev) return; /* g0 has no business left */
  m->prev = NULL;
  m->commit(m, prev);
}

/* Leaves gp's stack for next's, or for g0. The caller lands when it comes back.  Inlined by force, as what else is on the way of
 * each switch: the compiler made functions of it, 20 instructions. */
static force_inline void leave(M *m, G *gp, G *next) {
  bool hosted = gp->kind == GK_HOST, toG0 = next == &m->g0;
  uint64_t now = 0;
  if (hosted) { /* time is kept for hosted goroutines only */
    now = toG0 ? look_at_clock() : switch_time();
    goroutine_ran(gp, now);
  }
  m->prev = gp;
  inc_rlx(&m->switches);
  if (!toG0) {
    if (unlikely(!next->sp)) gbind(next);
    next->m = m;
    store_rlx(&next->since, now);
    casgstatus(next, Grunnable, Grunning);
  }
  if (hosted) host->swap(m, gp, toG0 ? NULL : next);
  store_rel(&m->curg, toG0 ? NULL : next); /* release: sysmon looks at a G that may be brand new */
  stackswitch(gp, next);
}

/* The same; returns when gp runs again, on whichever M that is. */
static force_inline void switchto(M *m, G *gp, G *next) {
  leave(m, gp, next);
  land(gp->m); /* gp->m: not `m`, which may be another thread's by now */
}

/* On g0: run gp until it comes back. */
void execute(M *m, G *gp) {
  if (!gp->sp) gbind(gp);
  gp->m = m;
  if (gp->kind == GK_HOST) store_rlx(&gp->since, look_at_clock());
  inc_rlx(&m->switches);
  casgstatus(gp, Grunnable, Grunning);
  if (gp->kind == GK_HOST) host->swap(m, NULL, gp);
  store_rel(&m->curg, gp);
  stackswitch(&m->g0, gp);
  land(m); /* g0 never changes its M */
}

/* Who runs after gp: one of the same kind, or g0 to sort it out. */
static force_inline G *picknext(M *m, G *gp) {
  if (unlikely(gp->lockedm != NULL)) return &m->g0;
  G *next = gp->kind == GK_HOST ? lget(m) : pget(m);
  if (unlikely(!next)) return &m->g0;
  if (unlikely(next->lockedm != NULL)) {
    m->nextg = next;
    return &m->g0;
  }
  return next;
}

/* ---- the wait word ------------------------------------------------------------------------------- */

/* The seq that gp's next wait will have: what its waiters are linked with. */
uint64_t wait_next(G *gp) { return (load_rlx(&gp->wait) & WAIT_SEQMASK) + WAIT_SEQ; }

/* Claims the wait `seq` of gp.  True for exactly one caller, who must make gp ready. */
bool wait_claim(G *gp, uint64_t seq) {
  uint64_t w = seq | WAIT_S;
  if (likely(atomic_compare_exchange_strong(&gp->wait, &w, seq))) return true;
  while ((w & (WAIT_SEQMASK | WAIT_S)) == (seq | WAIT_S)) /* with N, and perhaps a cancel that it put off */
    if (atomic_compare_exchange_weak(&gp->wait, &w, w & ~(WAIT_S | WAIT_N))) return true;
  return false;
}

/* Claims whatever wait is open, unless it is none that `result` may end. */
bool wait_claim_open(G *gp, wake_t result) {
  uint64_t w = atomic_load(&gp->wait);
  while (w & WAIT_S) {
    if (w & WAIT_N && result != WAKE_INTERRUPTED) return false;
    if (atomic_compare_exchange_weak(&gp->wait, &w, w & ~(WAIT_S | WAIT_N))) {
      gp->param = NULL;
      gp->wakeres = result;
      return true;
    }
  }
  return false;
}

/* gp does not exist any more (fork): nobody claims its wait. */
void wait_void(G *gp) { atomic_store(&gp->wait, wait_next(gp)); }

/* Opens the next wait; false and nothing opened if a cancel or an interrupt is pending. */
static bool wait_try_open(G *gp) {
  uint64_t n = gp->nocancel ? WAIT_N : 0, ends = n ? WAIT_I : WAIT_C | WAIT_I;
  uint64_t w = load_rlx(&gp->wait);
  for (;;) {
    if (unlikely(w & ends)) {
      uint64_t bit = w & ends & WAIT_C ? WAIT_C : WAIT_I;
      if (!atomic_compare_exchange_weak(&gp->wait, &w, (w + WAIT_SEQ) & ~bit)) continue;
      gp->param = NULL;
      gp->wakeres = bit == WAIT_C ? WAKE_CANCELLED : WAKE_INTERRUPTED;
      return false;
    }
    if (atomic_compare_exchange_weak(&gp->wait, &w, (w + WAIT_SEQ) | WAIT_S | n)) return true;
  }
}

/* Takes what is pending for the running goroutine, as its next wait would: WAKE_OK if nothing is. */
wake_t wait_pending(G *gp, bool cancel) {
  uint64_t w = atomic_load(&gp->wait), ends = cancel ? WAIT_C | WAIT_I : WAIT_I;
  while (w & ends) {
    uint64_t bit = w & ends & WAIT_C ? WAIT_C : WAIT_I;
    if (atomic_compare_exchange_weak(&gp->wait, &w, w & ~bit))
      return bit == WAIT_C ? WAKE_CANCELLED : WAKE_INTERRUPTED;
  }
  return WAKE_OK;
}

static void wait_signal(G *gp, uint64_t pending, wake_t result, bool hosted) {
  uint64_t w = atomic_load(&gp->wait);
  for (;;) {
    if (w & WAIT_S && !(w & WAIT_N && pending == WAIT_C)) {
      if (!wait_claim_open(gp, result)) {
        w = atomic_load(&gp->wait);
        continue;
      }
      ready_any(gp, hosted);
      return;
    }
    if (w & pending) return;
    if (atomic_compare_exchange_weak(&gp->wait, &w, w | pending)) return;
  }
}

/* gp's current or next park ends with WAKE_CANCELLED, once.  hosted: the caller holds the host lock. */
void gocancel(G *gp, bool hosted) { wait_signal(gp, WAIT_C, WAKE_CANCELLED, hosted); }

/* gp's current or next park ends with WAKE_INTERRUPTED, once. */
void gointerrupt(G *gp, bool hosted) { wait_signal(gp, WAIT_I, WAKE_INTERRUPTED, hosted); }

/* ---- park ---------------------------------------------------------------------------------------- */

static void park_commit(M *m, G *gp) {
  void (*unlockf)(void *) = m->unlockf;
  void *unlockarg = m->unlockarg;
  int64_t deadline = m->deadline;
  casgstatus(gp, Grunning, Gwaiting);
  if (likely(wait_try_open(gp))) {
    if (deadline) timer_add(gp->timer.ts, &gp->timer, deadline);
    if (unlockf) unlockf(unlockarg);
    return;
  }
  if (deadline) timer_disarm(&gp->timer);
  if (unlockf) unlockf(unlockarg);
  if (gp->kind == GK_HOST)
    goready_hosted(gp); /* landing from a hosted goroutine: the host lock is held */
  else
    goready(gp);
}

/* Foreign C called host code which now parks: the C frames below may hold locks or thread-locals of this
 * thread, so the goroutine is wired to it until it runs on. */
static inline bool pinned(G *gp) { return gp->kind == GK_HOST && !gp->lockedm && unlikely(host->pinned(gp)); }

/* The park is wired: WAKE_OK if m may be lost to the others.  A thread is not started below the lock of what gp waits
 * for: that is dropped, and gp looks again, as after an interrupt.  Its wait is not open, so a waker that met its waiter
 * meanwhile has passed over it. */
static wake_t afford(M *m, G *gp, void (*unlockf)(void *), void *unlockarg) {
  if (spare_m(m)) return WAKE_OK;
  if (unlockf) unlockf(unlockarg);
  gp->param = NULL;
  if (!spare_m_had(m)) return WAKE_NOTHREAD;
  return unlockf ? WAKE_INTERRUPTED : WAKE_OK;
}

/* Park the running goroutine; its waiters are linked with wait_next().  unlockf(unlockarg) runs when the
 * wait is open.  deadline: nanotime() to give up at, 0: never.  Returns why it runs again; g->param is
 * the waiter that was served, NULL if none was: then the caller unlinks what it had linked. */
wake_t gopark(void (*unlockf)(void *), void *unlockarg, waitreason why, int64_t deadline) {
  M *m = getm();
  G *gp = load_rlx(&m->curg);
  bool wired = pinned(gp);
  if (unlikely(wired) && !gp->nocancel) { /* nocancel: C code that could not report it */
    wake_t may = afford(m, gp, unlockf, unlockarg);
    if (may != WAKE_OK) return may;
  }
  if (deadline) {
    timers *ts = gp->kind == GK_HOST ? &sched.l.timers : &m->p->timers;
    timer_announce(ts, &gp->timer, wait_next(gp));
  }
  store_rlx(&gp->reason, why);
  gp->param = NULL;
  m->commit = park_commit;
  m->unlockf = unlockf;
  m->unlockarg = unlockarg;
  m->deadline = deadline;
  inc_rlx(&m->parks);
  if (unlikely(wired)) wire(gp, m);
  switchto(m, gp, picknext(m, gp));
  if (unlikely(wired)) unwire(gp);
  if (deadline) timer_del(&gp->timer);
  return (wake_t)gp->wakeres;
}

/* The timer of a wait fired (time.c, no lock held). */
void goroutine_timeout(timer *t, uint64_t seq) {
  G *gp = containerof(t, G, timer);
  if (!wait_claim(gp, seq)) return;
  gp->param = NULL;
  gp->wakeres = WAKE_TIMEOUT;
  goready(gp);
}

/* gp's wait has been claimed by the caller, who does not hold the host lock. */
void goready(G *gp) {
  if (gp->kind == GK_FOREIGN) {
    foreign_wake(gp);
    return;
  }
  casgstatus(gp, Gwaiting, Grunnable);
  if (gp->kind == GK_HOST) {
    lpush_inbox(gp);
    return;
  }
  M *m = getm();
  if (m && m->p && !m->hostmode) {
    P *pp = m->p;
    bool behind = load_rlx(&pp->runnext) != NULL;
    runqput(pp, gp, true);
    /* Alone in runnext it runs as soon as the waker parks; waking another M for it would cost the waker
     * 16 us and tear the pair apart.  If the waker does not park, sysmon sees the work behind it. */
    if (behind) {
      fence();
      wakep();
    }
    return;
  }
  lock(&sched.lock);
  globrunqput(gp);
  unlock(&sched.lock);
  fence_after_rmw();
  wakep();
}

/* Leave for g0 without a P (exitsyscall): commit makes gp runnable. */
void leave_to_g0(G *gp, void (*commit)(M *m, G *gp)) {
  M *m = gp->m;
  m->commit = commit;
  switchto(m, gp, &m->g0);
}

/* ---- yield, exit --------------------------------------------------------------------------------- */

static void yield_commit(M *m, G *gp) {
  casgstatus(gp, Grunning, Grunnable);
  if (gp->kind == GK_HOST)
    lput(gp, false);
  else
    runqput(m->p, gp, false);
}

void gosched(void) {
  M *m = getm();
  G *gp = load_rlx(&m->curg);
  bool wired = pinned(gp);
  if (unlikely(wired)) {
    if (!spare_m_had(m)) return; /* nobody could run meanwhile */
    wire(gp, m);
  }
  G *next = picknext(m, gp);
  if (next == &m->g0 && !gp->lockedm && !m->nextg) {
    bool mine = gp->kind == GK_HOST ? load_rlx(&sched.l.holder) == m && !native_waiting() && !sched.l.turnover
                                    : !lwaiting() && load_rlx(&sched.runqsize) == 0;
    if (mine && !load_rlx(&sched.gcwaiting)) return; /* nobody to yield to */
  }
  m->commit = yield_commit;
  switchto(m, gp, next);
  if (unlikely(wired)) unwire(gp);
}

static void exit_commit(M *m, G *gp) {
  void (*after)(G *) = (void (*)(G *))m->unlockf;
  casgstatus(gp, Grunning, Gdead);
  if (unlikely(gp->lockedm != NULL)) unwire_ended(m, gp);
  if (after)
    after(gp);
  else if (gp->kind == GK_HOST)
    gfput_host(gp);
  else
    gfput_native(m->p, gp);
}

/* The next goroutine is new: it takes over this stack and the state on it, and nothing is switched. */
static void pass_on(M *m, G *gp, G *next) {
  casgstatus(gp, Grunning, Gdead);
  gpass(gp, next);
  next->m = m;
  store_rlx(&next->since, load_rlx(&gp->since));
  inc_rlx(&m->switches);
  casgstatus(next, Grunnable, Grunning);
  store_rel(&m->curg, next);
}

/* Ends the running goroutine.  Its unit goes to the pool once its stack is left, to the next goroutine
 * if that is new, or to after(gp).  Comes back when the stack is used again, for another G. */
void goexit0(G *gp, void (*after)(G *gp)) {
  M *m = gp->m;
  inc_rlx(&m->ended);
  G *next = picknext(m, gp);
  if (!after && !next->sp && !next->saved && next != &m->g0) {
    pass_on(m, gp, next);
    return;
  }
  m->commit = exit_commit;
  m->unlockf = (void (*)(void *))after;
  leave(m, gp, next);
  land(getm());
}

/* The life of a stack: for ever, so that a pooled one needs no new first frame.  Which G it belongs to
 * changes from round to round. */
static void goroutine_main(void *arg) {
  G *gp = arg;
#ifdef GM_ASAN
  __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
  land(gp->m);
  if (unlikely(gp->kind == GK_G0)) { /* a stack to wait on, made by the host */
    gp->fn(gp->arg);
    throw("a wait stack has come to its end");
  }
  for (;;) {
    host_after after = NULL;
    if (gp->kind == GK_HOST)
      after = host->main(gp);
    else
      gp->fn(gp->arg);
    goexit0(gp, after);
    gp = load_rlx(&getm()->curg);
  }
}

/* The stack of a dead G is given up. */
void goroutine_unframe(G *gp) {
  gp->sp = NULL;
#ifdef GM_TSAN
  __tsan_destroy_fiber(gp->fiber);
  gp->fiber = NULL;
#endif
#ifdef GM_ASAN
  __asan_unpoison_memory_region(gp->stk.lo, (size_t)(gp->stk.hi - gp->stk.lo));
  gp->fake_stack = NULL;
#endif
}

/* Lays the first frame of a new stack. */
void goroutine_frame(G *gp) {
  gp->sp = switch_frame(gp->stk.hi, goroutine_main, gp);
#ifdef GM_TSAN
  gp->fiber = __tsan_create_fiber(0);
#endif
}

/* Parks for ns nanoseconds; <= 0 yields. */
wake_t timesleep(int64_t ns) {
  if (ns <= 0) {
    gosched();
    return WAKE_OK;
  }
  int64_t now = nanotime();
  int64_t when = ns > INT64_MAX - 1 - now ? INT64_MAX - 1 : now + ns;
  wake_t r = gopark(NULL, NULL, waitReasonSleep, when);
  return r == WAKE_TIMEOUT ? WAKE_OK : r;
}
