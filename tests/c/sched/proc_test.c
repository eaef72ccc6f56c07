/* proc_test.c - Ms and Ps: every goroutine runs, wherever it was started, and idle threads wake for it. */
#include "stubhost.h"

static _Atomic bool stop;
static _Atomic long ran;
static void runs(void *arg) {
  (void)arg;
  xadd(&ran, 1);
}
static void wait_for(long n) {
  while (load_rlx(&ran) < n) os_usleep(50);
  CHECK_EQ(load_rlx(&ran), n);
}

/* ---- starting ---------------------------------------------------------------------------------------------- */

static void starts(void *arg) {
  for (int i = *(int *)arg; i > 0; i--) {
    CHECK_EQ(gm_go(runs, NULL), GM_OK);
    if (i % 100 == 0) gm_yield();
  }
}

TEST(every_goroutine_runs_once, .procs = "124", .chaos = true) {
  runtime_start();
  group g = {0};
  int n = MANY / 2;
  for (int i = 0; i < 3; i++) group_go(&g, starts, &n);
  for (int i = 0; i < 2; i++) group_thread(&g, starts, &n);
  group_wait(&g);
  wait_for(5 * n);
}

static void branches(void *arg) {
  intptr_t depth = (intptr_t)arg;
  xadd(&ran, 1);
  if (depth == 0) return;
  CHECK_EQ(gm_go(branches, (void *)(depth - 1)), GM_OK);
  CHECK_EQ(gm_go(branches, (void *)(depth - 1)), GM_OK);
}

TEST(goroutines_start_goroutines, .procs = "124", .chaos = true) {
  runtime_start();
#ifdef GM_TSAN
  intptr_t depth = 9;
#else
  intptr_t depth = 15;
#endif
  CHECK_EQ(gm_go(branches, (void *)depth), GM_OK);
  wait_for((2l << depth) - 1);
}

/* The runtime sleeps between two bursts: whoever pushes must wake it. */
TEST(idle_threads_wake_for_work, .procs = "124") {
  runtime_start();
  int64_t worst = 0;
  rng r = rng_new();
  long n = 0;
  for (int i = rounds(5000); i > 0; i--) {
    int64_t start = nanotime();
    CHECK_EQ(gm_go(runs, NULL), GM_OK);
    n++;
    while (load_rlx(&ran) < n) cpu_relax();
    if (nanotime() - start > worst) worst = nanotime() - start;
    if (below(&r, 3)) spin_ns(below(&r, 60000)); /* until they sleep, or just before */
  }
  CHECK(worst < patient(1000 * (int64_t)MS));
}

/* A goroutine that computes must not keep the others from running: they are stolen. */
static void hog(void *arg) {
  starts(arg);
  while (!load_rlx(&stop)) cpu_relax();
}

TEST(work_behind_a_hog_is_stolen, .procs = "24", .chaos = true) {
  runtime_start();
  int n = 600; /* more than the ring */
  group g = {0};
  group_go(&g, hog, &n);
  wait_for(n);
  CHECK(load_rlx(&counts.stolen) > 0 || load_rlx(&counts.overflows) > 0);
  store_rlx(&stop, true);
  group_wait(&g);
}

/* One in runnext behind a hog: nobody is woken for it, sysmon has to see it. */
TEST(runnext_behind_a_hog_is_not_forgotten, .procs = "2") {
  runtime_start();
  int n = 1;
  for (int i = 0; i < 20; i++) {
    group g = {0};
    store_rlx(&stop, false);
    store_rlx(&ran, 0);
    group_go(&g, hog, &n);
    wait_for(1);
    store_rlx(&stop, true);
    group_wait(&g);
  }
}

/* ---- a wake that depends on who is quicker ------------------------------------------------------------------- */

/* All Ps idle, all Ms asleep on their notes, and no wake on its way: so it stays. */
static bool at_rest(void) {
  lock(&sched.lock);
  bool rest = sched.nmidle == sched.mcount && load_rlx(&sched.nmspinning) == 0 &&
              load_rlx(&sched.npidle) == (uint32_t)sched.gomaxprocs;
  unlock(&sched.lock);
  return rest;
}
static void wait_for_poller(void) {
  while (load_rlx(&sched.lastpoll) != 0) os_usleep(20);
}

static bool ms_asleep(void) {
  lock(&sched.lock);
  bool yes = sched.nmidle == sched.mcount && load_rlx(&sched.nmspinning) == 0;
  unlock(&sched.lock);
  return yes;
}

static P *mine; /* the only one */
static int leaves_at;
static uint64_t polls;

/* The M in the poller wakes after the n-th instruction, and has gone to sleep again before the next. */
static bool poller_wakes(int n) {
  if (n < leaves_at || load_rlx(&sched.lock.word)) return true;
  netpollbreak();
  while (!ms_asleep() && load_rlx(&counts.netpolls) == polls) os_usleep(20);
  return false;
}

static void hands_off(void *arg) {
  (void)arg;
  handoffp(mine);
}

static void waits_for_a_byte(void *arg) {
  char c;
  CHECK_EQ(gm_read(*(int *)arg, &c, 1), 1);
}

/* Whoever gives the only P away sees somebody in the poller, who leaves it meanwhile and finds no P.  Somebody must
 * sleep there again: the rest of this process would not hear of the byte. */
TEST(the_poller_is_not_left_in_a_hand_off, .procs = "1", .seconds = 60) {
  runtime_start();
  int fd[2];
  group g = {0};
  NEED(pipe(fd) == 0);
  group_go(&g, waits_for_a_byte, &fd[0]);
  bool orphaned = false;
  for (leaves_at = 1; leaves_at < 200 && !orphaned; leaves_at++) {
    wait_for_poller();
    while (!(mine = pidleget())) os_usleep(20);
    wait_for_poller();
    polls = load_rlx(&counts.netpolls);
    if (!stepwise(hands_off, NULL, poller_wakes)) {
      releasep_idle(mine);
      break;
    }
    while (load_rlx(&sched.lastpoll) != 0 && !orphaned) {
      orphaned = at_rest() && load_rlx(&sched.lastpoll) != 0;
      os_usleep(20);
    }
  }
  CHECK(!orphaned);
  NEED(write(fd[1], "x", 1) == 1);
  group_wait(&g);
}

/* One that wakes counts itself as spinning, and then finds no P, for one has been taken since it looked.  That one
 * becomes idle again, and another thread has work for it: it sees somebody spin, and wakes nobody. */
static int takes_at, pushes_at;
static bool pushed;
static bool takes_then_pushes(int n) {
  if (load_rlx(&sched.lock.word)) return true;
  if (!mine && n >= takes_at) mine = pidleget();
  if (n < pushes_at) return true;
  if (!mine) return false; /* the wake was quicker */
  releasep_idle(mine);
  CHECK_EQ(gm_go(runs, NULL), GM_OK);
  pushed = true;
  return false;
}

static void wakes(void *arg) {
  (void)arg;
  wakep();
}

TEST(a_push_beside_a_vain_wake_is_not_forgotten, .procs = "1", .seconds = 60) {
  runtime_start();
  long due = 0;
  bool forgotten = false;
  for (int i = 0; i < 40 * 20 && !forgotten; i++) {
    takes_at = i / 20 + 1;
    pushes_at = takes_at + i % 20 * 2;
    while (!at_rest() || !load_rlx(&sched.sysmonwait)) os_usleep(20);
    mine = NULL;
    pushed = false;
    if (!stepwise(wakes, NULL, takes_then_pushes)) break;
    if (mine && !pushed) releasep_idle(mine);
    due += pushed;
    while (load_rlx(&ran) < due && !forgotten) {
      forgotten = at_rest() && load_rlx(&ran) < due;
      os_usleep(20);
    }
  }
  CHECK(!forgotten);
}

/* ---- calls that block ---------------------------------------------------------------------------------------- */

static void blocks(void *arg) {
  gm_enter_blocking();
  os_usleep((uint32_t)(intptr_t)arg);
  gm_exit_blocking();
  xadd(&ran, 1);
}

static _Atomic intptr_t inside;
static void blocks_with_all(void *n) {
  gm_enter_blocking();
  xadd(&inside, 1);
  while (load_rlx(&inside) < (intptr_t)n) os_usleep(100); /* so there are that many threads */
  gm_exit_blocking();
}

TEST(blocked_goroutines_overlap, .procs = "124") {
  runtime_start();
  for (intptr_t n = 1; n <= 32; n *= 4) {
    group g = {0};
    store_rlx(&inside, 0);
    for (int i = 0; i < n; i++) group_go(&g, blocks_with_all, (void *)n);
    group_wait(&g);
  }
}

static void mixes(void *arg) {
  rng r = rng_new();
  for (int i = *(int *)arg; i > 0; i--) {
    if (below(&r, 4) == 0) blocks((void *)(intptr_t)below(&r, 200));
    gosched();
    if (below(&r, 20) == 0) gm_sleep(below(&r, 50000));
    CHECK_EQ(load_rlx(&self()->status), Grunning);
  }
}

TEST(calls_of_any_length, .procs = "124", .chaos = true) {
  runtime_start();
  int n = rounds(500);
  group g = {0};
  for (int i = 0; i < 16; i++) group_go(&g, mixes, &n);
  group_wait(&g);
  CHECK_EQ(load_rlx(&sched.nblocked), 0);
}

/* ---- threads ---------------------------------------------------------------------------------------------------- */

TEST(too_many_threads_are_not_started, .procs = "4") {
  runtime_start();
  lock(&sched.lock);
  sched.maxm = 2;
  unlock(&sched.lock);
  group g = {0};
  for (int i = 0; i < 10; i++) group_go(&g, blocks, (void *)(intptr_t)2000);
  group_wait(&g); /* one after another, but all */
  CHECK(sched.mcount <= 2);
  lock(&sched.lock);
  sched.maxm = MAX_MS;
  unlock(&sched.lock);
  for (int i = 0; i < 10; i++) group_go(&g, blocks, (void *)(intptr_t)2000);
  group_wait(&g);
}

static uint32_t count_ms(void) {
  lock(&sched.lock);
  uint32_t n = sched.mcount;
  unlock(&sched.lock);
  return n;
}

TEST(idle_threads_end, .procs = "2") {
  runtime_start();
  enum { CREW = 12 };
  for (int round = 0; round < 3; round++) {
    group g = {0};
    store_rlx(&inside, 0);
    for (int i = 0; i < CREW; i++) group_go(&g, blocks_with_all, (void *)(intptr_t)CREW);
    group_wait(&g);
    CHECK(count_ms() >= CREW);
    while (count_ms() > 3) { /* two are kept, one may sleep in the poller */
      mreap_idle(nanotime() + 11 * 1000000000ll); /* as if eleven seconds had passed */
      os_usleep(1000);
    }
    in_goroutine(runs, NULL);
  }
  CHECK(load_rlx(&counts.mreaped) >= 20);
}

static void native_yields(void *arg) {
  (void)arg;
  while (!load_rlx(&stop)) gosched();
}

TEST(a_stopped_runtime_does_nothing_more, .procs = "2") {
  runtime_start();
  for (int i = 0; i < 5; i++) CHECK_EQ(gm_go(native_yields, NULL), GM_OK);
  os_usleep(2000);
  schedstop();
  store_rlx(&stop, true);
  while (count_ms() > 0) os_usleep(100); /* no thread stays: one may yet run what it had found before */
  CHECK_EQ(gm_go(runs, NULL), GM_OK);    /* queued, never run: none starts */
  CHECK_EQ(count_ms(), 0);
  CHECK_EQ(load_rlx(&ran), 0);
}

/* Who takes the host down waits for Ms that are about to ask it for a state; no other does later. */
TEST(no_m_starts_when_the_runtime_has_stopped, .procs = "1") {
  stub_start();
  store_rlx(&stub_m_waits, true);
  int before = load_rlx(&stub_m_inits);
  gomaxprocs_set(8); /* more than there are Ms */
  for (int i = 0; i < 16; i++) CHECK_EQ(gm_go(native_yields, NULL), GM_OK);
  while (load_rlx(&stub_m_inits) == before) os_usleep(100);
  schedstop();
  os_usleep(20000);
  CHECK(host_in_use());
  store_rlx(&stub_m_waits, false);
  while (host_in_use()) os_usleep(100);
  int asked = load_rlx(&stub_m_inits);
  CHECK(asked > before);
  os_usleep(100000);
  CHECK_EQ(load_rlx(&stub_m_inits), asked);
  store_rlx(&stop, true);
  while (count_ms() > 0) os_usleep(100);
}

/* And for those that are about to give it back. */
TEST(no_m_ends_in_a_host_that_is_gone, .procs = "2") {
  enum { CREW = 12 };
  stub_start();
  group g = {0};
  for (int i = 0; i < CREW; i++) group_go(&g, blocks_with_all, (void *)(intptr_t)CREW);
  group_wait(&g);
  store_rlx(&stub_m_waits, true);
  while (load_rlx(&stub_m_exits) == 0) {
    mreap_idle(nanotime() + 11 * 1000000000ll);
    os_usleep(100);
  }
  schedstop();
  CHECK(host_in_use());
  store_rlx(&stub_m_waits, false);
  while (host_in_use()) os_usleep(100);
  int gave = load_rlx(&stub_m_exits);
  while (count_ms() > 0) os_usleep(100);
  CHECK_EQ(load_rlx(&stub_m_exits), gave);
}

/* ---- all asleep ---------------------------------------------------------------------------------------------------- */

static gm_chan *chan;
static void waits(void *arg) {
  (void)arg;
  gm_chan_recv(chan, NULL, -1);
}

static void blocks_until_stop(void *arg) {
  (void)arg;
  gm_enter_blocking();
  while (!load_rlx(&stop)) os_usleep(100);
  gm_exit_blocking();
}

TEST(the_last_to_sleep_tells_the_host, .procs = "124", .chaos = true) {
  stub_start();
  chan = gm_chan_make(8, 0);
  for (int i = 0; i < 20; i++) {
    uint32_t before = load_rlx(&stub_asleep);
    group g = {0};
    group_go(&g, waits, NULL);
    group_go(&g, waits, NULL);
    uint32_t epoch = 0; /* it may have slept between the two, too */
    for (int k = 0; k < 3000; k++) {
      epoch = load_rlx(&sched.idle_epoch);
      if (load_rlx(&stub_asleep) != before && sched_asleep(epoch)) break;
      os_usleep(1000);
    }
    CHECK(load_rlx(&stub_asleep) != before);
    CHECK(sched_asleep(epoch));
    CHECK(!sched_asleep(epoch - 1));
    for (int k = 0; k < 2; k++) CHECK_EQ(gm_chan_send(chan, &(long){1}, -1), GM_OK);
    group_wait(&g);
  }
  while (!sched_asleep(load_rlx(&sched.idle_epoch))) os_usleep(1000);
  uint32_t before = load_rlx(&stub_asleep);
  group g = {0};
  group_go(&g, blocks_until_stop, NULL); /* blocked is not asleep */
  while (load_rlx(&sched.nblocked) == 0) os_usleep(100);
  os_usleep(15000);
  CHECK_EQ(load_rlx(&stub_asleep), before);
  store_rlx(&stop, true);
  group_wait(&g);
}
