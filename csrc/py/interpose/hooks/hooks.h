/* hooks.h - C library functions that know goroutines: one table, of which all the rest is made.
 *
 * To add one: a line here, in the order in which the functions are looked for, and the function hook_NAME in the file of
 * its topic. */
#ifndef GMPRT_PY_INTERPOSE_HOOKS_HOOKS_H
#define GMPRT_PY_INTERPOSE_HOOKS_HOOKS_H

#include <poll.h>
#include <pty.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "py/interpose/call.h"
#include "py/interpose/objects.h"

/* HOOK(returned, name, (parameters), where it is replaced): hook_NAME stands in for NAME.
 * HOOK_OTHER: the stand-in has another name, or names what the original takes as `...`.
 * HOOK_SAME: a second name of the C library's for the same function.
 * HOOK_CHK: what fortified code calls; its original is only to be put back.
 * ONLY: not replaced, only called. */
#define HOOKS(HOOK, HOOK_OTHER, HOOK_SAME, HOOK_CHK, ONLY) \
  HOOK(int, clock_nanosleep, (clockid_t clock, int flags, const struct timespec *req, struct timespec *rem), PARK) \
  HOOK(int, pause, (void), PARK) \
  HOOK(int, sem_wait, (sem_t *s), PARK) \
  HOOK(int, sem_timedwait, (sem_t *s, const struct timespec *abs), PARK) \
  HOOK(int, sem_clockwait, (sem_t *s, clockid_t clock, const struct timespec *abs), PARK) \
  HOOK(int, sem_post, (sem_t *s), PARK) \
  ONLY(int, sem_trywait, (sem_t *s)) \
  HOOK(void, perror, (const char *s), IN_INTERPRETER) \
  HOOK(int, pthread_cond_signal, (pthread_cond_t *c), IN_INTERPRETER | ALWAYS) \
  HOOK(int, pthread_cond_timedwait, (pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *abs), \
       IN_INTERPRETER | ALWAYS) \
  HOOK(int, poll, (struct pollfd *fds, nfds_t n, int timeout), PARK_FD) \
  HOOK_CHK("__poll_chk", poll_chk, int, hook_poll_chk, (struct pollfd *fds, nfds_t n, int timeout, \
       size_t size), PARK_FD) \
  HOOK(int, ppoll, (struct pollfd *fds, nfds_t n, const struct timespec *t, const sigset_t *mask), PARK_FD) \
  HOOK(int, select, (int n, fd_set *r, fd_set *w, fd_set *x, struct timeval *t), PARK_FD) \
  HOOK(int, pselect, (int n, fd_set *r, fd_set *w, fd_set *x, const struct timespec *t, const sigset_t *mask), \
       PARK_FD) \
  HOOK(int, epoll_wait, (int fd, struct epoll_event *ev, int max, int timeout), PARK) \
  HOOK(int, epoll_pwait, (int fd, struct epoll_event *ev, int max, int timeout, const sigset_t *mask), PARK) \
  HOOK(ssize_t, recv, (int fd, void *buf, size_t n, int flags), PARK_FD) \
  HOOK_CHK("__recv_chk", recv_chk, ssize_t, hook_recv_chk, (int fd, void *buf, size_t n, size_t size, \
       int flags), PARK_FD) \
  HOOK(ssize_t, recvfrom, (int fd, void *buf, size_t n, int flags, struct sockaddr *a, socklen_t *len), PARK_FD) \
  HOOK_CHK("__recvfrom_chk", recvfrom_chk, ssize_t, hook_recvfrom_chk, (int fd, void *buf, size_t n, \
       size_t size, int flags, struct sockaddr *a, socklen_t *len), PARK_FD) \
  HOOK(ssize_t, recvmsg, (int fd, struct msghdr *m, int flags), PARK_FD) \
  HOOK(ssize_t, send, (int fd, const void *buf, size_t n, int flags), PARK_FD) \
  HOOK(ssize_t, sendto, (int fd, const void *buf, size_t n, int flags, const struct sockaddr *a, \
       socklen_t len), PARK_FD) \
  HOOK(ssize_t, sendmsg, (int fd, const struct msghdr *m, int flags), PARK_FD) \
  HOOK(int, accept, (int fd, struct sockaddr *a, socklen_t *len), PARK) \
  HOOK(int, accept4, (int fd, struct sockaddr *a, socklen_t *len, int flags), PARK) \
  HOOK(int, connect, (int fd, const struct sockaddr *a, socklen_t len), PARK_FD) \
  HOOK(ssize_t, read, (int fd, void *buf, size_t n), PARK_FD) \
  HOOK_CHK("__read_chk", read_chk, ssize_t, hook_read_chk, (int fd, void *buf, size_t n, size_t size), PARK_FD) \
  HOOK(ssize_t, write, (int fd, const void *buf, size_t n), PARK_FD) \
  HOOK(ssize_t, readv, (int fd, const struct iovec *iov, int n), PARK_FD) \
  HOOK(ssize_t, writev, (int fd, const struct iovec *iov, int n), PARK_FD) \
  HOOK(ssize_t, sendfile64, (int out, int in, off_t *offset, size_t n), PARK) \
  HOOK(ssize_t, splice, (int in, off_t *inoff, int out, off_t *outoff, size_t n, unsigned flags), PARK) \
  HOOK(int, close, (int fd), PARK_FD | ALWAYS) \
  HOOK(int, close_range, (unsigned first, unsigned last, int flags), ALL | ALWAYS) \
  HOOK(void, closefrom, (int first), ALL | ALWAYS) \
  HOOK(int, dup2, (int from, int to), ALL | ALWAYS) \
  HOOK(int, dup3, (int from, int to, int flags), ALL | ALWAYS) \
  HOOK_OTHER(int, socket, (int, int, int), int, hook_socket_new, (int domain, int type, int protocol), PARK_FD) \
  HOOK(int, socketpair, (int domain, int type, int protocol, int fd[2]), PARK_FD) \
  HOOK(int, pipe, (int fd[2]), PARK_FD) \
  HOOK(int, pipe2, (int fd[2], int flags), PARK_FD) \
  HOOK(int, dup, (int fd), PARK_FD) \
  HOOK(int, eventfd, (unsigned n, int flags), PARK_FD) \
  HOOK_OTHER(int, open64, (const char *, int, ...), int, hook_open64, (const char *path, int flags, \
       mode_t mode), PARK) \
  HOOK_OTHER(int, fcntl64, (int, int, ...), int, hook_fcntl64, (int fd, int op, void *arg), ALL) \
  HOOK_SAME("fcntl", fcntl64, hook_fcntl64, ALL) \
  HOOK_OTHER(int, ioctl, (int, unsigned long, ...), int, hook_ioctl, (int fd, unsigned long request, \
       void *arg), ALL) \
  HOOK(int, setsockopt, (int fd, int level, int option, const void *value, socklen_t len), ALL) \
  HOOK(int, flock, (int fd, int op), PARK) \
  HOOK(int, lockf64, (int fd, int op, off_t n), PARK) \
  HOOK(int, fsync, (int fd), PARK) \
  HOOK(int, fdatasync, (int fd), PARK) \
  HOOK(int, getaddrinfo, (const char *node, const char *service, const void *hints, void **res), PARK_FD) \
  HOOK(int, getnameinfo, (const struct sockaddr *a, socklen_t len, char *host, socklen_t hostlen, char *serv, \
       socklen_t servlen, int flags), PARK) \
  HOOK(int, gethostbyname_r, (const char *name, void *ret, char *buf, size_t len, void **res, int *err), PARK) \
  HOOK(int, gethostbyaddr_r, (const void *addr, socklen_t alen, int type, void *ret, char *buf, size_t len, \
       void **res, int *err), PARK) \
  HOOK(pid_t, waitpid, (pid_t pid, int *status, int options), PARK) \
  HOOK(pid_t, wait, (int *status), PARK) \
  HOOK(pid_t, wait3, (int *status, int options, struct rusage *ru), PARK) \
  HOOK(pid_t, wait4, (pid_t pid, int *status, int options, struct rusage *ru), PARK) \
  HOOK(int, waitid, (idtype_t type, id_t id, siginfo_t *info, int options), PARK) \
  HOOK(pthread_t, pthread_self, (void), IN_INTERPRETER | ALWAYS) \
  HOOK_OTHER(long, syscall, (long, ...), long, hook_syscall, (long number, long a, long b, long c, long d, \
       long e, long f), IN_INTERPRETER | ALWAYS) \
  HOOK(int, pthread_kill, (pthread_t t, int sig), IN_INTERPRETER | ALWAYS) \
  HOOK(int, pthread_sigmask, (int how, const sigset_t *set, sigset_t *old), PYTHON | ALWAYS) \
  HOOK(int, sigprocmask, (int how, const sigset_t *set, sigset_t *old), PYTHON | ALWAYS) \
  HOOK(int, sigpending, (sigset_t *set), IN_INTERPRETER | ALWAYS) \
  HOOK(int, sigwait, (const sigset_t *set, int *sig), PARK | ALWAYS) \
  HOOK(int, sigwaitinfo, (const sigset_t *set, siginfo_t *info), PARK | ALWAYS) \
  HOOK(int, sigtimedwait, (const sigset_t *set, siginfo_t *info, const struct timespec *t), PARK | ALWAYS) \
  HOOK(int, kill, (pid_t pid, int sig), PARK | ALWAYS) \
  HOOK(int, killpg, (pid_t pgrp, int sig), PARK | ALWAYS) \
  HOOK(int, raise, (int sig), PARK | ALWAYS) \
  HOOK(int, sigaction, (int sig, const struct sigaction *act, struct sigaction *old), PYTHON | ALWAYS) \
  HOOK(int, sigaltstack, (const stack_t *ss, stack_t *old), PARK | ALWAYS) \
  HOOK(pid_t, fork, (void), PYTHON | ALWAYS) \
  HOOK(pid_t, vfork, (void), PYTHON | ALWAYS) \
  HOOK(pid_t, forkpty, (int *master, char *name, const struct termios *termp, const struct winsize *winp), \
       PARK | ALWAYS) \
  HOOK(int, posix_spawn, (pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, \
       const posix_spawnattr_t *attr, char *const argv[], char *const envp[]), PYTHON | ALWAYS) \
  HOOK(int, posix_spawnp, (pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions, \
       const posix_spawnattr_t *attr, char *const argv[], char *const envp[]), PYTHON | ALWAYS) \
  HOOK(int, system, (const char *command), PARK | ALWAYS) \
  HOOK(FILE *, popen, (const char *command, const char *mode), PYTHON | ALWAYS) \
  HOOK(int, pthread_create, (pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg), \
       PYTHON | ALWAYS) \
  HOOK(int, pthread_join, (pthread_t t, void **result), IN_INTERPRETER | ALWAYS) \
  HOOK(int, pthread_detach, (pthread_t t), IN_INTERPRETER | ALWAYS) \
  HOOK(int, munmap, (void *at, size_t n), IN_INTERPRETER | ALWAYS) \
  HOOK(FILE *, fopen64, (const char *path, const char *mode), IN_INTERPRETER | ALWAYS) \
  HOOK(int, pthread_getcpuclockid, (pthread_t t, clockid_t *clock), IN_INTERPRETER | ALWAYS) \
  HOOK(int, pthread_getname_np, (pthread_t t, char *name, size_t n), IN_INTERPRETER | ALWAYS) \
  HOOK(int, pthread_setname_np, (pthread_t t, const char *name), IN_INTERPRETER | ALWAYS) \
  HOOK(int, pthread_getattr_np, (pthread_t t, pthread_attr_t *attr), IN_INTERPRETER | ALWAYS)

/* The originals. */
#define REAL(ret, name, params, where) ret (*name) params;
#define REAL_OTHER(ret, name, params, ret2, fn, params2, where) ret (*name) params;
#define REAL_SAME(symbol, name, fn, where)
#define REAL_CHK(symbol, name, ret, fn, params, where) void *name;
#define REAL_ONLY(ret, name, params) ret (*name) params;
extern struct real {
  HOOKS(REAL, REAL_OTHER, REAL_SAME, REAL_CHK, REAL_ONLY)
} real;

/* The stand-ins. */
#define STAND_IN(ret, name, params, where) ret hook_##name params;
#define STAND_IN_OTHER(ret, name, params, ret2, fn, params2, where) ret2 fn params2;
#define STAND_IN_CHK(symbol, name, ret, fn, params, where) ret fn params;
#define NO_STAND_IN(...)
HOOKS(STAND_IN, STAND_IN_OTHER, NO_STAND_IN, STAND_IN_CHK, NO_STAND_IN)

/* The rows. */
extern hook hooks[];
extern const size_t nhooks;

/* thread.c */
bool pythreads_wanted(void);
bool pythreads_want(bool on);

/* fd.c */
int fd_opened(int fd);

/* signal.c */
typedef struct maskscope {
  G *g;
  sigset_t old;
} maskscope;
bool mask_enter(maskscope *s);
void mask_leave(maskscope *s);
long hook_signal_syscall(long number, long a, long b, long c, long d, long e, long f);
void signals_relay(bool on);

#endif
