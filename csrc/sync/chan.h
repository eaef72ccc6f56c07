/* chan.h - channels and select: what the native interface and the host build on. */
#ifndef GMPRT_SYNC_CHAN_H
#define GMPRT_SYNC_CHAN_H

#include "sched/g.h"

/* A channel.  `lock` guards all of it; a hosted channel is guarded by the host lock instead, and its
 * elements are 8-byte references that the host owns.  Readying a goroutine comes after the unlock. */
typedef struct hchan {
  spinlock lock;
  bool hosted;
  _Atomic bool closed;
  uint16_t elemsize;
  _Atomic size_t qcount; /* elements in buf; read without the lock by len() and the fast paths */
  size_t dataqsiz;       /* capacity */
  size_t bufsiz;         /* slots of buf: more than the capacity if more was given back than there was room for */
  size_t sendx, recvx;
  char *buf;
  waitq recvq, sendq;
} hchan;

static inline void chanlock(hchan *c) {
  if (!c->hosted) spin_lock(&c->lock);
}
static inline void chanunlock(hchan *c) {
  if (!c->hosted) spin_unlock(&c->lock);
}

/* Slot i of the buffer. */
static inline void *chanbuf(hchan *c, size_t i) { return c->buf + i * c->elemsize; }

typedef struct scase {
  hchan *c;   /* NULL: never ready */
  void *elem; /* hosted: address of the 8-byte reference */
  bool send;
} scase;

/* chan.c */
bool chan_init(hchan *c, uint16_t elemsize, size_t capacity, bool hosted);
void chan_fini(hchan *c);
wake_t chansend(hchan *c, const void *elem, bool block, int64_t deadline, bool attached);
wake_t chanrecv(hchan *c, void *elem, bool block, int64_t deadline, bool attached);
wake_t chanclose(hchan *c);
bool chan_try(hchan *c, bool send, void *elem, G **wake, wake_t *result);
bool changiveback(hchan *c, uint64_t elem);

wake_t chansend_wait(hchan *c, const void *elems, size_t *n, bool block, int64_t deadline, bool attached);
wake_t chanrecv_wait(hchan *c, void *elems, size_t *n, bool block, int64_t deadline, bool attached);

/* chansome.c */
size_t chansend_some(hchan *c, const void *elems, size_t n);
size_t chanrecv_some(hchan *c, void *elems, size_t n);
wake_t chansend_many(hchan *c, const void *elems, size_t n, size_t *sent, bool block, int64_t deadline, bool attached);
wake_t chanrecv_many(hchan *c, void *elems, size_t n, size_t *got, bool block, int64_t deadline, bool attached);

/* select.c */
int32_t selectgo(scase *cases, int32_t n, bool block, int64_t deadline, bool hosted, wake_t *result);

#endif
