/* chansome.c - many elements at once: what single sends or receives, one after the other, would do.
 *
 * Order and close are those of chan.c, whose invariants hold whenever the lock is free.  A call goes in steps.  Under the
 * lock a step claims a waiter that stands on the other side, or moves a block through the buffer.
 *
 * A waiter of such a call says so (sudog.many), and that it has room for, or brings, `val` elements.  A step moves as many as
 * both sides have, if nobody waits behind it: so it goes if the two of them are quick.  If somebody does, it gets or gives
 * one, as everybody, and goes to the end of the queue with the rest.  An operation for one element moves one, too.  So a
 * thousand elements without a buffer cost a wake or two, not a thousand.
 *
 * What is claimed is ours until it is made ready: elements go from the one's memory to the other's when the lock is dropped,
 * however many they are.  Copies to and from the buffer are made under the lock, so a step copies COPY_MAX bytes at most.
 *
 * n receives from a full buffer with senders behind it: each takes the oldest element and lets a sender put its own into the
 * room.  A step takes a block; if that was all, a sender's elements directly; and lets the next senders in until the
 * buffer is full.  In both ways as many are served, the first first.
 *
 * A hosted channel has the host lock, so nothing happens in between, and no limit.  Its senders of many wait with
 * one value: the channel owns a reference to each, and to take those of values that may stay is more work than the wake.
 *
 * Rejected: the waiter's elements as a part of the buffer, so that it is served in part and goes on waiting.  It would have to
 * be woken late or twice, and a cancel would have to say how many went while they go. */
#include "sched/park.h"
#include "sync/chan.h"

#define COPY_MAX 16384

static inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

static inline size_t room_of(const hchan *c) {
  size_t n = load_rlx(&c->qcount);
  return n < c->dataqsiz ? c->dataqsiz - n : 0; /* more than the capacity: given back */
}

/* How many elements a step copies to or from the buffer. */
static inline size_t block_of(const hchan *c, size_t n) {
  if (c->hosted) return n;
  return least(n, c->elemsize < COPY_MAX ? COPY_MAX / c->elemsize : 1);
}

/* sg has been dequeued from q: how many of n elements it gets or gives. */
static inline size_t share_of(sudog *sg, const waitq *q, size_t n) {
  if (!sg->many) return 1;
  sg->moved = q->first ? 1 : (uint32_t)least(least(n, sg->val), UINT32_MAX);
  return sg->moved;
}

static void push_block(hchan *c, const char *elems, size_t n) {
  size_t first = least(c->bufsiz - c->sendx, n), size = c->elemsize;
  memcpy(chanbuf(c, c->sendx), elems, first * size);
  memcpy(c->buf, elems + first * size, (n - first) * size);
  c->sendx = c->sendx + n < c->bufsiz ? c->sendx + n : c->sendx + n - c->bufsiz;
  store_rlx(&c->qcount, load_rlx(&c->qcount) + n);
}

static void pop_block(hchan *c, char *elems, size_t n) {
  size_t first = least(c->bufsiz - c->recvx, n), size = c->elemsize;
  memcpy(elems, chanbuf(c, c->recvx), first * size);
  memcpy(elems + first * size, c->buf, (n - first) * size);
  c->recvx = c->recvx + n < c->bufsiz ? c->recvx + n : c->recvx + n - c->bufsiz;
  store_rlx(&c->qcount, load_rlx(&c->qcount) - n);
}

/* ---- send -------------------------------------------------------------------------------------------------- */

static size_t send_step(hchan *c, const char *elems, size_t n) {
  chanlock(c);
  if (load_rlx(&c->closed)) n = 0;
  sudog *sg = n > 0 && c->recvq.first ? dequeue(&c->recvq) : NULL;
  if (sg) {
    n = share_of(sg, &c->recvq, n);
    chanunlock(c);
    if (sg->elem) memcpy(sg->elem, elems, n * c->elemsize);
    ready_any(sudog_served(sg, true, WAKE_OK), c->hosted);
    return n;
  }
  n = block_of(c, least(n, room_of(c)));
  if (n > 0) push_block(c, elems, n);
  chanunlock(c);
  return n;
}

/* Sends the first of the n elements for which nobody has to wait.  How many: 0 also if it is closed. */
size_t chansend_some(hchan *c, const void *elems, size_t n) {
  size_t sent = 0;
  for (size_t k; sent < n && (k = send_step(c, (const char *)elems + sent * c->elemsize, n - sent)) > 0;) sent += k;
  return sent;
}

/* Sends n elements, of which *sent have gone: WAKE_OK if all have.  A native channel. */
wake_t chansend_many(hchan *c, const void *elems, size_t n, size_t *sent, bool block, int64_t deadline, bool attached) {
  while (*sent < n) {
    const char *rest = (const char *)elems + *sent * c->elemsize;
    size_t k = chansend_some(c, rest, n - *sent);
    if (k == 0) {
      k = n - *sent;
      wake_t r = chansend_wait(c, rest, &k, block, deadline, attached);
      if (r != WAKE_OK) return r;
    }
    *sent += k;
  }
  return WAKE_OK;
}

/* ---- receive ----------------------------------------------------------------------------------------------- */

/* Where there is room in the buffer, senders fill it.  Those to be made ready, linked. */
static G *let_in(hchan *c) {
  G *first = NULL, **last = &first;
  size_t room = room_of(c); /* no more than was popped, if a sender waits: it was full */
  for (sudog *sg; room > 0 && c->sendq.first && (sg = dequeue(&c->sendq)) != NULL;) {
    size_t k = share_of(sg, &c->sendq, room);
    push_block(c, sg->elem, k);
    room -= k;
    *last = sudog_served(sg, true, WAKE_OK);
    last = &(*last)->schedlink;
    *last = NULL;
  }
  return first;
}

static void ready_list(G *gp, bool hosted) {
  while (gp) {
    G *next = gp->schedlink;
    gp->schedlink = NULL;
    ready_any(gp, hosted);
    gp = next;
  }
}

static size_t recv_step(hchan *c, char *elems, size_t n) {
  chanlock(c);
  size_t k = block_of(c, least(n, load_rlx(&c->qcount))), direct = 0;
  if (k > 0) pop_block(c, elems, k);
  sudog *sg = k < n && load_rlx(&c->qcount) == 0 && c->sendq.first ? dequeue(&c->sendq) : NULL;
  if (sg) direct = share_of(sg, &c->sendq, n - k);
  G *list = let_in(c);
  chanunlock(c);
  if (sg) {
    memcpy(elems + k * c->elemsize, sg->elem, direct * c->elemsize);
    ready_any(sudog_served(sg, true, WAKE_OK), c->hosted);
  }
  ready_list(list, c->hosted);
  return k + direct;
}

/* Receives up to n elements, as many as are there.  How many. */
size_t chanrecv_some(hchan *c, void *elems, size_t n) {
  size_t got = 0;
  for (size_t k; got < n && (k = recv_step(c, (char *)elems + got * c->elemsize, n - got)) > 0;) got += k;
  return got;
}

/* Waits for an element, then takes what is there, at most n > 0: *got, if WAKE_OK.  elems as in chanrecv_wait(). */
wake_t chanrecv_many(hchan *c, void *elems, size_t n, size_t *got, bool block, int64_t deadline, bool attached) {
  *got = chanrecv_some(c, elems, n);
  if (*got > 0) return WAKE_OK;
  size_t k = n;
  wake_t r = chanrecv_wait(c, elems, &k, block, deadline, attached);
  if (r == WAKE_OK) *got = k + chanrecv_some(c, (char *)elems + k * c->elemsize, n - k);
  return r;
}
