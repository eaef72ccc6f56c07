/* select.c - Go's selectgo: exactly one of several channel operations takes effect.
 *
 * Pass 1, all channels locked: the first ready case of a random permutation is done.  Pass 2: one waiter
 * per case, park.  Pass 3: the waiters that were not served are taken out, one lock at a time.
 *
 * The waiters are a wait set (sched/waitset.c): exactly one case fires.  Locks are taken in address order, each
 * channel's once however often it stands in the cases.  Hosted channels have none. */
#include <stdlib.h>

#include "arch/arch.h"
#include "sched/park.h"
#include "sched/waitset.h"
#include "sync/chan.h"

enum { FEW = 16 };

static bool lock_before(scase *cases, uint16_t a, uint16_t b) {
  return (uintptr_t)cases[a].c < (uintptr_t)cases[b].c;
}

static void lock_sift(scase *cases, uint16_t *order, int32_t at, int32_t n) {
  uint16_t x = order[at];
  for (int32_t child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && lock_before(cases, order[child], order[child + 1])) child++;
    if (!lock_before(cases, x, order[child])) break;
    order[at] = order[child];
  }
  order[at] = x;
}

/* The channels of cases[order[..n]] sorted by address.  Few: insertion; many: heap sort, in place. */
static void lock_sort(scase *cases, uint16_t *order, int32_t n) {
  if (n <= FEW) {
    for (int32_t i = 1; i < n; i++) {
      uint16_t x = order[i];
      int32_t j = i;
      for (; j > 0 && lock_before(cases, x, order[j - 1]); j--) order[j] = order[j - 1];
      order[j] = x;
    }
    return;
  }
  for (int32_t i = n / 2 - 1; i >= 0; i--) lock_sift(cases, order, i, n);
  for (int32_t end = n - 1; end > 0; end--) {
    uint16_t x = order[0];
    order[0] = order[end];
    order[end] = x;
    lock_sift(cases, order, 0, end);
  }
}

static void sellock(scase *cases, const uint16_t *order, int32_t n) {
  hchan *last = NULL;
  for (int32_t i = 0; i < n; i++) {
    hchan *c = cases[order[i]].c;
    if (c != last) spin_lock(&c->lock);
    last = c;
  }
}

static void selunlock(scase *cases, const uint16_t *order, int32_t n) {
  for (int32_t i = n - 1; i >= 0; i--) {
    hchan *c = cases[order[i]].c;
    if (i > 0 && cases[order[i - 1]].c == c) continue; /* unlock at its first occurrence */
    spin_unlock(&c->lock);
  }
}

static uint64_t *selrand(void) {
  static _Thread_local uint64_t foreign;
  M *m = getm();
  if (m) return &m->rand;
  if (!foreign) foreign = cputicks() | 1;
  return &foreign;
}

/* Passes 2 and 3. */
static int32_t selwait(scase *cases, const uint16_t *order, int32_t n, int64_t deadline, bool hosted,
                       wake_t *result) {
  G *gp = getg(hosted);
  sudog *sgs = gp ? gsudogs(gp, (uint32_t)n) : NULL;
  if (!sgs) {
    if (!hosted) selunlock(cases, order, n);
    *result = WAKE_NOMEM;
    return -1;
  }
  for (int32_t i = 0; i < n; i++) {
    scase *k = &cases[order[i]];
    sudog *sg = &sgs[i];
    sudog_link(sg, gp);
    sg->lock = hosted ? NULL : &k->c->lock;
    sg->kase = order[i];
    sg->elem = k->elem;
    if (hosted) {
      if (k->send) memcpy(&sg->val, k->elem, 8);
      sg->elem = &sg->val;
    }
    enqueue(k->send ? &k->c->sendq : &k->c->recvq, sg);
  }
  *result = park_any(gp, hosted ? NULL : waitset_commit, gp, waitReasonSelect, deadline, hosted);
  sudog *won = gp->param;
  waitset_leave(sgs, (uint32_t)n, NULL);
  if (!won) return -1;
  *result = won->success ? WAKE_OK : WAKE_CLOSED;
  if (hosted && won->success && !cases[won->kase].send) memcpy(cases[won->kase].elem, &won->val, 8);
  return won->kase;
}

/* Returns the index of the case that took effect (*result WAKE_OK or WAKE_CLOSED), or -1.
 * hosted: all channels are, and the caller holds the host lock; else none is. */
int32_t selectgo(scase *cases, int32_t ncases, bool block, int64_t deadline, bool hosted,
                 wake_t *result) {
  uint16_t few[2 * FEW], *order = few;
  if (ncases > FEW) {
    order = malloc(2 * (size_t)ncases * sizeof *order);
    if (!order) {
      *result = WAKE_NOMEM;
      return -1;
    }
  }
  uint16_t *lockorder = order + ncases;
  int32_t n = 0;
  uint64_t *rand = selrand();
  for (int32_t i = 0; i < ncases; i++) { /* inside-out shuffle, nil channels left out */
    if (!cases[i].c) continue;
    uint32_t j = fastrandn(rand, (uint32_t)n + 1);
    order[n] = order[j];
    order[j] = (uint16_t)i;
    n++;
  }
  memcpy(lockorder, order, (size_t)n * sizeof *order);
  if (!hosted) {
    lock_sort(cases, lockorder, n);
    sellock(cases, lockorder, n);
  }
  int32_t index = -1;
  G *wake = NULL;
  for (int32_t i = 0; i < n && index < 0; i++)
    if (chan_try(cases[order[i]].c, cases[order[i]].send, cases[order[i]].elem, &wake, result)) index = order[i];
  if (index >= 0 || !block) {
    if (!hosted) selunlock(cases, lockorder, n);
    if (index < 0) *result = WAKE_WOULDBLOCK;
    if (wake) ready_any(wake, hosted);
  } else if (n == 0) { /* select{}: for ever, or until the deadline */
    G *gp = getg(hosted);
    *result = gp ? park_any(gp, NULL, NULL, waitReasonSelectNoCases, deadline, hosted) : WAKE_NOMEM;
  } else {
    index = selwait(cases, lockorder, n, deadline, hosted, result);
  }
  if (order != few) free(order);
  return index;
}
