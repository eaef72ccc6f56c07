/* io.c - read, write, accept and close for native goroutines: gm_read() and its like.
 *
 * Each tries its call without blocking, and parks the goroutine in the poller when it would block.  In any other thread
 * it waits as the call itself would. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gmprt.h"

#include "base/ownfd.h"
#include "sched/netpoll.h"

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
  G *gp = curg();
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
