/* netpoll.c - who waits for which descriptor.
 *
 * A descriptor is added to the poller (netpoll_epoll.c) once, edge-triggered, for
 * everything, when a goroutine first has to wait for it.  Its record (pollDesc) is found by number,
 * type-stable, never freed: an event that comes late finds a record, and at worst wakes a waiter that
 * tries its system call once more.
 *
 * Waiting.  Every event counts up `seq` of its direction and wakes all who wait for it.  A goroutine
 *     samples seq; tries its call, which says EAGAIN; locks the record; seq moved: tries again, else it
 *     stands in the queue and parks, and the lander drops the lock (park.c).
 * So an edge between the try and the park is never lost, however many wait, and whoever consumes what an
 * edge brought hides nothing from the others.  A set of descriptors (poll, select) is waited for like
 * channels are by a select: as a wait set (waitset.c).
 *
 * Closing.  The kernel forgets a descriptor that is closed, so the record must, too, or the next file with that
 * number would never be added.  Whoever closes says so before (waiters wake, and the registration goes) and
 * after: what has parked in between wakes as well.  A number that has just been given out is taken for closed.  A
 * close that nobody reported, in a library that we do not see, is found by the audit: once a second sysmon
 * adds anew what has begun to wait since, and the kernel says EEXIST, as it should, or has just healed a
 * registration that had died.
 *
 * A call is made of many attempts, and each names its file by number.  A thread's is made once, and never comes to
 * another file; so a goroutine's must not go on after a close: when it runs again, the number may have been given
 * out anew, and it would fail as the new file does (ENOTSOCK), or take what is not its own.  `closes` of the
 * record counts the closes that are about to be, a call samples it once, before its first attempt
 * (netpollwatch), and ends with WAKE_CLOSED when it has moved, whether it comes to wait or from one.  Only the news
 * before a close counts: then the number still is the old file's, and who has got the new one from the kernel
 * samples later.  The news after it may be as late as it likes, and only makes tries again.
 *
 * Who closes counts, then looks whether anybody is in the record; who waits is in the record, then looks at the
 * count.  One of the two sees the other:
 *     close:  closes or seq ++; fence; registered, nwait?
 *     wait:   registered := true; the lock, released and taken; closes, seq? (both sequentially consistent)
 * The audit is a pair like that: a waiter is in the record, and then looks whether `unaudited` is to be set; the audit
 * resets it, and then looks who waits.  Each fence stands behind a read-modify-write, so on x86 it costs nothing.
 *
 * Modes.  Whether a descriptor is a blocking one is known to the kernel alone, and asking costs as much as the call
 * itself.  The answer is kept while no mode changes: whoever changes any says so (netpollmodechange), and then
 * all is to be asked for anew; descriptors share their modes, so it is not enough to ask for that one.
 * After a second it is as well, for changes that nobody reported: by a library that we do not see, or by another
 * process that shares the file.
 *
 * Rejected: one `ready` flag per direction (Go's; of two who wait, one may consume the other's edge; Go forbids
 * two), adding or re-arming at each wait (a system call, 3 % of an echo server's time). */
#include <stdlib.h>

#include "arch/arch.h"
#include "base/clock.h"
#include "sched/sched.h"
#include "sched/park.h"
#include "sched/netpoll.h"
#include "sched/waitset.h"

enum { PD_BLOCK = 1024, PD_BLOCKS = 1024 };

struct pollDesc {
  spinlock lock; /* guards the rest; those marked atomic are read without it as well */
  _Atomic bool registered;
  bool audited;            /* no new waiter since the audit */
  _Atomic uint32_t nwait;  /* waiters in both queues */
  _Atomic uint32_t closes; /* that have begun */
  _Atomic uint32_t seq[2]; /* events seen, per direction */
  waitq q[2];
  _Atomic uint64_t plain[2]; /* the generation of modes in which it was known to be a blocking descriptor */
};

static _Atomic uint64_t waiters; /* above NATIVE: how many of them are native */
#define NATIVE ((uint64_t)1 << 32)
static _Atomic uint64_t modes = 1, modes_since; /* ticks */
static _Atomic bool unaudited; /* somebody has begun to wait since the last audit */
static pollDesc *_Atomic blocks[PD_BLOCKS];

uint32_t netpoll_waiters(void) { return (uint32_t)load_rlx(&waiters); }
uint32_t netpoll_native_waiters(void) { return (uint32_t)(load_rlx(&waiters) / NATIVE); }

/* The record of fd if there is one yet. */
static inline pollDesc *known_desc(int fd) {
  if ((unsigned)fd >= PD_BLOCK * PD_BLOCKS) return NULL;
  pollDesc *block = load_acq(&blocks[(unsigned)fd / PD_BLOCK]);
  return block ? &block[(unsigned)fd % PD_BLOCK] : NULL;
}

static noinline pollDesc *make_desc(int fd) {
  if ((unsigned)fd >= PD_BLOCK * PD_BLOCKS) return NULL;
  pollDesc *made = calloc(PD_BLOCK, sizeof *made), *expected = NULL;
  if (!made) return NULL;
  for (int i = 0; i < PD_BLOCK; i++) made[i].lock.rank = rank_poll;
  if (!atomic_compare_exchange_strong(&blocks[fd / PD_BLOCK], &expected, made)) free(made);
  return known_desc(fd);
}

/* NULL: fd is out of range, or no memory. */
pollDesc *netpolldesc(int fd) {
  pollDesc *pd = known_desc(fd);
  return likely(pd != NULL) ? pd : make_desc(fd);
}

/* pd->lock held: an event in one direction.  Those who waited, claimed, are pushed to *list. */
static void event(pollDesc *pd, int mode, G **list) {
  xadd(&pd->seq[mode], 1);
  dequeue_all(&pd->q[mode], true, WAKE_OK, list);
}

/* Makes those runnable who have been claimed, in the order in which they came. */
void injectglist(G *list) {
  G *fifo = NULL;
  uint64_t n = 0;
  for (G *link; list; list = link, n++) {
    link = list->schedlink;
    list->schedlink = fifo;
    fifo = list;
  }
  if (n) xadd(&counts.netready, n);
  for (G *link; fifo; fifo = link) {
    link = fifo->schedlink;
    fifo->schedlink = NULL;
    goready(fifo);
  }
}

/* The poller has news of fd: who waited for that, claimed, is pushed to *list. */
void netpollready(int fd, bool in, bool out, G **list) {
  pollDesc *pd = known_desc(fd);
  if (!pd) return;
  spin_lock(&pd->lock);
  if (in) event(pd, POLL_READ, list);
  if (out) event(pd, POLL_WRITE, list);
  spin_unlock(&pd->lock);
}

/* ---- waiting ------------------------------------------------------------------------------------------- */

/* pd->lock held. */
static bool add(pollDesc *pd, int fd) {
  bool ok = netpolladd(fd);
  if (ok) store_rlx(&pd->registered, true);
  return ok;
}

static bool registered(pollwait *w) {
  if (load_rlx(&w->pd->registered)) return true;
  spin_lock(&w->pd->lock);
  bool ok = load_rlx(&w->pd->registered) || add(w->pd, w->fd);
  spin_unlock(&w->pd->lock);
  return ok;
}

/* At the beginning of a call that may wait for fd. false: there is no record (netpolldesc). */
bool netpollwatch(pollwait *w, int fd, bool in, bool out) {
  pollDesc *pd = netpolldesc(fd);
  w->pd = pd;
  w->fd = fd;
  w->want[POLL_READ] = in;
  w->want[POLL_WRITE] = out;
  if (unlikely(!pd)) return false;
  w->closes = atomic_load(&pd->closes);
  return true;
}

/* What was watched has been closed: the number may be another file's. */
static inline bool gone(const pollwait *w) { return unlikely(atomic_load(&w->pd->closes) != w->closes); }
bool netpollgone(const pollwait *w) { return w->pd && gone(w); }

/* Before the attempt whose failure is a reason to wait. */
void netpollsample(pollwait *w) {
  for (int mode = 0; mode < 2; mode++)
    if (w->want[mode]) w->seq[mode] = atomic_load(&w->pd->seq[mode]);
}

static bool moved(const pollwait *w) {
  for (int mode = 0; mode < 2; mode++)
    if (w->want[mode] && atomic_load(&w->pd->seq[mode]) != w->seq[mode]) return true;
  return false;
}

static bool any_gone(const pollwait *w, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (gone(&w[i])) return true;
  return false;
}

/* Since the samples: a close (WAKE_CLOSED), an event (WAKE_OK), or neither: WAKE_WOULDBLOCK. */
static wake_t news(const pollwait *w, uint32_t n) {
  wake_t r = WAKE_WOULDBLOCK;
  for (uint32_t i = 0; i < n; i++) {
    if (gone(&w[i])) return WAKE_CLOSED;
    if (unlikely(moved(&w[i]))) r = WAKE_OK;
  }
  return r;
}

/* By address: the order of the locks. */
static int by_address(const void *a, const void *b) {
  uintptr_t x = (uintptr_t)((const pollwait *)a)->pd, y = (uintptr_t)((const pollwait *)b)->pd;
  return (x > y) - (x < y);
}

static uint32_t waiters_of(const pollwait *w, uint32_t n) {
  uint32_t total = 0;
  for (uint32_t i = 0; i < n; i++) total += (uint32_t)w[i].want[0] + (uint32_t)w[i].want[1];
  return total;
}

/* One waiter for each wanted direction, in the order of the locks. */
static void linkall(const pollwait *w, uint32_t n, G *gp, sudog *sg) {
  for (uint32_t i = 0; i < n; i++) {
    for (int mode = 0; mode < 2; mode++) {
      if (!w[i].want[mode]) continue;
      sudog_link(sg, gp);
      sg->lock = &w[i].pd->lock;
      sg++->kase = mode;
    }
  }
}

static pollDesc *desc_of(const sudog *sg) { return containerof(sg->lock, pollDesc, lock); }

static void enqueueall(sudog *sg, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    pollDesc *pd = desc_of(&sg[i]);
    enqueue(&pd->q[sg[i].kase], &sg[i]);
    store_rlx(&pd->nwait, load_rlx(&pd->nwait) + 1);
    pd->audited = false;
  }
}

static void left(sudog *sg) {
  pollDesc *pd = desc_of(sg);
  store_rlx(&pd->nwait, load_rlx(&pd->nwait) - 1);
}

/* The lander, one waiter: that is not looked at. */
static void unlock_one(void *pd) { spin_unlock(&((pollDesc *)pd)->lock); }

/* Parks the running goroutine until something happens to one of n descriptors in a wanted direction (WAKE_OK;
 * also for no reason), one is closed (WAKE_CLOSED; also if it was before), deadline, cancel or interrupt.
 * WAKE_BADFD: one of them cannot be watched.  Sorts w. */
wake_t netpollwait(pollwait *w, uint32_t n, int64_t deadline, bool hosted) {
  G *gp = getg(hosted);
  bool one = n == 1 && w->want[POLL_READ] != w->want[POLL_WRITE];
  uint32_t total = likely(one) ? 1 : waiters_of(w, n);
  sudog *sg = likely(one) ? &gp->sg : gsudogs(gp, total);
  if (!sg) return WAKE_NOMEM;
  if (n > 1) qsort(w, n, sizeof *w, by_address);
  for (uint32_t i = 0; i < n; i++)
    if (!registered(&w[i])) return any_gone(w, n) ? WAKE_CLOSED : WAKE_BADFD;
  linkall(w, n, gp, sg);
  waitset_lock(sg, total);
  wake_t r = news(w, n);
  if (unlikely(r != WAKE_WOULDBLOCK)) {
    waitset_unlock(sg, total);
    return r;
  }
  enqueueall(sg, total);
  uint64_t one_more = hosted ? 1 : 1 + NATIVE;
  xadd(&waiters, one_more);
  fence_after_rmw();
  if (!load_rlx(&unaudited)) store_rlx(&unaudited, true);
  r = one ? gopark(unlock_one, w->pd, waitReasonIOWait, deadline)
          : gopark(waitset_commit, gp, waitReasonIOWait, deadline);
  xadd(&waiters, -one_more);
  waitset_leave(sg, total, left);
  return r == WAKE_OK && any_gone(w, n) ? WAKE_CLOSED : r;
}

/* ---- closing -------------------------------------------------------------------------------------------- */

/* open: it still is the file that was waited for. */
static void forget(pollDesc *pd, int fd, bool open) {
  G *list = NULL;
  spin_lock(&pd->lock);
  if (load_rlx(&pd->registered)) {
    if (open) netpolldel(fd);
    store_rlx(&pd->registered, false);
  }
  for (int mode = 0; mode < 2; mode++) {
    store_rlx(&pd->plain[mode], 0);
    event(pd, mode, &list);
  }
  spin_unlock(&pd->lock);
  injectglist(list);
}

static bool in_use(pollDesc *pd) { return load_rlx(&pd->registered) || load_rlx(&pd->nwait); }

/* fd is about to be closed: whoever waits for it wakes (WAKE_CLOSED). */
void netpollclosing(int fd) {
  pollDesc *pd = known_desc(fd);
  if (!pd) return;
  xadd(&pd->closes, 1); /* first: who comes to wait after `forget` must see it */
  fence_after_rmw();
  if (in_use(pd)) forget(pd, fd, true);
}

/* Another file is about to take the place of fd's (dup2), or nothing will come of it: whoever waits tries again. */
void netpollreplacing(int fd) {
  pollDesc *pd = known_desc(fd);
  if (pd && in_use(pd)) forget(pd, fd, true);
}

/* fd has been closed: so does who has begun to wait meanwhile. */
void netpollclosed(int fd) {
  pollDesc *pd = known_desc(fd);
  if (!pd) return;
  for (int mode = 0; mode < 2; mode++) xadd(&pd->seq[mode], 1);
  fence_after_rmw();
  if (in_use(pd)) forget(pd, fd, false);
}

/* Of every number in [first, last].  Most have no record. */
static void each_in_range(unsigned first, unsigned last, void (*tell)(int fd)) {
  for (unsigned i = first / PD_BLOCK; i < PD_BLOCKS && i <= last / PD_BLOCK; i++) {
    if (!load_acq(&blocks[i])) continue;
    for (unsigned fd = i * PD_BLOCK; fd < (i + 1) * PD_BLOCK; fd++)
      if (fd >= first && fd <= last) tell((int)fd);
  }
}
void netpollclosing_range(unsigned first, unsigned last) { each_in_range(first, last, netpollclosing); }
void netpollclosed_range(unsigned first, unsigned last) { each_in_range(first, last, netpollclosed); }

/* fd has been given out: whatever had that number is closed, whether we have heard of it or not. */
void netpollopened(int fd) {
  pollDesc *pd = known_desc(fd);
  if (pd && in_use(pd)) forget(pd, fd, false);
}

/* The poller is a new one, in which nothing is registered. */
void netpollreopened(void) {
  for (int i = 0; i < PD_BLOCKS; i++)
    for (int j = 0; load_acq(&blocks[i]) && j < PD_BLOCK; j++) netpollopened(i * PD_BLOCK + j);
}

/* ---- modes ---------------------------------------------------------------------------------------------- */

/* The mode of some descriptor has changed, or its time-out. */
void netpollmodechange(void) { xadd(&modes, 1); }

static bool modes_old(uint64_t now) {
  return ticks_to_ns(now - load_rlx(&modes_since)) > (int64_t)AUDIT_S * 1000000000;
}

/* The generation: to be read before the kernel is asked. */
uint64_t netpollmodes(void) {
  uint64_t now = cputicks();
  if (modes_old(now)) {
    store_rlx(&modes_since, now);
    netpollmodechange();
  }
  return atomic_load(&modes);
}

/* Known to block for ever in the wanted direction. */
bool netpollplain(const pollwait *w) {
  return load_rlx(&w->pd->registered) && load_rlx(&w->pd->plain[w->want[POLL_WRITE]]) == load_rlx(&modes) &&
         !modes_old(cputicks());
}

/* The kernel has said so, in that generation.  Not kept if anything has happened since the sample: it might be
 * another file by now. */
void netpollsetplain(const pollwait *w, uint64_t generation) {
  pollDesc *pd = w->pd;
  spin_lock(&pd->lock);
  if (load_rlx(&pd->registered) && !moved(w)) store_rlx(&pd->plain[w->want[POLL_WRITE]], generation);
  spin_unlock(&pd->lock);
}

bool netpoll_unaudited(void) { return load_rlx(&unaudited); }

/* sysmon, once a second: see the head of the file. */
void netpollaudit(void) {
  if (!load_rlx(&unaudited) || !xchg(&unaudited, false)) return;
  fence_after_rmw();
  for (int i = 0; i < PD_BLOCKS; i++) {
    pollDesc *block = load_acq(&blocks[i]);
    if (!block) continue;
    for (int j = 0; j < PD_BLOCK; j++) {
      pollDesc *pd = &block[j];
      if (load_rlx(&pd->nwait) == 0) continue;
      spin_lock(&pd->lock);
      if (!pd->audited && load_rlx(&pd->nwait) > 0) pd->audited = add(pd, i * PD_BLOCK + j);
      spin_unlock(&pd->lock);
    }
  }
}

/* ---- fork ------------------------------------------------------------------------------------------------ */

/* In a forked child nobody waits, and nothing is registered. */
void netpoll_afterfork(void) {
  netpoll_epoll_afterfork();
  store_rlx(&waiters, 0);
  for (int i = 0; i < PD_BLOCKS; i++) {
    pollDesc *block = load_rlx(&blocks[i]);
    if (!block) continue;
    memset(block, 0, PD_BLOCK * sizeof *block);
    for (int j = 0; j < PD_BLOCK; j++) block[j].lock.rank = rank_poll;
  }
}
