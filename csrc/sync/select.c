/* select.c - Go's selectgo: exactly one of several channel operations takes effect.
 *
 * Pass 1, all channels locked: the first ready case of a random permutation is done.  Pass 2: one waiter
 * per case, park.  Pass 3, all locked again: the waiters that were not served are taken out.
 *
 * All waiters of one select carry the same wait seq, so the claim that serves one makes all others lose:
 * exactly one case fires, and the goroutine never meets itself.
 *
 * Locks: in address order, each channel once however often it stands in the cases.  Hosted channels have
 * none.  The lander unlocks by walking the waiters, which lie in the G in lock order.  It may still read
 * the waiter of a channel that it has not unlocked: the woken goroutine cannot have changed it, for it
 * must first pass that lock. */
#include <sched.h>
#include <stdlib.h>

#include "arch/arch.h"
#include "sched/l.h"
#include "sched/park.h"
#include "sync/chan.h"

enum { FEW = 16 };

/* The channels of cases[order[..n]] sorted by address.  Few: insertion; many: heap sort, in place. */
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

/* The lander: see the head of the file. */
static void selpark_commit(void *arg) {
  G *gp = arg;
  sudog *sg = gp->sgs;
  uint32_t n = gp->nwait;
  hchan *c = sg[0].c;
  for (uint32_t i = 1; i <= n; i++) {
    hchan *next = i < n ? sg[i].c : NULL;
    if (next != c) spin_unlock(&c->lock);
    c = next;
  }
}

/* Does case i if it is ready; a peer to be woken is left in *wake. */
static bool selcase(scase *k, G **wake, wake_t *result) {
  hchan *c = k->c;
  sudog *sg = NULL;
  size_t n = load_rlx(&c->qcount);
  *result = WAKE_OK;
  if (k->send) {
    if (load_rlx(&c->closed)) {
      *result = WAKE_CLOSED;
      return true;
    }
    if (c->recvq.first && (sg = dequeue(&c->recvq))) {
      if (sg->elem) copyelem(c, sg->elem, k->elem);
    } else if (n < c->dataqsiz) {
      copyelem(c, chanbuf(c, c->sendx), k->elem);
      c->sendx = c->sendx + 1 == c->dataqsiz ? 0 : c->sendx + 1;
      store_rlx(&c->qcount, n + 1);
    } else {
      return false;
    }
  } else if (c->sendq.first && (sg = dequeue(&c->sendq))) {
    void *from = sg->elem;
    if (c->dataqsiz > 0) {
      void *slot = chanbuf(c, c->recvx);
      if (k->elem) copyelem(c, k->elem, slot);
      copyelem(c, slot, from);
      c->recvx = c->recvx + 1 == c->dataqsiz ? 0 : c->recvx + 1;
      c->sendx = c->recvx;
    } else if (k->elem) {
      copyelem(c, k->elem, from);
    }
  } else if (n > 0) {
    if (k->elem) copyelem(c, k->elem, chanbuf(c, c->recvx));
    c->recvx = c->recvx + 1 == c->dataqsiz ? 0 : c->recvx + 1;
    store_rlx(&c->qcount, n - 1);
  } else if (load_rlx(&c->closed)) {
    *result = WAKE_CLOSED;
    return true;
  } else {
    return false;
  }
  if (sg) {
    sg->success = true;
    sg->g->param = sg;
    sg->g->wakeres = WAKE_OK;
    *wake = sg->g;
  }
  return true;
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
    sudog_link(sg, gp, k->c);
    sg->kase = order[i];
    sg->elem = k->elem;
    if (hosted) {
      if (k->send) memcpy(&sg->val, k->elem, 8);
      sg->elem = &sg->val;
    }
    enqueue(k->send ? &k->c->sendq : &k->c->recvq, sg);
  }
  *result = park_any(gp, hosted ? NULL : selpark_commit, gp, waitReasonSelect, deadline, hosted);
  sudog *won = gp->param;
  if (!hosted) sellock(cases, order, n);
  for (int32_t i = 0; i < n; i++) {
    scase *k = &cases[order[i]];
    dequeue_sudog(k->send ? &k->c->sendq : &k->c->recvq, &sgs[i]);
  }
  if (!hosted) selunlock(cases, order, n);
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
    if (selcase(&cases[order[i]], &wake, result)) index = order[i];
  if (index >= 0 || !block) {
    if (!hosted) selunlock(cases, lockorder, n);
    if (index < 0) *result = WAKE_WOULDBLOCK;
    if (wake && hosted) goready_hosted(wake);
    if (wake && !hosted) goready(wake);
  } else if (n == 0) { /* select{}: for ever, or until the deadline */
    G *gp = getg(hosted);
    *result = gp ? park_any(gp, NULL, NULL, waitReasonSelectNoCases, deadline, hosted) : WAKE_NOMEM;
  } else {
    index = selwait(cases, lockorder, n, deadline, hosted, result);
  }
  if (order != few) free(order);
  return index;
}
