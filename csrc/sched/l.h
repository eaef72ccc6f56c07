/* l.h - L: goroutines of a host with a lock of its own, and the licence to drive them: licence.c. */
#ifndef GMPRT_SCHED_L_H
#define GMPRT_SCHED_L_H

#include "base/tunables.h"
#include "sched/m.h"

typedef struct L {
  /* The host lock. */
  G *runnext;
  G *runq[RUNQ_SIZE];
  uint32_t head, tail;
  G *ovhead, *ovtail; /* overflow: FIFO through schedlink */
  uint32_t picks;
  bool turnover; /* this turn of Python is over: native work has waited long enough for the P, or a look is due (doze, shed) */
  int64_t turnstart;
  G *gfree;  /* dead Gs with a stack, hottest first */
  G *gshell; /* dead Gs without */
  uint32_t ngfree;
  uint32_t nlive;     /* goroutines */
  uint32_t nunits;    /* stacks made, in use or in gfree */
  uint32_t npromised; /* stacks promised beyond: nunits + npromised >= nlive */
  uint32_t crowd;     /* goroutines that are many, for the memory that there is; never changed */
  uint64_t goidcache, goidcacheend;

  /* Anybody. */
  _Atomic(M *) holder __attribute__((aligned(64))); /* the driver; CAS only */
  _Atomic uint64_t now; /* cputicks when it was last looked at: the time of switches (switch_time) */
  _Atomic uint32_t schedtick;
  _Atomic uint32_t nqueued; /* runnable in ring, runnext and overflow: written under the host lock */
  _Atomic bool expired;
  _Atomic bool exact;          /* somebody has asked how long a goroutine has run: each switch looks at the clock */
  _Atomic uint32_t idle_units; /* ngfree when L was last released */
  _Atomic bool trim;           /* sysmon: give most of them back */
  _Atomic bool doze;           /* sysmon: look who has been parked for long (hibernate.c) */
  _Atomic bool shed;           /* sysmon: free some host states (gtrim_states) */
  _Atomic bool call;           /* sysmon: to be driven, if only for these three */
  _Atomic(G *) cold;           /* those given back: driver fills it when empty, sysmon empties it */
  _Atomic(G *) trimmed;        /* their Gs, shells now: stack by schedlink */
  _Atomic(G *) spent;          /* those of them that the driver has taken; the host lock */
  G *drop[DROP_BATCH];         /* asleep, their stacks to be given back: the driver's while ndrop is 0, else sysmon's */
  _Atomic uint32_t ndrop;
  _Atomic(G *) inbox __attribute__((aligned(64))); /* pushed without the host lock: stack by schedlink */
  timers timers;

  /* sysmon only. */
  uint32_t shed_asked; /* times, for what a crowd has left */
  int64_t shed_due; /* the next piece of it; INT64_MAX: nothing is left */
  uint32_t seen_tick;
  int64_t seen_when;
} L;

void lput(G *gp, bool next);
G *lget(M *m);
void lpush_inbox(G *gp);
bool lwaiting(void);
void newproc_host(G *gp);
void goready_hosted(G *gp);
void goready_ended(G *gp);
void drive(M *m);

#endif
