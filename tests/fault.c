/* fault.c - preloaded by test_faults.py: the Nth call of one function of the C library fails.
 *
 *     FAULT=function:N:errno[:count]   calls N, N+1, ... N+count-1 (1; 0: all that follow), counted from
 *                                      when the program sets fault_on
 *
 * The runtime finds the C library's functions by name, so these stand behind its hooks, where the kernel would. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>

atomic_int fault_on;
static char wanted[64];
static long first, count = 1;
static int number;
static atomic_long calls;

__attribute__((constructor)) static void read_fault(void) {
  const char *spec = getenv("FAULT");
  if (!spec) return;
  const char *colon = strchr(spec, ':');
  if (!colon || (size_t)(colon - spec) >= sizeof wanted) abort();
  memcpy(wanted, spec, (size_t)(colon - spec));
  char *rest;
  first = strtol(colon + 1, &rest, 10);
  number = (int)strtol(rest + 1, &rest, 10);
  if (*rest == ':') count = strtol(rest + 1, NULL, 10);
}

static int fails(const char *name) {
  if (!fault_on || strcmp(name, wanted) != 0) return 0;
  long n = atomic_fetch_add(&calls, 1) + 1;
  return n >= first && (count == 0 || n < first + count);
}

#define FAULT(type, name, failure, parameters, arguments) \
  type name parameters { \
    static type(*real) parameters; \
    if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
    if (fails(#name)) { \
      errno = number; \
      return failure; \
    } \
    return real arguments; \
  }

FAULT(void *, mmap, MAP_FAILED, (void *a, size_t n, int p, int f, int fd, off_t o), (a, n, p, f, fd, o))
FAULT(int, epoll_create1, -1, (int f), (f))
FAULT(int, epoll_ctl, -1, (int e, int op, int fd, struct epoll_event *ev), (e, op, fd, ev))
FAULT(int, eventfd, -1, (unsigned n, int f), (n, f))
FAULT(int, accept4, -1, (int fd, struct sockaddr *a, socklen_t *n, int f), (fd, a, n, f))
FAULT(ssize_t, recv, -1, (int fd, void *b, size_t n, int f), (fd, b, n, f))
FAULT(ssize_t, sendto, -1, (int fd, const void *b, size_t n, int f, const struct sockaddr *a, socklen_t l),
      (fd, b, n, f, a, l))
FAULT(int, connect, -1, (int fd, const struct sockaddr *a, socklen_t l), (fd, a, l))
FAULT(int, pthread_create, number, (pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg),
      (t, a, fn, arg))
