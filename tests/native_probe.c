/* native_probe.c - native goroutines for test_native.py, through the table of gmprt.h. */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gmprt.h"

static const gm_api *gm;

void probe_init(const void *api) { gm = api; }

/* What a job is about; each function uses the fields it needs. */
typedef struct job {
  gm_chan *in, *out;
  int64_t n, sum;
  gm_mutex mutex;
  gm_sema sema;
  int fd;
} job;

/* Sends 0..n-1 to out. */
void produce(void *arg) {
  job *j = arg;
  for (int64_t i = 0; i < j->n; i++) gm->chan_send(j->out, &i, -1);
  gm->chan_close(j->out);
}

/* The same, 100 at a time. */
void produce_many(void *arg) {
  job *j = arg;
  int64_t block[100];
  for (int64_t i = 0; i < j->n;) {
    size_t n = j->n - i < 100 ? (size_t)(j->n - i) : 100, sent;
    for (size_t k = 0; k < n; k++) block[k] = i + (int64_t)k;
    gm->chan_send_many(j->out, block, n, &sent, -1);
    i += (int64_t)sent;
  }
  gm->chan_close(j->out);
}

/* All of in, 100 at a time; sends how many came, their sum, and whether all were in order. */
void consume_many(void *arg) {
  job *j = arg;
  int64_t block[100], count = 0, sum = 0, in_order = 1;
  size_t got;
  while (gm->chan_recv_many(j->in, block, 100, &got, -1) == GM_OK)
    for (size_t k = 0; k < got; k++) {
      in_order &= block[k] == count++;
      sum += block[k];
    }
  int64_t result[] = {count, sum, in_order};
  gm->chan_send_many(j->out, result, 3, &got, -1);
}

/* From in to out, squared, until in is closed; then one unit to sema. */
void square(void *arg) {
  job *j = arg;
  int64_t x;
  while (gm->chan_recv(j->in, &x, -1) == GM_OK) {
    x *= x;
    gm->chan_send(j->out, &x, -1);
  }
  gm->sema_release(&j->sema, 1);
}

/* When n units of sema have come, closes out. */
void closer(void *arg) {
  job *j = arg;
  for (int64_t i = 0; i < j->n; i++) gm->sema_acquire(&j->sema, -1);
  gm->chan_close(j->out);
}

/* Answers each value of in with value + 1 on out. */
void echo(void *arg) {
  job *j = arg;
  int64_t x;
  while (gm->chan_recv(j->in, &x, -1) == GM_OK) {
    x++;
    gm->chan_send(j->out, &x, -1);
  }
  gm->chan_close(j->out);
}

/* Sleeps n ns, then sends how long it took. */
void sleeper(void *arg) {
  job *j = arg;
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  gm->sleep(j->n);
  clock_gettime(CLOCK_MONOTONIC, &b);
  int64_t took = (b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec;
  gm->chan_send(j->out, &took, -1);
}

/* Adds 1 to sum n times under mutex, giving way in between; then one unit to sema. */
void count(void *arg) {
  job *j = arg;
  for (int64_t i = 0; i < j->n; i++) {
    gm->mutex_lock(&j->mutex, -1);
    int64_t old = j->sum;
    if (i % 8 == 0) gm->yield();
    j->sum = old + 1;
    gm->mutex_unlock(&j->mutex);
  }
  gm->sema_release(&j->sema, 1);
}

/* Blocks its thread for n microseconds, as announced, then sends its id. */
void block(void *arg) {
  job *j = arg;
  gm->enter_blocking();
  usleep((useconds_t)j->n);
  gm->exit_blocking();
  int64_t id = (int64_t)gm->goid();
  gm->chan_send(j->out, &id, -1);
}

/* Computes for n ns without ever parking, then sends 1. */
void spin(void *arg) {
  job *j = arg;
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  do clock_gettime(CLOCK_MONOTONIC, &b);
  while ((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec < j->n);
  int64_t one = 1;
  gm->chan_send(j->out, &one, -1);
}

/* Whatever in has, or after n ns -1, to out. */
void selects(void *arg) {
  job *j = arg;
  int64_t x = 0;
  gm_case cases[] = {{.chan = j->in, .elem = &x}, {.chan = NULL, .elem = &x}};
  gm_result r;
  if (gm->select(cases, 2, j->n, &r) < 0) x = r == GM_TIMEOUT ? -1 : -2;
  gm->chan_send(j->out, &x, -1);
}

/* Reads what comes from fd and sends each byte; closes out at the end of file. */
void reads(void *arg) {
  job *j = arg;
  char buf[16];
  for (ssize_t got; (got = gm->read(j->fd, buf, sizeof buf)) > 0;)
    for (ssize_t i = 0; i < got; i++) {
      int64_t c = buf[i];
      gm->chan_send(j->out, &c, -1);
    }
  gm->chan_close(j->out);
}

/* A tree of goroutines: starts two of depth n-1; leaves give one unit to the root's sema. */
typedef struct node {
  gm_sema *sema;
  int64_t depth;
  struct node *pool;
  _Atomic int64_t *used;
} node;

void tree(void *arg) {
  node *me = arg;
  if (me->depth == 0) {
    gm->sema_release(me->sema, 1);
    return;
  }
  for (int i = 0; i < 2; i++) {
    node *child = &me->pool[__atomic_fetch_add(me->used, 1, __ATOMIC_RELAXED)];
    *child = (node){me->sema, me->depth - 1, me->pool, me->used};
    if (gm->go(tree, child) != GM_OK) gm->sema_release(me->sema, 1);
  }
}

/* A tree of depth n, then 2^n units collected; sends how many. */
void forest(void *arg) {
  static node pool[1 << 15];
  static _Atomic int64_t used;
  job *j = arg;
  used = 0;
  node root = {&j->sema, j->n, pool, &used};
  tree(&root);
  int64_t leaves = 0;
  for (int64_t i = 0; i < 1 << j->n; i++) leaves += gm->sema_acquire(&j->sema, -1) == GM_OK;
  gm->chan_send(j->out, &leaves, -1);
}
