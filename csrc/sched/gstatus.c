/* gstatus.c - the status of a G, and the one function that changes it.
 *
 * Legal transitions (Go's, without those of its garbage collector):
 *
 *   idle     -> dead                          made, not yet visible
 *   dead     -> runnable                      newproc
 *   runnable -> running                       execute, direct switch
 *   running  -> runnable | waiting | dead     gosched, gopark, goexit (always by the lander)
 *   running <-> syscall                       gm_enter_blocking / gm_exit_blocking, native only
 *   syscall  -> runnable                      gm_exit_blocking found no P
 *   waiting  -> runnable                      goready, by whoever claimed the wait
 *
 * At any time one thread alone may change a status: the M that runs the G, its lander, or the claimer of
 * its wait.  So a release store is enough; debug builds use a CAS and check the table. */
#include "sched/g.h"

const char *gstatus_name(uint32_t status) {
  static const char *const names[] = {"idle", "runnable", "running", "syscall", "waiting", "?", "dead"};
  return status < nelem(names) ? names[status] : "?";
}

void casgstatus(G *gp, uint32_t from, uint32_t to) {
#ifdef GM_DEBUG
  static const uint8_t legal[7] = {
      [Gidle] = 1 << Gdead,
      [Gdead] = 1 << Grunnable,
      [Grunnable] = 1 << Grunning,
      [Grunning] = 1 << Grunnable | 1 << Gwaiting | 1 << Gdead | 1 << Gsyscall,
      [Gsyscall] = 1 << Grunning | 1 << Grunnable,
      [Gwaiting] = 1 << Grunnable,
  };
  if (!(legal[from] >> to & 1)) throw("goroutine %llu: illegal %s -> %s", (unsigned long long)gp->goid,
                                      gstatus_name(from), gstatus_name(to));
  uint32_t old = from;
  if (!atomic_compare_exchange_strong(&gp->status, &old, to))
    throw("goroutine %llu: status is %s, not %s", (unsigned long long)gp->goid, gstatus_name(old),
          gstatus_name(from));
#else
  (void)from;
  store_rel(&gp->status, to);
#endif
}
