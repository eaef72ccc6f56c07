/* p.h - P: the right to run.  There are gomaxprocs of them: runq.c, m.c, stw.c. */
#ifndef GMPRT_SCHED_P_H
#define GMPRT_SCHED_P_H

#include "base/tunables.h"
#include "sched/m.h"

/* P.status is one word {M id, state}: a CAS by sysmon or stop-the-world cannot hit a P that meanwhile
 * belongs to another M.  HOST may be taken away at any moment, RUNNING only by its own M. */
enum { Pidle = 0, Prunning = 1, Phost = 2, Pstopped = 3, Pdead = 4 };
#define PWORD(mid, state) ((uint64_t)(mid) << 8 | (uint64_t)(state))
#define PSTATE(word) ((int)((word) & 0xff))
#define PMID(word) ((uint32_t)((word) >> 8))

struct P {
  /* Head: thieves and owner by CAS.  Tail: owner only.  On lines of their own: a thief that looks at
   * the head must not take the owner's tail line away. */
  _Atomic uint32_t runqhead __attribute__((aligned(64)));
  _Atomic uint32_t runqtail __attribute__((aligned(64)));
  _Atomic(G *) runnext;
  _Atomic(G *) runq[RUNQ_SIZE];

  _Atomic uint64_t status __attribute__((aligned(64)));
  uint32_t id;
  P *link;              /* sched.lock: idle list */

  /* Own M. */
  uint32_t picks;                 /* counts every pick */
  _Atomic uint32_t schedtick;     /* counts slices: runnext inherits */
  _Atomic bool expired;           /* sysmon: this slice is over, runnext goes to the tail */
  bool hostfirst;                 /* the next look takes L before native work */
  bool nativefirst;               /* the next look takes native work, the global queue too, before L */
  int64_t turnstart;              /* when this native turn began */
  G *gfree;                       /* dead native goroutines with their stacks */
  uint32_t ngfree;
  uint64_t goidcache, goidcacheend;
  timers timers;

  /* sysmon only. */
  uint32_t seen_tick;
  int64_t seen_when;
};

/* m.c */
void pidleput_locked(P *pp);
P *pidleget_locked(void);
P *pidleget(void);
void releasep_idle(P *pp);
void acquirep(M *m, P *pp);
bool pin(M *m);

/* runq.c */
void runqput(P *pp, G *gp, bool next);
G *runqget(P *pp, bool *inherit);
bool runqempty(P *pp);
G *runqsteal(P *pp, P *victim, bool runnext);
void runqdrain(P *pp);
void globrunqput(G *gp);
G *globrunqget(P *pp, uint32_t max);

/* stw.c */
void stoptheworld(void);
void starttheworld(void);
void gcstopm(M *m);
bool procresize(int32_t n);
int32_t gomaxprocs_default(void);
int32_t gomaxprocs_set(int32_t n);
void stw_fork_child(void);
void stw_afterfork(void);

#endif
