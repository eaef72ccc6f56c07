/* m.c - Ms: threads of the runtime, made, put to sleep and ended; and the list of idle Ps.
 *
 * Threads that are to be had no more.  A goroutine that keeps its thread while it is parked (wired) takes an M away
 * from all others, and they would wait for ever for one to run L: for their deadlines, for Ctrl-C.  So the last M that
 * is not wired stays so: lock_os_thread(), and a park below C code, fail if there is no other M and none can be
 * had (spare_m_had).  A blocking call says nothing before.  If its P finds no M it goes to the idle list and `needm` is
 * set: the next M that has nothing to do takes it (stopm), and until then sysmon tries to make one.
 *
 * Who has locked its thread may have changed it (priority, affinity, namespaces), and new threads inherit that.
 * So they are made by sysmon, or by an M that nobody has locked; and a goroutine that ends without unlocking takes
 * its thread with it.  As in Go. */
#include <errno.h>
#include <stdlib.h>

#include "arch/arch.h"
#include "base/clock.h"
#include "sched/sched.h"
#include "sched/netpoll.h"

#ifdef GM_TSAN
void *__tsan_get_current_fiber(void);
#endif

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

void pidleput_locked(P *pp) {
  store_rel(&pp->status, PWORD(0, Pidle));
  pp->link = sched.pidle;
  sched.pidle = pp;
  xadd(&sched.npidle, 1);
}

P *pidleget_locked(void) {
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
  if (atomic_load(&sched.sysmonwait)) sysmon_wake(); /* order: npidle--, unlock, this load; see the head of sysmon.c */
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

/* The struct may have been another thread's before, and sysmon may still look at `since`: nothing is cleared but what
 * that one has left. */
static void g0_init(M *m) {
  m->g0.m = m;
  m->g0.stk = (stack){0};
  store_rlx(&m->g0.status, Grunning);
#ifdef GM_TSAN
  m->g0.fiber = __tsan_get_current_fiber();
#endif
#ifdef GM_ASAN
  m->g0.fake_stack = NULL;
  os_thread_stack(&m->g0.stk.lo, &m->g0.stk.hi);
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
    g_init_static(&m->g0, GK_G0);
    m->id = ++sched.nextmid;
    sched.allm[m->id] = m;
  }
  m->schedlink = NULL;
  m->reap = false;
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

/* If the runtime stops the host is not touched again: whoever takes it down frees the state.  Asked and counted in one
 * step (schedstop): who looked first, and came to the host when `stopping` was set and nobody waited for it, came with
 * a state that was being freed. */
static void host_mexit(M *m) {
  lock(&sched.lock);
  bool may = m->reap && m->host && !load_rlx(&sched.stopping);
  if (may) xadd(&sched.nending, 1);
  unlock(&sched.lock);
  if (!may) return;
  host->m_exit(m);
  xadd(&sched.nending, (uint32_t)-1);
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
 * was taken meanwhile), and sysmon tries later, whoever sleeps meanwhile.
 *
 * The one that sleeps in the poller has no P, and is in no list: it may be the last that is free, and its deadline far.  If
 * it is only on its way there, the break is sticky: it comes back at once. */
static void startm_failed(P *pp, bool spinning) {
  lock(&sched.lock);
  if (pp) pidleput_locked(pp);
  store_rel(&sched.needm, 1); /* also for those whose wake it has swallowed as a spinning one */
  unlock(&sched.lock);
  if (spinning) xadd(&sched.nmspinning, (uint32_t)-1);
  fence(); /* sysmon says that it sleeps, then looks at needm */
  sysmon_wake();
  netpollbreak();
}

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
  if (awaited) first.m = NULL; /* another may be made of it if this one fails */
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
  host_mexit(m);
  os_mexit();
  mend(m);
  xadd(&counts.mreaped, 1);
  return NULL;
}

/* pp NULL: an M that waits for one.  await: no other M can be starting. */
static bool newm(P *pp, bool spinning, bool await) {
  lockrank_none(); /* the kernel takes its time */
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

/* May the calling thread make one just now? */
static bool may_start(void) {
  M *m = getm();
  return !(m && m->nothread) && unchanged();
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
  if (may_start() && newm(pp, spinning, false)) return true;
  startm_failed(pp, spinning);
  return false;
}

/* Can m run other goroutines, now or when what it runs parks or ends?  Not while that blocks, nor if it is wired:
 * the host lock guards lockedg. */
static bool taken(M *m) {
  G *gp = load_acq(&m->curg);
  if (m->lender) return false; /* not counted */
  if (m->lockedg) return true;
  return gp && (gp->kind == GK_HOST ? host->where(gp) == HOST_OUT : load_acq(&gp->status) == Gsyscall);
}

/* The host lock is held, and m is about to be lost to all goroutines but one.  Is there another M for them?  Locks may
 * be held. */
bool spare_m(M *m) {
  lock(&sched.lock);
  uint32_t n = sched.mcount - sched.nlenders;
  for (uint32_t i = 1; i <= sched.nextmid && !sched.midle; i++) n -= sched.allm[i] == m || taken(sched.allm[i]);
  bool spare = sched.midle || n > 0;
  unlock(&sched.lock);
  return spare;
}

/* The same; one is started if need be. */
bool spare_m_had(M *m) { return spare_m(m) || newm(NULL, false, false); }

/* ---- sleeping, ending -------------------------------------------------------------------------------- */

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

/* ---- the thread in run() --------------------------------------------------------------------------------- */

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

/* ---- the first ---------------------------------------------------------------------------------------- */

/* One M from the start: if no thread can be had, the caller hears of it before anything is queued. 0 or an errno.  In a
 * forked child sysmon may have started one already, and its goroutine has come to the end of the process.
 *
 * It is waited for without the host's lock: to make its base state the M may have to wait for that (CPython's allocators
 * take the GIL while tracemalloc traces).  Others who come meanwhile find a runtime that has started. */
int first_m(void) {
  P *pp = pidleget();
  if (!pp) return 0;
  noteclear(&first.up);
  if (!newm(pp, false, true)) {
    releasep_idle(pp);
    return load_acq(&sched.stopping) ? 0 : EAGAIN;
  }
  store_rel(&sched.started, true);
  void *state = host->leave ? host->leave() : NULL;
  notesleep(&first.up);
  if (host->enter) host->enter(state);
  if (first.ok) return 0;
  store_rel(&sched.started, false);
  return ENOMEM;
}
