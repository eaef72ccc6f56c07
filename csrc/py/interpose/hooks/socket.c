/* socket.c - blocking sockets.
 *
 * Each call is tried with MSG_DONTWAIT, which concerns this one call: the descriptor's O_NONBLOCK is shared with
 * other processes and never left changed.  (accept has no such flag and asks poll first; connect sets
 * O_NONBLOCK for an instant.)  A descriptor that is non-blocking itself gets the EAGAIN that it asked
 * for, and time-outs of the socket (SO_RCVTIMEO) count. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "py/interpose/hooks/hooks.h"
#include "py/interpose/hooks/io.h"

/* ---- receiving ------------------------------------------------------------------------------------------- */

/* These come back at once from a blocking socket, too. */
enum { AT_ONCE = MSG_DONTWAIT | MSG_OOB | MSG_ERRQUEUE };

/* MSG_WAITALL: until n bytes, the end, an error; what has come before an error counts. */
static ssize_t recv_all(int fd, char *buf, size_t n, int flags) {
  size_t got = 0;
  io x;
  if (flags & MSG_PEEK || !io_begin(&x, fd, POLL_READ)) return real.recv(fd, buf, n, flags);
  for (;;) {
    netpollsample(&x.w);
    ssize_t r = IO_TRY(x.c.g->m, real.recv(fd, buf + got, n - got, (flags & ~MSG_WAITALL) | MSG_DONTWAIT));
    if (r >= 0) {
      got += (size_t)r;
      x.partial = got > 0;
      if (r == 0 || got == n) return (ssize_t)got;
      continue;
    }
    int e = errno_get();
    e = e == EAGAIN ? io_wait_hosted(&x, SO_RCVTIMEO) : io_error(&x, e);
    if (e == IO_AGAIN) continue;
    if (got) return (ssize_t)got;
    return e == IO_BLOCK ? real.recv(fd, buf, n, flags) : call_fail(&x.c, e);
  }
}

ssize_t hook_recv(int fd, void *buf, size_t n, int flags) {
  if (likely(!detached_g()) || flags & AT_ONCE) return real.recv(fd, buf, n, flags);
  if (unlikely(flags & MSG_WAITALL)) return recv_all(fd, buf, n, flags);
  IO_CALL(fd, POLL_READ, SO_RCVTIMEO, IO_TRY(x.c.g->m, real.recv(fd, buf, n, flags | MSG_DONTWAIT)),
          real.recv(fd, buf, n, flags));
}

ssize_t hook_recv_chk(int fd, void *buf, size_t n, size_t size, int flags) {
  if (n > size) abort();
  return hook_recv(fd, buf, n, flags);
}

ssize_t hook_recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *a, socklen_t *len) {
  if (flags & AT_ONCE) return real.recvfrom(fd, buf, n, flags, a, len);
  if (flags & MSG_WAITALL) return a ? real.recvfrom(fd, buf, n, flags, a, len) : hook_recv(fd, buf, n, flags);
  IO_CALL(fd, POLL_READ, SO_RCVTIMEO, IO_TRY(x.c.g->m, real.recvfrom(fd, buf, n, flags | MSG_DONTWAIT, a, len)),
          real.recvfrom(fd, buf, n, flags, a, len));
}

ssize_t hook_recvfrom_chk(int fd, void *buf, size_t n, size_t size, int flags, struct sockaddr *a,
                          socklen_t *len) {
  if (n > size) abort();
  return hook_recvfrom(fd, buf, n, flags, a, len);
}

ssize_t hook_recvmsg(int fd, struct msghdr *m, int flags) {
  if (flags & (AT_ONCE | MSG_WAITALL)) return real.recvmsg(fd, m, flags);
  IO_CALL(fd, POLL_READ, SO_RCVTIMEO, IO_TRY(x.c.g->m, real.recvmsg(fd, m, flags | MSG_DONTWAIT)),
          real.recvmsg(fd, m, flags));
}

/* ---- sending ---------------------------------------------------------------------------------------------- */

/* iov without its first n bytes, in place. */
static void advance(struct msghdr *m, size_t n) {
  while (m->msg_iovlen > 0 && n >= m->msg_iov->iov_len) {
    n -= m->msg_iov->iov_len;
    m->msg_iov++;
    m->msg_iovlen--;
  }
  if (n == 0) return;
  m->msg_iov->iov_base = (char *)m->msg_iov->iov_base + n;
  m->msg_iov->iov_len -= n;
}

/* A blocking send on a stream returns when all is sent.  m is ours to change; partial: some of it is sent already.
 * false: not here, and nothing was sent. */
static bool send_all(int fd, struct msghdr *m, size_t total, int flags, bool partial, ssize_t *result) {
  io x;
  if (!io_begin(&x, fd, POLL_WRITE)) return false;
  x.partial = partial;
  size_t sent = 0;
  for (;;) {
    netpollsample(&x.w);
    ssize_t r = IO_TRY(x.c.g->m, real.sendmsg(fd, m, flags | MSG_DONTWAIT));
    int e = r < 0 ? errno_get() : EAGAIN;
    if (r > 0) {
      sent += (size_t)r;
      x.partial = true;
      advance(m, (size_t)r);
      m->msg_controllen = 0; /* ancillary data goes with the first bytes */
    }
    if (r >= 0 && sent >= total) break;
    e = e == EAGAIN ? io_wait_hosted(&x, SO_SNDTIMEO) : io_error(&x, e);
    if (e == IO_AGAIN) continue;
    if (sent) break;
    if (e == IO_BLOCK) return false;
    *result = call_fail(&x.c, e);
    return true;
  }
  *result = (ssize_t)sent;
  return true;
}

ssize_t hook_sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *a, socklen_t len) {
  G *gp = detached_g();
  if (likely(!gp) || flags & MSG_DONTWAIT) return real.sendto(fd, buf, n, flags, a, len);
  ssize_t r = IO_TRY(gp->m, real.sendto(fd, buf, n, flags | MSG_DONTWAIT, a, len));
  if (likely(r == (ssize_t)n) || (r < 0 && errno_get() != EAGAIN)) return r;
  size_t sent = r > 0 ? (size_t)r : 0;
  struct iovec iov = {(char *)buf + sent, n - sent};
  struct msghdr m = {.msg_name = (void *)a, .msg_namelen = a ? len : 0, .msg_iov = &iov, .msg_iovlen = 1};
  if (!send_all(fd, &m, n - sent, flags, sent > 0, &r)) r = real.sendmsg(fd, &m, flags);
  if (!sent) return r;
  return r > 0 ? (ssize_t)sent + r : (ssize_t)sent;
}

ssize_t hook_send(int fd, const void *buf, size_t n, int flags) {
  return hook_sendto(fd, buf, n, flags, NULL, 0);
}

ssize_t hook_sendmsg(int fd, const struct msghdr *m, int flags) {
  if (likely(!detached_g()) || flags & MSG_DONTWAIT) return real.sendmsg(fd, m, flags);
  struct iovec few[16], *iov = m->msg_iovlen <= nelem(few) ? few : malloc(m->msg_iovlen * sizeof *iov);
  if (!iov) return real.sendmsg(fd, m, flags);
  struct msghdr own = *m;
  size_t total = 0;
  for (size_t i = 0; i < m->msg_iovlen; i++) {
    iov[i] = m->msg_iov[i];
    total += iov[i].iov_len;
  }
  own.msg_iov = iov;
  ssize_t r;
  if (!send_all(fd, &own, total, flags, false, &r)) r = real.sendmsg(fd, m, flags);
  if (iov != few) {
    int e = errno_get();
    free(iov);
    errno_set(e);
  }
  return r;
}

/* ---- connections -------------------------------------------------------------------------------------------- */

static int accept_ready(int fd, struct sockaddr *a, socklen_t *len, int flags) {
  if (io_ready(fd, POLLIN)) return real.accept4(fd, a, len, flags);
  errno_set(EAGAIN);
  return -1;
}

static int accept_until(int fd, struct sockaddr *a, socklen_t *len, int flags) {
  IO_CALL(fd, POLL_READ, SO_RCVTIMEO, accept_ready(fd, a, len, flags), real.accept4(fd, a, len, flags));
}

int hook_accept4(int fd, struct sockaddr *a, socklen_t *len, int flags) {
  return fd_opened(accept_until(fd, a, len, flags));
}

int hook_accept(int fd, struct sockaddr *a, socklen_t *len) { return hook_accept4(fd, a, len, 0); }

/* A connection that is under way (how: EINPROGRESS or EALREADY).  What has become of it the call itself knows
 * best: made again it says so, and leaves the socket as it would have the first time (SO_ERROR would
 * leave it half-way). */
static int connect_finish(io *x, const struct sockaddr *a, socklen_t len, int how) {
  int fd = x->w.fd;
  while (!io_ready(fd, POLLOUT)) {
    int e = io_wait_hosted(x, 0);
    if (e == IO_BLOCK) break;
    if (e != IO_AGAIN) return call_fail(&x->c, e == EAGAIN ? how : e);
    netpollsample(&x->w);
  }
  int r = real.connect(fd, a, len), e = r < 0 ? errno_get() : 0;
  return e == 0 || e == EISCONN ? 0 : call_fail(&x->c, io_error(x, e));
}

int hook_connect(int fd, const struct sockaddr *a, socklen_t len) {
  io x;
  int flags;
  if (!io_begin(&x, fd, POLL_WRITE) || (flags = fcntl(fd, F_GETFL)) < 0 || flags & O_NONBLOCK)
    return real.connect(fd, a, len);
  if (!io_blocking(&x, SO_SNDTIMEO)) return real.connect(fd, a, len);
  netpollsample(&x.w);
  fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  int r = real.connect(fd, a, len), e = r < 0 ? errno_get() : 0;
  fcntl(fd, F_SETFL, flags);
  if (r == 0) return 0;
  if (e == EINPROGRESS || e == EALREADY) return connect_finish(&x, a, len, e);
  if (e == EAGAIN) { /* a Unix socket whose listener's queue is full: only a blocking call waits for it */
    call_handoff();
    return real.connect(fd, a, len);
  }
  return call_fail(&x.c, e);
}
