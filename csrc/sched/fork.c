/* fork.c - the runtime around fork().
 *
 * Before: the world is stopped and the locks whose structures the child goes on with are taken, by rank.  So
 * the child finds them whole, whatever other threads were doing.  After, in the parent: all is let go.
 *
 * In the child only the forking thread exists.  Most children exec, so nothing is done there until the host says
 * that this one goes on (sched_afterfork): then what other threads may have held is made new, and Gs, Ms, Ps
 * and stacks of the parent stay where they are, never to be used again.  No thread is started before the first
 * goroutine needs one.
 *
 * Structures that the child makes anew need no lock here: timers, run queues, descriptors, waiters.  The host's lock
 * is the host's to make anew, before sched_afterfork (host.h).
 *
 * Not every fork is prepared: that of a child that has not started anything yet is not, nor one in the middle of which a
 * handler of pthread_atfork starts the runtime.  Then, and where a lock is not among those that are taken, it may be held
 * by a thread that is not in the child: each is made anew, and what it guards is given up if it may be half changed. */
#include "base/clock.h"
#include "base/ownfd.h"
#include "sched/hibernate.h"
#include "sched/sched.h"
#include "sched/park.h"
#include "sched/netpoll.h"

void sched_fork_prepare(void) {
  stoptheworld();
  foreign_forklock(true);
  lock(&sched.lock);
  gtable_forklock(true);
  stack_forklock(true);
}

static void unlock_all(void) {
  stack_forklock(false);
  gtable_forklock(false);
  unlock(&sched.lock);
  foreign_forklock(false);
}

void sched_fork_parent(void) {
  unlock_all();
  starttheworld();
}

/* The world stays stopped: nobody is left to be started.  A request to yield that is still open would be answered by
 * running another of the parent's goroutines, which stand in this copy of the queues. */
void sched_fork_child(void) {
  M *m = getm();
  if (m) store_rlx(&m->preempt, false);
  unlock_all();
  stw_fork_child();
}

static void licence_afterfork(bool alive) {
  L *l = &sched.l;
  memset(l->runq, 0, sizeof l->runq);
  l->runnext = l->ovhead = l->ovtail = l->gfree = l->gshell = NULL;
  l->head = l->tail = l->ngfree = l->npromised = 0;
  l->nlive = l->nunits = alive;
  store_rlx(&l->holder, (M *)NULL);
  store_rlx(&l->nqueued, 0);
  store_rlx(&l->inbox, (G *)NULL);
  store_rlx(&l->trimmed, (G *)NULL);
  store_rlx(&l->spent, (G *)NULL);
  store_rlx(&l->shed, false);
  l->shed_asked = 0;
  l->shed_due = INT64_MAX;
  store_rlx(&l->cold, (G *)NULL);
  store_rlx(&l->trim, false);
  store_rlx(&l->doze, false);
  store_rlx(&l->call, false);
  store_rlx(&l->ndrop, 0);
  store_rlx(&hibernating, 0);
  store_rlx(&hibernated_bytes, 0);
  memset(&l->timers, 0, sizeof l->timers);
  l->timers.lock.rank = rank_timers;
  store_rlx(&l->timers.next, INT64_MAX);
}

/* The Ms of threads that do not exist stay in the table, which sysmon walks: they run nothing.  (The goroutine that
 * one of them ran is gone, and the host has freed its state; sysmon would ask where that is.) */
static void ms_afterfork(M *keep) {
  while (sched.nextmid > 0 && !sched.allm[sched.nextmid]) sched.nextmid--; /* half entered */
  for (uint32_t i = 1; i <= sched.nextmid; i++) {
    M *m = sched.allm[i];
    if (m == keep) continue;
    store_rlx(&m->curg, (G *)NULL);
    store_rlx(&m->wiredg, (G *)NULL);
    store_rlx(&m->preempt, false);
    m->lockedg = m->nextg = m->prev = NULL;
    m->p = m->nextp = NULL;
    m->host = NULL;
    m->hostmode = m->spinning = m->lender = m->seen_out = false;
    m->tid = 0;
    m->errno_at = NULL;
    store_rlx(&m->homed, 0);
  }
  sched.midle = sched.mfree = NULL;
  sched.nmidle = sched.lockedwait = 0;
  sched.mleaving = NULL;
  sched.mcount = sched.nlenders = keep != NULL; /* it takes the place of a thread in run() */
  if (!keep) return;
  keep->p = NULL;
  keep->tid = os_gettid();
}

/* In the child, which goes on.  keep: the M of the goroutine that forked, NULL: an ordinary thread did.  Before
 * semroot_afterfork(), which the caller sees to. */
void sched_afterfork(M *keep) {
  lock_anew(&sched.lock);
  ms_afterfork(keep);
  sched.runqhead = sched.runqtail = sched.gfree = NULL;
  store_rlx(&sched.ngfree, 0);
  store_rlx(&sched.runqsize, 0);
  store_rlx(&sched.nmspinning, 0);
  store_rlx(&sched.nblocked, 0);
  store_rlx(&sched.needm, 0);
  store_rlx(&sched.nstarting, 0);
  store_rlx(&sched.nending, 0);
  store_rlx(&sched.gcwaiting, false);
  store_rlx(&sched.sysmonwait, false);
  store_rlx(&sched.lastpoll, nanotime());
  stw_afterfork();
  licence_afterfork(keep != NULL);
  ownfd_afterfork();
  netpoll_afterfork();
  foreign_afterfork();
  gtable_afterfork();
  stack_afterfork();
  preempt_afterfork();
  sched_restart();
}
