/* wired.c - goroutines that keep their thread.
 *
 * A hosted goroutine locked to an M runs there with the host lock alone, without P and licence, like one
 * whose blocking call has returned.  Whoever picks it hands it to that M and drops the host lock.  The M counts as
 * asleep while it waits for its goroutine, and stops counting when that is made ready, not when it notices. */
#include "sched/sched.h"
#include "sched/park.h"

/* A thread with a goroutine wired to it counts as idle while it waits for that to become runnable. */
void wired_asleep(bool asleep) {
  lock(&sched.lock);
  sched.lockedwait += asleep ? 1 : (uint32_t)-1;
  if (asleep) checkdead_locked();
  unlock(&sched.lock);
}

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
