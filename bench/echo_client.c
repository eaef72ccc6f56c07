/* echo_client.c - load for the echo row: echo_client PORT CONNECTIONS BYTES WARM_UP SECONDS
 *
 * One thread, epoll.  Every connection sends a message, waits until it has come back whole, and sends the
 * next: so many requests are always under way.  After the warm-up each is timed from its send to the end
 * of its echo.  At the end it takes what is still to come, so that no connection is reset.  Prints one
 * line of JSON: requests per second; the latencies, and the server's CPU time for each request, in microseconds.
 * The server is the parent.
 *
 * It runs on the CPU that ECHO_CLIENT_CPU names, where the server should not. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, MOST_BYTES = 65536 };

typedef struct connection {
  int fd;
  size_t missing; /* of the echo */
  int64_t sent_at;
} connection;

static char message[MOST_BYTES], echo[MOST_BYTES];
static uint32_t *latencies; /* ns */
static size_t measured, room;
static size_t active; /* connections that wait for an echo */

static void fail(const char *what) {
  fprintf(stderr, "echo_client: %s: %s\n", what, errno ? strerror(errno) : "ended");
  exit(3);
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* CPU time of the parent, all its threads. */
static int64_t parent_ns(void) {
  clockid_t clock;
  struct timespec t;
  if (clock_getcpuclockid(getppid(), &clock) != 0 || clock_gettime(clock, &t) != 0) fail("clock of the parent");
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void pin(void) {
  const char *cpu = getenv("ECHO_CLIENT_CPU");
  if (!cpu) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(atoi(cpu), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) fail("sched_setaffinity");
}

static int dial(uint16_t port) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof at) != 0) fail("connect");
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0) fail("TCP_NODELAY");
  return fd;
}

static void request(connection *c, size_t bytes, int64_t now) {
  errno = 0;
  if (send(c->fd, message, bytes, MSG_NOSIGNAL) != (ssize_t)bytes) fail("send");
  c->missing = bytes;
  c->sent_at = now;
}

static void record(int64_t ns) {
  if (measured == room) {
    room = room ? 2 * room : 1 << 20;
    latencies = realloc(latencies, room * sizeof *latencies);
    if (!latencies) fail("realloc");
  }
  latencies[measured++] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

/* Something has come. */
static void receive(connection *c, size_t bytes, int64_t from, int64_t until) {
  errno = 0;
  ssize_t n = recv(c->fd, echo, c->missing, MSG_DONTWAIT);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) fail("recv");
  if (memcmp(echo, message + bytes - c->missing, (size_t)n) != 0) fail("not what was sent");
  c->missing -= (size_t)n;
  if (c->missing) return;
  int64_t now = now_ns();
  if (now >= until) {
    active--;
    return;
  }
  if (now >= from) record(now - c->sent_at);
  request(c, bytes, now);
}

static int by_size(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* The nearest-rank percentile, in microseconds. */
static double rank(double share) {
  size_t at = (size_t)(share * (double)measured);
  return latencies[at < measured ? at : measured - 1] / 1e3;
}

int main(int argc, char **argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: echo_client PORT CONNECTIONS BYTES WARM_UP SECONDS\n");
    return 2;
  }
  size_t n = strtoul(argv[2], NULL, 10), bytes = strtoul(argv[3], NULL, 10);
  double warm_up = atof(argv[4]), seconds = atof(argv[5]);
  if (n < 1 || bytes < 1 || bytes > MOST_BYTES) return 2;
  for (size_t i = 0; i < bytes; i++) message[i] = (char)('a' + i % 26);
  pin();
  connection *all = calloc(n, sizeof *all);
  int poller = epoll_create1(0);
  if (!all || poller < 0) fail("start");
  for (size_t i = 0; i < n; i++) {
    all[i].fd = dial((uint16_t)atoi(argv[1]));
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &all[i]};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, all[i].fd, &ev) != 0) fail("epoll_ctl");
  }
  int64_t start = now_ns(), from = start + (int64_t)(warm_up * 1e9), until = from + (int64_t)(seconds * 1e9);
  for (size_t i = 0; i < n; i++) request(&all[i], bytes, now_ns());
  int64_t cpu = 0;
  for (active = n; active > 0;) {
    struct epoll_event ev[EVENTS];
    int ready = epoll_wait(poller, ev, EVENTS, -1);
    for (int i = 0; i < ready; i++) receive(ev[i].data.ptr, bytes, from, until);
    if (!cpu && measured) cpu = -parent_ns();
    if (cpu < 0 && active < n) cpu += parent_ns();
  }
  errno = 0;
  if (!measured) fail("no answer");
  qsort(latencies, measured, sizeof *latencies, by_size);
  printf("{\"rate\": %.1f, \"p50\": %.1f, \"p99\": %.1f, \"cpu\": %.2f}\n", (double)measured / seconds, rank(0.5),
         rank(0.99), (double)cpu / (double)measured / 1e3);
  return 0;
}
