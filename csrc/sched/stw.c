/* stw.c - stop-the-world and the number of Ps.
 *
 * The world is stopped when every P is on the idle list or STOPPED.  gcwaiting keeps idle Ps where they
 * are and sends Ms that look for work to gcstopm; a P in host code is stopped by CAS, without waiting for
 * its M, which learns of it at its pin and waits there without the host lock.
 *
 * Rules: whoever needs the host lock too takes it first; nobody waits for the world, or for the right to
 * stop it, with the host lock in hand (the host drops it around gomaxprocs_set).  A native goroutine is
 * asked to yield (preempt.c); in code where that cannot be done it delays the stop until it does. */
#include <stdio.h>
#include <stdlib.h>

#include "base/number.h"
#include "sched/sched.h"

static mutex worldsema = {.rank = rank_worldsema};

static bool stopped_all(void) {
  uint32_t n = load_rlx(&sched.npidle);
  for (int32_t i = 0; i < sched.gomaxprocs; i++) {
    P *pp = sched.allp[i];
    uint64_t w = load_acq(&pp->status);
    if (PSTATE(w) == Phost && cas(&pp->status, w, PWORD(PMID(w), Pstopped))) w = PWORD(PMID(w), Pstopped);
    n += PSTATE(w) == Pstopped;
  }
  return n == (uint32_t)sched.gomaxprocs;
}

/* Native goroutines that do not look: asked to yield, again every 100 us. */
static void preempt_all(void) {
  for (int32_t i = 0; i < sched.gomaxprocs; i++) {
    uint64_t w = load_acq(&sched.allp[i]->status);
    if (PSTATE(w) == Prunning) preemptone(sched.allm[PMID(w)]);
  }
}

void stoptheworld(void) {
  M *m = getm();
  gm_assert(!m || !m->p || m->hostmode);
  lock(&worldsema);
  xadd(&counts.stw, 1);
  lock(&sched.lock);
  store_rel(&sched.gcwaiting, true);
  unlock(&sched.lock);
  fence();
  for (int i = 0; !stopped_all(); i++) {
    if (i % 5 == 0) preempt_all();
    os_usleep(20);
  }
}

void starttheworld(void) {
  lock(&sched.lock);
  store_rel(&sched.gcwaiting, false);
  unlock(&sched.lock);
  for (int32_t i = 0; i < sched.gomaxprocs; i++) {
    P *pp = sched.allp[i];
    uint64_t w = load_rlx(&pp->status);
    if (PSTATE(w) == Pstopped) store_rel(&pp->status, PWORD(PMID(w), Phost));
  }
  unlock(&worldsema);
  P *pp = pidleget(); /* one M looks, and wakes the next if there is work */
  if (pp) startm(pp, false);
  sysmon_wake();
}

/* An M that looks for work meets a stop: its P goes to the idle list, itself to sleep. */
void gcstopm(M *m) {
  if (m->spinning) stopspinning(m);
  if (m->p) {
    P *pp = m->p;
    m->p = NULL;
    releasep_idle(pp);
  }
  stopm(m);
}

/* In CPUs, at least 2; MAX_PROCS: there is none. */
static int cgroup_quota(void) {
  FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re"); /* "200000 100000", or "max 100000" */
  if (!f) return MAX_PROCS;
  char line[64];
  const char *at = fgets(line, sizeof line, f);
  fclose(f);
  uint64_t quota, period;
  if (!at || !number_read(&at, &quota) || !number_read(&at, &period) || !quota || !period) return MAX_PROCS;
  if (quota / period >= MAX_PROCS) return MAX_PROCS;
  int cpus = (int)((quota + period - 1) / period);
  return cpus < 2 ? 2 : cpus;
}

/* GOMAXPROCS; else what affinity and quota allow. */
int32_t gomaxprocs_default(void) {
  const char *env = getenv("GOMAXPROCS");
  if (env && *env) {
    uint64_t n;
    if (number_read(&env, &n) && !*env && n > 0) return n > MAX_PROCS ? MAX_PROCS : (int32_t)n;
  }
  int n = os_ncpu(), quota = cgroup_quota();
  if (quota < n) n = quota;
  return n < 1 ? 1 : n > MAX_PROCS ? MAX_PROCS : n;
}

static void pinit(P *pp, uint32_t id) {
  memset((void *)pp, 0, sizeof *pp);
  pp->id = id;
  pp->timers.lock.rank = rank_timers;
  store_rlx(&pp->timers.next, INT64_MAX);
  store_rlx(&pp->status, PWORD(0, Pdead));
}

static P *pmake(uint32_t id) {
  P *pp;
  if (posix_memalign((void **)&pp, 64, sizeof *pp) != 0) return NULL;
  pinit(pp, id);
  return pp;
}

/* sched.lock held: pp is on the idle list or stopped, and dies. */
static void pdestroy(P *pp) {
  if (PSTATE(load_rlx(&pp->status)) == Pidle) {
    P **at = &sched.pidle;
    while (*at && *at != pp) at = &(*at)->link;
    gm_assert(*at == pp);
    *at = pp->link;
    xadd(&sched.npidle, (uint32_t)-1);
  }
  runqdrain(pp);
  gfree_flush(pp);
  store_rel(&pp->status, PWORD(0, Pdead));
}

/* Moves a dead P's timers.  Its heap's lock stays: a late timer_del finds it there. */
static void timers_move(timers *from, timers *to) {
  for (;;) {
    spin_lock(&from->lock);
    timer *t = from->root;
    int64_t when = t ? load_rlx(&t->when) : 0;
    spin_unlock(&from->lock);
    if (!t) return;
    if (timer_del(t)) timer_add(to, t, when);
  }
}

/* World stopped, or not yet started.  false: no memory, and the number is what it was. */
bool procresize(int32_t n) {
  int32_t old = sched.gomaxprocs;
  for (int32_t i = 0; i < n; i++)
    if (!sched.allp[i] && !(sched.allp[i] = pmake((uint32_t)i))) return false;
  lock(&sched.lock);
  sched.gomaxprocs = n;
  for (int32_t i = n; i < old; i++) pdestroy(sched.allp[i]);
  for (int32_t i = old; i < n; i++) pidleput_locked(sched.allp[i]);
  unlock(&sched.lock);
  for (int32_t i = n; i < old; i++) timers_move(&sched.allp[i]->timers, &sched.allp[0]->timers);
  return true;
}

/* Returns the old number, -1: no memory; n <= 0 asks only.  Host lock not held. */
int32_t gomaxprocs_set(int32_t n) {
  int32_t old = sched.gomaxprocs;
  if (n <= 0 || n == old) return old;
  stoptheworld();
  old = sched.gomaxprocs;
  bool ok = n == old || procresize(n > MAX_PROCS ? MAX_PROCS : n);
  starttheworld();
  return ok ? old : -1;
}

/* In a forked child the thread that stopped the world has the right to, and gives it up.  The world stays stopped. */
void stw_fork_child(void) { unlock(&worldsema); }

/* What a P was is forgotten with the goroutines on it. */
void stw_afterfork(void) {
  lock_anew(&worldsema);
  int32_t n = sched.gomaxprocs;
  sched.gomaxprocs = 0;
  sched.pidle = NULL;
  store_rlx(&sched.npidle, 0);
  for (int32_t i = 0; i < MAX_PROCS; i++)
    if (sched.allp[i]) pinit(sched.allp[i], (uint32_t)i);
  procresize(n); /* they are all there: it allocates nothing */
}
