/* netpoll_epoll.c - the poller: one epoll instance, in which the last idle M sleeps.
 *
 * An eventfd in it breaks the sleep.  Both are the runtime's own descriptors among those of the program, which may close
 * them behind our back (ownfd.c): then there are new ones (netpollremake), and everybody is added anew.
 *
 * Sleeping until a deadline is exact: epoll_pwait2 takes nanoseconds.  Without it (Linux < 5.11) the
 * timeout is rounded up to milliseconds. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include "arch/arch.h"
#include "base/ownfd.h"
#include "sched/sched.h"
#include "sched/netpoll.h"

enum { EVENTS = 128 };

static ownfd *_Atomic poller, *_Atomic breaker; /* the epoll instance, and the eventfd in it */
static _Atomic uint32_t breaksig; /* a break is under way */

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

static mutex remaking;
static _Atomic bool broken; /* sysmon is to look */
static void netpollremake(ownfd *seen, bool gone);

/* false: errno says why the poller cannot watch fd (EPERM: a regular file). */
bool netpolladd(int fd) {
  struct epoll_event ev = {.events = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u64 = (uint64_t)fd};
  return epoll_ctl(epfd(), EPOLL_CTL_ADD, fd, &ev) == 0 || errno == EEXIST;
}

void netpolldel(int fd) { epoll_ctl(epfd(), EPOLL_CTL_DEL, fd, NULL); }

/* Ends the sleep of the M in netpoll, if there is one.  A lander that arms a deadline comes here with the lock of
 * what its goroutine waits for, and that may be a descriptor's, which a new poller would take to wake who waits: so
 * that is left to sysmon. */
void netpollbreak(void) {
  ownfd *br = load_acq(&breaker);
  if (unlikely(!br)) return; /* nobody sleeps there */
  bool under_way = xchg(&breaksig, 1); /* unless what it was told by has been closed before it could be heard */
  if (likely(under_way ? ownfd_intact(br) : ownfd_post(br))) return;
  store_rlx(&broken, true);
  fence(); /* sysmon says that it sleeps, then looks */
  sysmon_wake();
}

bool netpoll_broken(void) { return load_rlx(&broken); }

/* No lock is held. */
void netpollrepair(void) {
  if (likely(!load_rlx(&broken)) || !xchg(&broken, false)) return;
  ownfd *seen = load_acq(&poller);
  if (!ownfd_intact(load_acq(&breaker))) netpollremake(seen, false);
}

static int poll_wait(struct epoll_event *ev, int64_t ns) {
  enum { SECOND = 1000000000 };
  if (os_signals_left() && (ns < 0 || ns > SECOND)) ns = SECOND; /* nothing else would end it: netpollremake */
  if (!no_pwait2) {
    struct timespec ts = {ns / 1000000000, ns % 1000000000};
    long n = cpu_syscall(SYS_epoll_pwait2, epfd(), (long)ev, EVENTS, ns < 0 ? 0 : (long)&ts, 0, 8);
    if (n != -ENOSYS) return (int)n;
    no_pwait2 = true;
  }
  int64_t ms = ns < 0 ? -1 : (ns + 999999) / 1000000;
  return (int)cpu_syscall(SYS_epoll_pwait, epfd(), (long)ev, EVENTS, ms > 1000000000 ? 1000000000 : (int)ms, 0, 8);
}

/* Whoever waited for what has happened, claimed: for injectglist.  delay < 0: sleeps until something does. */
G *netpoll(int64_t delay) {
  struct epoll_event ev[EVENTS];
  G *list = NULL;
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
    uint32_t e = ev[i].events, both = e & (EPOLLHUP | EPOLLERR);
    netpollready((int)ev[i].data.u64, both | (e & (EPOLLIN | EPOLLPRI | EPOLLRDHUP)), both | (e & EPOLLOUT), &list);
  }
  return list;
}

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
    netpollreopened();
    lock(&sched.lock); /* an M takes it before its thread ends */
    for (uint32_t i = 1; i <= sched.nextmid; i++)
      if (sched.allm[i]->tid && sched.allm[i] != getm()) os_kick(sched.allm[i]->tid);
    unlock(&sched.lock);
  }
  unlock(&remaking);
}

/* In a forked child the poller is the parent's: a new one.  If there is none to be had, threads wait, until schedinit
 * has got one or has told somebody. */
void netpoll_epoll_afterfork(void) {
  memset(&remaking, 0, sizeof remaking);
  store_rlx(&poller, (ownfd *)NULL); /* ownfd_afterfork has closed them */
  store_rlx(&breaker, (ownfd *)NULL);
  store_rlx(&broken, false);
  netpollopen();
  store_rlx(&breaksig, 0);
}
