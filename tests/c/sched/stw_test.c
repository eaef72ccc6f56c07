/* stw_test.c - stop-the-world, and the number of Ps, while everything runs. */
#include "stubhost.h"

static _Atomic bool stop;
static _Atomic long progress[6];

/* ---- loads ------------------------------------------------------------------------------------------------ */

static void yields(void *arg) {
  (void)arg;
  while (!load_rlx(&stop)) inc_rlx(&progress[0]), gosched();
}
static gm_chan *chan;
static void sends(void *arg) {
  (void)arg;
  for (long v = 0; !load_rlx(&stop); v++) CHECK_EQ(gm_chan_send(chan, &v, -1), GM_OK);
  gm_chan_close(chan);
}
static void receives(void *arg) {
  (void)arg;
  for (long v, last = -1; gm_chan_recv(chan, &v, -1) == GM_OK; last = v) {
    CHECK_EQ(v, last + 1);
    inc_rlx(&progress[1]);
  }
}
static void naps(void *arg) {
  rng r = rng_new();
  (void)arg;
  while (!load_rlx(&stop)) {
    int64_t start = nanotime(), ns = below(&r, 300000);
    gm_sleep(ns);
    CHECK(nanotime() - start - ns < patient(3000 * (int64_t)MS));
    xadd(&progress[2], 1);
  }
}
static void spawned(void *arg) { xadd((_Atomic long *)arg, 1); }
static void spawns(void *arg) {
  _Atomic long ended = 0;
  (void)arg;
  for (long started = 0; !load_rlx(&stop);) {
    for (int i = 0; i < 20; i++) CHECK_EQ(gm_go(spawned, (void *)&ended), GM_OK);
    started += 20;
    while (load_acq(&ended) != started) gosched();
    inc_rlx(&progress[3]);
  }
}
static void blocks(void *arg) {
  rng r = rng_new();
  (void)arg;
  while (!load_rlx(&stop)) {
    gm_enter_blocking();
    os_usleep(below(&r, 300));
    gm_exit_blocking();
    inc_rlx(&progress[4]);
    gosched();
  }
}
static void hosted(void *arg) {
  rng r = rng_new();
  (void)arg;
  while (!load_rlx(&stop)) {
    hosted_check();
    uint32_t what = below(&r, 20);
    if (what == 0) hosted_block(below(&r, 200));
    else if (what == 1) timesleep(below(&r, 100000));
    else gosched();
    hosted_tick();
    inc_rlx(&progress[5]);
  }
}

static void start_native_loads(group *g) {
  chan = gm_chan_make(8, 3);
  for (int i = 0; i < 2; i++) {
    group_go(g, yields, NULL);
    group_go(g, naps, NULL);
    group_go(g, blocks, NULL);
  }
  group_go(g, sends, NULL);
  group_go(g, receives, NULL);
  group_go(g, spawns, NULL);
}

/* ---- storms ------------------------------------------------------------------------------------------------ */

static _Atomic long resizes;
static void resize(void *arg) {
  rng r = rng_new();
  for (int i = *(int *)arg; i > 0; i--) {
    int32_t n = (int32_t)below(&r, 6) + 1;
    int32_t old = gomaxprocs_set(n);
    CHECK(old >= 1 && old <= 6);
    xadd(&resizes, 1);
    if (below(&r, 3) == 0) os_usleep(below(&r, 1000));
  }
}

static void stop_and_start(void *arg) {
  for (int i = *(int *)arg; i > 0; i--) {
    stoptheworld();
    long before[nelem(progress)];
    for (int k = 0; k < 2; k++) before[k] = load_rlx(&progress[k]);
    os_usleep(50);
    for (int k = 0; k < 2; k++) CHECK_EQ(load_rlx(&progress[k]), before[k]); /* native ones stand still */
    starttheworld();
    os_usleep(500);
  }
}

/* All loads go on: the watchdog tells of one that does not. */
static void stop_loads(int n) {
  for (int i = 0; i < n; i++)
    while (load_rlx(&progress[i]) == 0) os_usleep(100);
  store_rlx(&stop, true);
}

TEST(a_stopped_world_stands_still, .procs = "124", .chaos = true) {
  runtime_start();
  group loads = {0}, g = {0};
  start_native_loads(&loads);
  int n = rounds(100);
  group_thread(&g, stop_and_start, &n);
  group_thread(&g, stop_and_start, &n);
  group_wait(&g);
  stop_loads(5);
  group_wait(&loads);
}

TEST(procs_come_and_go, .procs = "14", .chaos = true, .seconds = 60) {
  runtime_start();
  group loads = {0}, g = {0};
  start_native_loads(&loads);
  int n = rounds(300);
  for (int i = 0; i < 2; i++) group_thread(&g, resize, &n);
  group_wait(&g);
  CHECK_EQ(load_rlx(&resizes), 2 * n);
  stop_loads(5);
  group_wait(&loads);
}

TEST(procs_come_and_go_under_hosted_goroutines, .procs = "14", .chaos = true, .seconds = 60) {
  stub_start();
  group loads = {0}, g = {0};
  start_native_loads(&loads);
  job *j[8];
  host_take();
  for (int i = 0; i < 8; i++) j[i] = hosted_go(hosted, NULL);
  host_drop();
  int n = rounds(200);
  group_thread(&g, resize, &n);
  group_thread(&g, stop_and_start, &n);
  group_wait(&g);
  stop_loads(6);
  host_take();
  for (int i = 0; i < 8; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  host_drop();
  group_wait(&loads);
}

/* Hosted goroutines go on while the world is stopped: their P is taken, not waited for. */
TEST(a_stop_does_not_wait_for_host_code, .procs = "2") {
  stub_start();
  host_take();
  job *j = hosted_go(hosted, NULL);
  for (int i = 0; i < 20; i++) { /* the lock is ours: the driver waits for it all the time */
    stoptheworld();
    starttheworld();
  }
  store_rlx(&stop, true);
  CHECK_EQ(hosted_join(j), WAKE_OK);
  host_drop();
}

/* ---- a pin beside a start ------------------------------------------------------------------------------------- */

/* The world is stopped, and starts after the n-th instruction of the pin.  Nobody takes the P away, so the pin must
 * end with it, wherever that is. */
static P stopped_p;
static int starts_at;
static bool start_then(int n) {
  if (n < starts_at) return true;
  store_rel(&stopped_p.status, PWORD(1, Phost));
  return false;
}

static void pins(void *arg) {
  static M m = {.id = 1, .p = &stopped_p};
  *(bool *)arg = pin(&m);
}

TEST(a_pin_beside_a_start_keeps_its_p) {
  for (starts_at = 1; starts_at < 300; starts_at++) {
    bool ours = false;
    store_rlx(&stopped_p.status, PWORD(1, Pstopped));
    if (!stepwise(pins, &ours, start_then)) break;
    CHECK(ours);
    CHECK_EQ(load_rlx(&stopped_p.status), PWORD(1, Prunning));
  }
}

/* ---- deadlines of a P that dies ------------------------------------------------------------------------------ */

static void long_nap(void *arg) {
  int64_t start = nanotime();
  CHECK_EQ(gm_sleep(50 * MS), GM_OK);
  CHECK(nanotime() - start >= 50 * MS);
  xadd((_Atomic int *)arg, 1);
}

TEST(deadlines_outlive_their_p, .procs = "4") {
  runtime_start();
  _Atomic int ended = 0;
  group g = {0};
  for (int i = 0; i < 100; i++) group_go(&g, long_nap, (void *)&ended);
  os_usleep(10000);
  for (int n = 3; n > 0; n--) CHECK_EQ(gomaxprocs_set(n), n + 1);
  for (int i = 1; i < 4; i++) CHECK_EQ(sched.allp[i]->timers.len, 0);
  group_wait(&g);
  CHECK_EQ(load_rlx(&ended), 100);
}

static int32_t napping(void) {
  int32_t n = 0;
  for (int i = 0; i < 4; i++) {
    timers *ts = &sched.allp[i]->timers;
    spin_lock(&ts->lock);
    n += ts->len;
    spin_unlock(&ts->lock);
  }
  return n;
}

/* The timers of a P that dies go on: nobody oversleeps. */
TEST(a_p_does_not_die_with_its_deadlines, .procs = "4") {
  runtime_start();
  _Atomic int ended = 0;
  group g = {0};
  for (int i = 0; i < 100; i++) group_go(&g, long_nap, (void *)&ended);
  while (napping() + load_rlx(&ended) < 100) os_usleep(100);
  CHECK_EQ(gomaxprocs_set(1), 4);
  for (int i = 1; i < 4; i++) CHECK_EQ(sched.allp[i]->timers.len, 0);
  group_wait(&g);
  CHECK_EQ(load_rlx(&ended), 100);
}

/* ---- how many -------------------------------------------------------------------------------------------------- */

TEST(the_default_number_of_procs) {
  setenv("GOMAXPROCS", "7", 1);
  CHECK_EQ(gomaxprocs_default(), 7);
  setenv("GOMAXPROCS", "100000", 1);
  CHECK_EQ(gomaxprocs_default(), MAX_PROCS);
  unsetenv("GOMAXPROCS");
  int32_t n = gomaxprocs_default();
  CHECK(n >= 1 && n <= os_ncpu());
  static const char *const odd[] = {"", "0", "-3", "x", "3x", "99999999999999999999"};
  for (size_t i = 0; i < nelem(odd) - 1; i++) {
    setenv("GOMAXPROCS", odd[i], 1);
    CHECK_EQ(gomaxprocs_default(), n);
  }
}

TEST(asking_changes_nothing, .procs = "3") {
  runtime_start();
  uint64_t stops = load_rlx(&counts.stw);
  CHECK_EQ(gomaxprocs_set(0), 3);
  CHECK_EQ(gomaxprocs_set(-1), 3);
  CHECK_EQ(gomaxprocs_set(3), 3);
  CHECK_EQ(load_rlx(&counts.stw), stops);
  CHECK_EQ(gomaxprocs_set(1000), 3);
  CHECK_EQ(gomaxprocs_set(1), MAX_PROCS);
  CHECK_EQ(gomaxprocs_set(0), 1);
}
