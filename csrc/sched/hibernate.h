/* hibernate.h - goroutines that sleep without a stack: hibernate.c. */
#ifndef GMPRT_SCHED_HIBERNATE_H
#define GMPRT_SCHED_HIBERNATE_H

#include "sched/g.h"

void hibernate_some(void);        /* driver, host lock held */
void rouse(G *gp);                /* host lock held, gp->saved is not NULL */
void rouse_all(void);             /* host lock held */
void never_roused(G *gp);         /* forked child */
bool hibernate_due(int64_t now);  /* sysmon */
int64_t hibernate_next(void);
void hibernate_drop(void);

/* A goroutine's stack is about to be looked at: host lock held. */
static inline void roused(G *gp) {
  if (unlikely(gp->saved != NULL)) rouse(gp);
}

extern _Atomic uint64_t hibernations, rousings; /* ever */
extern _Atomic uint32_t hibernating;            /* now */
extern _Atomic uint64_t hibernated_bytes;       /* that they take instead of their stacks */

#endif
