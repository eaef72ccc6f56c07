/* storm_test.c - all that may happen to descriptors at once: deadlines that end while bytes come, closes under those
 * who wait, numbers that are used again, cancels, signals, Ps that come and go, forks.
 *
 * Nothing is in order, so of one call little can be expected.  But each goroutine ends, none is left in
 * the poller or among the timers, and who is served before its deadline was not late. */
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "stubhost.h"

enum { SLOTS = 6, READERS = 12, HOSTED = 6, WRITERS = 6, CLOSERS = 2 };

static _Atomic int slots[SLOTS][2]; /* a connection each; -1: somebody opens a new one */
static _Atomic bool stop;
static _Atomic long outcomes[WAKE_BADFD + 1], bytes_in, bytes_out, closes, signals;

/* errno found anew: after a park this may be another thread. */
static noinline int error(void) { return errno; }

/* System calls, not the functions of the C library: thread sanitizer follows descriptors through those, and takes a
 * close beside a use for a race.  Here it is meant. */
static void open_slot(int i) {
  int fd[2];
  NEED(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
  for (int k = 0; k < 2; k++) {
    netpollopened(fd[k]);
    store_rel(&slots[i][k], fd[k]);
  }
}

static void close_one(int fd) {
  netpollclosing(fd);
  CHECK_EQ(syscall(SYS_close, fd), 0);
  netpollclosed(fd);
}

static ssize_t attempt(int fd, int mode, void *buf, size_t n) {
  ssize_t r = mode == POLL_READ ? syscall(SYS_recvfrom, fd, buf, n, MSG_DONTWAIT, NULL, NULL)
                                : syscall(SYS_sendto, fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
  return r < 0 ? -error() : r;
}

/* One read or write of a random slot, with a deadline that may come before, with, or after the other side. */
static void use_slot(rng *r, int mode, bool hosted) {
  int fd = load_acq(&slots[below(r, SLOTS)][mode]);
  pollwait w;
  if (!netpollwatch(&w, fd, mode == POLL_READ, mode == POLL_WRITE)) {
    gosched();
    return;
  }
  char buf[4096];
  int64_t deadline = nanotime() + below(r, 300000);
  for (;;) {
    netpollsample(&w);
    memset(buf, 0, sizeof buf);
    ssize_t n = attempt(fd, mode, buf, 1 + below(r, sizeof buf));
    if (n > 0) xadd(mode == POLL_READ ? &bytes_in : &bytes_out, n);
    if (n != -EAGAIN) return; /* or closed meanwhile, or somebody else's by now */
    wake_t e = netpollwait(&w, 1, deadline, hosted);
    NEED(e >= 0 && e <= WAKE_BADFD);
    inc_rlx(&outcomes[e]);
    CHECK(e == WAKE_OK || e == WAKE_TIMEOUT || e == WAKE_CLOSED || e == WAKE_CANCELLED || e == WAKE_BADFD);
    if (e == WAKE_TIMEOUT) CHECK(nanotime() >= deadline);
    if (e != WAKE_OK) return;
  }
}

static void reader(void *arg) {
  (void)arg;
  for (rng r = rng_new(); !load_rlx(&stop);) use_slot(&r, POLL_READ, false);
}

static void writer(void *arg) {
  (void)arg;
  for (rng r = rng_new(); !load_rlx(&stop);) {
    use_slot(&r, POLL_WRITE, false);
    if (below(&r, 4) == 0) gm_sleep(below(&r, 100000));
  }
}

static void hosted_reader(void *arg) {
  (void)arg;
  for (rng r = rng_new(); !load_rlx(&stop);) {
    use_slot(&r, POLL_READ, true);
    hosted_tick();
    gosched();
  }
}

static void closer(void *arg) {
  (void)arg;
  for (rng r = rng_new(); !load_rlx(&stop); gm_sleep(below(&r, 500000))) {
    int i = (int)below(&r, SLOTS), fd[2];
    for (int k = 0; k < 2; k++) fd[k] = xchg(&slots[i][k], -1);
    for (int k = 0; k < 2; k++)
      if (fd[k] >= 0) close_one(fd[k]); /* else it is the other closer's */
    inc_rlx(&closes);
    if (fd[0] >= 0) open_slot(i);
  }
}

static void on_signal(int sig) {
  (void)sig;
  inc_rlx(&signals);
}

/* Cancels waits, interrupts threads and their system calls. */
static void pester(void *arg) {
  (void)arg;
  uint32_t cursor = 0;
  for (rng r = rng_new(); !load_rlx(&stop); os_usleep(below(&r, 300))) {
    G *gp = allg_next(&cursor);
    if (!gp)
      cursor = 0;
    else if (load_acq(&gp->status) == Gwaiting)
      gocancel(gp, false);
    kill(getpid(), SIGUSR1);
  }
}

static bool storm_is_enough(void) {
  return load_rlx(&outcomes[WAKE_OK]) > rounds(10000) && load_rlx(&outcomes[WAKE_TIMEOUT]) > rounds(2000) &&
         load_rlx(&outcomes[WAKE_CLOSED]) > rounds(200) && load_rlx(&outcomes[WAKE_CANCELLED]) > rounds(100) &&
         load_rlx(&closes) > rounds(1000) && load_rlx(&signals) > rounds(2000);
}

static void start_storm(group *g, job *j[HOSTED]) {
  stub_start();
  struct sigaction act = {.sa_handler = on_signal}; /* no SA_RESTART */
  sigaction(SIGUSR1, &act, NULL);
  for (int i = 0; i < SLOTS; i++) open_slot(i);
  for (int i = 0; i < READERS; i++) group_go(g, reader, NULL);
  for (int i = 0; i < WRITERS; i++) group_go(g, writer, NULL);
  for (int i = 0; i < CLOSERS; i++) group_go(g, closer, NULL);
  host_take();
  for (int i = 0; i < HOSTED; i++) j[i] = hosted_go(hosted_reader, NULL);
  host_drop();
  group_thread(g, pester, NULL);
}

static void end_storm(group *g, job *j[HOSTED]) {
  store_rlx(&stop, true);
  host_take();
  for (int i = 0; i < HOSTED; i++) hosted_join(j[i]);
  host_drop();
  group_wait(g);
  CHECK_EQ(netpoll_waiters(), 0);
  CHECK(load_rlx(&bytes_in) <= load_rlx(&bytes_out));
}

TEST(closes_deadlines_cancels_and_signals, .procs = "124", .chaos = true, .seconds = 120) {
  group g = {0};
  job *j[HOSTED];
  start_storm(&g, j);
  for (rng r = rng_new(); !storm_is_enough();) {
    gomaxprocs_set(1 + (int32_t)below(&r, 4));
    os_usleep(below(&r, 20000));
  }
  end_storm(&g, j);
}

#ifndef GM_ASAN /* it leaves the lock of its allocator held in the child of a fork beside a thread that starts */

/* What fails here has to end the child: its parent sees nothing else of it. */
static void in_the_child(void *arg) {
  int *fd = arg;
  char c = 'x';
  NEED(gm_write(fd[1], &c, 1) == 1);
  NEED(gm_read(fd[0], &c, 1) == 1);
  NEED(gm_sleep(1000) == GM_OK);
}

static int child(void) {
  sched_afterfork(NULL);
  if (!schedinit()) return 2;
  int fd[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) != 0) return 3;
  group g = {0};
  for (int i = 0; i < 3; i++) group_go(&g, in_the_child, fd);
  group_wait(&g);
  return netpoll_waiters() != 0;
}

TEST(forks_in_the_storm, .procs = "12", .seconds = 120) {
  group g = {0};
  job *j[HOSTED];
  start_storm(&g, j);
  for (int i = 0; i < rounds(20); i++) {
    host_take();
    while (i % 2 == 0 && !host_asked()) os_usleep(100); /* a thread that will not be in the child wants the lock */
    pid_t pid = host_fork(20);
    if (pid == 0) _exit(child());
    host_drop();
    int status;
    while (waitpid(pid, &status, 0) != pid) NEED(error() == EINTR);
    CHECK(WIFEXITED(status));
    if (WIFEXITED(status)) CHECK_EQ(WEXITSTATUS(status), 0);
  }
  end_storm(&g, j);
}

#endif
