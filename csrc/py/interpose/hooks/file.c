/* file.c - read and write on anything, and what files have besides.
 *
 * read and write are tried with RWF_NOWAIT (preadv2, pwritev2): sockets, pipes and eventfds answer EAGAIN and
 * are waited for; a regular file answers EAGAIN when the disk must be asked: then P and licence are handed
 * off and the thread waits.  What does not know the flag (terminals, /proc) is asked by poll whether it is
 * ready, and then called.  So is a pipe that says EAGAIN: it may only have been busy; and every pipe on Linux before 6.4,
 * which knows no flag for them.  What is ready there takes PIPE_BUF bytes, and may block for more.
 *
 * A write to a blocking descriptor returns when all is written, a read when there is something. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "py/interpose/hooks/hooks.h"
#include "py/interpose/hooks/io.h"

static bool is_regular(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

static bool is_pipe(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

static size_t total_of(const struct iovec *iov, int n) {
  size_t total = 0;
  for (int i = 0; i < n; i++) total += iov[i].iov_len;
  return total;
}

typedef ssize_t (*vector_call)(int, const struct iovec *, int);
static ssize_t read_real(int fd, const struct iovec *iov, int n) {
  return n == 1 ? real.read(fd, iov->iov_base, iov->iov_len) : real.readv(fd, iov, n);
}
static ssize_t write_real(int fd, const struct iovec *iov, int n) {
  return n == 1 ? real.write(fd, iov->iov_base, iov->iov_len) : real.writev(fd, iov, n);
}

/* The thread does it: the call may block for long, or it cannot be waited for. */
static ssize_t read_blocking(int fd, const struct iovec *iov, int n) {
  call_handoff();
  return read_real(fd, iov, n);
}
static ssize_t write_blocking(int fd, const struct iovec *iov, int n) {
  call_handoff();
  return write_real(fd, iov, n);
}

/* RWF_NOWAIT did not do it.  Not ready: -1 and EAGAIN.  Else either the flag is not known here, or the page is
 * on the disk, or somebody else had the pipe's lock in hand at that moment (then no event would ever
 * come): the call itself. */
static ssize_t try_otherwise(int fd, short events, vector_call call, const struct iovec *iov, int n) {
  int e = errno_get();
  if (e != EAGAIN && e != EOPNOTSUPP && e != ENOSYS) return -1;
  if (!io_ready(fd, events)) {
    errno_set(EAGAIN);
    return -1;
  }
  if (e != EAGAIN && (events == POLLIN || !is_pipe(fd))) return call(fd, iov, n);
  if (e == EAGAIN && is_regular(fd)) {
    call_handoff();
    return call(fd, iov, n);
  }
  if (total_of(iov, n) <= PIPE_BUF) return call(fd, iov, n); /* fits for certain, and is not torn */
  struct iovec piece = {iov->iov_base, iov->iov_len < PIPE_BUF ? iov->iov_len : PIPE_BUF};
  return call(fd, &piece, 1);
}

/* -1 and EAGAIN if it would block. */
static ssize_t read_try(int fd, const struct iovec *iov, int n) {
  ssize_t r = preadv2(fd, iov, n, -1, RWF_NOWAIT);
  return r >= 0 ? r : try_otherwise(fd, POLLIN, read_real, iov, n);
}
static ssize_t write_try(int fd, const struct iovec *iov, int n) {
  ssize_t r = pwritev2(fd, iov, n, -1, RWF_NOWAIT);
  return r >= 0 ? r : try_otherwise(fd, POLLOUT, write_real, iov, n);
}

/* iov without its first `done` bytes; the copy is the caller's to free if it is not `few`. */
enum { FEW = 16 };
static struct iovec *rest_of(const struct iovec *iov, int *n, size_t done, struct iovec few[FEW]) {
  struct iovec *out = *n <= FEW ? few : malloc((size_t)*n * sizeof *out);
  if (!out) return NULL;
  int m = 0;
  for (int i = 0; i < *n; i++) {
    size_t skip = done < iov[i].iov_len ? done : iov[i].iov_len;
    done -= skip;
    if (iov[i].iov_len > skip)
      out[m++] = (struct iovec){(char *)iov[i].iov_base + skip, iov[i].iov_len - skip};
  }
  *n = m;
  return out;
}

/* ---- read ---------------------------------------------------------------------------------------------------- */

/* A regular file gives what lies in memory; the thread fetches the rest. */
static ssize_t read_rest(int fd, const struct iovec *iov, int n, ssize_t got, size_t total) {
  if (got <= 0 || (size_t)got == total || !is_regular(fd)) return got;
  struct iovec few[FEW], *rest = rest_of(iov, &n, (size_t)got, few);
  if (!rest) return got;
  ssize_t more = real.readv(fd, rest, n);
  if (rest != few) free(rest);
  return more > 0 ? got + more : got;
}

static ssize_t read_until(int fd, const struct iovec *iov, int n) {
  IO_CALL(fd, POLL_READ, 0, read_try(fd, iov, n), read_blocking(fd, iov, n));
}

ssize_t hook_readv(int fd, const struct iovec *iov, int n) {
  if (likely(!detached_g())) return real.readv(fd, iov, n);
  return read_rest(fd, iov, n, read_until(fd, iov, n), total_of(iov, n));
}

ssize_t hook_read(int fd, void *buf, size_t n) {
  if (likely(!detached_g())) return real.read(fd, buf, n);
  struct iovec iov = {buf, n};
  return read_rest(fd, &iov, 1, read_until(fd, &iov, 1), n);
}

ssize_t hook_read_chk(int fd, void *buf, size_t n, size_t size) {
  if (n > size) abort();
  return hook_read(fd, buf, n);
}

/* ---- write --------------------------------------------------------------------------------------------------- */

/* After `done` bytes of `total`: the rest, as a blocking call would. */
static ssize_t write_rest(int fd, const struct iovec *iov, int n, size_t done, size_t total) {
  struct iovec few[FEW], *rest = NULL;
  io x;
  if (!io_begin(&x, fd, POLL_WRITE)) return (ssize_t)done;
  x.partial = true;
  while (done < total) {
    int m = n;
    if (!(rest = rest_of(iov, &m, done, few))) break;
    netpollsample(&x.w);
    ssize_t r = write_try(fd, rest, m);
    int e = r < 0 ? errno_get() : 0;
    if (e == EAGAIN) e = io_wait_hosted(&x, 0);
    if (e == IO_BLOCK) {
      r = write_blocking(fd, rest, m);
      e = r < 0 ? errno_get() : 0;
    }
    if (rest != few) free(rest);
    if (e) break;
    if (r > 0) done += (size_t)r;
  }
  return (ssize_t)done;
}

static ssize_t write_until(int fd, const struct iovec *iov, int n) {
  IO_CALL(fd, POLL_WRITE, 0, write_try(fd, iov, n), write_blocking(fd, iov, n));
}

ssize_t hook_writev(int fd, const struct iovec *iov, int n) {
  if (likely(!detached_g())) return real.writev(fd, iov, n);
  ssize_t r = write_until(fd, iov, n);
  size_t total = total_of(iov, n);
  return r > 0 && (size_t)r < total ? write_rest(fd, iov, n, (size_t)r, total) : r;
}

ssize_t hook_write(int fd, const void *buf, size_t n) {
  if (likely(!detached_g())) return real.write(fd, buf, n);
  struct iovec iov = {(void *)buf, n};
  return hook_writev(fd, &iov, 1);
}

/* ---- copying between descriptors ------------------------------------------------------------------------------ */

/* There is no flag for not waiting: a piece that fits when the sink is ready, less than was asked for if need be. */
enum { PIECE = 128 << 10 };

static ssize_t sendfile_try(int out, int in, off_t *offset, size_t n) {
  if (io_ready(out, POLLOUT)) return real.sendfile64(out, in, offset, n < PIECE ? n : PIECE);
  errno_set(EAGAIN);
  return -1;
}

ssize_t hook_sendfile64(int out, int in, off_t *offset, size_t n) {
  IO_CALL(out, POLL_WRITE, SO_SNDTIMEO, sendfile_try(out, in, offset, n), real.sendfile64(out, in, offset, n));
}

static ssize_t splice_blocking(int in, off_t *inoff, int out, off_t *outoff, size_t n, unsigned flags) {
  call_handoff();
  return real.splice(in, inoff, out, outoff, n, flags);
}

/* EAGAIN does not say of which of the two.  If the sink is ready it was the source: somebody else has emptied it, and may
 * have filled it since, so a look at it says nothing; the sink would never tell. */
static ssize_t splice_try(int in, off_t *inoff, int out, off_t *outoff, size_t n, unsigned flags) {
  errno_set(EAGAIN);
  if (!io_ready(out, POLLOUT)) return -1;
  ssize_t r = real.splice(in, inoff, out, outoff, n, flags | SPLICE_F_NONBLOCK);
  if (r >= 0 || errno_get() != EAGAIN) return r;
  if (io_ready(out, POLLOUT)) return splice_blocking(in, inoff, out, outoff, n, flags);
  errno_set(EAGAIN);
  return -1;
}

/* Does a non-blocking source make the whole call one?  From pipe to pipe it does, elsewhere it depends on both and on the
 * kernel: that decides. */
static ssize_t splice_nonblocking(int in, off_t *inoff, int out, off_t *outoff, size_t n, unsigned flags) {
  ssize_t r = real.splice(in, inoff, out, outoff, n, flags | SPLICE_F_NONBLOCK);
  if (r >= 0 || errno_get() != EAGAIN) return r;
  return splice_blocking(in, inoff, out, outoff, n, flags);
}

/* Waits for the sink only: an empty source is left to the thread. */
ssize_t hook_splice(int in, off_t *inoff, int out, off_t *outoff, size_t n, unsigned flags) {
  if (!detached_g() || flags & SPLICE_F_NONBLOCK) return real.splice(in, inoff, out, outoff, n, flags);
  int mode = fcntl(in, F_GETFL);
  if (mode >= 0 && mode & O_NONBLOCK) return splice_nonblocking(in, inoff, out, outoff, n, flags);
  if (!io_ready(in, POLLIN)) return splice_blocking(in, inoff, out, outoff, n, flags);
  IO_CALL(out, POLL_WRITE, 0, splice_try(in, inoff, out, outoff, n, flags),
          real.splice(in, inoff, out, outoff, n, flags));
}

/* ---- what blocks for certain ------------------------------------------------------------------------------------ */

int hook_fsync(int fd) {
  call_handoff();
  return real.fsync(fd);
}

int hook_fdatasync(int fd) {
  call_handoff();
  return real.fdatasync(fd);
}

int hook_flock(int fd, int op) {
  if (op & LOCK_NB || op & LOCK_UN || !detached_g()) return real.flock(fd, op);
  int r = real.flock(fd, op | LOCK_NB);
  if (r == 0 || errno_get() != EWOULDBLOCK) return r;
  call_handoff();
  return real.flock(fd, op);
}

int hook_lockf64(int fd, int op, off_t n) {
  if (op == F_LOCK) call_handoff();
  return real.lockf64(fd, op, n);
}

int hook_fcntl64(int fd, int op, void *arg) {
  if (op == F_SETLKW && detached_g()) {
    int r = real.fcntl64(fd, F_SETLK, arg);
    if (r == 0 || (errno_get() != EAGAIN && errno_get() != EACCES)) return r;
    call_handoff();
  }
  int r = real.fcntl64(fd, op, arg);
  if (op == F_SETFL) netpollmodechange();
  return op == F_DUPFD || op == F_DUPFD_CLOEXEC ? fd_opened(r) : r;
}
