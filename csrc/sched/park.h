/* park.h - leaving a stack and entering another: park.c; threads that are not ours: foreign.c. */
#ifndef GMPRT_SCHED_PARK_H
#define GMPRT_SCHED_PARK_H

#include "sched/l.h"

/* park.c */
void waitstack_switch(G *from, G *to);
void land(M *m);
wake_t gopark(void (*unlockf)(void *), void *unlockarg, waitreason why, int64_t deadline);
void gosched(void);
void leave_to_g0(G *gp, void (*commit)(M *m, G *gp));
void goexit0(G *gp, void (*after)(G *gp));
void execute(M *m, G *gp);
void goready(G *gp);
bool wait_claim(G *gp, uint64_t seq);
bool wait_claim_open(G *gp, wake_t result);
uint64_t wait_next(G *gp);
void wait_void(G *gp);
wake_t wait_pending(G *gp, bool cancel);
void gocancel(G *gp, bool hosted);
void gointerrupt(G *gp, bool hosted);
void goroutine_frame(G *gp);
void goroutine_unframe(G *gp);
wake_t timesleep(int64_t ns);
void goroutine_timeout(timer *t, uint64_t seq);

/* sg has been dequeued, its wait claimed: what its goroutine is told when it runs.  To be made ready unlocked. */
static inline G *sudog_served(sudog *sg, bool success, uint8_t why) {
  G *gp = sg->g;
  sg->success = success;
  gp->param = sg;
  gp->wakeres = why;
  return gp;
}

/* gp, hosted, runs, and has done so up to now. */
static inline void goroutine_ran(G *gp, uint64_t now) {
  gp->runticks += now - load_rlx(&gp->since);
  store_rlx(&gp->since, now);
}

/* hosted: the caller holds the host lock. */
static inline void ready_any(G *gp, bool hosted) {
  if (hosted)
    goready_hosted(gp);
  else
    goready(gp);
}

/* foreign.c */
G *getg(bool hosted);
G *foreign_g(void);
wake_t foreign_park(G *gp, void (*unlockf)(void *), void *unlockarg, waitreason why, int64_t deadline,
                    bool hosted);
void foreign_wake(G *gp);
void foreign_afterfork(void);
void foreign_forklock(bool on);
uint32_t foreign_waiting(void (*each)(G *gp, void *arg), void *arg);
wake_t park_any(G *gp, void (*unlockf)(void *), void *unlockarg, waitreason why, int64_t deadline,
                bool hosted);

#endif
