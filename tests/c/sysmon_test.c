/* sysmon_test.c - blocking calls of hosted goroutines: the licence goes to another thread, all others run on.
 *
 * A call drops the host lock, sleeps, and takes it again; nothing tells the runtime.  Calls of every length,
 * one and many at a time, returning before, at, and after the moment when sysmon acts. */
#include "stubhost.h"

static _Atomic bool stop;
static _Atomic long ticks, calls;
static long gaps; /* of more than 15 ms */

/* Runs beside the calls, and counts how often it was kept from running. */
static void ticker(void *arg) {
  (void)arg;
  for (int64_t last = nanotime(); !load_rlx(&stop); inc_rlx(&ticks)) {
    gosched();
    hosted_tick();
    int64_t now = nanotime();
    gaps += now - last > 15 * MS;
    last = now;
  }
}

typedef struct caller {
  int n;
  uint32_t us; /* most */
  bool exact;
} caller;

static void calling(void *arg) {
  caller *c = arg;
  rng r = rng_new();
  for (int i = 0; i < c->n; i++) {
    hosted_block(c->exact ? c->us : below(&r, c->us) + 1);
    xadd(&calls, 1);
    hosted_check();
    uint32_t what = below(&r, 4); /* what the first entry of the runtime after a call is */
    if (what == 0) gosched();
    else if (what == 1) timesleep(below(&r, 20000));
    else if (what == 2) hosted_tick();
    hosted_check();
  }
}

static int64_t load(int callers, caller *c, bool with_ticker) {
  stub_start();
  job *j[33], *t = NULL;
  host_take();
  int64_t start = nanotime();
  if (with_ticker) t = hosted_go(ticker, NULL);
  for (int i = 0; i < callers; i++) j[i] = hosted_go(calling, c);
  for (int i = 0; i < callers; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  int64_t took = nanotime() - start;
  store_rlx(&stop, true);
  if (t) CHECK_EQ(hosted_join(t), WAKE_OK);
  host_drop();
  CHECK_EQ(load_rlx(&calls), (long)callers * c->n);
  CHECK_EQ(load_rlx(&sched.l.nqueued), 0);
  return took;
}

#define CALLS(how_many, count, longest) \
  caller c = {.n = rounds(count), .us = longest}; \
  load(how_many, &c, true); \
  CHECK(load_rlx(&ticks) > 0)

TEST(one_caller_5_us, .procs = "124") { CALLS(1, 3000, 5); }
TEST(one_caller_50_us, .procs = "124") { CALLS(1, 1000, 50); }
TEST(one_caller_200_us, .procs = "124") { CALLS(1, 1000, 200); }
TEST(eight_callers_20_us, .procs = "124", .chaos = true) { CALLS(8, 500, 20); }
TEST(eight_callers_200_us, .procs = "124", .chaos = true) { CALLS(8, 300, 200); }
TEST(many_callers_200_us, .procs = "14", .chaos = true) { CALLS(32, 100, 200); }
TEST(many_callers_5_ms, .procs = "14") { CALLS(32, 10, 5000); }

TEST(long_calls_overlap, .procs = "124") {
  caller c = {.n = 5, .us = 20000, .exact = true};
  int64_t took = load(32, &c, false); /* 3.2 s one after another */
  CHECK(took < 100 * MS + patient(500 * MS));
  CHECK(load_rlx(&counts.handoffs) > 0);
}

TEST(a_long_call_delays_nobody, .procs = "12") {
  caller c = {.n = 20, .us = 20000, .exact = true};
  load(1, &c, true);
  CHECK(gaps < c.n / 2); /* each call would make one; some 40 us are usual */
}

/* An ordinary thread takes the host lock whenever a caller lets it go: the runtime must not mistake
 * "waits for the lock" for "blocks", nor wait for ever because it cannot tell. */
static void busy_thread(void *arg) {
  (void)arg;
  host_take();
  while (!load_rlx(&stop)) {
    spin_ns(3000);
    hosted_tick();
  }
  host_drop();
}

TEST(calls_beside_a_busy_thread, .procs = "12") {
  caller c = {.n = rounds(60), .us = 200};
  group g = {0};
  stub_start();
  group_thread(&g, busy_thread, NULL);
  load(4, &c, true);
  group_wait(&g);
  CHECK(load_rlx(&ticks) > 0);
}

/* Native goroutines keep their share of the P while a driver blocks, or holds the lock in one long call. */
static _Atomic long native_turns;
static void native_yields(void *arg) {
  (void)arg;
  while (!load_rlx(&stop)) {
    inc_rlx(&native_turns);
    gosched();
  }
}

TEST(native_work_beside_calls, .procs = "12", .chaos = true) {
  caller c = {.n = rounds(200), .us = 300};
  group g = {0};
  stub_start();
  for (int i = 0; i < 2; i++) group_go(&g, native_yields, NULL);
  load(8, &c, true);
  group_wait(&g);
  CHECK(load_rlx(&native_turns) > 0);
}

static void holds_the_lock(void *arg) {
  (void)arg;
  for (int i = 0; i < 5; i++) {
    long before = load_rlx(&native_turns);
    hosted_call(60000); /* 60 ms without a look at anything: the P is taken after 10 */
    CHECK(load_rlx(&native_turns) > before);
    hosted_check();
    gosched();
  }
}

TEST(native_work_beside_a_long_stretch_of_host_code, .procs = "1") {
  stub_start();
  group g = {0};
  group_go(&g, native_yields, NULL);
  group_go(&g, native_yields, NULL);
  host_take();
  CHECK_EQ(hosted_join(hosted_go(holds_the_lock, NULL)), WAKE_OK);
  host_drop();
  store_rlx(&stop, true);
  group_wait(&g);
}

/* A driver that lost its P, and then blocks, must lose the licence too. */
static void long_then_blocks(void *arg) {
  (void)arg;
  for (int i = 0; i < 3; i++) {
    hosted_call(40000);
    long before = load_rlx(&ticks);
    hosted_block(40000);
    CHECK(load_rlx(&ticks) > before);
  }
  store_rlx(&stop, true);
}

TEST(a_driver_without_a_p_may_block, .procs = "1") {
  stub_start();
  group g = {0};
  for (int i = 0; i < 2; i++) group_go(&g, native_yields, NULL);
  host_take();
  job *j = hosted_go(long_then_blocks, NULL), *t = hosted_go(ticker, NULL);
  CHECK_EQ(hosted_join(j), WAKE_OK);
  CHECK_EQ(hosted_join(t), WAKE_OK);
  host_drop();
  group_wait(&g);
}
