/* sysmon_test.c - blocking calls of hosted goroutines: the licence goes to another thread, all others run on.
 *
 * A call drops the host lock, sleeps, and takes it again; nothing tells the runtime.  Calls of every length,
 * one and many at a time, returning before, at, and after the moment when sysmon acts. */
#include "stubhost.h"

static _Atomic bool stop;
static _Atomic long ticks, calls;

/* Runs beside the calls. */
static void ticker(void *arg) {
  (void)arg;
  for (; !load_rlx(&stop); inc_rlx(&ticks)) {
    gosched();
    hosted_tick();
  }
}

/* `callers` goroutines run fn(arg), beside the ticker or alone. */
static void run_callers(int callers, void (*fn)(void *), void *arg, bool with_ticker) {
  stub_start();
  job *j[33], *t = NULL;
  host_take();
  if (with_ticker) t = hosted_go(ticker, NULL);
  for (int i = 0; i < callers; i++) j[i] = hosted_go(fn, arg);
  for (int i = 0; i < callers; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  store_rlx(&stop, true);
  if (t) CHECK_EQ(hosted_join(t), WAKE_OK);
  host_drop();
  CHECK_EQ(load_rlx(&sched.l.nqueued), 0);
}

/* ---- calls of every length --------------------------------------------------------------------------------- */

typedef struct caller {
  int n;
  uint32_t us; /* most */
} caller;

static void calling(void *arg) {
  caller *c = arg;
  rng r = rng_new();
  for (int i = 0; i < c->n; i++) {
    hosted_block(below(&r, c->us) + 1);
    xadd(&calls, 1);
    hosted_check();
    uint32_t what = below(&r, 4); /* what the first entry of the runtime after a call is */
    if (what == 0) gosched();
    else if (what == 1) timesleep(below(&r, 20000));
    else if (what == 2) hosted_tick();
    hosted_check();
  }
}

static void many_calls(int callers, int n, uint32_t us) {
  caller c = {.n = rounds(n), .us = us};
  run_callers(callers, calling, &c, true);
  CHECK_EQ(load_rlx(&calls), (long)callers * c.n);
  CHECK(load_rlx(&ticks) > 0);
}

TEST(one_caller_5_us, .procs = "124") { many_calls(1, 3000, 5); }
TEST(one_caller_50_us, .procs = "124") { many_calls(1, 1000, 50); }
TEST(one_caller_200_us, .procs = "124") { many_calls(1, 1000, 200); }
TEST(eight_callers_20_us, .procs = "124", .chaos = true) { many_calls(8, 500, 20); }
TEST(eight_callers_200_us, .procs = "124", .chaos = true) { many_calls(8, 300, 200); }
TEST(many_callers_200_us, .procs = "14", .chaos = true) { many_calls(32, 100, 200); }
TEST(many_callers_5_ms, .procs = "14") { many_calls(32, 10, 5000); }

/* ---- calls that wait for others ----------------------------------------------------------------------------- */

/* A call that lasts until *n has grown to `least`: for ever, if the others cannot run beside it. */
static void call_until(_Atomic long *n, long least) {
  hosted_outside(true);
  while (load_rlx(n) < least) os_usleep(100);
  hosted_outside(false);
}

enum { CROWD = 32 };
static void meets_all(void *arg) {
  (void)arg;
  for (int i = 1; i <= 5; i++) {
    xadd(&calls, 1);
    call_until(&calls, i * CROWD);
  }
}

TEST(long_calls_overlap, .procs = "124") {
  run_callers(CROWD, meets_all, NULL, false);
  CHECK(load_rlx(&counts.handoffs) > 0);
}

static void waits_for_ticks(void *arg) {
  (void)arg;
  for (int i = 0; i < 20; i++) call_until(&ticks, load_rlx(&ticks) + 100);
}

TEST(a_long_call_delays_nobody, .procs = "12") { run_callers(1, waits_for_ticks, NULL, true); }

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
  group g = {0};
  stub_start();
  group_thread(&g, busy_thread, NULL);
  many_calls(4, 60, 200);
  group_wait(&g);
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

static void calls_until_they_ran(void *arg) {
  (void)arg;
  for (rng r = rng_new(); load_rlx(&native_turns) < 1000;) {
    hosted_block(below(&r, 300) + 1);
    if (below(&r, 2)) gosched();
  }
}

TEST(native_work_beside_calls, .procs = "12", .chaos = true) {
  group g = {0};
  stub_start();
  for (int i = 0; i < 2; i++) group_go(&g, native_yields, NULL);
  run_callers(8, calls_until_they_ran, NULL, true);
  group_wait(&g);
}

/* Every call is handed off: no turn of Python ends by itself.  Native work must not wait for a 61st pick. */
static void is_handed_off(void *arg) {
  (void)arg;
  while (!load_rlx(&stop)) {
    call_until((_Atomic long *)&counts.handoffs, (long)load_rlx(&counts.handoffs) + 1);
    gosched(); /* back to a P */
  }
}

static void notes_handoffs(void *arg) { *(uint64_t *)arg = load_rlx(&counts.handoffs); }

TEST(native_work_is_next_after_a_hand_off, .procs = "1") {
  stub_start();
  job *j[2];
  host_take();
  for (int i = 0; i < 2; i++) j[i] = hosted_go(is_handed_off, NULL);
  host_drop();
  for (int i = 0; i < 20; i++) {
    uint64_t began, ran;
    group g = {0};
    group_go(&g, notes_handoffs, &ran);
    began = load_rlx(&counts.handoffs);
    group_wait(&g);
    CHECK(ran < began + 10);
  }
  store_rlx(&stop, true);
  host_take();
  for (int i = 0; i < 2; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  host_drop();
}

/* Without a look at anything, till native goroutines have run: they can when its P is taken. */
static void keep_the_lock(void) {
  long before = load_rlx(&native_turns);
  while (load_rlx(&native_turns) == before) cpu_relax();
  hosted_check();
}

static void holds_the_lock(void *arg) {
  (void)arg;
  for (int i = 0; i < 5; i++) {
    keep_the_lock();
    gosched();
  }
}

/* crowd: the next driver takes the P, and waits for the host lock. */
static void beside_holders(bool crowd) {
  group g = {0};
  stub_start();
  group_go(&g, native_yields, NULL);
  group_go(&g, native_yields, NULL);
  run_callers(1, holds_the_lock, NULL, crowd);
  group_wait(&g);
}

TEST(native_work_beside_a_long_stretch_of_host_code, .procs = "1") { beside_holders(false); }
TEST(native_work_beside_one_and_a_crowd, .procs = "12") { beside_holders(true); }

/* A driver that lost its P, and then blocks, must lose the licence too. */
static void long_then_blocks(void *arg) {
  (void)arg;
  for (int i = 0; i < 3; i++) {
    keep_the_lock();
    call_until(&ticks, load_rlx(&ticks) + 1);
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

/* Its P dies under it, the others are idle: nobody but sysmon can see that it blocks. */
static _Atomic bool begun, shrunk;

static void outlives_its_p(void *arg) {
  (void)arg;
  store_rlx(&begun, true);
  while (!load_rlx(&shrunk)) os_usleep(100); /* with the host lock */
  hosted_go(ticker, NULL);                   /* wakes nobody: its starter drives */
  call_until(&ticks, 1);
  store_rlx(&stop, true);
}

TEST(a_driver_whose_p_died_may_block, .procs = "2", .seconds = 8) {
  stub_start();
  gomaxprocs_set(1);
  gomaxprocs_set(2); /* the new one lies on top of the idle list, also when an M has looked for work */
  while (load_rlx(&sched.npidle) < 2) os_usleep(100);
  host_take();
  job *j = hosted_go(outlives_its_p, NULL);
  host_drop();
  while (!load_rlx(&begun)) os_usleep(100);
  CHECK_EQ(PSTATE(load_rlx(&sched.allp[1]->status)), Phost); /* the one that goes */
  gomaxprocs_set(1);
  store_rlx(&shrunk, true);
  host_take();
  CHECK_EQ(hosted_join(j), WAKE_OK);
  host_drop();
}
