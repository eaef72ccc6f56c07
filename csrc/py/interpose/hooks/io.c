/* io.c - one blocking call on one descriptor: when it may park, the wait, and what the wait's end means (IO_CALL in io.h).
 *
 * Whether a descriptor is a blocking one is asked when an attempt says EAGAIN, not before: most do not. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>

#include "base/clock.h"
#include "py/interpose/hooks/hooks.h"
#include "py/interpose/hooks/io.h"

bool io_begin(io *x, int fd, int mode) {
  if (!call_begin(&x->c, FAM_FD)) return false;
  x->known = x->partial = false;
  x->deadline = 0;
  return netpollwatch(&x->w, fd, mode == POLL_READ, mode == POLL_WRITE);
}

/* The first time that an attempt would block. false: the descriptor is non-blocking, as its owner wishes. */
bool io_blocking(io *x, int timeout_option) {
  if (x->known || (timeout_option && netpollplain(&x->w))) return true;
  uint64_t modes = netpollmodes();
  int flags = fcntl(x->w.fd, F_GETFL);
  if (flags < 0 || flags & O_NONBLOCK) return false;
  struct timeval t = {0, 0};
  socklen_t len = sizeof t;
  if (timeout_option && getsockopt(x->w.fd, SOL_SOCKET, timeout_option, &t, &len) == 0 &&
      (t.tv_sec || t.tv_usec))
    x->deadline = nanotime() + (int64_t)t.tv_sec * 1000000000 + (int64_t)t.tv_usec * 1000;
  else if (timeout_option)
    netpollsetplain(&x->w, modes);
  x->known = true;
  return true;
}

/* What an attempt says of a file that the call did not begin with counts for nothing (netpoll.c, closing). */
int io_error(const io *x, int e) { return netpollgone(&x->w) ? EBADF : e; }

/* A wait below the same shim has failed for that (call_errno), and the C code in between tries on: _ssl, which waits by poll()
 * when its socket has a timeout, takes a failure of that for an event. */
static bool ended_before(const io *x) {
  const shim *s = handle_of(x->c.g)->shim;
  return s && unlikely(s->family == FAM_FD && s->substituted != WAKE_OK);
}

int io_wait_hosted(io *x, int timeout_option) {
  errno_set(x->c.e); /* the attempt is not to be seen */
  if (!io_blocking(x, timeout_option)) return io_error(x, ended_before(x) ? ECANCELED : EAGAIN);
  if (unlikely(!errqueue_empty())) return io_error(x, IO_BLOCK);
  call_attach(&x->c);
  wake_t w = call_woken(&x->c, netpollwait(&x->w, 1, x->deadline, true));
  call_detach(&x->c);
  switch (w) {
    case WAKE_OK: return IO_AGAIN;
    case WAKE_CLOSED: return EBADF;
    case WAKE_TIMEOUT: return EAGAIN;
    case WAKE_BADFD:
    case WAKE_NOMEM: return IO_BLOCK;
    case WAKE_CANCELLED:
      if (!x->partial) return call_errno(&x->c, w);
      gocancel(x->c.g, false);
      return EINTR;
    case WAKE_DEADLOCK:
      if (x->partial) return EINTR; /* it will be found again */
      return call_errno(&x->c, w);
    default: return call_errno(&x->c, w);
  }
}

bool io_ready(int fd, short events) {
  struct pollfd p = {.fd = fd, .events = events};
  return real.poll(&p, 1, 0) != 0; /* an error is something to be ready for */
}
