/* netpoll_test.c - goroutines that read, write and accept: no edge is lost, and nobody waits for them. */
#include "stubhost.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

static void pair(int fd[2]) { NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0); }

/* errno found anew: after a park this may be another thread. */
static noinline int error(void) { return errno; }

/* ---- echo ------------------------------------------------------------------------------------------------ */

typedef struct line {
  int fd[2];
  int n;
} line;

static bool read_all(int fd, void *buf, size_t n) {
  for (char *p = buf; n > 0;) {
    ssize_t r = gm_read(fd, p, n);
    if (r <= 0) return false;
    p += r;
    n -= (size_t)r;
  }
  return true;
}

static bool write_all(int fd, const void *buf, size_t n) {
  for (const char *p = buf; n > 0;) {
    ssize_t r = gm_write(fd, p, n);
    if (r <= 0) return false;
    p += r;
    n -= (size_t)r;
  }
  return true;
}

static void echo(void *arg) {
  line *l = arg;
  char buf[256];
  for (ssize_t r; (r = gm_read(l->fd[1], buf, sizeof buf)) > 0;)
    CHECK(write_all(l->fd[1], buf, (size_t)r));
  gm_close(l->fd[1]);
}

static void call(void *arg) {
  line *l = arg;
  rng r = rng_new();
  for (int i = 0; i < l->n; i++) {
    unsigned char out[300], in[300];
    size_t n = below(&r, 3) ? 1 : below(&r, sizeof out) + 1;
    memset(out, i, n);
    CHECK(write_all(l->fd[0], out, n));
    if (below(&r, 10) == 0) gm_sleep(below(&r, 100000));
    CHECK(read_all(l->fd[0], in, n));
    CHECK(memcmp(in, out, n) == 0);
  }
  gm_close(l->fd[0]);
}

TEST(many_pairs_echo, .procs = "124", .chaos = true, .seconds = 60) {
  runtime_start();
  enum { PAIRS = 50 };
  static line l[PAIRS];
  group g = {0};
  for (int lap = 0; lap < 2; lap++) { /* the second time the numbers of closed descriptors are used again */
    for (int i = 0; i < PAIRS; i++) {
      pair(l[i].fd);
      l[i].n = rounds(200);
      group_go(&g, echo, &l[i]);
      group_go(&g, call, &l[i]);
    }
    group_wait(&g);
  }
  CHECK_EQ(netpoll_waiters(), 0);
  CHECK(load_rlx(&counts.netready) > 0);
}

/* More than the socket holds, both ways at once. */
enum { BULK = 4 << 20 };
static void sink(void *arg) {
  unsigned char buf[20000];
  size_t got = 0;
  for (ssize_t r; (r = gm_read((int)(intptr_t)arg, buf, sizeof buf)) > 0; got += (size_t)r)
    for (ssize_t i = 0; i < r; i += 997) CHECK_EQ(buf[i], (unsigned char)((got + (size_t)i) / 1000));
  CHECK_EQ(got, BULK);
}
static void source(void *arg) {
  unsigned char *data = malloc(BULK);
  NEED(data != NULL);
  for (size_t i = 0; i < BULK; i++) data[i] = (unsigned char)(i / 1000);
  CHECK(write_all((int)(intptr_t)arg, data, BULK));
  CHECK_EQ(shutdown((int)(intptr_t)arg, SHUT_WR), 0);
  free(data);
}

TEST(bulk_both_ways, .procs = "12", .chaos = true) {
  runtime_start();
  int fd[2];
  pair(fd);
  group g = {0};
  for (int i = 0; i < 2; i++) {
    group_go(&g, sink, (void *)(intptr_t)fd[i]);
    group_go(&g, source, (void *)(intptr_t)fd[i]);
  }
  group_wait(&g);
}

/* ---- accept ------------------------------------------------------------------------------------------------ */

static int listener;
static struct sockaddr_in address;
enum { CLIENTS = 20 };

static void serve_one(void *arg) {
  int fd = (int)(intptr_t)arg;
  char c;
  CHECK_EQ(gm_read(fd, &c, 1), 1);
  CHECK_EQ(gm_write(fd, &c, 1), 1);
  gm_close(fd);
}

static void acceptor(void *arg) {
  for (int i = 0; i < CLIENTS; i++) {
    int fd = gm_accept(listener, 0);
    CHECK(fd >= 0);
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    if (fd >= 0) group_go(arg, serve_one, (void *)(intptr_t)fd);
  }
}

static void client(void *arg) {
  (void)arg;
  for (int i = 0; i < CLIENTS; i++) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char c = (char)i, d = 0;
    CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    if (i % 2) usleep(500);
    CHECK_EQ(write(fd, &c, 1), 1);
    CHECK_EQ(read(fd, &d, 1), 1);
    CHECK_EQ(c, d);
    close(fd);
  }
}

TEST(accept_waits_for_clients, .procs = "12") {
  runtime_start();
  listener = socket(AF_INET, SOCK_STREAM, 0);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t len = sizeof address;
  NEED(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 10) == 0);
  NEED(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
  group g = {0}, served = {0};
  group_go(&g, acceptor, &served);
  group_thread(&g, client, NULL);
  group_wait(&g);
  group_wait(&served);
}

/* ---- errors -------------------------------------------------------------------------------------------------- */

static _Atomic int woken;
static int shared_fd[2];

static void read_till_forgotten(void *arg) {
  (void)arg;
  char c;
  CHECK_EQ(gm_read(shared_fd[0], &c, 1), -1);
  CHECK_EQ(error(), EBADF);
  xadd(&woken, 1);
}

static void write_till_forgotten(void *arg) {
  (void)arg;
  static char many[1 << 20];
  ssize_t r;
  while ((r = gm_write(shared_fd[0], many, sizeof many)) > 0) {
  }
  CHECK_EQ(r, -1);
  CHECK_EQ(error(), EBADF);
  xadd(&woken, 1);
}

TEST(who_waits_hears_of_the_close, .procs = "12", .chaos = true) {
  runtime_start();
  for (int i = 0; i < 20; i++) {
    pair(shared_fd);
    group g = {0};
    group_go(&g, read_till_forgotten, NULL);
    group_go(&g, read_till_forgotten, NULL); /* two may wait for the same */
    group_go(&g, write_till_forgotten, NULL);
    while (netpoll_waiters() != 3) os_usleep(100);
    gm_close(shared_fd[0]);
    group_wait(&g);
    CHECK_EQ(netpoll_waiters(), 0);
    close(shared_fd[1]);
  }
  CHECK_EQ(load_rlx(&woken), 60);
}

static void read_one(void *arg) {
  char c;
  CHECK_EQ(gm_read((int)(intptr_t)arg, &c, 1), 1);
  xadd(&woken, 1);
}

/* Who closes says so once more when it is done: the number may be another descriptor's by then. */
TEST(late_news_of_a_close, .procs = "12", .chaos = true) {
  runtime_start();
  int fd[2];
  pair(fd);
  group g = {0};
  group_go(&g, read_one, (void *)(intptr_t)fd[0]);
  while (netpoll_waiters() != 1) os_usleep(100);
  netpollclosed(fd[0]);
  CHECK_EQ(load_rlx(&woken), 0);
  CHECK_EQ(write(fd[1], "x", 1), 1);
  group_wait(&g);
  CHECK_EQ(load_rlx(&woken), 1);
  gm_close(fd[0]);
  close(fd[1]);
}

/* Who has begun before a close never goes on to the next file of that number, wherever the close finds it: here
 * between its attempt and its wait, and as it runs again after an event. */
static void begun_before_a_close(void *arg) {
  (void)arg;
  for (int rest = 0; rest < 2; rest++) { /* first of all: there was no registration yet */
    int fd[2], other[2];
    pollwait w;
    pair(fd);
    CHECK(netpollwatch(&w, fd[0], true, false));
    netpollsample(&w);
    if (rest) {
      CHECK_EQ(write(fd[1], "x", 1), 1);
      CHECK_EQ(netpollwait(&w, 1, nanotime() + 10000 * (int64_t)MS, false), WAKE_OK);
      netpollsample(&w);
    }
    gm_close(fd[0]);
    pair(other);
    CHECK_EQ(other[0], fd[0]);
    CHECK_EQ(netpollwait(&w, 1, nanotime() + 10000 * (int64_t)MS, false), WAKE_CLOSED);
    netpollsample(&w); /* a later attempt of the same call */
    CHECK_EQ(netpollwait(&w, 1, nanotime() + 10000 * (int64_t)MS, false), WAKE_CLOSED);
    CHECK(netpollgone(&w));
    CHECK_EQ(netpoll_waiters(), 0);
    gm_close(other[0]);
    close(other[1]);
    close(fd[1]);
  }
}

TEST(a_close_before_the_wait, .chaos = true) {
  runtime_start();
  in_goroutine(begun_before_a_close, NULL);
}

static void read_closed(void *arg) {
  char c;
  CHECK_EQ(gm_read(*(int *)arg, &c, 1), -1);
  CHECK_EQ(error(), EBADF);
}

/* The only P is held from the event until the number has been given out again: the reader finds data there, and must
 * not take them. */
static void event_then_close(void *arg) {
  int *fd = arg, other[2];
  uint64_t before = load_rlx(&counts.netready);
  CHECK_EQ(write(fd[1], "x", 1), 1);
  while (load_rlx(&counts.netready) == before) injectglist(netpoll(0));
  gm_close(fd[0]);
  pair(other);
  CHECK_EQ(other[0], fd[0]);
  CHECK_EQ(write(other[1], "y", 1), 1);
  while (netpoll_waiters() != 0) gosched();
  char c = 0;
  CHECK_EQ(read(other[0], &c, 1), 1);
  CHECK_EQ(c, 'y');
  gm_close(other[0]);
  close(other[1]);
  close(fd[1]);
}

TEST(a_close_after_the_event, .procs = "1") {
  runtime_start();
  int fd[2];
  pair(fd);
  group g = {0};
  group_go(&g, read_closed, fd);
  while (netpoll_waiters() != 1) os_usleep(100);
  group_go(&g, event_then_close, fd);
  group_wait(&g);
}

/* A wait that began after the number was given out again is not the closed file's. */
static void begun_after_a_close(void *arg) {
  (void)arg;
  int fd[2], other[2];
  pollwait w;
  pair(fd);
  CHECK(netpollwatch(&w, fd[0], true, false));
  netpollclosing(fd[0]);
  close(fd[0]);
  pair(other);
  CHECK_EQ(other[0], fd[0]);
  CHECK(netpollwatch(&w, other[0], true, false));
  netpollsample(&w);
  netpollclosed(fd[0]);
  CHECK_EQ(netpollwait(&w, 1, nanotime() + 10000 * (int64_t)MS, false), WAKE_OK);
  CHECK(!netpollgone(&w));
  gm_close(other[0]);
  close(other[1]);
  close(fd[1]);
}

TEST(late_news_before_the_wait, .chaos = true) {
  runtime_start();
  in_goroutine(begun_after_a_close, NULL);
}

static void bad_descriptors(void *arg) {
  (void)arg;
  char c = 0;
  CHECK_EQ(gm_read(-1, &c, 1), -1);
  CHECK_EQ(error(), EBADF);
  CHECK_EQ(gm_write(9999, &c, 1), -1);
  CHECK_EQ(error(), EBADF);
  CHECK_EQ(gm_accept(-1, 0), -1);
  CHECK_EQ(error(), EBADF);
  CHECK_EQ(gm_close(-1), -1);
  CHECK_EQ(error(), EBADF);
  int fd = open("/proc/self/exe", O_RDONLY); /* a regular file is always ready */
  CHECK_EQ(gm_read(fd, &c, 1), 1);
  CHECK_EQ(c, 0x7f);
  close(fd);
  int p[2];
  NEED(pipe(p) == 0);
  close(p[1]);
  CHECK_EQ(gm_read(p[0], &c, 1), 0); /* end of file */
  close(p[0]);
  pair(p);
  close(p[1]);
  CHECK_EQ(gm_write(p[0], &c, 1), -1);
  CHECK_EQ(error(), EPIPE);
  close(p[0]);
}

TEST(errors_are_those_of_the_system_calls) {
  runtime_start();
  in_goroutine(bad_descriptors, NULL);
}

/* ---- other callers --------------------------------------------------------------------------------------------- */

static void cancelled_reader(void *arg) {
  char c;
  *(G **)arg = self();
  xadd(&woken, 1);
  CHECK_EQ(gm_read(shared_fd[0], &c, 1), -1);
  CHECK_EQ(error(), ECANCELED);
}

TEST(a_read_can_be_cancelled) {
  runtime_start();
  pair(shared_fd);
  G *gp = NULL;
  group g = {0};
  group_go(&g, cancelled_reader, &gp);
  while (load_acq(&woken) == 0) os_usleep(100);
  gocancel(gp, false);
  group_wait(&g);
  CHECK_EQ(netpoll_waiters(), 0);
  line l = {{shared_fd[0], shared_fd[1]}, 10}; /* the descriptor still works */
  group_go(&g, echo, &l);
  group_go(&g, call, &l);
  group_wait(&g);
}

static void thread_reads(void *arg) {
  char c = 0;
  CHECK_EQ(gm_read(*(int *)arg, &c, 1), 1);
  CHECK_EQ(c, 'x');
}

TEST(a_thread_may_read) {
  runtime_start();
  pair(shared_fd);
  group g = {0};
  group_thread(&g, thread_reads, &shared_fd[0]);
  os_usleep(2000);
  CHECK_EQ(gm_write(shared_fd[1], "x", 1), 1);
  group_wait(&g);
}

/* ---- the poller ------------------------------------------------------------------------------------------------ */

static _Atomic bool stop;
static void hog(void *arg) {
  (void)arg;
  while (!load_rlx(&stop)) gosched(); /* never idle: only looks in passing, and sysmon's, see events */
}

TEST(events_are_seen_while_everybody_is_busy, .procs = "12") {
  runtime_start();
  group hogs = {0}, g = {0};
  for (int i = 0; i < 4; i++) group_go(&hogs, hog, NULL);
  line l = {.n = 5};
  pair(l.fd);
  group_go(&g, echo, &l);
  group_go(&g, call, &l);
  group_wait(&g);
  store_rlx(&stop, true);
  group_wait(&hogs);
}

/* Sleepers and readers: the M in the poller has to wake for both, and the break must not be lost. */
static void naps(void *arg) {
  rng r = rng_new();
  (void)arg;
  for (int i = rounds(300); i > 0; i--) {
    int64_t start = nanotime(), ns = below(&r, 300000);
    gm_sleep(ns);
    CHECK(nanotime() - start - ns < patient(2000 * (int64_t)MS));
  }
}

TEST(deadlines_and_events_together, .procs = "124", .chaos = true) {
  runtime_start();
  group g = {0};
  static line l[10];
  for (int i = 0; i < 10; i++) {
    pair(l[i].fd);
    l[i].n = rounds(100);
    group_go(&g, echo, &l[i]);
    group_go(&g, call, &l[i]);
    group_go(&g, naps, NULL);
  }
  group_wait(&g);
}
