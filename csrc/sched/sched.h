/* sched.h - what all Ms share, and the way from one to the next: finding work, sleeping, waking.
 *
 * A G is a goroutine: a stack and a saved stack pointer (g.h).  An M is an OS thread that runs Gs (m.h).  A P is the
 * right to run one: there are gomaxprocs of them, each with a ring of runnable native goroutines (p.h).
 * Native goroutines need nothing else.  Goroutines of a host with a lock of its own (Python's GIL) hang on L, the
 * licence (l.h): whatever they touch without a lock is protected by the host lock, and the one M that holds
 * the licence drives them. */
#ifndef GMPRT_SCHED_SCHED_H
#define GMPRT_SCHED_SCHED_H

#include "arch/arch.h"
#include "sched/host.h"
#include "sched/l.h"
#include "sched/p.h"

typedef struct sched_t {
  mutex lock; /* guards what follows up to `lockedwait` */
  M *midle;
  uint32_t nmidle, mcount, maxm, nextmid;
  uint32_t nlenders;      /* of mcount: threads in run(), which are not ours and count for no limit */
  M *mleaving;            /* Ms that end as soon as nobody's C code knows their errno */
  M *mfree; /* ended threads' Ms, to be used again */
  P *pidle;
  G *runqhead, *runqtail; /* global queue of native goroutines */
  G *gfree;               /* depot of dead native goroutines */
  _Atomic uint32_t ngfree; /* read without the lock */
  uint32_t lockedwait;    /* Ms asleep with a goroutine wired to them */

  _Atomic uint32_t runqsize;
  _Atomic uint32_t npidle;
  _Atomic uint32_t nmspinning;
  _Atomic uint32_t nblocked; /* native goroutines in gm_enter_blocking */
  _Atomic uint32_t idle_epoch; /* bumped when the last M goes idle */
  _Atomic bool started, stopping;
  /* Threads of Ms that may still ask the host for their state, or give it back; counted up under the lock. */
  _Atomic uint32_t nstarting, nending;
  _Atomic uint32_t needm; /* an M could not be created: sysmon tries again */

  /* Stop-the-world: stw.c. */
  _Atomic bool gcwaiting;

  /* Netpoll: who sleeps in the poller until when. */
  _Atomic int64_t lastpoll;  /* 0: a thread sleeps in it */
  _Atomic int64_t polluntil;

  /* sysmon. */
  _Atomic bool sysmonwait;
  note sysmonnote;
  pthread_t sysmonthread;
  _Atomic bool dumpreq; /* SIGQUIT arrived */

  _Atomic uint64_t goidgen;
  _Atomic int32_t gomaxprocs; /* changed with the world stopped */
  M *allm[MAX_MS + 64]; /* by id; slots are filled under lock, never emptied */
  P *allp[MAX_PROCS];
  L l;
} sched_t;

extern sched_t sched;
extern const host_t *host;

/* Counters of things that are rare or cost more than the count. */
typedef struct counters {
  _Atomic uint64_t steals, stolen, handoffs, wakes, started, overflows, netpolls, netready,
      timers_fired, stw, mspawned, mreaped, preempt_requests, preemptions;
} counters;
extern counters counts;

/* Host lock held: looks at the clock. */
static inline uint64_t look_at_clock(void) {
  uint64_t now = cputicks();
  store_rlx(&sched.l.now, now);
  return now;
}

/* Host lock held: the time of a direct switch of hosted goroutines.  The clock costs as much as a switch of stacks, so it is
 * not looked at here, but by sysmon in each of its rounds, and by who comes from g0 or goes there (park.c). */
static inline uint64_t switch_time(void) {
  return unlikely(load_rlx(&sched.l.exact)) ? cputicks() : load_rlx(&sched.l.now);
}

/* M.spinning and sched.nmspinning change together.  Who stops without work looks again, who stops with work wakes the
 * next: wake.c. */
static inline void becomespinning(M *m) {
  m->spinning = true;
  xadd(&sched.nmspinning, 1);
}
static inline void stopspinning(M *m) {
  m->spinning = false;
  xadd(&sched.nmspinning, (uint32_t)-1);
}

/* start.c */
bool schedinit(void);
bool sched_copied(void);
void schedstop(void);
bool host_in_use(void);
void sched_restart(void);
G *newproc_native(void (*fn)(void *), void *arg);

/* wake.c */
void wakep(void);
void wake_for_rest(void);
void wake_for_others(M *m, bool hosted);
void resetspinning(M *m);
bool driver_polls(void);
bool poller_missing(void);
bool native_waiting(void);
bool work_in_sight(void);
void handoffp(P *pp);
void startm_late(void);
bool sched_asleep(uint32_t epoch);
void checkdead_locked(void);

/* find.c */
void schedule(M *m);
G *pget(M *m);

/* sysmon.c */
void *sysmon_main(void *arg);
void sysmon_wake(void);

/* preempt.c */
void preempt_init(void);
bool preempt_enabled(void);
bool preempt_wanted(M *m);
bool preemptone(M *m);
bool preempt_signalM(M *m); /* false: there is no handler */
bool preempt_register(const void *start, const void *end);
void preempt_chain(const struct sigaction *act, struct sigaction *old);
void preempt_afterfork(void);

/* fork.c */
void sched_fork_prepare(void);
void sched_fork_parent(void);
void sched_fork_child(void);
void sched_afterfork(M *keep);

#endif
