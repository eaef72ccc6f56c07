/* chansome.c - many values at once through a hosted channel: what n sends or receives that need not wait would do.
 *
 * The host lock is held, so nothing happens in between: the values in the buffer are moved as a block, and the order is
 * that of single operations (chan.c, whose invariants hold).  Waiters are made ready one by one, as those would.
 *
 * n receives from a full buffer with senders behind it: each takes the oldest value and lets one sender put its own into
 * the room.  As a block: the buffer's values, then those of senders directly, and what room is left goes to the senders
 * that still wait.  In both ways as many senders are served as there are receives, the first first. */
#include "sched/park.h"
#include "sync/chan.h"

#define ELEM sizeof(uint64_t)

static inline size_t room_of(const hchan *c) {
  size_t n = load_rlx(&c->qcount);
  return n < c->dataqsiz ? c->dataqsiz - n : 0; /* more than the capacity: given back */
}

static inline void serve(sudog *sg) { ready_any(sudog_served(sg, true, WAKE_OK), true); }

static void push_block(hchan *c, const uint64_t *elems, size_t n) {
  size_t first = c->bufsiz - c->sendx < n ? c->bufsiz - c->sendx : n;
  memcpy(chanbuf(c, c->sendx), elems, first * ELEM);
  memcpy(c->buf, elems + first, (n - first) * ELEM);
  c->sendx = c->sendx + n < c->bufsiz ? c->sendx + n : c->sendx + n - c->bufsiz;
  store_rlx(&c->qcount, load_rlx(&c->qcount) + n);
}

static void pop_block(hchan *c, uint64_t *elems, size_t n) {
  size_t first = c->bufsiz - c->recvx < n ? c->bufsiz - c->recvx : n;
  memcpy(elems, chanbuf(c, c->recvx), first * ELEM);
  memcpy(elems + first, c->buf, (n - first) * ELEM);
  c->recvx = c->recvx + n < c->bufsiz ? c->recvx + n : c->recvx + n - c->bufsiz;
  store_rlx(&c->qcount, load_rlx(&c->qcount) - n);
}

/* Sends the first of the n elements for which nobody has to wait.  How many: 0 also if it is closed. */
size_t chansend_some(hchan *c, const uint64_t *elems, size_t n) {
  size_t sent = 0;
  if (load_rlx(&c->closed)) return 0;
  for (sudog *sg; sent < n && c->recvq.first && (sg = dequeue(&c->recvq)) != NULL; sent++) {
    memcpy(sg->elem, &elems[sent], ELEM);
    serve(sg);
  }
  size_t room = room_of(c), more = n - sent < room ? n - sent : room;
  if (more > 0) push_block(c, elems + sent, more);
  return sent + more;
}

/* Receives up to n elements, as many as are there.  How many. */
size_t chanrecv_some(hchan *c, uint64_t *elems, size_t n) {
  size_t count = load_rlx(&c->qcount), got = count < n ? count : n;
  if (got > 0) pop_block(c, elems, got);
  for (sudog *sg; c->sendq.first;) {
    if ((got == n && room_of(c) == 0) || (sg = dequeue(&c->sendq)) == NULL) break;
    if (got < n)
      memcpy(&elems[got++], sg->elem, ELEM);
    else
      push_block(c, sg->elem, 1);
    serve(sg);
  }
  return got;
}
