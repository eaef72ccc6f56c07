/* licence_test.c - hosted goroutines: who drives them, and that every one that is pushed runs.
 *
 * Pushes come from the driver, from ordinary threads with and without the host lock, from native goroutines,
 * from deadlines; most of them when the driver is just about to give the licence up.  A lost wake-up shows as
 * a wait of seconds (sysmon sleeps for ten when everything is idle), so each wait is timed. */
#include "stubhost.h"

static _Atomic bool stop;

/* ---- one sleeper, woken from everywhere ------------------------------------------------------------------ */

enum { NONE_YET = 1 << 30 };
typedef struct sleeper {
  _Atomic(G *) g;
  _Atomic uint64_t seq; /* of the wait that is open or about to be; 0: the end */
  _Atomic int64_t pushed; /* when it was claimed */
  int64_t worst;
  long n, ok, timeouts;
  int64_t timeout;
} sleeper;

static void sleeps(void *arg) {
  sleeper *s = arg;
  rng r = rng_new();
  G *gp = self();
  store_rel(&s->g, gp);
  for (long i = 0; i < s->n; i++) {
    store_rel(&s->seq, wait_next(gp));
    int64_t deadline = s->timeout ? nanotime() + below(&r, (uint32_t)s->timeout) : 0;
    wake_t res = gopark(NULL, NULL, waitReasonSleep, deadline);
    int64_t now = nanotime(), since = res == WAKE_OK ? load_acq(&s->pushed) : deadline;
    if (now - since > s->worst) s->worst = now - since;
    if (res == WAKE_OK) s->ok++;
    else if (res == WAKE_TIMEOUT) s->timeouts++;
    else CHECK(!"woken with another result");
    hosted_check();
    if (below(&r, 4) == 0) spin_ns(below(&r, 3000));
    hosted_tick();
  }
  store_rel(&s->seq, 0);
}

/* with: the caller holds the host lock. */
static bool wake_one(sleeper *s, bool with) {
  G *gp = load_acq(&s->g);
  uint64_t seq = load_acq(&s->seq);
  if (!gp || !seq || !wait_claim(gp, seq)) return gp && !seq;
  gp->param = NULL;
  gp->wakeres = WAKE_OK;
  store_rel(&s->pushed, nanotime());
  if (with)
    goready_hosted(gp);
  else
    goready(gp);
  return false;
}

static void wakes_without(void *arg) {
  rng r = rng_new();
  while (!wake_one(arg, false)) {
    if (getm()) gosched();
    spin_ns(below(&r, 4000)); /* about as long as the driver needs to go to sleep */
  }
}

static void wakes_with(void *arg) {
  rng r = rng_new();
  for (bool ended = false; !ended;) {
    host_take();
    ended = wake_one(arg, true);
    host_drop();
    spin_ns(below(&r, 4000));
  }
}

static void wakes_hosted(void *arg) {
  while (!wake_one(arg, true)) {
    timesleep(1000);
    hosted_tick();
  }
}

static void check_sleeper(sleeper *s) {
  CHECK_EQ(s->ok + s->timeouts, s->n);
  if (s->worst > patient(1000 * (int64_t)MS)) {
    fprintf(stderr, "a wake took %lld ms\n", (long long)(s->worst / MS));
    CHECK(!"no wake-up is lost");
  }
}

static void wake_from(long n, int64_t timeout, void (*goroutine)(void *), void (*thread)(void *),
                      void (*in_host)(void *)) {
  stub_start();
  if (goroutine && sched.gomaxprocs == 1) n /= 20; /* each wake waits for the end of a turn: 1 ms */
  sleeper s = {.n = n, .timeout = timeout, .seq = NONE_YET};
  group g = {0};
  host_take();
  job *j = hosted_go(sleeps, &s), *k = in_host ? hosted_go(in_host, &s) : NULL;
  host_drop();
  if (goroutine) group_go(&g, goroutine, &s);
  if (thread) group_thread(&g, thread, &s);
  group_wait(&g);
  host_take();
  CHECK_EQ(hosted_join(j), WAKE_OK);
  if (k) CHECK_EQ(hosted_join(k), WAKE_OK);
  host_drop();
  check_sleeper(&s);
}

TEST(woken_by_native_goroutine, .procs = "124", .chaos = true, .seconds = 60) {
  wake_from(rounds(8000), 0, wakes_without, NULL, NULL);
}
TEST(woken_by_thread_without_the_lock, .procs = "124", .seconds = 60) {
  wake_from(rounds(8000), 0, NULL, wakes_without, NULL);
}
TEST(woken_by_thread_with_the_lock, .procs = "124", .seconds = 60) {
  wake_from(rounds(8000), 0, NULL, wakes_with, NULL);
}
TEST(woken_by_deadline, .procs = "124", .seconds = 60) {
  wake_from(rounds(8000), 20000, NULL, NULL, NULL);
}
TEST(woken_by_anybody, .procs = "124", .chaos = true, .seconds = 60) {
  wake_from(rounds(8000), 20000, wakes_without, wakes_with, wakes_hosted);
}

/* ---- order ------------------------------------------------------------------------------------------------ */

enum { CROWD = 1000 };
static int order[CROWD];
static int arrived;
static void arrives(void *arg) { order[arrived++] = (int)(intptr_t)arg; }

/* Ring, overflow list and inbox together keep the order of arrival; runnext is the one exception. */
TEST(a_crowd_runs_in_order, .procs = "14") {
  stub_start();
  job *j[CROWD];
  host_take();
  for (intptr_t i = 0; i < CROWD; i++) j[i] = hosted_go(arrives, (void *)i);
  for (int i = 0; i < CROWD; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  int expected = 0; /* the last one was in runnext: first, or in its place if the slice was over */
  for (int i = 0; i < CROWD; i++)
    if (order[i] != CROWD - 1) CHECK_EQ(order[i], expected++);
  CHECK_EQ(expected, CROWD - 1);
  CHECK_EQ(load_rlx(&sched.l.nqueued), 0);
  host_drop();
}

static void ends(void *arg) { xadd((_Atomic long *)arg, 1); }
static void starts_many(void *arg) {
  for (int i = rounds(30000); i > 0; i--) {
    hosted_go(ends, arg);
    if (i % 1000 == 0) gosched();
    hosted_tick();
  }
}

TEST(many_short_goroutines, .procs = "14", .chaos = true) {
  stub_start();
  _Atomic long ended = 0;
  host_take();
  job *j[3];
  for (int i = 0; i < 3; i++) j[i] = hosted_go(starts_many, (void *)&ended);
  for (int i = 0; i < 3; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  while (load_rlx(&ended) < 3 * rounds(30000)) host_drop(), os_usleep(100), host_take();
  CHECK_EQ(load_rlx(&ended), 3 * rounds(30000));
  host_drop();
}

/* ---- two kinds of work ------------------------------------------------------------------------------------ */

/* How much of the time did each kind run?  Counted in slices of its own clock. */
static _Atomic int64_t ran[2];
static void native_yielder(void *arg) {
  (void)arg;
  while (!load_rlx(&stop)) {
    spin_ns(5000);
    xadd(&ran[0], 5000);
    gosched();
  }
}
static void hosted_yielder(void *arg) {
  (void)arg;
  while (!load_rlx(&stop)) {
    spin_ns(5000);
    xadd(&ran[1], 5000);
    hosted_tick();
    gosched();
  }
}

TEST(both_kinds_share_one_p, .procs = "1") {
  stub_start();
  group g = {0};
  job *j[2];
  host_take();
  for (int i = 0; i < 2; i++) {
    j[i] = hosted_go(hosted_yielder, NULL);
    group_go(&g, native_yielder, NULL);
  }
  host_drop();
  os_usleep(400000);
  store_rlx(&stop, true);
  host_take();
  for (int i = 0; i < 2; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  host_drop();
  group_wait(&g);
  int64_t all = load_rlx(&ran[0]) + load_rlx(&ran[1]);
  CHECK(load_rlx(&ran[0]) * 100 > all * 25);
  CHECK(load_rlx(&ran[1]) * 100 > all * 25);
}

/* A native goroutine that never yields occupies one P; hosted ones run on the other, however the pushes and
 * the spinning of thieves fall together. */
static void native_hog(void *arg) {
  spin_ns(*(int64_t *)arg);
}
static void starts_hogs(void *arg) {
  int64_t ns = 300000;
  group g = {0};
  while (!load_rlx(&stop)) {
    group_go(&g, native_hog, &ns);
    group_wait(&g);
  }
  (void)arg;
}

TEST(hosted_goroutines_beside_native_hogs, .procs = "24", .chaos = true, .seconds = 60) {
  stub_start();
  sleeper s = {.n = rounds(5000), .timeout = 20000, .seq = NONE_YET};
  group g = {0}, hogs = {0};
  host_take();
  job *j = hosted_go(sleeps, &s);
  host_drop();
  group_go(&hogs, starts_hogs, NULL);
  group_thread(&g, wakes_with, &s);
  group_thread(&g, wakes_without, &s);
  group_wait(&g);
  host_take();
  CHECK_EQ(hosted_join(j), WAKE_OK);
  host_drop();
  store_rlx(&stop, true);
  group_wait(&hogs);
  check_sleeper(&s);
}

/* A push that saw a spinning M must not be forgotten when that M finds other work.  The hog runs until the
 * pushed goroutine has run, and that can run on the other P only: forgotten, both would wait for ever. */
static _Atomic bool pushed_ran;
static void hogs_till_then(void *arg) {
  (void)arg;
  while (!load_rlx(&pushed_ran)) cpu_relax();
}
static void runs(void *arg) {
  (void)arg;
  store_rlx(&pushed_ran, true);
}

TEST(a_push_beside_a_fresh_hog_is_not_forgotten, .procs = "2") {
  stub_start();
  rng r = rng_new();
  for (int i = rounds(2000) + 5; i > 0; i--) {
    group g = {0};
    store_rlx(&pushed_ran, false);
    group_go(&g, hogs_till_then, NULL); /* wakes an M that spins, finds it, and runs it */
    spin_ns(below(&r, 60000));
    host_take();
    job *j = hosted_go(runs, NULL);
    CHECK_EQ(hosted_join(j), WAKE_OK);
    host_drop();
    group_wait(&g);
  }
}

/* The M that looks for work runs a deadline which makes a native and a hosted goroutine runnable, and picks the native
 * one.  That runs until the hosted one has, on the other P: nobody has been woken for it yet. */
static struct {
  timer t;
  _Atomic(G *) native, hosted;
  uint64_t native_seq, hosted_seq;
} both;

static void readies_both(timer *t, uint64_t seq) {
  (void)t;
  (void)seq;
  G *native = load_acq(&both.native), *hosted = load_acq(&both.hosted);
  CHECK(wait_claim(hosted, both.hosted_seq));
  CHECK(wait_claim(native, both.native_seq));
  hosted->wakeres = native->wakeres = WAKE_OK;
  goready(hosted);
  goready(native);
}

static void parks(_Atomic(G *) *slot, uint64_t *seq) {
  *seq = wait_next(self());
  store_rel(slot, self());
  CHECK_EQ(gopark(NULL, NULL, waitReasonSleep, 0), WAKE_OK);
}
static void parks_then_hogs(void *arg) {
  parks(&both.native, &both.native_seq);
  hogs_till_then(arg);
}
static void parks_then_runs(void *arg) {
  parks(&both.hosted, &both.hosted_seq);
  runs(arg);
}
static void leaves_a_deadline(void *arg) {
  (void)arg;
  timers *ts = &getm()->p->timers;
  timer_add(ts, &both.t, nanotime()); /* due when this M looks, in a moment; nobody sleeps in the poller */
}

TEST(a_push_of_the_look_for_work_is_not_forgotten, .procs = "2") {
  stub_start();
  both.t.f = readies_both;
  store_rlx(&both.t.state, TIMER_OUT);
  for (int i = rounds(300) + 5; i > 0; i--) {
    group g = {0};
    store_rlx(&pushed_ran, false);
    store_rlx(&both.native, (G *)NULL);
    store_rlx(&both.hosted, (G *)NULL);
    host_take();
    job *j = hosted_go(parks_then_runs, NULL);
    host_drop();
    group_go(&g, parks_then_hogs, NULL);
    while (!load_acq(&both.native) || load_acq(&both.native)->status != Gwaiting || !load_acq(&both.hosted) ||
           load_acq(&both.hosted)->status != Gwaiting || load_rlx(&sched.npidle) < 2)
      os_usleep(20);
    group_go(&g, leaves_a_deadline, NULL);
    host_take();
    CHECK_EQ(hosted_join(j), WAKE_OK);
    host_drop();
    group_wait(&g);
  }
}

/* ---- ordinary threads that want the lock ------------------------------------------------------------------ */

static _Atomic long thread_turns;
static void busy_thread(void *arg) {
  (void)arg;
  host_take();
  while (!load_rlx(&stop)) {
    spin_ns(2000);
    hosted_tick();
    inc_rlx(&thread_turns);
  }
  host_drop();
}

TEST(a_busy_thread_shares_the_lock, .procs = "12") {
  stub_start();
  group g = {0};
  group_thread(&g, busy_thread, NULL);
  group_thread(&g, busy_thread, NULL);
  host_take();
  job *j[3];
  for (int i = 0; i < 3; i++) j[i] = hosted_go(hosted_yielder, NULL);
  host_drop();
  while (load_rlx(&thread_turns) <= 1000 || load_rlx(&ran[1]) <= 10 * MS) os_usleep(1000);
  store_rlx(&stop, true);
  host_take();
  for (int i = 0; i < 3; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  host_drop();
  group_wait(&g);
}

/* ---- wired goroutines -------------------------------------------------------------------------------------- */

/* Foreign C frames below: it parks, but stays on its thread. */
static void pinned(void *arg) {
  rng r = rng_new();
  for (int i = *(int *)arg; i > 0; i--) {
    hosted_pin(true);
    pthread_t me = pthread_self();
    switch (below(&r, 3)) {
      case 0: gosched(); break;
      case 1: timesleep(below(&r, 20000)); break;
      default: hosted_block(below(&r, 100));
    }
    CHECK(pthread_equal(me, pthread_self()));
    hosted_check();
    hosted_pin(false);
    CHECK(self()->lockedm == NULL);
    if (below(&r, 3) == 0) gosched();
  }
}

static void many_pinned(int n, bool beside_others) {
  stub_start();
  job *j[6];
  host_take();
  for (int i = 0; i < 6; i++) j[i] = hosted_go(beside_others && i < 2 ? hosted_yielder : pinned, &n);
  for (int i = 5; i >= 0; i--) {
    if (i == 1) store_rlx(&stop, true);
    CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  }
  host_drop();
}

/* The wait of the only M needs another one, which is not started below the channel's lock (debug builds look). */
static void pinned_receiver(void *c) {
  wake_t r;
  uint64_t v = 0;
  hosted_pin(true);
  do r = chanrecv(c, &v, true, 0, true);
  while (r == WAKE_INTERRUPTED);
  hosted_pin(false);
  CHECK(r == WAKE_OK && v == 42);
}
TEST(a_pinned_wait_for_a_native_channel_has_a_thread_started, .procs = "1") {
  hchan c;
  uint64_t v = 42;
  CHECK(chan_init(&c, sizeof v, 0, false));
  stub_start();
  host_take();
  job *j = hosted_go(pinned_receiver, &c);
  host_drop();
  bool waits = false;
  while (!waits) {
    os_usleep(100);
    spin_lock(&c.lock);
    waits = c.recvq.first != NULL;
    spin_unlock(&c.lock);
  }
  CHECK(chansend(&c, &v, true, 0, false) == WAKE_OK);
  host_take();
  CHECK(hosted_join(j) == WAKE_OK);
  host_drop();
  chan_fini(&c);
}

TEST(a_pinned_goroutine_stays_on_its_thread, .procs = "124", .chaos = true) {
  many_pinned(rounds(300), false);
}
TEST(pinned_goroutines_beside_others, .procs = "14") { many_pinned(rounds(100), true); }

static void locks_thread(void *arg) {
  hosted_lock_thread();
  pthread_t me = pthread_self();
  for (int i = *(int *)arg; i > 0; i--) {
    gosched();
    if (i % 8 == 0) timesleep(10000);
    CHECK(pthread_equal(me, pthread_self()));
  }
  if (arg == NULL) return; /* ends wired or not */
  hosted_unlock_thread();
}

TEST(a_locked_goroutine_stays_on_its_thread, .procs = "14", .chaos = true) {
  stub_start();
  int n = rounds(500);
  job *j[4];
  host_take();
  for (int i = 0; i < 4; i++) j[i] = hosted_go(locks_thread, &n);
  for (int i = 0; i < 4; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  host_drop();
}

/* ---- run() ------------------------------------------------------------------------------------------------ */

static pthread_t runner;
static void main_goroutine(void *arg) {
  _Atomic long ended = 0;
  int n = rounds(200);
  for (int i = 0; i < n; i++) {
    if (i % 3 == 0) {
      hosted_lock_thread();
      CHECK(pthread_equal(runner, pthread_self())); /* moved to the thread that waits in run() */
      gosched();
      timesleep(1000);
      CHECK(pthread_equal(runner, pthread_self()));
      hosted_unlock_thread();
      gosched();
    }
    job *j = hosted_go(ends, (void *)&ended);
    CHECK_EQ(hosted_join(j), WAKE_OK);
  }
  CHECK_EQ(load_rlx(&ended), n);
  *(bool *)arg = true;
}

TEST(the_main_goroutine_of_run, .procs = "124", .chaos = true) {
  stub_start();
  runner = pthread_self();
  for (int i = 0; i < 5; i++) {
    bool done = false;
    CHECK(hosted_run(main_goroutine, &done));
    CHECK(done);
  }
}

static hchan nobody;
static void waits_for_nobody(void *arg) {
  uint64_t v;
  *(wake_t *)arg = chanrecv(&nobody, &v, true, 0, true);
}
static void deadlocks(void *arg) {
  wake_t r[5];
  job *j[5];
  for (int i = 0; i < 5; i++) j[i] = hosted_go(waits_for_nobody, &r[i]);
  timesleep(2 * MS); /* a sleeper is no deadlock */
  uint64_t v;
  *(wake_t *)arg = chanrecv(&nobody, &v, true, 0, true);
  CHECK_EQ(chanclose(&nobody), WAKE_OK);
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(hosted_join(j[i]), WAKE_OK);
    CHECK_EQ(r[i], WAKE_CLOSED);
  }
}

TEST(all_asleep_is_noticed, .procs = "124", .chaos = true) {
  stub_start();
  for (int i = 0; i < 10; i++) {
    NEED(chan_init(&nobody, 8, 0, true));
    wake_t r = WAKE_OK;
    CHECK(!hosted_run(deadlocks, &r));
    CHECK_EQ(r, WAKE_DEADLOCK);
    CHECK(load_rlx(&stub_asleep) > 0);
  }
}

/* ---- no memory -------------------------------------------------------------------------------------------- */

TEST(no_state_for_a_goroutine) {
  stub_start();
  _Atomic long ended = 0;
  host_take();
  stub_no_state = true;
  CHECK(gfget_host() == NULL);
  stub_no_state = false;
  CHECK_EQ(hosted_join(hosted_go(ends, (void *)&ended)), WAKE_OK);
  CHECK_EQ(load_rlx(&ended), 1);
  host_drop();
}

/* ---- stacks given back ------------------------------------------------------------------------------------- */

/* Fewer than are given back at once, and more. */
enum { POOL = CROWD_MOST / POOL_SHARE, BURST = POOL - 1000, HORDE = 2 * POOL };

static _Atomic bool full;
static void one_of_many(void *arg) {
  (void)arg;
  while (!load_acq(&full)) timesleep(1000000);
}

static void burst(uint32_t n) {
  static job *j[HORDE];
  store_rel(&full, false);
  host_take();
  sched.l.crowd = CROWD_MOST; /* whatever memory there is here */
  for (uint32_t i = 0; i < n; i++) j[i] = hosted_go(one_of_many, NULL);
  host_drop();
  while (load_rlx(&stack_slots) < n) usleep(1000);
  store_rel(&full, true);
  host_take();
  for (uint32_t i = 0; i < n; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  host_drop();
}

static void short_job(void *arg) { (void)arg; }

/* To give pages back takes long, and the only P is not kept for it. */
TEST(work_goes_on_while_stacks_are_given_back, .procs = "1", .seconds = 60) {
  stub_start();
  burst(BURST);
  store_rel(&sched.l.trim, true);
  int between = 0;
  do {
    host_take();
    CHECK_EQ(hosted_join(hosted_go(short_job, NULL)), WAKE_OK);
    host_drop();
    between += load_acq(&sched.l.cold) != NULL;
  } while (load_acq(&sched.l.trim) || load_acq(&sched.l.cold));
  CHECK(between > 1);
  host_take();
  CHECK(sched.l.nunits <= GFREE_KEEP + 10);
  G *list = load_acq(&sched.l.trimmed) ? load_acq(&sched.l.trimmed) : sched.l.gshell;
  CHECK(list && !list->sp && !list->stk.lo);
  host_drop();
}

/* Nor is its memory there until the process has been idle for long. */
TEST(stacks_of_a_crowd_are_given_back_while_it_ends, .procs = "12", .seconds = 60) {
  stub_start();
  burst(HORDE);
  while (load_acq(&sched.l.cold)) usleep(1000);
  host_take();
  CHECK(sched.l.nunits <= HORDE - POOL / 2);
  CHECK(sched.l.ngfree <= sched.l.nunits);
  host_drop();
  burst(BURST); /* some in what is left, some in what was given back */
}

static uint64_t waits[2 * HORDE];

/* As after a select. */
static void hold_arrays(void) {
  host_take();
  uint32_t cursor = 0;
  for (G *gp; (gp = allg_next(&cursor)) != NULL;) {
    if (gp->kind != GK_HOST || !gp->host || gp->sgs || load_rlx(&gp->status) != Gdead) continue;
    gp->sgs = calloc(2, sizeof *gp->sgs);
    gp->nsgs = 2;
  }
  host_drop();
}

/* What it leaves besides goes a second later: states, and in the end the Gs, but not the numbers of their waits. */
TEST(the_rest_of_a_crowd_goes_when_it_has_ended, .procs = "12", .seconds = 60) {
  stub_start();
  for (int i = 0; i < 2; i++) {
    burst(HORDE);
    uint32_t cursor = 0, empty = 0;
    for (G *gp; (gp = allg_next(&cursor)) != NULL;) {
      NEED(cursor < 2 * HORDE);
      uint64_t seq = load_acq(&gp->wait);
      CHECK(seq == 0 || seq >= waits[cursor]); /* 0: gone again, on a slow machine */
      waits[cursor] = seq;
    }
    hold_arrays();
    while (load_acq(&sched.l.cold) || gtrim_left()) usleep(1000);
    CHECK(load_acq(&stub_states) <= HORDE - POOL / 2);
    cursor = 0;
    host_take();
    for (G *gp; (gp = allg_next(&cursor)) != NULL;) CHECK(gp->kind != GK_HOST || gp->host || !gp->sgs);
    host_drop();
    gtrim_slabs();
    cursor = 0;
    for (G *gp; (gp = allg_next(&cursor)) != NULL;)
      empty += load_acq(&gp->status) == Gidle && load_acq(&gp->wait) == 0;
    CHECK(empty > POOL / 4);
  }
}
