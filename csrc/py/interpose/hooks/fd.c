/* fd.c - the life of descriptors, as far as the poller must know it.
 *
 * A descriptor that is closed wakes who waits for it, and the kernel has forgotten it; a number that is given
 * out anew must be added anew (netpoll.c).  None of these calls parks.
 *
 * The runtime's own descriptors (ownfd.c) are not open to the program: a close says so, a range passes over them,
 * and they make room for a file that is to have their number.  Not in children of fork and vfork that are about to
 * exec. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <unistd.h>

#include "base/ownfd.h"
#include "sched/netpoll.h"
#include "py/host/fork.h"
#include "py/interpose/hooks/hooks.h"

/* A vfork child closes descriptors of its own. */
static bool ours(void) { return load_rlx(&sched.started) && !in_vfork_child() && !fork_in_progress(); }

int hook_close(int fd) {
  if (!ours()) return real.close(fd);
  if (unlikely(ownfd_is(fd))) {
    errno_set(EBADF);
    return -1;
  }
  netpollclosing(fd);
  int r = real.close(fd);
  int e = errno_get();
  netpollclosed(fd);
  errno_set(e);
  return r;
}

/* Around those of ours. */
int hook_close_range(unsigned first, unsigned last, int flags) {
  if (first > last || !ours()) return real.close_range(first, last, flags);
  if (!flags) netpollclosing_range(first, last);
  int r = 0;
  for (unsigned lo = first, own; r == 0; lo = own + 1) {
    own = ownfd_from(lo);
    unsigned hi = own <= last && own != UINT_MAX ? own - 1 : last;
    if (own != lo) r = real.close_range(lo, hi, flags);
    if (hi == last || own >= last) break;
  }
  int e = errno_get();
  if (r == 0 && !flags) netpollclosed_range(first, last);
  errno_set(e);
  return r;
}

void hook_closefrom(int first) {
  unsigned lo = first > 0 ? (unsigned)first : 0;
  if (!ours() || ownfd_from(lo) == UINT_MAX || hook_close_range(lo, UINT_MAX, 0) != 0) real.closefrom(first);
}

/* flags -1: dup2, for which it is no error if the two are the same. */
static int dup_over(int from, int to, int flags) {
  bool told = from != to && ours();
  int e = told ? ownfd_move(to) : 0;
  if (unlikely(e)) {
    errno_set(e);
    return -1;
  }
  if (told) netpollreplacing(to);
  int r = flags < 0 ? real.dup2(from, to) : real.dup3(from, to, flags);
  e = errno_get();
  if (told && r == to) ownfd_taken(to); /* what lay there and was ours has moved, or been closed behind our back */
  if (told) netpollclosed(to);
  errno_set(e);
  return r;
}

int hook_dup2(int from, int to) { return dup_over(from, to, -1); }
int hook_dup3(int from, int to, int flags) {
  return unlikely(flags < 0) ? real.dup3(from, to, flags) : dup_over(from, to, flags);
}

static void given(int fd) {
  ownfd_taken(fd);
  netpollopened(fd);
}
/* What a call has given to the program.  Not to a vfork child: its numbers are its own. */
int fd_opened(int fd) {
  if (fd >= 0 && ours()) given(fd);
  return fd;
}
static int opened_pair(int r, const int fd[2]) {
  if (r != 0 || !ours()) return r;
  given(fd[0]);
  given(fd[1]);
  return r;
}

int hook_socket_new(int domain, int type, int protocol) { return fd_opened(real.socket(domain, type, protocol)); }
int hook_socketpair(int domain, int type, int protocol, int fd[2]) {
  return opened_pair(real.socketpair(domain, type, protocol, fd), fd);
}
int hook_pipe(int fd[2]) { return opened_pair(real.pipe(fd), fd); }
int hook_pipe2(int fd[2], int flags) { return opened_pair(real.pipe2(fd, flags), fd); }
int hook_dup(int fd) { return fd_opened(real.dup(fd)); }
int hook_eventfd(unsigned n, int flags) { return fd_opened(real.eventfd(n, flags)); }
int hook_open64(const char *path, int flags, mode_t mode) { return fd_opened(real.open64(path, flags, mode)); }

/* fcntl: file.c */
int hook_ioctl(int fd, unsigned long request, void *arg) {
  int r = real.ioctl(fd, request, arg);
  if (request == FIONBIO) netpollmodechange();
  return r;
}

static bool is_timeout(int option) {
#ifdef SO_RCVTIMEO_NEW
  if (option == SO_RCVTIMEO_NEW || option == SO_SNDTIMEO_NEW) return true;
#endif
  return option == SO_RCVTIMEO || option == SO_SNDTIMEO;
}

int hook_setsockopt(int fd, int level, int option, const void *value, socklen_t len) {
  int r = real.setsockopt(fd, level, option, value, len);
  if (level == SOL_SOCKET && is_timeout(option)) netpollmodechange();
  return r;
}
