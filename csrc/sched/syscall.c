/* syscall.c - calls that block a thread, announced: its P goes to others at once.
 *
 * Native goroutines say so (gm_enter_blocking), the host's stand-ins for calls of the C library know it.  All others are
 * found out by sysmon. */
#include "arch/arch.h"
#include "sched/sched.h"
#include "sched/park.h"

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
