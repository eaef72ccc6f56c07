/* chansome_test.c - many elements at once: steps between two that wait, order, ends, everybody against everybody.
 *
 * The load is chan_test.c's: what goes in comes out once, each producer's values in their order; here in blocks of
 * all sizes, beside single operations and selects. */
#include "stubhost.h"

typedef uint64_t u64;

static void fill(u64 *v, u64 first, size_t n) {
  for (size_t i = 0; i < n; i++) v[i] = first + i;
}

TEST(through_the_buffer_and_polls, .procs = "12") {
  runtime_start();
  gm_chan *c = gm_chan_make(8, 4);
  u64 v[6], w[6] = {0};
  size_t n;
  fill(v, 1, 6);
  CHECK_EQ(gm_chan_recv_many(c, w, 6, &n, 0), GM_WOULDBLOCK);
  CHECK_EQ(n, 0);
  CHECK_EQ(gm_chan_recv_many(c, w, 0, &n, -1), GM_OK);
  CHECK_EQ(gm_chan_send_many(c, v, 6, &n, 0), GM_WOULDBLOCK);
  CHECK_EQ(n, 4);
  CHECK_EQ(gm_chan_send_many(c, v, 6, &n, MS), GM_TIMEOUT);
  CHECK_EQ(n, 0);
  CHECK_EQ(gm_chan_recv_many(c, w, 3, &n, -1), GM_OK);
  CHECK_EQ(n, 3);
  CHECK(w[0] == 1 && w[2] == 3 && w[3] == 0);
  CHECK_EQ(gm_chan_send_many(c, v + 4, 2, &n, -1), GM_OK); /* around the end of the ring */
  CHECK_EQ(gm_chan_close(c), GM_OK);
  CHECK_EQ(gm_chan_send_many(c, v, 6, &n, -1), GM_CLOSED);
  CHECK_EQ(n, 0);
  CHECK_EQ(gm_chan_send_many(c, v, 0, &n, -1), GM_OK);
  CHECK_EQ(gm_chan_recv_many(c, w, 6, &n, -1), GM_OK);
  CHECK_EQ(n, 3);
  CHECK(w[0] == 4 && w[2] == 6);
  CHECK_EQ(gm_chan_recv_many(c, w, 6, &n, -1), GM_CLOSED);
  CHECK_EQ(n, 0);
  gm_chan_free(c);
}

/* ---- who waits ----------------------------------------------------------------------------------------- */

typedef struct waiter {
  gm_chan *c;
  u64 v[100];
  size_t n, done;
  gm_result r;
} waiter;

static void sends(void *arg) {
  waiter *w = arg;
  w->r = gm_chan_send_many(w->c, w->v, w->n, &w->done, -1);
}
static void receives(void *arg) {
  waiter *w = arg;
  w->r = gm_chan_recv_many(w->c, w->v, w->n, &w->done, -1);
}

/* The channel within: only for these tests. */
static hchan *within(gm_chan *c) { return (hchan *)c; }

/* Until n stand there. */
static void stand_in(hchan *c, const waitq *q, int n) {
  for (int seen = -1; seen != n;) {
    spin_lock(&c->lock);
    seen = 0;
    for (sudog *sg = q->first; sg; sg = sg->next) seen++;
    spin_unlock(&c->lock);
    if (seen != n) os_usleep(100);
  }
}
static void senders(gm_chan *c, int n) { stand_in(within(c), &within(c)->sendq, n); }
static void receivers(gm_chan *c, int n) { stand_in(within(c), &within(c)->recvq, n); }

TEST(all_at_once_between_two, .procs = "14") {
  runtime_start();
  gm_chan *c = gm_chan_make(8, 0);
  waiter w = {.c = c, .n = 100};
  group g = {0};
  group_go(&g, receives, &w);
  receivers(c, 1);
  u64 v[100];
  size_t n;
  fill(v, 1, 100);
  CHECK_EQ(gm_chan_send_many(c, v, 70, &n, 0), GM_OK); /* one hand-over: nobody waited for room */
  group_wait(&g);
  CHECK_EQ(w.r, GM_OK);
  CHECK_EQ(w.done, 70);
  CHECK(w.v[0] == 1 && w.v[69] == 70 && w.v[70] == 0);

  waiter s = {.c = c, .n = 100};
  fill(s.v, 1, 100);
  group h = {0};
  group_go(&h, sends, &s);
  senders(c, 1);
  CHECK_EQ(gm_chan_recv_many(c, v, 100, &n, 0), GM_OK);
  CHECK_EQ(n, 100);
  CHECK(v[0] == 1 && v[99] == 100);
  group_wait(&h);
  CHECK_EQ(s.r, GM_OK);
  CHECK_EQ(s.done, 100);
  gm_chan_free(c);
}

TEST(one_each_if_others_wait, .procs = "14") {
  runtime_start();
  gm_chan *c = gm_chan_make(8, 0);
  waiter a = {.c = c, .n = 100}, b = {.c = c, .n = 100};
  group g = {0};
  group_go(&g, receives, &a);
  receivers(c, 1);
  group_go(&g, receives, &b);
  receivers(c, 2);
  u64 v[5];
  size_t n;
  fill(v, 1, 5);
  CHECK_EQ(gm_chan_send_many(c, v, 5, &n, -1), GM_OK);
  group_wait(&g);
  CHECK(a.v[0] == 1 && b.v[0] == 2);
  CHECK_EQ(a.done + b.done, 5);
  gm_chan_free(c);
}

TEST(a_close_says_how_many_went, .procs = "14") {
  runtime_start();
  gm_chan *c = gm_chan_make(8, 3);
  waiter s = {.c = c, .n = 100};
  fill(s.v, 1, 100);
  group g = {0};
  group_go(&g, sends, &s);
  senders(c, 1);
  u64 one;
  CHECK_EQ(gm_chan_recv(c, &one, -1), GM_OK); /* lets one in, no more */
  while (gm_chan_len(c) < 3) os_usleep(100);
  senders(c, 1);
  CHECK_EQ(gm_chan_close(c), GM_OK);
  group_wait(&g);
  CHECK_EQ(s.r, GM_CLOSED);
  CHECK_EQ(s.done, 4);
  gm_chan_free(c);
}

/* ---- everybody ----------------------------------------------------------------------------------------- */

enum { PRODUCERS = 4, CONSUMERS = 3, BLOCK = 3000 };

typedef struct load {
  hchan c;
  int n; /* values of each producer */
  _Atomic uint32_t next_id;
  _Atomic int producing;
  _Atomic long received;
} load;

static size_t some_size(rng *r) { return below(r, 8) == 0 ? BLOCK : 1 + below(r, 30); }

static int64_t some_deadline(rng *r, bool *block) {
  *block = below(r, 4) > 0;
  return below(r, 2) ? nanotime() + below(r, 50000) : 0;
}

static bool again(wake_t r) { return r == WAKE_WOULDBLOCK || r == WAKE_TIMEOUT || r == WAKE_INTERRUPTED; }

static void relax(bool attached) {
  if (getm())
    gosched();
  else if (attached)
    host_drop(), sched_yield(), host_take();
  else
    sched_yield();
}

static size_t send_some_way(load *l, rng *r, const u64 *v, size_t n, bool attached) {
  bool block;
  int64_t deadline = some_deadline(r, &block);
  size_t sent = 0;
  wake_t res;
  int way = (int)below(r, 4);
  if (way == 0) {
    res = chansend(&l->c, v, block, deadline, attached);
    sent = res == WAKE_OK;
  } else if (way == 1 && !attached) {
    scase k = {&l->c, (void *)v, true};
    sent = selectgo(&k, 1, block, deadline, false, &res) == 0;
  } else {
    chaos_point(attached);
    res = chansend_many(&l->c, v, n, &sent, block, deadline, attached);
  }
  CHECK(res == WAKE_OK || again(res));
  if (res != WAKE_OK) relax(attached);
  return sent;
}

static void produce_as(load *l, bool attached) {
  rng r = rng_new();
  u64 *v = malloc(BLOCK * sizeof *v), id = xadd(&l->next_id, 1);
  for (size_t i = 0; i < (size_t)l->n;) {
    size_t n = some_size(&r), left = (size_t)l->n - i;
    if (n > left) n = left;
    fill(v, id << 32 | (i + 1), n);
    i += send_some_way(l, &r, v, n, attached);
  }
  free(v);
  if (xadd(&l->producing, -1) == 1) CHECK_EQ(chanclose(&l->c), WAKE_OK);
}

static wake_t recv_some_way(load *l, rng *r, u64 *v, size_t *n, bool attached) {
  bool block;
  int64_t deadline = some_deadline(r, &block);
  int way = (int)below(r, 4);
  size_t most = some_size(r);
  wake_t res;
  *n = 1;
  if (way == 0) return chanrecv(&l->c, v, block, deadline, attached);
  if (way == 1 && !attached) {
    scase k = {&l->c, v, false};
    selectgo(&k, 1, block, deadline, false, &res);
    return res;
  }
  chaos_point(attached);
  return chanrecv_many(&l->c, v, most, n, block, deadline, attached);
}

static void consume_as(load *l, bool attached) {
  rng r = rng_new();
  uint32_t last[PRODUCERS] = {0};
  u64 *v = malloc(BLOCK * sizeof *v);
  for (size_t n;;) {
    wake_t res = recv_some_way(l, &r, v, &n, attached);
    if (res == WAKE_CLOSED) break;
    CHECK(res == WAKE_OK || again(res));
    if (res != WAKE_OK) {
      relax(attached);
      continue;
    }
    for (size_t i = 0; i < n; i++) {
      uint32_t id = (uint32_t)(v[i] >> 32), number = (uint32_t)v[i];
      CHECK(id < PRODUCERS && number > last[id]);
      if (id < PRODUCERS) last[id] = number;
    }
    xadd(&l->received, (long)n);
  }
  free(v);
}

static void produce(void *arg) { produce_as(arg, false); }
static void consume(void *arg) { consume_as(arg, false); }
static void hosted_produce(void *arg) { produce_as(arg, true); }
static void hosted_consume(void *arg) { consume_as(arg, true); }

static void check_load(load *l) {
  CHECK_EQ(load_rlx(&l->received), (long)l->n * PRODUCERS);
  CHECK_EQ(load_rlx(&l->c.qcount), 0);
  CHECK(!l->c.sendq.first && !l->c.recvq.first);
  chan_fini(&l->c);
}

static void native_load(int n, size_t capacity, int threads) {
  load l = {.n = n, .producing = PRODUCERS};
  NEED(chan_init(&l.c, 8, capacity, false));
  group g = {0};
  for (int i = 0; i < PRODUCERS; i++) (i < threads ? group_thread : group_go)(&g, produce, &l);
  for (int i = 0; i < CONSUMERS; i++) (i < threads ? group_thread : group_go)(&g, consume, &l);
  group_wait(&g);
  check_load(&l);
}

/* Native and hosted goroutines and a thread, at one native channel. */
static void mixed_load(int n, size_t capacity) {
  load l = {.n = n, .producing = PRODUCERS};
  NEED(chan_init(&l.c, 8, capacity, false));
  group g = {0};
  group_go(&g, produce, &l);
  group_go(&g, consume, &l);
  group_thread(&g, produce, &l);
  host_take();
  job *j[] = {hosted_go(hosted_produce, &l), hosted_go(hosted_produce, &l), hosted_go(hosted_consume, &l),
              hosted_go(hosted_consume, &l)};
  for (size_t i = 0; i < nelem(j); i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  host_drop();
  group_wait(&g);
  check_load(&l);
}

static const size_t capacities[] = {0, 1, 7, 5000};

TEST(nothing_is_lost, .procs = "124", .chaos = true, .seconds = 60) {
  runtime_start();
  for (size_t i = 0; i < nelem(capacities); i++) native_load(rounds(20000), capacities[i], 0);
}

TEST(nothing_is_lost_between_threads_and_goroutines, .procs = "14", .seconds = 60) {
  runtime_start();
  for (size_t i = 0; i < nelem(capacities); i++) {
    native_load(rounds(4000), capacities[i], 1);
    native_load(rounds(4000), capacities[i], 3);
  }
}

TEST(nothing_is_lost_between_both_kinds_of_goroutines, .procs = "14", .chaos = true, .seconds = 60) {
  stub_start();
  for (size_t i = 0; i < nelem(capacities); i++) mixed_load(rounds(4000), capacities[i]);
}
