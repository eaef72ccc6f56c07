/* netpoll.c - the poller: a source of runnables, and the place where the last idle M sleeps.
 *
 * One epoll instance, with an eventfd to break a sleep.  A descriptor is added once, edge-triggered, for
 * both directions, when a goroutine first has to wait for it.  Its record (pollDesc) is found by number,
 * type-stable, never freed: an event that comes late finds a record, and at worst wakes a waiter that
 * tries its system call once more.
 *
 * Per direction a record is nothing, `ready`, or one waiter.  `ready` is set by an event that found no
 * waiter and consumed by the next wait, so an edge between a failed try and the wait is not lost.  A
 * wait is linked under the record's lock, which the lander drops (park.c).
 *
 * Sleeping until a deadline is exact: epoll_pwait2 takes nanoseconds.  Without it (Linux < 5.11) the
 * timeout is rounded up to milliseconds. */
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
enum { READ = 0, WRITE = 1 };

typedef struct pollDesc {
  spinlock lock; /* guards the rest */
  bool registered;
  struct {
    bool ready;
    sudog *sg; /* the one that waits */
  } side[2];
} pollDesc;

static int epfd = -1, breakfd = -1;
static _Atomic uint32_t breaksig; /* a break is under way */
static _Atomic uint32_t waiters;
static pollDesc *_Atomic blocks[PD_BLOCKS];
static bool no_pwait2;

int netpollinit(void) {
  epfd = epoll_create1(EPOLL_CLOEXEC);
  breakfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (epfd < 0 || breakfd < 0) return -1;
  struct epoll_event ev = {.events = EPOLLIN, .data.u64 = UINT64_MAX};
  return epoll_ctl(epfd, EPOLL_CTL_ADD, breakfd, &ev);
}

const char *netpoll_mode(void) { return no_pwait2 ? "epoll_wait (milliseconds)" : "epoll_pwait2"; }

uint32_t netpoll_waiters(void) { return load_rlx(&waiters); }

/* Ends the sleep of the M in netpoll, if there is one. */
void netpollbreak(void) {
  if (xchg(&breaksig, 1)) return;
  uint64_t one = 1;
  while (write(breakfd, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

static int poll_wait(struct epoll_event *ev, int64_t ns) {
  if (!no_pwait2) {
    struct timespec ts = {ns / 1000000000, ns % 1000000000};
    int n = (int)syscall(SYS_epoll_pwait2, epfd, ev, EVENTS, ns < 0 ? NULL : &ts, NULL, (size_t)8);
    if (n >= 0 || errno != ENOSYS) return n;
    no_pwait2 = true;
  }
  int64_t ms = ns < 0 ? -1 : (ns + 999999) / 1000000;
  return epoll_wait(epfd, ev, EVENTS, ms > 1000000000 ? 1000000000 : (int)ms);
}

static pollDesc *poll_desc(int fd) {
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

/* The waiter of one side, claimed, or NULL and the side is marked ready.  pd->lock held. */
static G *unblock(pollDesc *pd, int side) {
  sudog *sg = pd->side[side].sg;
  pd->side[side].sg = NULL;
  if (sg) {
    xadd(&waiters, (uint32_t)-1);
    if (wait_claim(sg->g, sg->seq)) {
      sg->g->param = sg;
      sg->g->wakeres = WAKE_OK;
      return sg->g;
    }
  }
  pd->side[side].ready = true;
  return NULL;
}

static void netpollready(pollDesc *pd, uint32_t events) {
  G *wake[2] = {NULL, NULL};
  spin_lock(&pd->lock);
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) wake[READ] = unblock(pd, READ);
  if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) wake[WRITE] = unblock(pd, WRITE);
  spin_unlock(&pd->lock);
  for (int i = 0; i < 2; i++) {
    if (!wake[i]) continue;
    xadd(&counts.netready, 1);
    goready(wake[i]);
  }
}

/* Readies whoever waits for what has happened.  delay < 0: sleeps until something does. */
void netpoll(int64_t delay) {
  struct epoll_event ev[EVENTS];
  int n = poll_wait(ev, delay);
  for (int i = 0; i < n; i++) {
    if (ev[i].data.u64 == UINT64_MAX) {
      if (delay != 0) { /* only a sleep consumes the break */
        uint64_t junk;
        if (read(breakfd, &junk, sizeof junk) >= 0) store_rel(&breaksig, 0);
      }
      continue;
    }
    pollDesc *pd = poll_desc((int)ev[i].data.u64);
    if (pd) netpollready(pd, ev[i].events);
  }
}

static void pd_unlock(void *pd) { spin_unlock(&((pollDesc *)pd)->lock); }

/* Parks until fd may be ready in that direction; 0, or an errno. */
static int poll_park(int fd, int side) {
  pollDesc *pd = poll_desc(fd);
  if (!pd) return EBADF;
  G *gp = getg(false);
  spin_lock(&pd->lock);
  if (!pd->registered) {
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                             .data.u64 = (uint64_t)fd};
    if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev) != 0 && errno != EEXIST) {
      spin_unlock(&pd->lock);
      return errno;
    }
    pd->registered = true;
  }
  if (pd->side[side].ready || pd->side[side].sg) {
    bool busy = !pd->side[side].ready; /* a second waiter on one side: Go's "double wait" */
    pd->side[side].ready = false;
    spin_unlock(&pd->lock);
    return busy ? EBUSY : 0;
  }
  sudog_link(&gp->sg, gp, NULL);
  pd->side[side].sg = &gp->sg;
  xadd(&waiters, 1);
  wake_t r = gopark(pd_unlock, pd, waitReasonIOWait, 0);
  if (gp->param == &gp->sg) return r == WAKE_CLOSED ? EBADF : 0;
  spin_lock(&pd->lock);
  if (pd->side[side].sg == &gp->sg) {
    pd->side[side].sg = NULL;
    xadd(&waiters, (uint32_t)-1);
  }
  spin_unlock(&pd->lock);
  return ECANCELED;
}

/* fd is about to be closed. */
void gm_forget_fd(int fd) {
  pollDesc *pd = poll_desc(fd);
  if (!pd) return;
  spin_lock(&pd->lock);
  G *wake[2] = {NULL, NULL};
  if (pd->registered) {
    epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
    pd->registered = false;
    for (int i = 0; i < 2; i++) {
      wake[i] = unblock(pd, i);
      if (wake[i]) wake[i]->wakeres = WAKE_CLOSED;
      pd->side[i].ready = false;
    }
  }
  spin_unlock(&pd->lock);
  for (int i = 0; i < 2; i++)
    if (wake[i]) goready(wake[i]);
}

/* ---- read, write, accept of native goroutines --------------------------------------------------------- */

/* noinline: the address of errno must be found anew after each park (another thread, perhaps). */
static noinline int errno_get(void) { return errno; }
static noinline void errno_set(int e) { errno = e; }

static void nonblocking(int fd) {
  int flags = fcntl(fd, F_GETFL);
  if (flags >= 0 && !(flags & O_NONBLOCK)) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/* After EAGAIN: wait until it is worth another try. */
static bool io_wait(int fd, int side) {
  int e = errno_get();
  if (e == EINTR) return true;
  if (e != EAGAIN && e != EWOULDBLOCK) return false;
  M *m = getm();
  G *gp = m ? load_rlx(&m->curg) : NULL;
  if (!gp || gp->kind != GK_NATIVE) {
    struct pollfd p = {.fd = fd, .events = side == READ ? POLLIN : POLLOUT};
    return poll(&p, 1, -1) >= 0 || errno_get() == EINTR;
  }
  e = poll_park(fd, side);
  if (e) errno_set(e);
  return e == 0;
}

ssize_t gm_read(int fd, void *buf, size_t n) {
  nonblocking(fd);
  for (;;) {
    ssize_t r = read(fd, buf, n);
    if (r >= 0 || !io_wait(fd, READ)) return r;
  }
}

ssize_t gm_write(int fd, const void *buf, size_t n) {
  nonblocking(fd);
  for (;;) {
    ssize_t r = write(fd, buf, n);
    if (r >= 0 || !io_wait(fd, WRITE)) return r;
  }
}

int gm_accept(int fd, int flags) {
  nonblocking(fd);
  for (;;) {
    int r = accept4(fd, NULL, NULL, flags | SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (r >= 0 || !io_wait(fd, READ)) return r;
  }
}

/* In a forked child the poller is the parent's: a new one. */
void netpoll_afterfork(void) {
  close(epfd);
  close(breakfd);
  store_rlx(&waiters, 0);
  store_rlx(&breaksig, 0);
  for (int i = 0; i < PD_BLOCKS; i++) {
    pollDesc *block = load_rlx(&blocks[i]);
    if (!block) continue;
    memset(block, 0, PD_BLOCK * sizeof *block);
    for (int j = 0; j < PD_BLOCK; j++) block[j].lock.rank = rank_poll;
  }
}
