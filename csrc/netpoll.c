/* netpoll.c - the poller: a source of runnables, and the place where the last idle M sleeps.
 *
 * One epoll instance, with an eventfd to break a sleep.  A descriptor is added once, edge-triggered, for
 * everything, when a goroutine first has to wait for it.  Its record (pollDesc) is found by number,
 * type-stable, never freed: an event that comes late finds a record, and at worst wakes a waiter that
 * tries its system call once more.
 *
 * Waiting.  Every event counts up `seq` of its direction and wakes all who wait for it.  A goroutine
 *     samples seq; tries its call, which says EAGAIN; locks the record; seq moved: tries again, else it
 *     stands in the queue and parks, and the lander drops the lock (park.c).
 * So an edge between the try and the park is never lost, however many wait, and whoever consumes what an
 * edge brought hides nothing from the others.  A set of descriptors (poll, select) is waited for like
 * channels are by a select: all records locked in address order, one waiter each, one claim.
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
 * Modes.  Whether a descriptor is a blocking one is known to the kernel alone, and asking costs as much as the call
 * itself.  The answer is kept while no mode changes: whoever changes any says so (netpollmodechange), and then
 * all is to be asked for anew; descriptors share their modes, so it is not enough to ask for that one.
 * After a second it is as well, for changes that nobody reported: by a library that we do not see, or by another
 * process that shares the file.
 *
 * Sleeping until a deadline is exact: epoll_pwait2 takes nanoseconds.  Without it (Linux < 5.11) the
 * timeout is rounded up to milliseconds.
 *
 * Rejected: one `ready` flag per direction (Go's; of two who wait, one may consume the other's edge; Go forbids
 * two), adding or re-arming at each wait (a system call, 3 % of an echo server's time). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "chan.h"
#include "gmprt.h"

enum { EVENTS = 128, PD_BLOCK = 1024, PD_BLOCKS = 1024 };

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

static ownfd *_Atomic poller, *_Atomic breaker; /* the epoll instance, and the eventfd in it */
static _Atomic uint32_t breaksig; /* a break is under way */
static _Atomic uint32_t waiters;
static _Atomic uint64_t modes = 1, modes_since; /* ticks */
static _Atomic bool unaudited; /* somebody has begun to wait since the last audit */
static pollDesc *_Atomic blocks[PD_BLOCKS];
static bool no_pwait2;

/* None: before the runtime starts, and in a forked child where it was refused. */
static int epfd(void) {
  ownfd *ep = load_acq(&poller);
  return likely(ep != NULL) ? ownfd_number(ep) : -1;
}

/* A new instance: 0, or -1 with errno, and nothing is. */
static int netpollopen(void) {
  ownfd *ep = ownfd_new(epoll_create1(EPOLL_CLOEXEC));
  ownfd *br = ep ? ownfd_new(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) : NULL;
  struct epoll_event ev = {.events = EPOLLIN, .data.u64 = UINT64_MAX};
  if (!br || epoll_ctl(ownfd_number(ep), EPOLL_CTL_ADD, ownfd_number(br), &ev) != 0) {
    int e = errno;
    ownfd_free(br);
    ownfd_free(ep);
    errno = e;
    return -1;
  }
  store_rel(&poller, ep);
  store_rel(&breaker, br);
  return 0;
}

/* 0: it is there.  Else errno says why not. */
int netpollinit(void) { return load_rlx(&breaker) ? 0 : netpollopen(); }

const char *netpoll_mode(void) { return no_pwait2 ? "epoll_wait (milliseconds)" : "epoll_pwait2"; }

uint32_t netpoll_waiters(void) { return load_rlx(&waiters); }

static void netpollremake(ownfd *seen, bool gone);

/* Ends the sleep of the M in netpoll, if there is one. */
void netpollbreak(void) {
  ownfd *seen = load_acq(&poller), *br = load_acq(&breaker);
  if (unlikely(!br)) return; /* nobody sleeps there */
  bool under_way = xchg(&breaksig, 1); /* unless what it was told by has been closed before it could be heard */
  if (unlikely(!(under_way ? ownfd_intact(br) : ownfd_post(br)))) netpollremake(seen, false);
}

static int poll_wait(struct epoll_event *ev, int64_t ns) {
  if (!no_pwait2) {
    struct timespec ts = {ns / 1000000000, ns % 1000000000};
    long n = cpu_syscall(SYS_epoll_pwait2, epfd(), (long)ev, EVENTS, ns < 0 ? 0 : (long)&ts, 0, 8);
    if (n != -ENOSYS) return (int)n;
    no_pwait2 = true;
  }
  int64_t ms = ns < 0 ? -1 : (ns + 999999) / 1000000;
  return (int)cpu_syscall(SYS_epoll_pwait, epfd(), (long)ev, EVENTS, ms > 1000000000 ? 1000000000 : (int)ms, 0, 8);
}

/* The record of fd if there is one yet. */
static pollDesc *known_desc(int fd) {
  if (fd < 0 || fd >= PD_BLOCK * PD_BLOCKS) return NULL;
  pollDesc *block = load_acq(&blocks[fd / PD_BLOCK]);
  return block ? &block[fd % PD_BLOCK] : NULL;
}

/* NULL: fd is out of range, or no memory. */
pollDesc *netpolldesc(int fd) {
  if (fd < 0 || fd >= PD_BLOCK * PD_BLOCKS) return NULL;
  pollDesc *_Atomic *slot = &blocks[fd / PD_BLOCK];
  pollDesc *block = load_acq(slot);
  if (!block) {
    pollDesc *made = calloc(PD_BLOCK, sizeof *made);
    if (!made) return NULL;
    for (int i = 0; i < PD_BLOCK; i++) made[i].lock.rank = rank_poll;
    pollDesc *expected = NULL;
    if (atomic_compare_exchange_strong(slot, &expected, made))
      block = made;
    else {
      free(made);
      block = expected;
    }
  }
  return &block[fd % PD_BLOCK];
}

/* pd->lock held: an event in one direction.  Those who waited, claimed, are pushed to *list. */
static void event(pollDesc *pd, int mode, G **list) {
  xadd(&pd->seq[mode], 1);
  for (sudog *sg; (sg = dequeue(&pd->q[mode])) != NULL;) {
    G *gp = sg->g;
    gp->param = sg;
    gp->wakeres = WAKE_OK;
    gp->schedlink = *list;
    *list = gp;
  }
}

/* In the order in which they came. */
static void readyall(G *list) {
  G *fifo = NULL;
  for (G *link; list; list = link) {
    link = list->schedlink;
    list->schedlink = fifo;
    fifo = list;
  }
  for (G *link; fifo; fifo = link) {
    link = fifo->schedlink;
    fifo->schedlink = NULL;
    xadd(&counts.netready, 1);
    goready(fifo);
  }
}

static void netpollready(pollDesc *pd, uint32_t events) {
  G *list = NULL;
  spin_lock(&pd->lock);
  if (events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) event(pd, POLL_READ, &list);
  if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) event(pd, POLL_WRITE, &list);
  spin_unlock(&pd->lock);
  readyall(list);
}

/* Readies whoever waits for what has happened.  delay < 0: sleeps until something does. */
void netpoll(int64_t delay) {
  struct epoll_event ev[EVENTS];
  ownfd *seen = load_acq(&poller);
  int n = poll_wait(ev, delay);
  if (unlikely(n == -EBADF || n == -EINVAL)) netpollremake(seen, true);
  for (int i = 0; i < n; i++) {
    if (ev[i].data.u64 == UINT64_MAX) {
      if (delay != 0) { /* only a sleep consumes the break */
        if (!ownfd_drain(load_acq(&breaker))) netpollremake(seen, false);
        store_rel(&breaksig, 0);
      }
      continue;
    }
    pollDesc *pd = known_desc((int)ev[i].data.u64);
    if (pd) netpollready(pd, ev[i].events);
  }
}

/* ---- waiting ------------------------------------------------------------------------------------------- */

/* pd->lock held. false: errno says why the poller cannot watch fd (EPERM: a regular file). */
static bool add(pollDesc *pd, int fd) {
  struct epoll_event ev = {.events = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                           .data.u64 = (uint64_t)fd};
  bool ok = epoll_ctl(epfd(), EPOLL_CTL_ADD, fd, &ev) == 0 || errno == EEXIST;
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
  *w = (pollwait){.pd = netpolldesc(fd), .fd = fd, .want = {in, out}};
  if (!w->pd) return false;
  w->closes = atomic_load(&w->pd->closes);
  return true;
}

/* What was watched has been closed: the number may be another file's. */
bool netpollgone(const pollwait *w) { return w->pd && atomic_load(&w->pd->closes) != w->closes; }

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
    if (netpollgone(&w[i])) return true;
  return false;
}

static bool any_moved(const pollwait *w, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (moved(&w[i])) return true;
  return false;
}

/* By address: the order of the locks. */
static int by_address(const void *a, const void *b) {
  uintptr_t x = (uintptr_t)((const pollwait *)a)->pd, y = (uintptr_t)((const pollwait *)b)->pd;
  return (x > y) - (x < y);
}

static void lockall(const pollwait *w, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (i == 0 || w[i].pd != w[i - 1].pd) spin_lock(&w[i].pd->lock);
}

static void unlockall(const pollwait *w, uint32_t n) {
  for (uint32_t i = n; i-- > 0;)
    if (i == 0 || w[i].pd != w[i - 1].pd) spin_unlock(&w[i].pd->lock);
}

static uint32_t waiters_of(const pollwait *w, uint32_t n) {
  uint32_t total = 0;
  for (uint32_t i = 0; i < n; i++) total += (uint32_t)w[i].want[0] + (uint32_t)w[i].want[1];
  return total;
}

static void enqueueall(const pollwait *w, uint32_t n, G *gp, sudog *sg) {
  for (uint32_t i = 0; i < n; i++) {
    pollDesc *pd = w[i].pd;
    for (int mode = 0; mode < 2; mode++) {
      if (!w[i].want[mode]) continue;
      sudog_link(sg, gp, NULL);
      sg->pd = pd;
      enqueue(&pd->q[mode], sg++);
      store_rlx(&pd->nwait, load_rlx(&pd->nwait) + 1);
    }
    pd->audited = false;
  }
  if (!load_rlx(&unaudited)) store_rlx(&unaudited, true);
}

/* In the order of the locks, one at a time: what is still locked the lander has not left. */
static void dequeueall(const pollwait *w, uint32_t n, sudog *sg) {
  for (uint32_t i = 0; i < n; i++) {
    pollDesc *pd = w[i].pd;
    spin_lock(&pd->lock);
    for (int mode = 0; mode < 2; mode++) {
      if (!w[i].want[mode]) continue;
      dequeue_sudog(&pd->q[mode], sg++);
      store_rlx(&pd->nwait, load_rlx(&pd->nwait) - 1);
    }
    spin_unlock(&pd->lock);
  }
}

/* The lander. One descriptor, one direction: the waiter is not looked at. */
static void park_commit_one(void *pd) { spin_unlock(&((pollDesc *)pd)->lock); }

/* The waiters lie in the G in lock order; see select.c for why they may be read. */
static void park_commit_all(void *arg) {
  G *gp = arg;
  sudog *sg = gp->sgs;
  uint32_t n = gp->nwait;
  pollDesc *pd = sg[0].pd;
  for (uint32_t i = 1; i <= n; i++) {
    pollDesc *next = i < n ? sg[i].pd : NULL;
    if (next != pd) spin_unlock(&pd->lock);
    pd = next;
  }
}

/* Parks the running goroutine until something happens to one of n descriptors in a wanted direction (WAKE_OK;
 * also for no reason), one is closed (WAKE_CLOSED; also if it was before), deadline, cancel or interrupt.
 * WAKE_BADFD: one of them cannot be watched.  Sorts w. */
wake_t netpollwait(pollwait *w, uint32_t n, int64_t deadline, bool hosted) {
  uint32_t total = waiters_of(w, n);
  G *gp = getg(hosted);
  bool one = total == 1 && n == 1;
  sudog *sg = one ? &gp->sg : gsudogs(gp, total);
  if (!sg) return WAKE_NOMEM;
  if (n > 1) qsort(w, n, sizeof *w, by_address);
  for (uint32_t i = 0; i < n; i++)
    if (!registered(&w[i])) return any_gone(w, n) ? WAKE_CLOSED : WAKE_BADFD;
  lockall(w, n);
  bool gone = any_gone(w, n);
  if (gone || any_moved(w, n)) {
    unlockall(w, n);
    return gone ? WAKE_CLOSED : WAKE_OK;
  }
  enqueueall(w, n, gp, sg);
  xadd(&waiters, 1);
  wake_t r = gopark(one ? park_commit_one : park_commit_all, one ? (void *)w->pd : (void *)gp,
                    waitReasonIOWait, deadline);
  xadd(&waiters, (uint32_t)-1);
  dequeueall(w, n, sg);
  return r == WAKE_OK && any_gone(w, n) ? WAKE_CLOSED : r;
}

/* noinline: the address of errno must be found anew after each park (another thread, perhaps). */
static noinline int errno_get(void) { return errno; }
static noinline void errno_set(int e) { errno = e; }

/* ---- closing -------------------------------------------------------------------------------------------- */

/* open: it still is the file that was waited for. */
static void forget(pollDesc *pd, int fd, bool open) {
  G *list = NULL;
  spin_lock(&pd->lock);
  if (load_rlx(&pd->registered)) {
    if (open) epoll_ctl(epfd(), EPOLL_CTL_DEL, fd, NULL);
    store_rlx(&pd->registered, false);
  }
  for (int mode = 0; mode < 2; mode++) {
    store_rlx(&pd->plain[mode], 0);
    event(pd, mode, &list);
  }
  spin_unlock(&pd->lock);
  readyall(list);
}

static bool in_use(pollDesc *pd) { return load_rlx(&pd->registered) || load_rlx(&pd->nwait); }

/* fd is about to be closed: whoever waits for it wakes (WAKE_CLOSED). */
void netpollclosing(int fd) {
  pollDesc *pd = known_desc(fd);
  if (!pd) return;
  xadd(&pd->closes, 1); /* first: who comes to wait after `forget` must see it */
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

static mutex remaking;

/* Somebody has closed descriptors of ours behind our back (ownfd.c), while `seen` was the poller: new ones.  Who waits
 * tries again, and is added to the new instance; who sleeps in the old one is woken by a signal. */
static void netpollremake(ownfd *seen, bool gone) {
  lock(&remaking);
  ownfd *br = load_rlx(&breaker);
  if (load_rlx(&poller) == seen) {
    while (netpollopen() != 0)
      if (errno != EBADF) throw("the poller's descriptors were closed, and there are no others: errno %d", errno);
    store_rel(&breaksig, 0);
    ownfd_free(br);
    if (gone)
      ownfd_forget(seen);
    else
      ownfd_free(seen);
    for (int i = 0; i < PD_BLOCKS; i++)
      for (int j = 0; load_acq(&blocks[i]) && j < PD_BLOCK; j++) netpollopened(i * PD_BLOCK + j);
    for (uint32_t i = 1; i <= sched.nextmid; i++)
      if (sched.allm[i]->tid && sched.allm[i] != getm()) os_kick(sched.allm[i]);
  }
  unlock(&remaking);
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

int gm_close(int fd) {
  if (ownfd_is(fd)) {
    errno_set(EBADF);
    return -1;
  }
  netpollclosing(fd);
  int r = close(fd), e = errno_get();
  netpollclosed(fd);
  errno_set(e);
  return r;
}

bool netpoll_unaudited(void) { return load_rlx(&unaudited); }

/* sysmon, once a second: see the head of the file. */
void netpollaudit(void) {
  if (!load_rlx(&unaudited) || !xchg(&unaudited, false)) return;
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

/* ---- read, write, accept of native goroutines --------------------------------------------------------- */

static void nonblocking(int fd) {
  int flags = fcntl(fd, F_GETFL);
  if (flags >= 0 && !(flags & O_NONBLOCK)) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/* Tries `call` until it says something else than EAGAIN. */
#define UNTIL_DONE(fd, mode, call) \
  do { \
    pollwait w_; \
    netpollwatch(&w_, fd, (mode) == POLL_READ, (mode) == POLL_WRITE); \
    for (;;) { \
      if (w_.pd) netpollsample(&w_); \
      __typeof__(call) r_ = (call); \
      if (r_ >= 0 || !io_wait(&w_)) return r_; \
    } \
  } while (0)

/* After a failure: wait until it is worth another try. */
static bool io_wait(pollwait *w) {
  int e = errno_get();
  if (netpollgone(w)) {
    errno_set(EBADF);
    return false;
  }
  if (e == EINTR) return true;
  if (e != EAGAIN && e != EWOULDBLOCK) return false;
  M *m = getm();
  G *gp = m ? load_rlx(&m->curg) : NULL;
  if (!gp || gp->kind != GK_NATIVE || !w->pd) {
    struct pollfd p = {.fd = w->fd, .events = w->want[POLL_READ] ? POLLIN : POLLOUT};
    return poll(&p, 1, -1) >= 0 || errno_get() == EINTR;
  }
  switch (netpollwait(w, 1, 0, false)) {
    case WAKE_OK: return true;
    case WAKE_CLOSED: errno_set(EBADF); return false;
    case WAKE_NOMEM: errno_set(ENOMEM); return false;
    case WAKE_BADFD: return false;
    default: errno_set(ECANCELED); return false;
  }
}

ssize_t gm_read(int fd, void *buf, size_t n) {
  nonblocking(fd);
  UNTIL_DONE(fd, POLL_READ, read(fd, buf, n));
}

ssize_t gm_write(int fd, const void *buf, size_t n) {
  nonblocking(fd);
  UNTIL_DONE(fd, POLL_WRITE, write(fd, buf, n));
}

int gm_accept(int fd, int flags) {
  nonblocking(fd);
  UNTIL_DONE(fd, POLL_READ, accept4(fd, NULL, NULL, flags | SOCK_NONBLOCK | SOCK_CLOEXEC));
}

/* In a forked child the poller is the parent's: a new one.  If there is none to be had, threads wait, until schedinit
 * has got one or has told somebody. */
void netpoll_afterfork(void) {
  memset(&remaking, 0, sizeof remaking);
  store_rlx(&poller, (ownfd *)NULL); /* ownfd_afterfork has closed them */
  store_rlx(&breaker, (ownfd *)NULL);
  netpollopen();
  store_rlx(&waiters, 0);
  store_rlx(&breaksig, 0);
  for (int i = 0; i < PD_BLOCKS; i++) {
    pollDesc *block = load_rlx(&blocks[i]);
    if (!block) continue;
    memset(block, 0, PD_BLOCK * sizeof *block);
    for (int j = 0; j < PD_BLOCK; j++) block[j].lock.rank = rank_poll;
  }
}
