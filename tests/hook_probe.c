/* Calls of the C library that Python's own modules do not make, and what C code may do around them.  Compiled
 * under a name that is trusted (libpq-*), so its calls are interposed; called through ctypes. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static struct timespec after(double s) { return (struct timespec){(time_t)s, (long)((s - (time_t)s) * 1e9)}; }

/* 0 or more: what the call returned.  Below: -errno. */
static int outcome(long r) { return r < 0 ? -errno : (int)r; }

int probe_poll(int fd, short events, int timeout) {
  struct pollfd p[2] = {{.fd = -1}, {.fd = fd, .events = events}};
  int r = outcome(poll(p, 2, timeout));
  return r > 0 ? p[1].revents << 8 | r : r;
}

int probe_ppoll(int fd, double timeout) {
  struct pollfd p = {.fd = fd, .events = POLLIN};
  struct timespec t = after(timeout);
  return outcome(ppoll(&p, 1, timeout < 0 ? NULL : &t, NULL));
}

int probe_ppoll_wrong(int fd) {
  struct pollfd p = {.fd = fd, .events = POLLIN};
  struct timespec t = {0, 1000000000};
  return outcome(ppoll(&p, 1, &t, NULL));
}

/* A mask must hold for exactly the time of the wait. */
int probe_ppoll_masked(int fd, double timeout) {
  struct pollfd p = {.fd = fd, .events = POLLIN};
  struct timespec t = after(timeout);
  sigset_t mask;
  sigemptyset(&mask);
  return outcome(ppoll(&p, 1, &t, &mask));
}

int probe_pselect(int fd, double timeout) {
  fd_set r;
  FD_ZERO(&r);
  FD_SET(fd, &r);
  struct timespec t = after(timeout);
  int n = outcome(pselect(fd + 1, &r, NULL, NULL, timeout < 0 ? NULL : &t, NULL));
  return n < 0 ? n : n << 8 | !!FD_ISSET(fd, &r);
}

/* Linux counts the rest of the time down: milliseconds left. */
int probe_select_left(int fd, double timeout) {
  fd_set r;
  FD_ZERO(&r);
  FD_SET(fd, &r);
  struct timeval t = {(time_t)timeout, 0};
  int n = outcome(select(fd + 1, &r, NULL, NULL, &t));
  return n < 0 ? n : (int)(t.tv_sec * 1000 + t.tv_usec / 1000);
}

int probe_select_sets(int fd, int closed) {
  fd_set r, before;
  FD_ZERO(&r);
  FD_SET(fd, &r);
  FD_SET(closed, &r);
  before = r;
  int n = outcome(select((fd > closed ? fd : closed) + 1, &r, NULL, NULL, NULL));
  return n == -EBADF && memcmp(&r, &before, sizeof r) == 0;
}

/* errno's address is computed once: on the thread on which the function began. */
int probe_recv(int fd, char *buf, int n) {
  int *at = &errno;
  ssize_t r = recv(fd, buf, (size_t)n, 0);
  return r < 0 ? -*at : (int)r;
}

int probe_recv_twice(int fd, char *buf, int n) {
  int *at = &errno;
  ssize_t r = recv(fd, buf, (size_t)n, 0);
  if (r < 0) return -1000;
  r = recv(fd, buf, (size_t)n, 0);
  return r < 0 ? -*at : (int)r;
}

/* As libpq does: a wait that ends on another thread; then calls that do not wait, in a function of their own. */
static __attribute__((noinline)) int recv_at_once(int fd) {
  int *at = &errno;
  char buf[9];
  *at = 0;
  ssize_t r = recv(fd, buf, sizeof buf, 0);
  return r < 0 ? -*at : (int)r;
}

int probe_poll_then_recv(int fd) {
  struct pollfd p = {.fd = fd, .events = POLLIN};
  if (poll(&p, 1, -1) != 1) return -1000;
  int first = recv_at_once(fd);
  return first > 0 ? recv_at_once(fd) : first;
}

/* A thread's errno between a call that failed and the look at it, drawn out until another thread says stop. */
int probe_errno_stays(volatile int *entered, volatile int *stop) {
  errno = EXDEV;
  for (*entered = 1; !*stop;) usleep(100);
  return errno;
}

static long cpu_time_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* The same, until the thread has run for so long after another one said stop; it never sleeps. */
int probe_errno_stays_running(volatile int *entered, volatile int *stop, int us) {
  errno = EXDEV;
  *entered = 1;
  while (!*stop) {}
  for (long until = cpu_time_us() + us; cpu_time_us() < until;) {}
  return errno;
}

int probe_readv(int fd, char *a, int na, char *b, int nb) {
  struct iovec iov[2] = {{a, (size_t)na}, {b, (size_t)nb}};
  return outcome(readv(fd, iov, 2));
}

int probe_writev(int fd, const char *a, int na, const char *b, int nb) {
  struct iovec iov[2] = {{(char *)a, (size_t)na}, {(char *)b, (size_t)nb}};
  return outcome(writev(fd, iov, 2));
}
