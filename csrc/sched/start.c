/* start.c - the runtime's start, its stop, and new goroutines. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "arch/arch.h"
#include "base/clock.h"
#include "base/memory.h"
#include "sched/sched.h"
#include "sched/netpoll.h"
#include "sched/chaos.h"

sched_t sched = {.lock = {.rank = rank_sched}, .maxm = MAX_MS};
counters counts;
const host_t *host;

static bool base, monitored; /* schedinit has set up what is never made again; sysmon runs */
static pid_t starter;        /* the process that has started it */

static const host_t host_none = {.stack_size = 256 << 10};
static bool none_false(void) { return false; }
static void none_asleep(unsigned epoch) { (void)epoch; }

/* For the last words of a process. */
static void describe(char *out, size_t size) {
  M *m = getm();
  G *gp = m ? load_rlx(&m->curg) : NULL;
  snprintf(out, size, "goroutine %llu (%s, status %s), M %u, P %d", gp ? (unsigned long long)gp->goid : 0,
           gp ? waitreason_name(load_rlx(&gp->reason)) : "none", gp ? gstatus_name(load_rlx(&gp->status)) : "none",
           m ? m->id : 0, m && m->p ? (int)m->p->id : -1);
}

/* How many goroutines are many here. */
static uint32_t crowd(void) {
  enum { AWAKE_SIZE = 9 << 10 }; /* bytes of one */
  uint64_t n = os_memory() / 4 / AWAKE_SIZE;
  return n < CROWD_LEAST ? CROWD_LEAST : n > CROWD_MOST ? CROWD_MOST : (uint32_t)n;
}

static void base_init(void) {
  throw_describe = describe;
  time_init();
  chaos_init();
  os_init_signals();
  preempt_init();
  stack_init(host->stack_size, host->stack_top);
  sched.l.crowd = crowd();
  sched.l.timers.lock.rank = rank_timers;
  store_rlx(&sched.l.timers.next, INT64_MAX);
  sched.l.shed_due = INT64_MAX;
  store_rlx(&sched.lastpoll, nanotime());
  base = true;
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
  starter = getpid();
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

/* Is this a forked child's copy of a runtime that runs elsewhere?  (One that was prepared for the fork says so
 * itself.) */
bool sched_copied(void) { return load_acq(&sched.started) && starter != getpid(); }

/* No M touches the host any more.  Those asleep end now, those in host code when they next look for work:
 * a thread that stayed would keep the process alive when the main thread ends without exit(), as it does if
 * CPython 3.11 takes down a subinterpreter at its own end.
 *
 * Those whose threads are about to start come to the host first of all (minit), those that end last of all
 * (host_mexit); who takes it down waits until there are none (host_in_use).  No more follow: both look at `stopping`
 * under the lock. */
void schedstop(void) {
  lock(&sched.lock);
  store_rel(&sched.stopping, true);
  for (uint32_t i = 1; i <= sched.nextmid; i++) notewakeup(&sched.allm[i]->park);
  sched.midle = NULL;
  sched.nmidle = 0;
  unlock(&sched.lock);
  sysmon_wake();
  netpollbreak();
  netpollrepair(); /* sysmon ends, too */
}

/* Does an M start or end there?  Once false behind schedstop, never true again. */
bool host_in_use(void) { return load_acq(&sched.nstarting) || load_acq(&sched.nending); }

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
