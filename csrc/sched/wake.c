/* wake.c - waking an M when there is work, and telling when nobody will ever wake.
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
 * P.  It counts as spinning while it looks, and while it makes runnable whom netpoll has claimed, so a wake for their sake
 * may be swallowed in the meantime: hence the look behind the decrement.
 *
 * While somebody drives hosted goroutines, and only these wait for descriptors or have deadlines, nobody need sleep there
 * (driver_polls): the driver looks when it has nothing to run, and sysmon meanwhile.  An idle M in the poller would be
 * woken for each descriptor, to pass it on to a driver that runs others: two threads for the work of one, 17 us for a request
 * of an echo server instead of 9.  Who gives the licence up, or takes it, looks for the poller afterwards (handoffp,
 * wake_for_rest), or sleeps there itself.  That is the same exchange once more:
 *   idle:    P to the idle list; fence; a driver?  Then sleep elsewhere
 *   driver:  licence away; fence; poller_missing?  A P from the idle list
 *
 * The fences.  wakep() loads npidle and nmspinning, and its caller orders them after the push:
 *   - by fence();
 *   - by fence_after_rmw() when the push has ended with a read-modify-write (the unlock of sched.lock): on x86
 *     that is nothing, but on ARMv8.0 a later load may pass the store half of an exclusive pair;
 *   - a goroutine that is alone in runnext is left to its waker and to sysmon: no wake, no fence.
 * The sleeper's half: its fence stands in look_again, for the poller too.  What sysmon needs: sysmon.c.  Litmus tests:
 * tests/models/litmus, with the variants that lose a wake-up. */
#include "sched/sched.h"
#include "sched/netpoll.h"

/* ---- waking ---------------------------------------------------------------------------------------- */

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

static bool native_deadlines(void) {
  for (int32_t i = 0; i < sched.gomaxprocs; i++)
    if (load_rlx(&sched.allp[i]->timers.next) != INT64_MAX) return true;
  return false;
}

/* Only hosted goroutines wait for what the poller would bring, and somebody drives those. */
bool driver_polls(void) {
  return load_rlx(&sched.l.holder) && netpoll_native_waiters() == 0 && !native_deadlines();
}

/* Is there a deadline, or a descriptor that somebody waits for, and nobody sleeps in the poller for it? */
bool poller_missing(void) {
  return load_rlx(&sched.lastpoll) != 0 && (netpoll_waiters() > 0 || timers_any()) && !driver_polls();
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
bool work_in_sight(void) {
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

/* sysmon: an M was wanted, and there was none.  An exchange: the next wish, made meanwhile, is either taken as well,
 * with all that lay before it in sight, or left standing. */
void startm_late(void) {
  if (!load_rlx(&sched.needm) || !xchg(&sched.needm, 0)) return;
  if (work_in_sight() || poller_missing()) wakep();
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
void checkdead_locked(void) {
  if (all_asleep_locked()) host->all_asleep(xadd(&sched.idle_epoch, 1) + 1);
}

/* ---- who has found work ----------------------------------------------------------------------------- */

/* Found work while spinning: the next wake-up is this M's duty.  Whoever pushed meanwhile, native or hosted,
 * saw a spinning M and woke nobody. */
void resetspinning(M *m) {
  stopspinning(m);
  fence();
  if (work_in_sight()) wakep();
}

/* Found work without spinning.  What this M itself has made runnable while it looked (deadlines, descriptors) woke
 * nobody: native work lay alone in its runnext, and hosted work was its own to find (lpush_inbox).  It has picked
 * one of the two; who runs the other, if this one runs for long? */
void wake_for_others(M *m, bool hosted) {
  if (hosted ? runqempty(m->p) : !lwaiting()) return;
  fence();
  if (hosted || !load_rlx(&sched.l.holder)) wakep();
}
