/* native_bench.c - the native rows: C functions that run as goroutines of gmprt.
 *
 * Compiled at run time by cases_native.py.  The runtime is reached through the table that
 * gmprt.native.api_pointer() hands over, so nothing is linked.  nb_run() starts one goroutine, the
 * driver, and waits for it on a channel like any foreign thread; all the work, and both clock
 * readings, happen in goroutines.  A call that fails ends the process with a message: the runner
 * shows it in the cell. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gmprt.h"

enum { BUFFER = 128, CHANNELS = 4, FIB = 36, CUT = 16, FIB_36 = 14930352 };

static const gm_api *api;

static void fail(const char *what, int result) {
  fprintf(stderr, "native_bench: %s gave %d\n", what, result);
  _exit(3);
}

#define MUST(call)                               \
  do {                                           \
    gm_result must_result = (call);              \
    if (must_result != GM_OK)                    \
      fail(#call, (int)must_result);             \
  } while (0)

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static gm_chan *make_chan(size_t capacity) {
  gm_chan *c = api->chan_make(sizeof(int64_t), capacity);
  if (!c)
    fail("chan_make", GM_NOMEM);
  return c;
}

static void put(gm_chan *c, int64_t value) { MUST(api->chan_send(c, &value, -1)); }

static int64_t take(gm_chan *c) {
  int64_t value = 0;
  MUST(api->chan_recv(c, &value, -1));
  return value;
}

/* What a driver and the goroutine beside it share. */
typedef struct work {
  int64_t n;
  gm_sema ended;
  gm_chan *in[CHANNELS], *out;
} work;

/* yield: two goroutines, n yields each; 2n switches */

static void yielder(void *arg) {
  work *w = arg;
  for (int64_t i = 0; i < w->n; i++)
    api->yield();
  api->sema_release(&w->ended, 1);
}

static void run_yield(work *w) {
  for (int i = 0; i < 2; i++)
    MUST(api->go(yielder, w));
  for (int i = 0; i < 2; i++)
    MUST(api->sema_acquire(&w->ended, -1));
}

/* pingpong: n round trips over two unbuffered channels */

static void echo(void *arg) {
  work *w = arg;
  for (int64_t i = 0; i < w->n; i++)
    put(w->out, take(w->in[0]));
  api->sema_release(&w->ended, 1);
}

static void run_pingpong(work *w) {
  w->in[0] = make_chan(0);
  w->out = make_chan(0);
  MUST(api->go(echo, w));
  for (int64_t i = 0; i < w->n; i++) {
    put(w->in[0], i);
    if (take(w->out) != i)
      fail("pingpong: wrong value", -1);
  }
  MUST(api->sema_acquire(&w->ended, -1));
}

/* spawn: start a goroutine and wait for its end, n times */

static void ender(void *arg) { api->sema_release(&((work *)arg)->ended, 1); }

static void run_spawn(work *w) {
  for (int64_t i = 0; i < w->n; i++) {
    MUST(api->go(ender, w));
    MUST(api->sema_acquire(&w->ended, -1));
  }
}

/* buffered: one producer, one consumer, n items through a buffer of 128 */

static void produce(void *arg) {
  work *w = arg;
  for (int64_t i = 0; i < w->n; i++)
    put(w->in[0], i);
  api->sema_release(&w->ended, 1);
}

static void run_buffered(work *w) {
  w->in[0] = make_chan(BUFFER);
  MUST(api->go(produce, w));
  for (int64_t i = 0; i < w->n; i++)
    if (take(w->in[0]) != i)
      fail("buffered: wrong order", -1);
  MUST(api->sema_acquire(&w->ended, -1));
}

/* select: a goroutine blocks in a select over four unbuffered channels and replies, n times */

static void selector(void *arg) {
  work *w = arg;
  int64_t value = 0;
  gm_case cases[CHANNELS];
  for (int i = 0; i < CHANNELS; i++)
    cases[i] = (gm_case){.chan = w->in[i], .elem = &value, .send = false};
  for (int64_t i = 0; i < w->n; i++) {
    gm_result result = GM_OK;
    if (api->select(cases, CHANNELS, -1, &result) < 0 || result != GM_OK)
      fail("select", (int)result);
    put(w->out, value);
  }
  api->sema_release(&w->ended, 1);
}

static void run_select(work *w) {
  for (int i = 0; i < CHANNELS; i++)
    w->in[i] = make_chan(0);
  w->out = make_chan(0);
  MUST(api->go(selector, w));
  for (int64_t i = 0; i < w->n; i++) {
    put(w->in[i % CHANNELS], i);
    if (take(w->out) != i)
      fail("select: wrong reply", -1);
  }
  MUST(api->sema_acquire(&w->ended, -1));
}

/* tree: fib(36), one goroutine per inner node, sequential below 16; n times */

typedef struct node {
  int n;
  int64_t value;
  gm_sema ended;
} node;

static int64_t fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static int64_t fork_join(int n);

static void branch(void *arg) {
  node *b = arg;
  b->value = fork_join(b->n);
  api->sema_release(&b->ended, 1); /* the parent may be gone from here on */
}

static int64_t fork_join(int n) {
  if (n < CUT)
    return fib(n);
  node b = {.n = n - 1};
  MUST(api->go(branch, &b));
  int64_t right = fork_join(n - 2);
  MUST(api->sema_acquire(&b.ended, -1));
  return b.value + right;
}

static void run_tree(work *w) {
  for (int64_t i = 0; i < w->n; i++)
    if (fork_join(FIB) != FIB_36)
      fail("tree: wrong sum", -1);
}

/* the driver */

typedef struct driver {
  void (*run)(work *w);
  int64_t n;
  gm_chan *done;
} driver;

static void drive(void *arg) {
  driver *d = arg;
  work w = {.n = d->n};
  int64_t start = now_ns();
  d->run(&w);
  int64_t elapsed = now_ns() - start;
  for (int i = 0; i < CHANNELS; i++)
    if (w.in[i])
      api->chan_free(w.in[i]);
  if (w.out)
    api->chan_free(w.out);
  put(d->done, elapsed);
}

static const struct {
  const char *name;
  void (*run)(work *w);
} benches[] = {
    {"yield", run_yield},   {"pingpong", run_pingpong}, {"spawn", run_spawn}, {"buffered", run_buffered},
    {"select", run_select}, {"tree", run_tree},
};

/* Run the named benchmark with n operations; nanoseconds, or -1 if there is no such benchmark or
 * the runtime is not the one this was compiled for. Called from an ordinary thread, without the GIL. */
int64_t nb_run(uintptr_t table, const char *name, int64_t n) {
  api = (const gm_api *)table;
  if (api->version != GM_API_VERSION || api->size < sizeof(gm_api))
    return -1;
  for (size_t i = 0; i < sizeof(benches) / sizeof(benches[0]); i++) {
    if (strcmp(benches[i].name, name) != 0)
      continue;
    static gm_chan *done; /* kept: the driver may still be leaving its send when take() returns */
    if (!done)
      done = make_chan(1);
    driver d = {.run = benches[i].run, .n = n, .done = done};
    MUST(api->go(drive, &d));
    return take(done);
  }
  return -1;
}

/* parked: n goroutines wait for the rest of the process's life, in what `how` names */

static gm_chan *nobody_sends;
static gm_mutex kept;

static void park_channel(void *arg) {
  (void)arg;
  take(nobody_sends);
}

static void park_sleep(void *arg) {
  (void)arg;
  MUST(api->sleep(INT64_C(3600000000000)));
}

static void park_mutex(void *arg) {
  (void)arg;
  MUST(api->mutex_lock(&kept, -1));
}

static const struct {
  const char *how;
  void (*fn)(void *arg);
} waits[] = {{"channel", park_channel}, {"sleep", park_sleep}, {"mutex", park_mutex}};

/* 0: they have been started. */
int nb_park(uintptr_t table, const char *how, int64_t n) {
  api = (const gm_api *)table;
  if (api->version != GM_API_VERSION || api->size < sizeof(gm_api))
    return -1;
  nobody_sends = make_chan(0);
  api->mutex_trylock(&kept);
  for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
    if (strcmp(waits[i].how, how) != 0)
      continue;
    for (int64_t k = 0; k < n; k++)
      MUST(api->go(waits[i].fn, NULL));
    return 0;
  }
  return -1;
}
