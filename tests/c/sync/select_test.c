/* select_test.c - selects, and every channel operation, against a model of Go's rules.
 *
 * The exact test: workers execute one operation at a time, on command; after each command everything
 * settles (each worker has finished, or is parked), and what happened is compared with the model: who was
 * served, by which case, with which value, who waits on. */
#include "stubhost.h"

/* ---- the model --------------------------------------------------------------------------------------- */

enum { CHANNELS = 4, WORKERS = 7, CASES = 20, BUFFER = 4 };
enum { IDLE, COMMANDED, BUSY, FINISHED, QUIT };
typedef enum { SELECT, SEND, RECV } op;

typedef struct worker {
  _Atomic int phase;
  sema commanded;
  _Atomic(G *) g;
  struct world *w;
  /* The command. */
  op op;
  bool block;
  int n, chan[CASES];
  bool send[CASES];
  uint64_t value[CASES]; /* to send; received ones come here */
  /* The outcome. */
  int index;
  wake_t result;
  uint64_t got;
  /* The model's. */
  bool waiting;
  long since;
} worker;

typedef struct world {
  bool hosted, threads;
  hchan c[CHANNELS];
  size_t cap[CHANNELS];
  uint64_t buf[CHANNELS][BUFFER];
  size_t len[CHANNELS];
  bool closed[CHANNELS];
  worker worker[WORKERS];
  long clock;
  uint64_t next_value;
} world;

/* First of the workers that wait to send to (or receive from) c, other than w. */
static worker *waiter(world *x, int c, bool send, worker *w) {
  worker *found = NULL;
  for (worker *v = x->worker; v < x->worker + WORKERS; v++) {
    bool has = false;
    for (int i = 0; i < v->n; i++) has |= v->chan[i] == c && v->send[i] == send;
    if (v != w && v->waiting && has && (!found || v->since < found->since)) found = v;
  }
  return found;
}

static bool ready(world *x, worker *w, int i) {
  int c = w->chan[i];
  if (c < 0) return false;
  if (x->closed[c]) return true;
  if (w->send[i]) return x->len[c] < x->cap[c] || waiter(x, c, false, w);
  return x->len[c] > 0 || waiter(x, c, true, w);
}

static uint64_t pop(world *x, int c) {
  uint64_t v = x->buf[c][0];
  memmove(&x->buf[c][0], &x->buf[c][1], --x->len[c] * sizeof v);
  return v;
}

/* v, which waited, must have been served by c. */
static void served(worker *v, int c, bool send, wake_t result) {
  CHECK_EQ(load_acq(&v->phase), FINISHED);
  CHECK_EQ(v->result, result);
  CHECK(v->index >= 0 && v->index < v->n);
  if (v->index < 0 || v->index >= v->n) return;
  CHECK_EQ(v->chan[v->index], c);
  CHECK(v->send[v->index] == send || result == WAKE_CLOSED);
  v->waiting = false;
}

static void model_send(world *x, worker *w, int i) {
  int c = w->chan[i];
  if (x->closed[c]) {
    CHECK_EQ(w->result, WAKE_CLOSED);
    return;
  }
  CHECK_EQ(w->result, WAKE_OK);
  worker *v = waiter(x, c, false, w);
  if (!v) {
    x->buf[c][x->len[c]++] = w->value[i];
    return;
  }
  served(v, c, false, WAKE_OK);
  CHECK_EQ(v->got, w->value[i]);
}

static void model_recv(world *x, worker *w, int i) {
  int c = w->chan[i];
  worker *v = waiter(x, c, true, w);
  if (x->closed[c] && x->len[c] == 0) {
    CHECK_EQ(w->result, WAKE_CLOSED);
    return;
  }
  CHECK_EQ(w->result, WAKE_OK);
  if (v) {
    served(v, c, true, WAKE_OK);
    if (v->index >= 0) x->buf[c][x->len[c]++] = v->value[v->index]; /* BUFFER has room for one more */
  }
  CHECK_EQ(w->got, pop(x, c));
}

/* w has executed its command, everything has settled. */
static void compare(world *x, worker *w) {
  bool any = false;
  for (int i = 0; i < w->n; i++) any |= ready(x, w, i);
  if (any) {
    CHECK_EQ(load_acq(&w->phase), FINISHED);
    CHECK(w->index >= 0 && w->index < w->n && ready(x, w, w->index));
    if (w->index < 0 || w->index >= w->n) return;
    if (w->send[w->index])
      model_send(x, w, w->index);
    else
      model_recv(x, w, w->index);
  } else if (!w->block) {
    CHECK_EQ(load_acq(&w->phase), FINISHED);
    CHECK_EQ(w->result, WAKE_WOULDBLOCK);
    CHECK_EQ(w->index, -1);
  } else {
    CHECK_EQ(load_acq(&w->phase), BUSY);
    w->waiting = true;
    w->since = ++x->clock;
  }
}

static void model_close(world *x, int c) {
  x->closed[c] = true;
  for (int send = 0; send < 2; send++)
    for (worker *v; (v = waiter(x, c, send, NULL)) != NULL;) {
      served(v, c, send, WAKE_CLOSED);
      if (v->waiting) return; /* the check has failed: do not loop */
    }
}

/* Waiters stand where the model says; nobody else has finished. */
static void check_world(world *x) {
  for (int c = 0; c < CHANNELS; c++) CHECK_EQ(load_rlx(&x->c[c].qcount), x->len[c]);
  for (worker *w = x->worker; w < x->worker + WORKERS; w++) {
    int phase = load_acq(&w->phase);
    CHECK_EQ(phase == BUSY, w->waiting);
    if (phase == FINISHED) store_rel(&w->phase, IDLE);
  }
}

/* ---- workers ------------------------------------------------------------------------------------------- */

static void pause_a_bit(world *x) {
  if (getm())
    gosched();
  else if (x->hosted)
    host_drop(), sched_yield(), host_take();
  else
    sched_yield();
}

static void execute_command(worker *w) {
  world *x = w->w;
  w->index = 0;
  w->got = 0;
  if (w->op == SELECT) {
    scase cases[CASES];
    for (int i = 0; i < w->n; i++)
      cases[i] = (scase){w->chan[i] < 0 ? NULL : &x->c[w->chan[i]], &w->value[i], w->send[i]};
    w->index = selectgo(cases, w->n, w->block, 0, x->hosted, &w->result);
    if (w->index >= 0 && !w->send[w->index]) w->got = w->value[w->index];
  } else if (w->op == SEND) {
    w->result = chansend(&x->c[w->chan[0]], &w->value[0], w->block, 0, x->hosted);
  } else {
    w->result = chanrecv(&x->c[w->chan[0]], &w->got, w->block, 0, x->hosted);
  }
  if (w->op != SELECT && (w->result == WAKE_WOULDBLOCK || w->result == WAKE_CANCELLED)) w->index = -1;
}

static void work(void *arg) {
  worker *w = arg;
  if (w->w->hosted && !getm()) host_take();
  store_rel(&w->g, getg(w->w->hosted));
  for (;;) {
    wake_t r;
    do r = semacquire(&w->commanded, waitReasonSemacquire, true, 0);
    while (r == WAKE_INTERRUPTED);
    CHECK_EQ(r, WAKE_OK);
    if (load_acq(&w->phase) == QUIT) break;
    store_rel(&w->phase, BUSY);
    do execute_command(w);
    while (w->result == WAKE_INTERRUPTED);
    store_rel(&w->phase, FINISHED);
  }
  if (w->w->hosted && !getm()) host_drop();
}

static bool settled(worker *w) {
  int phase = load_acq(&w->phase);
  if (phase == COMMANDED) return false;
  if (phase != BUSY) return true;
  G *gp = load_acq(&w->g);
  return load_acq(&gp->status) == Gwaiting && (load_acq(&gp->wait) & WAIT_S);
}

/* Twice: after the first pass the commanded worker does nothing more, but those it has woken may. */
static void settle(world *x) {
  for (int pass = 0; pass < 2; pass++)
    for (worker *w = x->worker; w < x->worker + WORKERS; w++)
      while (!settled(w)) pause_a_bit(x);
}

/* ---- commands ------------------------------------------------------------------------------------------ */

static void command(world *x, worker *w, rng *r) {
  w->block = below(r, 4) != 0;
  w->op = below(r, 3);
  w->n = w->op != SELECT ? 1 : (int)below(r, 20) == 0 ? CASES : (int)below(r, 5);
  for (int i = 0; i < w->n; i++) {
    w->chan[i] = (int)below(r, CHANNELS);
    if (w->op == SELECT && below(r, 10) == 0) w->chan[i] = -1;
    w->send[i] = w->op == SEND || (w->op == SELECT && below(r, 2));
    w->value[i] = ++x->next_value;
  }
  store_rel(&w->phase, COMMANDED);
  semrelease(&w->commanded, 1);
  settle(x);
  compare(x, w);
}

static void reopen(world *x, int c) {
  for (worker *w = x->worker; w < x->worker + WORKERS; w++) CHECK(!w->waiting || x->closed[c]);
  CHECK(!x->c[c].recvq.first && !x->c[c].sendq.first);
  chan_fini(&x->c[c]);
  NEED(chan_init(&x->c[c], 8, x->cap[c], x->hosted));
  x->closed[c] = false;
  x->len[c] = 0;
}

static void step(world *x, rng *r) {
  worker *w = &x->worker[below(r, WORKERS)];
  int c = (int)below(r, CHANNELS);
  uint32_t what = below(r, 40);
  if (what == 0 && !x->closed[c]) {
    CHECK_EQ(chanclose(&x->c[c]), WAKE_OK);
    settle(x);
    model_close(x, c);
  } else if (what < 4 && x->closed[c]) {
    /* Nobody waits on a closed channel, but somebody's waiting select may name it no more. */
    bool free_of_waiters = true;
    for (worker *v = x->worker; v < x->worker + WORKERS; v++) free_of_waiters &= !v->waiting;
    if (free_of_waiters) reopen(x, c);
  } else if (what < 10 && w->waiting && !x->threads) {
    gocancel(load_acq(&w->g), x->hosted);
    settle(x);
    CHECK_EQ(load_acq(&w->phase), FINISHED);
    CHECK_EQ(w->result, WAKE_CANCELLED);
    CHECK_EQ(w->index, -1);
    w->waiting = false;
  } else if (load_acq(&w->phase) == IDLE) {
    command(x, w, r);
  }
  check_world(x);
}

static void play(world *x, int steps) {
  static const size_t caps[CHANNELS] = {0, 0, 1, BUFFER - 1};
  rng r = rng_new();
  for (int c = 0; c < CHANNELS; c++) {
    x->cap[c] = caps[c];
    NEED(chan_init(&x->c[c], 8, caps[c], x->hosted));
  }
  for (int i = 0; i < WORKERS; i++)
    while (!load_acq(&x->worker[i].g)) pause_a_bit(x);
  while (steps-- > 0) {
    step(x, &r);
    bool stuck = true; /* all wait: close something */
    for (int i = 0; i < WORKERS; i++) stuck &= x->worker[i].waiting;
    for (int c = 0; stuck && c < CHANNELS; c++) {
      if (x->closed[c]) continue;
      CHECK_EQ(chanclose(&x->c[c]), WAKE_OK);
      settle(x);
      model_close(x, c);
      check_world(x);
    }
    for (int i = 0; stuck && i < WORKERS; i++) { /* selects without a channel */
      worker *w = &x->worker[i];
      if (!w->waiting) continue;
      if (x->threads) {
        CHECK(wait_claim_open(load_acq(&w->g), WAKE_CANCELLED));
        goready(load_acq(&w->g));
      } else {
        gocancel(load_acq(&w->g), x->hosted);
      }
      settle(x);
      w->waiting = false;
      check_world(x);
    }
    for (int c = 0; stuck && c < CHANNELS; c++) reopen(x, c);
  }
  for (int c = 0; c < CHANNELS; c++) { /* let all go */
    if (x->closed[c]) continue;
    chanclose(&x->c[c]);
    settle(x);
    model_close(x, c);
    check_world(x);
  }
  for (int i = 0; i < WORKERS; i++) {
    worker *w = &x->worker[i];
    if (w->waiting && x->threads) {
      CHECK(wait_claim_open(load_acq(&w->g), WAKE_CANCELLED));
      goready(load_acq(&w->g));
    } else if (w->waiting) {
      gocancel(load_acq(&w->g), x->hosted);
    }
    settle(x);
    store_rel(&w->phase, QUIT);
    semrelease(&w->commanded, 1);
  }
}

static int steps;
static void play_native(void *arg) { play(arg, steps); }

static world *world_new(bool hosted, bool threads) {
  world *x = calloc(1, sizeof *x);
  NEED(x != NULL);
  x->hosted = hosted;
  x->threads = threads;
  for (int i = 0; i < WORKERS; i++) {
    x->worker[i].w = x;
    x->worker[i].commanded.hosted = hosted;
  }
  return x;
}

TEST(goroutines_agree_with_the_model, .procs = "124", .chaos = true, .seconds = 60) {
  runtime_start();
  world *x = world_new(false, false);
  steps = rounds(40000);
  group g = {0};
  for (int i = 0; i < WORKERS; i++) group_go(&g, work, &x->worker[i]);
  group_go(&g, play_native, x);
  group_wait(&g);
}

TEST(threads_agree_with_the_model, .seconds = 60) {
  runtime_start();
  world *x = world_new(false, true);
  steps = rounds(4000);
  group g = {0};
  for (int i = 0; i < WORKERS; i++) group_thread(&g, work, &x->worker[i]);
  play(x, steps);
  group_wait(&g);
}

TEST(hosted_goroutines_agree_with_the_model, .procs = "14", .chaos = true, .seconds = 60) {
  stub_start();
  world *x = world_new(true, false);
  steps = rounds(40000);
  job *j[WORKERS + 1];
  host_take();
  for (int i = 0; i < WORKERS; i++) j[i] = hosted_go(work, &x->worker[i]);
  j[WORKERS] = hosted_go(play_native, x);
  for (int i = 0; i <= WORKERS; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  host_drop();
}

/* ---- fairness and limits --------------------------------------------------------------------------------- */

static void choose(void *arg) {
  (void)arg;
  enum { N = 5 };
  gm_chan *c[N];
  gm_case cases[N + 1];
  long chosen[N] = {0}, v;
  int n = rounds(20000);
  for (int i = 0; i < N; i++) {
    c[i] = gm_chan_make(8, 1);
    gm_chan_send(c[i], &(long){i}, -1);
    cases[i] = (gm_case){c[i], &v, false};
  }
  cases[N] = (gm_case){NULL, &v, false};
  for (int k = 0; k < n; k++) {
    gm_result r;
    int i = gm_select(cases, N + 1, -1, &r);
    CHECK(r == GM_OK && i >= 0 && i < N && v == i);
    chosen[i]++;
    gm_chan_send(c[i], &(long){i}, -1);
  }
  for (int i = 0; i < N; i++) CHECK(chosen[i] > n / N * 7 / 10 && chosen[i] < n / N * 13 / 10);
  for (int i = 0; i < N; i++) gm_chan_free(c[i]);
}

TEST(a_random_one_of_the_ready_is_chosen) {
  runtime_start();
  in_goroutine(choose, NULL);
  choose(NULL);
}

TEST(odd_selects) {
  runtime_start();
  gm_result r;
  CHECK_EQ(gm_select(NULL, 0, 0, &r), -1);
  CHECK_EQ(r, GM_WOULDBLOCK);
  CHECK_EQ(gm_select(NULL, 0, MS, &r), -1);
  CHECK_EQ(r, GM_TIMEOUT);
  CHECK_EQ(gm_select(NULL, -1, 0, &r), -1);
  CHECK_EQ(r, GM_NOMEM);
  gm_case none = {0};
  CHECK_EQ(gm_select(&none, 1, MS, &r), -1);
  CHECK_EQ(r, GM_TIMEOUT);
  static gm_case many[1000];
  gm_chan *c = gm_chan_make(8, 0), *ready_one = gm_chan_make(8, 1);
  for (size_t i = 0; i < nelem(many); i++) many[i] = (gm_case){c, NULL, i % 2};
  long v = 7;
  gm_chan_send(ready_one, &v, -1);
  for (size_t i = 0; i < nelem(many); i++) many[i].elem = &v;
  CHECK_EQ(gm_select(many, nelem(many), 0, &r), -1);
  CHECK_EQ(r, GM_WOULDBLOCK);
  CHECK_EQ(gm_select(many, nelem(many), MS, &r), -1); /* both sides of one channel: never with itself */
  CHECK_EQ(r, GM_TIMEOUT);
  many[777] = (gm_case){ready_one, &v, false};
  CHECK_EQ(gm_select(many, nelem(many), -1, &r), 777);
  CHECK_EQ(r, GM_OK);
}

/* ---- many at once ------------------------------------------------------------------------------------------ */

/* Everybody selects over all channels, both ways; what is sent is received. */
enum { MESH = 6 };
typedef struct mesh {
  bool hosted;
  hchan c[MESH];
  _Atomic long sent, received, sent_sum, received_sum;
  _Atomic int running;
  _Atomic(G *) g[8];
  _Atomic uint32_t next;
  int n;
} mesh;

static void mesh_node(void *arg) {
  mesh *x = arg;
  rng r = rng_new();
  if (getm()) store_rel(&x->g[xadd(&x->next, 1) % 8], self());
  for (int k = x->n; k > 0; k--) {
    scase cases[2 * MESH];
    uint64_t v[2 * MESH];
    int n = 2 + (int)below(&r, 2 * MESH - 2);
    for (int i = 0; i < n; i++) {
      v[i] = below(&r, 1000) + 1;
      cases[i] = (scase){&x->c[below(&r, MESH)], &v[i], below(&r, 2)};
    }
    wake_t res;
    int i = selectgo(cases, n, true, nanotime() + below(&r, 20000), x->hosted, &res);
    if (i < 0) continue;
    CHECK_EQ(res, WAKE_OK);
    if (cases[i].send)
      xadd(&x->sent, 1), xadd(&x->sent_sum, (long)v[i]);
    else
      xadd(&x->received, 1), xadd(&x->received_sum, (long)v[i]);
  }
  xadd(&x->running, -1);
}

static void mesh_canceller(void *arg) {
  mesh *x = arg;
  rng r = rng_new();
  while (load_rlx(&x->running) > 0) {
    G *gp = load_acq(&x->g[below(&r, 8)]);
    if (gp) gocancel(gp, false);
    os_usleep(10);
  }
}

static void check_mesh(mesh *x) {
  long left = 0, left_sum = 0;
  for (int c = 0; c < MESH; c++) {
    CHECK(!x->c[c].recvq.first && !x->c[c].sendq.first);
    uint64_t v;
    while (chanrecv(&x->c[c], &v, false, 0, x->hosted) == WAKE_OK) left++, left_sum += (long)v;
  }
  CHECK_EQ(load_rlx(&x->sent), load_rlx(&x->received) + left);
  CHECK_EQ(load_rlx(&x->sent_sum), load_rlx(&x->received_sum) + left_sum);
  CHECK(load_rlx(&x->sent) > 0);
}

TEST(what_selects_send_selects_receive, .procs = "124", .chaos = true, .seconds = 60) {
  runtime_start();
  mesh x = {.running = 8, .n = rounds(10000)};
  for (int c = 0; c < MESH; c++) NEED(chan_init(&x.c[c], 8, (size_t)c / 2, false));
  group g = {0};
  for (int i = 0; i < 6; i++) group_go(&g, mesh_node, &x);
  for (int i = 0; i < 2; i++) group_thread(&g, mesh_node, &x);
  group_thread(&g, mesh_canceller, &x);
  group_wait(&g);
  check_mesh(&x);
}

TEST(what_hosted_selects_send_they_receive, .procs = "14", .chaos = true, .seconds = 60) {
  stub_start();
  mesh x = {.running = 8, .n = rounds(5000), .hosted = true};
  for (int c = 0; c < MESH; c++) NEED(chan_init(&x.c[c], 8, (size_t)c / 2, true));
  job *j[8];
  group g = {0};
  host_take();
  for (int i = 0; i < 8; i++) j[i] = hosted_go(mesh_node, &x);
  group_thread(&g, mesh_canceller, &x);
  for (int i = 0; i < 8; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  check_mesh(&x);
  host_drop();
  group_wait(&g);
}
