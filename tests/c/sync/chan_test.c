/* chan_test.c - channels: order, hand-off, capacity, deadlines, close.
 *
 * Each load runs on native channels, between goroutines and between ordinary threads, and on hosted ones.
 * What goes in must come out, exactly once, and each producer's values in their order.  The exact agreement
 * with a model, one operation at a time, is in select_test.c. */
#include "stubhost.h"

/* ---- one goroutine ---------------------------------------------------------------------------------- */

static void in_order(void *arg) {
  (void)arg;
  gm_chan *c = gm_chan_make(sizeof(int), 3);
  int v;
  CHECK_EQ(gm_chan_cap(c), 3);
  for (int lap = 0; lap < 5; lap++) {
    for (int i = 0; i < 3; i++) {
      CHECK_EQ(gm_chan_len(c), i);
      CHECK_EQ(gm_chan_send(c, &(int){lap * 3 + i}, -1), GM_OK);
    }
    CHECK_EQ(gm_chan_send(c, &v, 0), GM_WOULDBLOCK);
    CHECK_EQ(gm_chan_send(c, &v, MS), GM_TIMEOUT);
    for (int i = 0; i < 3; i++) {
      CHECK_EQ(gm_chan_recv(c, &v, -1), GM_OK);
      CHECK_EQ(v, lap * 3 + i);
    }
    CHECK_EQ(gm_chan_recv(c, &v, 0), GM_WOULDBLOCK);
    CHECK_EQ(gm_chan_recv(c, &v, MS), GM_TIMEOUT);
  }
  CHECK_EQ(gm_chan_send(c, &v, -1), GM_OK);
  CHECK_EQ(gm_chan_close(c), GM_OK);
  CHECK_EQ(gm_chan_close(c), GM_CLOSED);
  CHECK_EQ(gm_chan_send(c, &v, -1), GM_CLOSED);
  CHECK_EQ(gm_chan_send(c, &v, 0), GM_CLOSED);
  CHECK_EQ(gm_chan_recv(c, NULL, -1), GM_OK); /* dropped */
  CHECK_EQ(gm_chan_recv(c, &v, -1), GM_CLOSED);
  CHECK_EQ(gm_chan_recv(c, &v, 0), GM_CLOSED);
  gm_chan_free(c);
}

TEST(a_buffer_keeps_order, .procs = "12", .chaos = true) {
  runtime_start();
  in_goroutine(in_order, NULL);
  in_order(NULL); /* and in an ordinary thread */
}

TEST(channels_that_cannot_be) {
  CHECK(gm_chan_make(0, 1) == NULL);
  CHECK(gm_chan_make(65536, 1) == NULL);
  CHECK(gm_chan_make(8, SIZE_MAX / 4) == NULL);
  CHECK(gm_chan_make(65535, SIZE_MAX) == NULL);
  gm_chan *c = gm_chan_make(65535, 2);
  CHECK(c != NULL);
  gm_chan_free(c);
  gm_chan_free(NULL);
}

/* Elements of every size, through the buffer and from stack to stack. */
typedef struct sized {
  gm_chan *c;
  size_t size;
} sized;

static void send_sized(void *arg) {
  sized *s = arg;
  unsigned char elem[5000];
  for (int i = 0; i < 10; i++) {
    memset(elem, i + 1, s->size);
    CHECK_EQ(gm_chan_send(s->c, elem, -1), GM_OK);
  }
}

TEST(elements_of_every_size, .procs = "2", .chaos = true) {
  runtime_start();
  static const size_t sizes[] = {1, 2, 3, 7, 8, 9, 16, 24, 100, 4096, 5000};
  for (size_t i = 0; i < nelem(sizes) * 3; i++) {
    sized s = {gm_chan_make(sizes[i / 3], i % 3), sizes[i / 3]};
    group g = {0};
    group_go(&g, send_sized, &s);
    unsigned char elem[5001];
    for (int n = 0; n < 10; n++) {
      memset(elem, 0xee, sizeof elem);
      CHECK_EQ(gm_chan_recv(s.c, elem, -1), GM_OK);
      CHECK(elem[0] == n + 1 && elem[s.size - 1] == n + 1);
      CHECK_EQ(elem[s.size], 0xee);
    }
    group_wait(&g);
    gm_chan_free(s.c);
  }
}

/* ---- producers and consumers ------------------------------------------------------------------------- */

enum { PRODUCERS = 4, CONSUMERS = 3 };

typedef struct load {
  hchan c;
  int n; /* values of each producer */
  bool impatient; /* polls and deadlines, too */
  _Atomic uint32_t next_id;
  _Atomic int producing;
  _Atomic long received, sum;
} load;

static int64_t some_deadline(load *l, rng *r, bool *block) {
  *block = !l->impatient || below(r, 4);
  return l->impatient && below(r, 2) ? nanotime() + below(r, 50000) : 0;
}

static bool again(wake_t r) {
  return r == WAKE_WOULDBLOCK || r == WAKE_TIMEOUT || r == WAKE_INTERRUPTED;
}

static void relax(bool attached) {
  M *m = getm();
  if (attached && !m) host_drop(), sched_yield(), host_take();
  else if (m) gosched();
  else sched_yield();
}

static void produce_as(load *l, bool attached) {
  rng r = rng_new();
  uint64_t id = xadd(&l->next_id, 1);
  for (int i = 1; i <= l->n; i++) {
    uint64_t v = id << 32 | (uint32_t)i;
    for (;;) {
      bool block;
      int64_t deadline = some_deadline(l, &r, &block);
      wake_t res = chansend(&l->c, &v, block, deadline, attached);
      if (res == WAKE_OK) break;
      CHECK(again(res));
      if (!again(res)) return;
      if (!block) relax(attached);
    }
  }
  if (xadd(&l->producing, -1) == 1) CHECK_EQ(chanclose(&l->c), WAKE_OK);
}

static void consume_as(load *l, bool attached) {
  rng r = rng_new();
  uint32_t last[PRODUCERS] = {0};
  long sum = 0, received = 0;
  for (;;) {
    bool block;
    int64_t deadline = some_deadline(l, &r, &block);
    uint64_t v;
    wake_t res = chanrecv(&l->c, &v, block, deadline, attached);
    if (res == WAKE_CLOSED) break;
    if (res != WAKE_OK) {
      CHECK(again(res));
      if (!block) relax(attached);
      continue;
    }
    uint32_t id = (uint32_t)(v >> 32), i = (uint32_t)v;
    CHECK(id < PRODUCERS && i > last[id]);
    if (id < PRODUCERS) last[id] = i;
    received++;
    sum += i;
  }
  xadd(&l->received, received);
  xadd(&l->sum, sum);
}

static void check_load(load *l) {
  CHECK_EQ(load_rlx(&l->received), (long)l->n * PRODUCERS);
  CHECK_EQ(load_rlx(&l->sum), (long)l->n * (l->n + 1) / 2 * PRODUCERS);
  CHECK_EQ(load_rlx(&l->c.qcount), 0);
  CHECK(!l->c.sendq.first && !l->c.recvq.first);
  chan_fini(&l->c);
}

static void produce(void *arg) { produce_as(arg, false); }
static void consume(void *arg) { consume_as(arg, false); }
static void hosted_produce(void *arg) { produce_as(arg, true); }
static void hosted_consume(void *arg) { consume_as(arg, true); }
static void with_host_lock_produce(void *arg) { host_take(), hosted_produce(arg), host_drop(); }
static void with_host_lock_consume(void *arg) { host_take(), hosted_consume(arg), host_drop(); }

/* How many of the producers and consumers are ordinary threads. */
static void native_load(int n, size_t capacity, bool impatient, int threads) {
  load l = {.n = n, .impatient = impatient, .producing = PRODUCERS};
  NEED(chan_init(&l.c, 8, capacity, false));
  group g = {0};
  for (int i = 0; i < PRODUCERS; i++)
    (i < threads ? group_thread : group_go)(&g, produce, &l);
  for (int i = 0; i < CONSUMERS; i++)
    (i < threads ? group_thread : group_go)(&g, consume, &l);
  group_wait(&g);
  check_load(&l);
}

static void hosted_load(int n, size_t capacity, bool impatient, int threads) {
  load l = {.n = n, .impatient = impatient, .producing = PRODUCERS};
  job *j[PRODUCERS + CONSUMERS];
  int jobs = 0;
  group g = {0};
  host_take();
  NEED(chan_init(&l.c, 8, capacity, true));
  for (int i = threads; i < PRODUCERS; i++) j[jobs++] = hosted_go(hosted_produce, &l);
  for (int i = threads; i < CONSUMERS; i++) j[jobs++] = hosted_go(hosted_consume, &l);
  for (int i = 0; i < threads; i++) {
    group_thread(&g, with_host_lock_produce, &l);
    group_thread(&g, with_host_lock_consume, &l);
  }
  while (jobs > 0) CHECK_EQ(hosted_join(j[--jobs]), WAKE_OK);
  host_drop();
  group_wait(&g);
  check_load(&l);
}

/* A native channel, and everybody who may use one. */
static void mixed_load(int n, size_t capacity, bool impatient) {
  load l = {.n = n, .impatient = impatient, .producing = PRODUCERS};
  NEED(chan_init(&l.c, 8, capacity, false));
  group g = {0};
  group_go(&g, produce, &l);
  group_go(&g, consume, &l);
  group_thread(&g, produce, &l);
  group_thread(&g, with_host_lock_produce, &l);
  group_thread(&g, with_host_lock_consume, &l);
  host_take();
  job *j[] = {hosted_go(hosted_produce, &l), hosted_go(hosted_consume, &l)};
  for (size_t i = 0; i < nelem(j); i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  host_drop();
  group_wait(&g);
  check_load(&l);
}

static const size_t capacities[] = {0, 1, 3, 128};

TEST(nothing_is_lost_between_goroutines, .procs = "124", .chaos = true, .seconds = 60) {
  runtime_start();
  for (size_t i = 0; i < nelem(capacities); i++) {
    native_load(rounds(10000), capacities[i], false, 0);
    native_load(rounds(4000), capacities[i], true, 0);
  }
}

TEST(nothing_is_lost_between_threads_and_goroutines, .procs = "14", .chaos = true, .seconds = 60) {
  runtime_start();
  for (size_t i = 0; i < nelem(capacities); i++) {
    native_load(rounds(2000), capacities[i], false, 2);
    native_load(rounds(1000), capacities[i], true, 1);
    native_load(rounds(1000), capacities[i], true, 3);
  }
}

TEST(nothing_is_lost_between_hosted_goroutines, .procs = "124", .chaos = true, .seconds = 60) {
  stub_start();
  for (size_t i = 0; i < nelem(capacities); i++) {
    hosted_load(rounds(20000), capacities[i], false, 0);
    hosted_load(rounds(4000), capacities[i], true, 0);
  }
}

TEST(nothing_is_lost_between_threads_and_hosted_goroutines, .procs = "14", .seconds = 60) {
  stub_start();
  for (size_t i = 0; i < nelem(capacities); i++) {
    hosted_load(rounds(300), capacities[i], false, 2);
    hosted_load(rounds(300), capacities[i], true, 1);
  }
}

TEST(nothing_is_lost_between_both_kinds_of_goroutines, .procs = "124", .chaos = true, .seconds = 60) {
  stub_start();
  for (size_t i = 0; i < nelem(capacities); i++) {
    mixed_load(rounds(300), capacities[i], false);
    mixed_load(rounds(300), capacities[i], true);
  }
}

/* ---- close against everybody -------------------------------------------------------------------------- */

typedef struct closing {
  hchan c;
  _Atomic long n; /* sends until one closes */
  _Atomic long sent, received, refused;
} closing;

static void send_till_closed(void *arg) {
  closing *x = arg;
  for (uint64_t v = 1;; v++) {
    if (xadd(&x->n, -1) == 0) CHECK_EQ(chanclose(&x->c), WAKE_OK);
    wake_t r = chansend(&x->c, &v, true, 0, x->c.hosted);
    if (r != WAKE_OK && r != WAKE_INTERRUPTED) {
      CHECK_EQ(r, WAKE_CLOSED);
      xadd(&x->refused, 1);
      return;
    }
    if (r == WAKE_OK) xadd(&x->sent, 1);
  }
}

static void receive_till_closed(void *arg) {
  closing *x = arg;
  for (uint64_t v;;) {
    wake_t r = chanrecv(&x->c, &v, true, 0, x->c.hosted);
    if (r == WAKE_CLOSED) return;
    if (r == WAKE_OK) xadd(&x->received, 1);
  }
}

static void close_race(bool hosted, size_t capacity) {
  rng r = rng_new();
  closing x = {.n = below(&r, 100)};
  NEED(chan_init(&x.c, 8, capacity, hosted));
  group g = {0};
  if (!hosted) {
    for (int i = 0; i < 3; i++) group_go(&g, send_till_closed, &x);
    for (int i = 0; i < 2; i++) group_go(&g, receive_till_closed, &x);
    group_wait(&g);
  } else {
    job *j[5];
    host_take();
    for (int i = 0; i < 3; i++) j[i] = hosted_go(send_till_closed, &x);
    for (int i = 3; i < 5; i++) j[i] = hosted_go(receive_till_closed, &x);
    for (int i = 0; i < 5; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
    host_drop();
  }
  CHECK_EQ(load_rlx(&x.refused), 3);
  CHECK_EQ(chanclose(&x.c), WAKE_CLOSED);
  CHECK_EQ(load_rlx(&x.sent), load_rlx(&x.received));
  chan_fini(&x.c);
}

TEST(close_wakes_everybody_and_loses_nothing, .procs = "124", .chaos = true) {
  runtime_start();
  for (int i = rounds(300); i > 0; i--) close_race(false, capacities[i % 4]);
}

TEST(close_of_hosted_channels, .procs = "14", .chaos = true) {
  stub_start();
  for (int i = rounds(300); i > 0; i--) close_race(true, capacities[i % 4]);
}

/* ---- deadlines and cancels against hand-off ------------------------------------------------------------ */

/* A value is received if and only if its send says so, whatever ends the waits. */
typedef struct ledger {
  hchan c;
  _Atomic(G *) g[4];
  _Atomic long sent, received;
  _Atomic int running;
  _Atomic uint32_t next;
  int n;
} ledger;

static void hasty_send_as(ledger *l, bool attached) {
  rng r = rng_new();
  store_rel(&l->g[xadd(&l->next, 1)], self());
  for (uint64_t i = (uint64_t)l->n; i > 0; i--)
    if (chansend(&l->c, &i, true, nanotime() + below(&r, 5000), attached) == WAKE_OK) xadd(&l->sent, 1);
  xadd(&l->running, -1);
}

static void hasty_receive_as(ledger *l, bool attached) {
  rng r = rng_new();
  store_rel(&l->g[xadd(&l->next, 1)], self());
  for (int i = l->n; i > 0; i--) {
    uint64_t v = 0;
    if (chanrecv(&l->c, &v, true, nanotime() + below(&r, 5000), attached) != WAKE_OK) continue;
    CHECK(v > 0);
    xadd(&l->received, 1);
  }
  xadd(&l->running, -1);
}

static void hasty_send(void *arg) { hasty_send_as(arg, false); }
static void hasty_receive(void *arg) { hasty_receive_as(arg, false); }
static void hosted_hasty_send(void *arg) { hasty_send_as(arg, true); }
static void hosted_hasty_receive(void *arg) { hasty_receive_as(arg, true); }

static void canceller(void *arg) {
  ledger *l = arg;
  rng r = rng_new();
  while (load_rlx(&l->running) > 0) {
    G *gp = load_acq(&l->g[below(&r, 4)]);
    if (gp) gocancel(gp, false);
    os_usleep(1);
  }
}

static void check_ledger(ledger *l) {
  CHECK_EQ(load_rlx(&l->sent), load_rlx(&l->received) + (long)load_rlx(&l->c.qcount));
  CHECK(load_rlx(&l->sent) > 0);
  CHECK(!l->c.sendq.first && !l->c.recvq.first);
  chan_fini(&l->c);
}

TEST(a_send_succeeds_if_it_is_received, .procs = "124", .chaos = true) {
  runtime_start();
  for (size_t i = 0; i < 3; i++) {
    ledger l = {.running = 4, .n = rounds(20000)};
    NEED(chan_init(&l.c, 8, capacities[i], false));
    group g = {0};
    for (int k = 0; k < 2; k++) group_go(&g, hasty_send, &l), group_go(&g, hasty_receive, &l);
    group_thread(&g, canceller, &l);
    group_wait(&g);
    check_ledger(&l);
  }
}

TEST(a_send_of_either_kind_succeeds_if_it_is_received, .procs = "124", .chaos = true) {
  stub_start();
  for (size_t i = 0; i < 3; i++) {
    ledger l = {.running = 4, .n = rounds(5000)};
    NEED(chan_init(&l.c, 8, capacities[i], false));
    group g = {0};
    group_go(&g, hasty_send, &l);
    group_go(&g, hasty_receive, &l);
    group_thread(&g, canceller, &l);
    host_take();
    job *j[] = {hosted_go(hosted_hasty_send, &l), hosted_go(hosted_hasty_receive, &l)};
    for (size_t k = 0; k < nelem(j); k++) CHECK_EQ(hosted_join(j[k]), WAKE_OK);
    host_drop();
    group_wait(&g);
    check_ledger(&l);
  }
}
