/* chan.c - channels, branch by branch Go's (runtime/chan.go).
 *
 * Invariants.
 *  1. At least one of sendq and recvq is empty of waiters that can still be claimed, but for a goroutine
 *     that selects on both sides of one unbuffered channel.
 *  2. qcount > 0 implies that no receiver waits; qcount < dataqsiz that no sender does.  (Waiters whose
 *     deadline or cancel has claimed them may still stand there; dequeue() skips them.)
 *  3. A value goes straight from the sender to a waiting receiver, bypassing the buffer; a receiver that
 *     finds the buffer full and a sender waiting takes the oldest element and puts the sender's into the
 *     same slot.  Both keep the order.
 *  4. A goroutine is made ready after the channel's lock is dropped.
 *
 *  5. qcount <= dataqsiz, but for values that were given back (changiveback): those are received first, and until then
 *     no sender is served.
 *
 * Memory model: Go's.  A send happens before the receive of its value completes, a receive from an
 * unbuffered channel before the send completes, the k-th receive before the (k+C)-th send completes, close
 * before a receive that returns because of it.  The lock gives the edges of the buffer, claim and ready
 * (park.c) those of the hand-offs; for hosted channels the host lock gives all of them.
 *
 * Who holds the host lock is `attached`: always for a hosted channel.  A native one takes both kinds of
 * waiters; a hosted goroutine that is not attached waits as its thread (getg).
 *
 * Rejected: a lock-free ring (peers with one take 100 ns per item, for the waiters need a lock anyway). */
#include "sched/park.h"
#include "sync/chan.h"

#include <stdlib.h>

static void chanunlock_commit(void *c) { spin_unlock(&((hchan *)c)->lock); }

static inline void copyelem(hchan *c, void *dst, const void *src) {
  if (likely(c->elemsize == 8))
    memcpy(dst, src, 8);
  else if (dst)
    memcpy(dst, src, c->elemsize);
}

static inline size_t wrap(hchan *c, size_t i) { return i == c->bufsiz ? 0 : i; }

/* false: no memory, or the size does not fit. */
bool chan_init(hchan *c, uint16_t elemsize, size_t capacity, bool hosted) {
  memset(c, 0, sizeof *c);
  c->lock.rank = rank_chan;
  c->hosted = hosted;
  c->elemsize = elemsize;
  c->dataqsiz = c->bufsiz = capacity;
  if (capacity == 0) return true;
  if (capacity > (size_t)PTRDIFF_MAX / elemsize) return false;
  c->buf = malloc(capacity * elemsize);
  return c->buf != NULL;
}

void chan_fini(hchan *c) { free(c->buf); }

/* ---- what can be done at once: the channel locked -------------------------------------------------------
 *
 * true: it was done, with what *result says; *wake is to be made ready when the lock is dropped, NULL: nobody.
 * Inlined by force: select's use of them had the compiler make one copy, and an item of a buffer cost 1 ns more. */

static force_inline bool try_send(hchan *c, const void *elem, G **wake, wake_t *result) {
  *wake = NULL;
  *result = WAKE_OK;
  if (unlikely(load_rlx(&c->closed))) {
    *result = WAKE_CLOSED;
    return true;
  }
  sudog *sg = c->recvq.first ? dequeue(&c->recvq) : NULL;
  if (sg) {
    if (sg->elem) copyelem(c, sg->elem, elem);
    *wake = sudog_served(sg, true, WAKE_OK);
    return true;
  }
  size_t n = load_rlx(&c->qcount);
  if (n >= c->dataqsiz) return false;
  copyelem(c, chanbuf(c, c->sendx), elem);
  c->sendx = wrap(c, c->sendx + 1);
  store_rlx(&c->qcount, n + 1);
  return true;
}

/* Full buffer (or none) and a waiting sender. */
static inline void take_from(hchan *c, const sudog *sg, void *elem) {
  if (c->dataqsiz == 0) {
    if (elem) copyelem(c, elem, sg->elem);
    return;
  }
  if (elem) copyelem(c, elem, chanbuf(c, c->recvx));
  copyelem(c, chanbuf(c, c->sendx), sg->elem); /* the same slot, unless the buffer has grown */
  c->recvx = wrap(c, c->recvx + 1);
  c->sendx = wrap(c, c->sendx + 1);
}

static force_inline bool try_recv(hchan *c, void *elem, G **wake, wake_t *result) {
  *wake = NULL;
  *result = WAKE_OK;
  sudog *sg = c->sendq.first && likely(load_rlx(&c->qcount) <= c->dataqsiz) ? dequeue(&c->sendq) : NULL;
  if (sg) {
    take_from(c, sg, elem);
    *wake = sudog_served(sg, true, WAKE_OK);
    return true;
  }
  size_t n = load_rlx(&c->qcount);
  if (n > 0) {
    if (elem) copyelem(c, elem, chanbuf(c, c->recvx));
    c->recvx = wrap(c, c->recvx + 1);
    store_rlx(&c->qcount, n - 1);
    return true;
  }
  *result = WAKE_CLOSED;
  return load_rlx(&c->closed);
}

/* For select. */
bool chan_try(hchan *c, bool send, void *elem, G **wake, wake_t *result) {
  return send ? try_send(c, elem, wake, result) : try_recv(c, elem, wake, result);
}

/* ---- send, receive, close -------------------------------------------------------------------------------- */

/* It was done. */
static inline wake_t done(hchan *c, G *wake, wake_t result) {
  chanunlock(c);
  if (wake) ready_any(wake, c->hosted);
  return result;
}

/* Puts the caller's waiter into q and parks, the channel locked.  A wait that ends otherwise than by
 * being served takes the waiter out again. */
static force_inline wake_t chanwait(hchan *c, waitq *q, G *gp, waitreason why, int64_t deadline, bool attached) {
  sudog *sg = &gp->sg;
  enqueue(q, sg);
  wake_t r = park_any(gp, c->hosted ? NULL : chanunlock_commit, c, why, deadline, attached);
  if (likely(gp->param == sg)) return sg->success ? WAKE_OK : WAKE_CLOSED;
  chanlock(c);
  dequeue_sudog(sg);
  chanunlock(c);
  return r;
}

/* The waiter of a call for several elements, *n of them: how many were moved is in *n afterwards. */
static inline void bring_many(sudog *sg, void *elems, const size_t *n) {
  sg->many = true;
  sg->elem = elems;
  sg->val = *n;
  sg->moved = 1; /* what an operation for one element moves, which knows nothing of this */
}

/* many: NULL, or of how many elements elem is the first. */
static force_inline wake_t send(hchan *c, const void *elem, size_t *many, bool block, int64_t deadline, bool attached) {
  G *wake;
  wake_t r;
  chanlock(c);
  if (likely(try_send(c, elem, &wake, &r))) {
    if (many) *many = 1;
    return done(c, wake, r);
  }
  G *gp = block ? getg(attached) : NULL;
  if (!gp) {
    chanunlock(c);
    return block ? WAKE_NOMEM : WAKE_WOULDBLOCK;
  }
  sudog_link(&gp->sg, gp);
  gp->sg.elem = (void *)elem;
  if (many) {
    bring_many(&gp->sg, (void *)elem, many);
  } else if (c->hosted) { /* the value lies in the G: a parked stack holds nothing that others read */
    memcpy(&gp->sg.val, elem, 8);
    gp->sg.elem = &gp->sg.val;
  }
  r = chanwait(c, &c->sendq, gp, waitReasonChanSend, deadline, attached);
  if (many && r == WAKE_OK) *many = gp->sg.moved;
  return r;
}

/* WAKE_OK: sent.  WAKE_CLOSED: the channel is closed, or was closed while waiting; elem is still the
 * caller's, as with every other result. */
wake_t chansend(hchan *c, const void *elem, bool block, int64_t deadline, bool attached) {
  return send(c, elem, NULL, block, deadline, attached);
}

/* Sends at least the first of *n elements, waiting for it; *n: how many went.  A native channel. */
wake_t chansend_wait(hchan *c, const void *elems, size_t *n, bool block, int64_t deadline, bool attached) {
  return send(c, elems, n, block, deadline, attached);
}

static force_inline wake_t recv(hchan *c, void *elem, size_t *many, bool block, int64_t deadline, bool attached) {
  G *wake;
  wake_t r;
  chanlock(c);
  if (likely(try_recv(c, elem, &wake, &r))) {
    if (many) *many = 1;
    return done(c, wake, r);
  }
  G *gp = block ? getg(attached) : NULL;
  if (!gp) {
    chanunlock(c);
    return block ? WAKE_NOMEM : WAKE_WOULDBLOCK;
  }
  sudog_link(&gp->sg, gp);
  gp->sg.elem = c->hosted ? &gp->sg.val : elem;
  if (many) bring_many(&gp->sg, elem, many);
  r = chanwait(c, &c->recvq, gp, waitReasonChanReceive, deadline, attached);
  if (r != WAKE_OK) return r;
  if (many)
    *many = gp->sg.moved;
  else if (c->hosted)
    memcpy(elem, &gp->sg.val, 8);
  return r;
}

/* WAKE_OK: *elem received (elem NULL: dropped).  WAKE_CLOSED: closed and drained. */
wake_t chanrecv(hchan *c, void *elem, bool block, int64_t deadline, bool attached) {
  return recv(c, elem, NULL, block, deadline, attached);
}

/* Waits for the first of up to *n elements; *n: how many came.  elems stays where it is: no stack of a hosted
 * goroutine. */
wake_t chanrecv_wait(hchan *c, void *elems, size_t *n, bool block, int64_t deadline, bool attached) {
  return recv(c, elems, n, block, deadline, attached);
}

/* Wakes every waiter: receivers get "closed", then senders do.  WAKE_CLOSED: it was closed already. */
wake_t chanclose(hchan *c) {
  G *list = NULL;
  chanlock(c);
  if (load_rlx(&c->closed)) {
    chanunlock(c);
    return WAKE_CLOSED;
  }
  store_rlx(&c->closed, true);
  dequeue_all(&c->recvq, false, WAKE_CLOSED, &list);
  dequeue_all(&c->sendq, false, WAKE_CLOSED, &list);
  chanunlock(c);
  while (list) {
    G *gp = list;
    list = gp->schedlink;
    gp->schedlink = NULL;
    ready_any(gp, c->hosted);
  }
  return WAKE_OK;
}

/* ---- giving back ----------------------------------------------------------------------------------------- */

/* One slot more, the elements in order from the first on. */
static bool grow(hchan *c) {
  char *buf = malloc((c->bufsiz + 1) * c->elemsize);
  if (!buf) return false;
  size_t n = load_rlx(&c->qcount), head = c->bufsiz - c->recvx < n ? c->bufsiz - c->recvx : n;
  if (n > 0) {
    memcpy(buf, chanbuf(c, c->recvx), head * c->elemsize);
    memcpy(buf + head * c->elemsize, c->buf, (n - head) * c->elemsize);
  }
  free(c->buf);
  c->buf = buf;
  c->bufsiz++;
  c->recvx = 0;
  c->sendx = n;
  return true;
}

/* A hosted channel: the caller has received elem and cannot use it, as if it had not: a receiver that waits gets it, or
 * else the next one that comes, before all others, whether there is room or not, closed or not.  false: no memory. */
bool changiveback(hchan *c, uint64_t elem) {
  sudog *sg = dequeue(&c->recvq);
  if (sg) {
    memcpy(sg->elem, &elem, sizeof elem);
    ready_any(sudog_served(sg, true, WAKE_OK), true);
    return true;
  }
  if (load_rlx(&c->qcount) == c->bufsiz && !grow(c)) return false;
  c->recvx = (c->recvx == 0 ? c->bufsiz : c->recvx) - 1;
  memcpy(chanbuf(c, c->recvx), &elem, sizeof elem);
  store_rlx(&c->qcount, load_rlx(&c->qcount) + 1);
  return true;
}
