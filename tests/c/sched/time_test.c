/* time_test.c - the heap of timers against a model, and sleeps and deadlines on the running runtime. */
#include "test.h"

#include <sys/resource.h>

/* ---- the heap alone ------------------------------------------------------------------------------------ */

enum { TIMERS = 300 };

typedef struct alarm_clock {
  timer t;
  bool set;
  int64_t when;
  _Atomic long fired, sets, deleted;
} alarm_clock;

static timers heap = {.lock = {.rank = rank_timers}, .next = INT64_MAX};
static alarm_clock clocks[TIMERS];
static int64_t last_fired;
static int due; /* how many the model says must fire in this run */

static void rings(timer *t, uint64_t seq) {
  alarm_clock *a = containerof(t, alarm_clock, t);
  CHECK(a->set);
  CHECK_EQ(seq, (uint64_t)a->when);
  CHECK(a->when >= last_fired); /* in order */
  last_fired = a->when;
  a->set = false;
  due--;
}

static void clocks_init(void (*f)(timer *, uint64_t)) {
  for (int i = 0; i < TIMERS; i++) {
    clocks[i].t.f = f;
    store_rlx(&clocks[i].t.state, TIMER_OUT);
  }
}

static void set(alarm_clock *a, int64_t when) {
  a->when = when;
  a->set = true;
  a->t.seq = (uint64_t)when;
  timer_add(&heap, &a->t, when);
}

static int64_t earliest(void) {
  int64_t min = INT64_MAX;
  for (int i = 0; i < TIMERS; i++)
    if (clocks[i].set && clocks[i].when < min) min = clocks[i].when;
  return min;
}

/* Every node stands where its number says, and none is due before the one above it. */
static uint32_t check_below(timer *t, timer *up) {
  if (!t) return 0;
  CHECK(t->up == up && load_rlx(&t->state) == TIMER_IN);
  if (up) CHECK(load_rlx(&up->when) <= load_rlx(&t->when));
  uint32_t first = check_below(t->kid[0], t), second = check_below(t->kid[1], t);
  CHECK(first >= second);
  return 1 + first + second;
}

static void check_heap(void) {
  uint32_t n = 0;
  for (int i = 0; i < TIMERS; i++) {
    CHECK((load_rlx(&clocks[i].t.state) == TIMER_IN) == clocks[i].set);
    if (clocks[i].set) CHECK_EQ(load_rlx(&clocks[i].t.when), clocks[i].when);
    n += clocks[i].set;
  }
  CHECK_EQ(heap.len, n);
  CHECK_EQ(check_below(heap.root, NULL), n);
  CHECK_EQ(load_rlx(&heap.next), earliest());
}

TEST(heap_agrees_with_a_model) {
  clocks_init(rings);
  rng r = rng_new();
  int64_t now = 0;
  for (int i = rounds(20000); i > 0; i--) {
    alarm_clock *a = &clocks[below(&r, TIMERS)];
    switch (below(&r, 4)) {
      case 0:
        if (a->set) break;
        set(a, now + below(&r, 500)); /* many at the same moment */
        break;
      case 1:
        CHECK_EQ(timer_del(&a->t), a->set);
        a->set = false;
        break;
      case 2:
        now += below(&r, 20);
        last_fired = due = 0;
        for (int k = 0; k < TIMERS; k++) due += clocks[k].set && clocks[k].when <= now;
        CHECK_EQ(timers_run(&heap, now), earliest());
        CHECK_EQ(due, 0);
        break;
      default:
        if (below(&r, 50) == 0) check_heap();
    }
  }
  check_heap();
}

/* Owners set and delete their timers, two threads run the heap: each setting ends exactly once. */
static _Atomic bool stop;

static _Atomic long all_fired;
static void rings_counted(timer *t, uint64_t seq) {
  (void)seq;
  xadd(&all_fired, 1);
  xadd(&containerof(t, alarm_clock, t)->fired, 1);
}

static void set_and_delete(void *arg) {
  alarm_clock *mine = arg;
  rng r = rng_new();
  for (int i = rounds(100000); i > 0 || load_rlx(&all_fired) < 100; i--) {
    alarm_clock *a = &mine[below(&r, 20)];
    if (load_rlx(&a->fired) + load_rlx(&a->deleted) < load_rlx(&a->sets)) {
      if (timer_del(&a->t)) inc_rlx(&a->deleted);
      continue;
    }
    inc_rlx(&a->sets);
    timer_add(&heap, &a->t, nanotime() + below(&r, 20000));
  }
  for (int i = 0; i < 20; i++)
    if (timer_del(&mine[i].t)) inc_rlx(&mine[i].deleted);
}

static void run_heap(void *arg) {
  (void)arg;
  while (!load_rlx(&stop)) timers_run(&heap, nanotime());
}

TEST(every_setting_ends_once) {
  clocks_init(rings_counted);
  group owners = {0}, runners = {0};
  for (int i = 0; i < 2; i++) group_thread(&owners, set_and_delete, &clocks[i * 20]);
  for (int i = 0; i < 2; i++) group_thread(&runners, run_heap, NULL);
  group_wait(&owners);
  while (load_rlx(&heap.next) != INT64_MAX) os_usleep(100);
  store_rlx(&stop, true);
  group_wait(&runners);
  for (int i = 0; i < 40; i++)
    CHECK_EQ(load_rlx(&clocks[i].fired) + load_rlx(&clocks[i].deleted), load_rlx(&clocks[i].sets));
  CHECK_EQ(heap.len, 0);
}

/* ---- sleeping -------------------------------------------------------------------------------------------- */

typedef struct sleeper {
  int64_t ns, late;
} sleeper;

static void sleeps(void *arg) {
  sleeper *s = arg;
  int64_t start = nanotime();
  CHECK_EQ(gm_sleep(s->ns), GM_OK);
  s->late = nanotime() - start - s->ns;
  CHECK(s->late >= 0);
}

TEST(sleepers_wake_in_time_and_not_early, .procs = "124", .chaos = true) {
  runtime_start();
  sleeper s[20];
  group g = {0};
  for (int i = 19; i >= 0; i--) {
    s[i].ns = (i + 1) * 10 * MS;
    group_go(&g, sleeps, &s[i]);
  }
  group_wait(&g);
  for (int i = 0; i < 20; i++) CHECK(s[i].late < patient(500 * MS));
}

static int by_value(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

typedef struct naps {
  int64_t late[200];
} naps;

static void short_naps(void *arg) {
  naps *n = arg;
  for (size_t i = 0; i < nelem(n->late); i++) {
    sleeper s = {.ns = 50000};
    sleeps(&s);
    n->late[i] = s.late;
  }
}

/* The same by the kernel's clock: what the machine does to a thread, it does to the scheduler's. */
static void short_naps_of_a_thread(void *arg) {
  naps *n = arg;
  for (size_t i = 0; i < nelem(n->late); i++) {
    int64_t start = nanotime();
    os_usleep(50);
    n->late[i] = nanotime() - start - 50000;
  }
}

static int64_t median(naps *n) {
  qsort(n->late, nelem(n->late), sizeof n->late[0], by_value);
  return n->late[nelem(n->late) / 2];
}

TEST(short_sleeps_are_exact, .procs = "124") {
  runtime_start();
  group g = {0};
  naps own, threads;
  group_go(&g, short_naps, &own);
  group_thread(&g, short_naps_of_a_thread, &threads);
  group_wait(&g);
  /* 20 us on a quiet machine; Go's bound is 1 ms.  One who sleeps and one who wakes it are two threads. */
  CHECK(median(&own) < patient(2 * MS) + 2 * median(&threads));
}

/* One long sleep must not cost processor time, whichever P its timer is in. */
static int64_t cpu_ns(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * (int64_t)1000000000 +
         (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000;
}

static void nap_after_work(void *arg) {
  gm_chan *c = arg;
  long v;
  gm_chan_recv(c, &v, -1);
  gm_sleep(100 * MS);
}

TEST(sleeping_costs_no_processor_time, .procs = "124") {
  runtime_start();
  gm_chan *c = gm_chan_make(8, 8);
  group g = {0};
  for (int i = 0; i < 8; i++) group_go(&g, nap_after_work, c);
  for (long i = 0; i < 8; i++) gm_chan_send(c, &i, -1);
  int64_t before = cpu_ns();
  group_wait(&g);
  CHECK(cpu_ns() - before < patient(50 * MS));
}

static void many_naps(void *arg) {
  rng r = rng_new();
  (void)arg;
  for (int i = 0; i < 20; i++) CHECK_EQ(gm_sleep(below(&r, 2 * MS)), GM_OK);
}

TEST(many_sleepers_all_wake, .procs = "124", .chaos = true) {
  runtime_start();
  group g = {0};
  for (int i = 0; i < MANY / 5; i++) group_go(&g, many_naps, NULL);
  group_wait(&g);
  for (int i = 0; i < sched.gomaxprocs; i++) CHECK_EQ(sched.allp[i]->timers.len, 0);
  CHECK(!timers_any());
}

/* A timer that nobody but a busy P could serve: sysmon does. */
static void hog(void *arg) {
  (void)arg;
  while (!load_rlx(&stop)) cpu_relax();
}
static void nap_beside_hog(void *arg) {
  gm_sleep(10 * MS);
  store_rlx(&stop, true); /* ends the hog: it never yields, so only another P lets this happen */
  (void)arg;
}

TEST(a_deadline_is_served_while_its_p_is_busy, .procs = "24") {
  runtime_start();
  group g = {0};
  group_go(&g, nap_beside_hog, NULL);
  os_usleep(2000);
  group_go(&g, hog, NULL);
  group_wait(&g);
}

/* ---- edges ------------------------------------------------------------------------------------------------ */

static void odd_times(void *arg) {
  (void)arg;
  CHECK_EQ(gm_sleep(0), GM_OK);
  CHECK_EQ(gm_sleep(-5), GM_OK);
  CHECK_EQ(gm_sleep(INT64_MIN), GM_OK);
  gm_chan *c = gm_chan_make(1, 0);
  CHECK_EQ(gm_chan_recv(c, NULL, 1), GM_TIMEOUT);
  CHECK_EQ(gm_chan_recv(c, NULL, 0), GM_WOULDBLOCK);
  gm_chan_free(c);
}

static void sleeps_for_ever(void *arg) {
  (void)arg;
  CHECK_EQ(gm_sleep(INT64_MAX), GM_CANCELLED);
}

TEST(odd_times_are_understood, .procs = "12") {
  runtime_start();
  in_goroutine(odd_times, NULL);
  group g = {0};
  group_go(&g, sleeps_for_ever, NULL);
  for (bool found = false; !found; os_usleep(100)) {
    uint32_t cursor = 0;
    for (G *gp; !found && (gp = allg_next(&cursor)) != NULL;)
      if (load_acq(&gp->status) == Gwaiting) gocancel(gp, false), found = true;
  }
  group_wait(&g);
}

TEST(ticks_are_nanoseconds) {
  time_init();
  /* Each look at one clock between two at the other: however long somebody else runs in between. */
  uint64_t a = cputicks();
  int64_t begin = nanotime();
  uint64_t b = cputicks();
  os_usleep(60000);
  uint64_t c = cputicks();
  int64_t ns = nanotime() - begin;
  uint64_t d = cputicks();
  CHECK(ticks_to_ns(c - b) < ns * 11 / 10);
  CHECK(ticks_to_ns(d - a) > ns * 9 / 10);
  CHECK_EQ(ticks_to_ns(0), 0);
}

/* ---- timers that are run while a goroutine parks ----------------------------------------------------------------- */

static gm_chan *over;
static _Atomic(G *) sleepers[2];
static _Atomic int napped;

static void naps_long(void *arg) {
  store_rel(&sleepers[(intptr_t)arg], self());
  CHECK_EQ(gm_sleep((int64_t)3600 * 1000 * MS), GM_OK);
  if (xadd(&napped, 1) + 1 == 2) gm_chan_close(over);
}

static bool sleeps_long(int i) {
  G *gp = load_acq(&sleepers[i]);
  return gp && load_acq(&gp->status) == Gwaiting;
}

/* As if there were no others. */
static void forget_idle_ms(void) {
  lock(&sched.lock);
  sched.midle = NULL;
  sched.nmidle = 0;
  unlock(&sched.lock);
}

/* Of two whose timers a pick finds due, the second wants an M, and there is none: a thread.  None is started with the
 * lock of the channel held (debug builds throw).  sysmon may be quicker, but not always. */
static void parks_when_due(void *arg) {
  (void)arg;
  for (intptr_t i = 0; i < 2; i++) { /* one by one: two would want an M at once */
    CHECK_EQ(gm_go(naps_long, (void *)i), GM_OK);
    gm_yield();
  }
  while (!sleeps_long(0) || !sleeps_long(1)) gm_yield();
  forget_idle_ms();
  for (int i = 0; i < 2; i++) {
    timer *t = &load_rlx(&sleepers[i])->timer;
    NEED(timer_del(t));
    timer_add(t->ts, t, 1); /* long ago */
  }
  getm()->p->picks = SCHED_TICK_GLOBAL - 1;
  long v;
  CHECK_EQ(gm_chan_recv(over, &v, -1), GM_CLOSED);
}

TEST(no_thread_is_started_below_a_lock, .procs = "2") {
  runtime_start();
  for (int i = 0; i < 10; i++) {
    over = gm_chan_make(8, 0);
    store_rlx(&napped, 0);
    for (int j = 0; j < 2; j++) store_rlx(&sleepers[j], (G *)NULL);
    in_goroutine(parks_when_due, NULL);
  }
}
