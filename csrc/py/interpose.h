/* interpose.h - C library functions that know goroutines: what all hooks share.
 *
 * A hook stands in for a function of the C library in the interpreter, its extension modules and a few
 * trusted libraries.  In an ordinary thread, and wherever a goroutine must not park, it calls the
 * original.  Else it tries without blocking, and parks the goroutine when it would block:
 *
 *     call c;
 *     if (!call_begin(&c, FAM_SLEEP)) return real.clock_nanosleep(...);
 *     call_attach(&c);  wake_t w = call_woken(&c, gopark(...));  call_detach(&c);
 *     return ...;
 *
 * A goroutine parks attached, its state current and the GIL held, as everywhere (park.c).
 *
 * errno.  Compilers keep its address across a call, so the C code below a hook may read the errno of the
 * thread on which it began.  A failure is therefore stored on that thread as well (call_fail, homes.c). */
#ifndef GMPRT_INTERPOSE_H
#define GMPRT_INTERPOSE_H

#include <poll.h>
#include <pty.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "pyhost.h"
#include "shim.h"

/* Kinds of objects. */
enum {
  IN_INTERPRETER = 1, /* executable and libpython */
  IN_STDLIB = 2,      /* extension modules of the standard library */
  IN_EXTENSION = 4,   /* other extension modules */
  IN_TRUSTED = 8,     /* libraries in which goroutines may park (interpose.c) */
};

/* One interposed call on a goroutine. */
typedef struct call {
  G *g;
  M *home;     /* where it began, and C code may have taken the address of errno */
  bool early;  /* C code that calls this is known to take it before the call */
  bool nocancel;
  int e;       /* errno at the start: what a success leaves there, on whichever thread */
} call;

bool call_begin(call *c, family f);
void call_attach(call *c);
wake_t call_woken(call *c, wake_t w);
void call_detach(call *c);
int call_fail(call *c, int e); /* -1, with errno; also for a failure without a park */
int call_errno(call *c, wake_t w);

/* The running goroutine, when its C code has dropped the GIL; NULL: in any other position.  An ordinary thread
 * learns with one load that it is none. */
G *detached_g_of_m(void);
static inline G *detached_g(void) { return unlikely(on_m()) ? detached_g_of_m() : NULL; }
/* The call that follows blocks for certain: P and licence go to others at once. */
void call_handoff(void);
/* A child between vfork and exec shares our memory: it must not touch the runtime. */
bool in_vfork_child(M *m);

int64_t timespec_ns(const struct timespec *t);

/* ---- the originals, in the order of the table in interpose.c ------------------------------------------- */

extern struct real {
  int (*clock_nanosleep)(clockid_t, int, const struct timespec *, struct timespec *);
  int (*pause)(void);
  int (*sem_wait)(sem_t *);
  int (*sem_timedwait)(sem_t *, const struct timespec *);
  int (*sem_clockwait)(sem_t *, clockid_t, const struct timespec *);
  int (*sem_trywait)(sem_t *);
  int (*sem_post)(sem_t *);
  sem_t *(*sem_open)(const char *, int, ...);
  int (*sem_close)(sem_t *);
  void (*perror)(const char *);
  int (*pthread_cond_signal)(pthread_cond_t *);
  int (*pthread_cond_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  int (*poll)(struct pollfd *, nfds_t, int);
  int (*ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
  int (*select)(int, fd_set *, fd_set *, fd_set *, struct timeval *);
  int (*pselect)(int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *);
  int (*epoll_wait)(int, struct epoll_event *, int, int);
  int (*epoll_pwait)(int, struct epoll_event *, int, int, const sigset_t *);
  ssize_t (*recv)(int, void *, size_t, int);
  ssize_t (*recvfrom)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
  ssize_t (*recvmsg)(int, struct msghdr *, int);
  ssize_t (*send)(int, const void *, size_t, int);
  ssize_t (*sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
  ssize_t (*sendmsg)(int, const struct msghdr *, int);
  int (*accept)(int, struct sockaddr *, socklen_t *);
  int (*accept4)(int, struct sockaddr *, socklen_t *, int);
  int (*connect)(int, const struct sockaddr *, socklen_t);
  ssize_t (*read)(int, void *, size_t);
  ssize_t (*write)(int, const void *, size_t);
  ssize_t (*readv)(int, const struct iovec *, int);
  ssize_t (*writev)(int, const struct iovec *, int);
  ssize_t (*sendfile64)(int, int, off_t *, size_t);
  ssize_t (*splice)(int, off_t *, int, off_t *, size_t, unsigned);
  int (*close)(int);
  int (*close_range)(unsigned, unsigned, int);
  void (*closefrom)(int);
  int (*dup2)(int, int);
  int (*dup3)(int, int, int);
  int (*socket)(int, int, int);
  int (*socketpair)(int, int, int, int *);
  int (*pipe)(int *);
  int (*pipe2)(int *, int);
  int (*dup)(int);
  int (*eventfd)(unsigned, int);
  int (*open64)(const char *, int, ...);
  int (*fcntl64)(int, int, ...);
  int (*ioctl)(int, unsigned long, ...);
  int (*setsockopt)(int, int, int, const void *, socklen_t);
  int (*flock)(int, int);
  int (*lockf64)(int, int, off_t);
  int (*fsync)(int);
  int (*fdatasync)(int);
  int (*getaddrinfo)(const char *, const char *, const void *, void **);
  int (*getnameinfo)(const struct sockaddr *, socklen_t, char *, socklen_t, char *, socklen_t, int);
  int (*gethostbyname_r)(const char *, void *, char *, size_t, void **, int *);
  int (*gethostbyaddr_r)(const void *, socklen_t, int, void *, char *, size_t, void **, int *);
  pid_t (*waitpid)(pid_t, int *, int);
  pid_t (*wait)(int *);
  pid_t (*wait3)(int *, int, struct rusage *);
  pid_t (*wait4)(pid_t, int *, int, struct rusage *);
  int (*waitid)(idtype_t, id_t, siginfo_t *, int);
  pthread_t (*pthread_self)(void);
  long (*syscall)(long, ...);
  int (*pthread_kill)(pthread_t, int);
  int (*pthread_getcpuclockid)(pthread_t, clockid_t *);
  int (*pthread_getname_np)(pthread_t, char *, size_t);
  int (*pthread_setname_np)(pthread_t, const char *);
  int (*pthread_getattr_np)(pthread_t, pthread_attr_t *);
  int (*pthread_sigmask)(int, const sigset_t *, sigset_t *);
  int (*sigprocmask)(int, const sigset_t *, sigset_t *);
  int (*sigpending)(sigset_t *);
  int (*sigwait)(const sigset_t *, int *);
  int (*sigwaitinfo)(const sigset_t *, siginfo_t *);
  int (*sigtimedwait)(const sigset_t *, siginfo_t *, const struct timespec *);
  int (*kill)(pid_t, int);
  int (*killpg)(pid_t, int);
  int (*raise)(int);
  int (*sigaction)(int, const struct sigaction *, struct sigaction *);
  int (*sigaltstack)(const stack_t *, stack_t *);
  pid_t (*fork)(void);
  pid_t (*vfork)(void);
  pid_t (*forkpty)(int *, char *, const struct termios *, const struct winsize *);
  int (*posix_spawn)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                     char *const[], char *const[]);
  int (*posix_spawnp)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                      char *const[], char *const[]);
  int (*system)(const char *);
  FILE *(*popen)(const char *, const char *);
  int (*pthread_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  FILE *(*fopen64)(const char *, const char *);
  void *poll_chk, *recv_chk, *recvfrom_chk, *read_chk; /* the fortified ones: only to be put back */
} real;

/* hook_time.c */
int hook_clock_nanosleep(clockid_t clock, int flags, const struct timespec *req, struct timespec *rem);
int hook_pause(void);

/* hook_sem.c */
int hook_sem_wait(sem_t *s);
int hook_sem_timedwait(sem_t *s, const struct timespec *abs);
int hook_sem_clockwait(sem_t *s, clockid_t clock, const struct timespec *abs);
int hook_sem_post(sem_t *s);
sem_t *hook_sem_open(const char *name, int flags, mode_t mode, unsigned value);
int hook_sem_close(sem_t *s);
void hook_perror(const char *s);
int hook_pthread_cond_signal(pthread_cond_t *c);
int hook_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *abs);

/* hook_poll.c */
int hook_poll(struct pollfd *fds, nfds_t n, int timeout);
int hook_poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size);
int hook_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *t, const sigset_t *mask);
int hook_select(int n, fd_set *r, fd_set *w, fd_set *x, struct timeval *t);
int hook_pselect(int n, fd_set *r, fd_set *w, fd_set *x, const struct timespec *t, const sigset_t *mask);
int hook_epoll_wait(int fd, struct epoll_event *ev, int max, int timeout);
int hook_epoll_pwait(int fd, struct epoll_event *ev, int max, int timeout, const sigset_t *mask);

/* hook_socket.c */
ssize_t hook_recv(int fd, void *buf, size_t n, int flags);
ssize_t hook_recv_chk(int fd, void *buf, size_t n, size_t size, int flags);
ssize_t hook_recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *a, socklen_t *len);
ssize_t hook_recvfrom_chk(int fd, void *buf, size_t n, size_t size, int flags, struct sockaddr *a,
                          socklen_t *len);
ssize_t hook_recvmsg(int fd, struct msghdr *m, int flags);
ssize_t hook_send(int fd, const void *buf, size_t n, int flags);
ssize_t hook_sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *a, socklen_t len);
ssize_t hook_sendmsg(int fd, const struct msghdr *m, int flags);
int hook_accept(int fd, struct sockaddr *a, socklen_t *len);
int hook_accept4(int fd, struct sockaddr *a, socklen_t *len, int flags);
int hook_connect(int fd, const struct sockaddr *a, socklen_t len);

/* hook_file.c */
ssize_t hook_read(int fd, void *buf, size_t n);
ssize_t hook_read_chk(int fd, void *buf, size_t n, size_t size);
ssize_t hook_write(int fd, const void *buf, size_t n);
ssize_t hook_readv(int fd, const struct iovec *iov, int n);
ssize_t hook_writev(int fd, const struct iovec *iov, int n);
ssize_t hook_sendfile64(int out, int in, off_t *offset, size_t n);
ssize_t hook_splice(int in, off_t *inoff, int out, off_t *outoff, size_t n, unsigned flags);
int hook_fsync(int fd);
int hook_fdatasync(int fd);
int hook_flock(int fd, int op);
int hook_lockf64(int fd, int op, off_t n);
int hook_fcntl64(int fd, int op, void *arg);

/* hook_fd.c: which descriptors there are */
int hook_close(int fd);
int hook_close_range(unsigned first, unsigned last, int flags);
void hook_closefrom(int first);
int hook_dup2(int from, int to);
int hook_dup3(int from, int to, int flags);
int hook_socket_new(int domain, int type, int protocol);
int hook_socketpair(int domain, int type, int protocol, int fd[2]);
int hook_pipe(int fd[2]);
int hook_pipe2(int fd[2], int flags);
int hook_dup(int fd);
int hook_eventfd(unsigned n, int flags);
int hook_open64(const char *path, int flags, mode_t mode);
int hook_ioctl(int fd, unsigned long request, void *arg);
int hook_setsockopt(int fd, int level, int option, const void *value, socklen_t len);

/* hook_child.c */
pid_t hook_waitpid(pid_t pid, int *status, int options);
pid_t hook_wait(int *status);
pid_t hook_wait3(int *status, int options, struct rusage *ru);
pid_t hook_wait4(pid_t pid, int *status, int options, struct rusage *ru);
int hook_waitid(idtype_t type, id_t id, siginfo_t *info, int options);

/* hook_name.c: names and addresses */
int hook_getaddrinfo(const char *node, const char *service, const void *hints, void **res);
int hook_getnameinfo(const struct sockaddr *a, socklen_t len, char *host, socklen_t hostlen, char *serv,
                     socklen_t servlen, int flags);
int hook_gethostbyname_r(const char *name, void *ret, char *buf, size_t len, void **res, int *err);
int hook_gethostbyaddr_r(const void *addr, socklen_t alen, int type, void *ret, char *buf, size_t len,
                         void **res, int *err);

/* homes.c */
int errno_get(void);
void errno_set(int e);
typedef struct homes homes;
static inline homes *homes_of(const Goroutine *self) { return self->more ? self->more->homes : NULL; }
void homes_prune(Goroutine *self); /* this one and those below: when there are any */
void homes_leave_shim(Goroutine *self, const shim *s);
void homes_drop(Goroutine *self);
void homes_forget(Goroutine *self);
void homes_store(call *c, int e);
void homes_note(call *c, M *home);

/* errqueue.c */
void errqueue_find(void);
bool errqueue_empty(void);
void errqueue_clear(void);

/* pyhost.c */
bool in_a_call_of(const shim *s, const void *frame);

/* C frames lie below: they have called Python by PyGILState_Ensure, or from an interposed function, for a signal
 * handler after EINTR. */
static inline bool entered_below(G *gp) {
  Goroutine *self = handle_of(gp);
  PyThreadState *ts = ts_of(gp);
  const shim *s = self->shim;
  return ts->gilstate_counter > self->gilstate_base || (s && in_a_call_of(s, ts_position(ts).frame));
}

/* affinity.c */
void affinity_find(void);
bool affinity_below(G *gp);

/* identity.c */
pthread_t hook_pthread_self(void);
long hook_syscall(long number, long a, long b, long c, long d, long e, long f);
int hook_pthread_kill(pthread_t t, int sig);
int hook_pthread_getcpuclockid(pthread_t t, clockid_t *clock);
int hook_pthread_getname_np(pthread_t t, char *name, size_t n);
int hook_pthread_setname_np(pthread_t t, const char *name);
int hook_pthread_getattr_np(pthread_t t, pthread_attr_t *attr);

/* hook_signal.c */
typedef struct maskscope {
  G *g;
  sigset_t old;
} maskscope;
bool mask_enter(maskscope *s);
void mask_leave(maskscope *s);
int hook_pthread_sigmask(int how, const sigset_t *set, sigset_t *old);
int hook_sigprocmask(int how, const sigset_t *set, sigset_t *old);
int hook_sigpending(sigset_t *set);
int hook_sigwait(const sigset_t *set, int *sig);
int hook_sigwaitinfo(const sigset_t *set, siginfo_t *info);
int hook_sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *t);
int hook_kill(pid_t pid, int sig);
int hook_killpg(pid_t pgrp, int sig);
int hook_raise(int sig);
long hook_signal_syscall(long number, long a, long b, long c, long d, long e, long f);
void signals_relay(bool on);
int hook_sigaction(int sig, const struct sigaction *act, struct sigaction *old);
int hook_sigaltstack(const stack_t *ss, stack_t *old);

/* hook_fork.c, vfork.S */
pid_t hook_fork(void);
pid_t hook_vfork(void);
pid_t hook_forkpty(int *master, char *name, const struct termios *termp, const struct winsize *winp);
int hook_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                     const posix_spawnattr_t *attr, char *const argv[], char *const envp[]);
int hook_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                      const posix_spawnattr_t *attr, char *const argv[], char *const envp[]);
int hook_system(const char *command);
FILE *hook_popen(const char *command, const char *mode);
int hook_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
FILE *hook_fopen64(const char *path, const char *mode);

/* interpose.c */
bool interpose_install(void); /* false: exception set, and nothing has happened */
bool interpose_possible(void); /* or nobody has asked for it */
bool interpose_nothing(void);  /* GMPRT_INTERPOSE=none */
void interpose_remove(void);
bool interpose_refresh(void); /* after objects may have been loaded; true: some were */
bool interpose_knows(const char *path); /* an object that does not care on which thread it goes on */
PyObject *interpose_report(void);
const char *interpose_mode(void);
bool fork_register(void);
void fork_in_child(void);
bool fork_holds(void); /* this thread has the locks that a fork takes */
bool interpose_in_fork(void); /* in the middle of a fork, or in a forked child that has not been told yet */
void interpose_fork_over(void);
bool is_goroutine(pthread_t t);
G *goroutine_of(pthread_t t);
void identity_stand_for(unsigned long ident);
bool interpose_parks(void); /* GMPRT_INTERPOSE is not 0, and the interpreter has a table */

#endif
