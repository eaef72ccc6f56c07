/* sema_test.c - semaphores, Go's Mutex, and the broadcast queues of the host. */
#include "stubhost.h"

/* ---- semaphores ------------------------------------------------------------------------------------------ */

static void one_thread(void *arg) {
  gm_sema s = {0};
  CHECK_EQ(gm_sema_acquire(&s, 0), GM_WOULDBLOCK);
  CHECK_EQ(gm_sema_acquire(&s, MS), GM_TIMEOUT);
  gm_sema_release(&s, 3);
  gm_sema_release(&s, 0);
  for (int i = 0; i < 3; i++) CHECK_EQ(gm_sema_acquire(&s, -1), GM_OK);
  CHECK_EQ(gm_sema_acquire(&s, 0), GM_WOULDBLOCK);
  (void)arg;
}

TEST(a_semaphore_counts, .procs = "12") {
  runtime_start();
  one_thread(NULL);
  in_goroutine(one_thread, NULL);
}

/* First come, first served. */
enum { QUEUE = 20 };
static gm_sema line;
static int served[QUEUE];
static _Atomic int nserved, queued;

static void stand_in_line(void *arg) {
  xadd(&queued, 1);
  CHECK_EQ(gm_sema_acquire(&line, -1), GM_OK);
  served[xadd(&nserved, 1)] = (int)(intptr_t)arg;
}

static uint32_t standing(void) {
  sema *s = (sema *)&line;
  uint32_t n = 0;
  spin_lock(&s->lock);
  for (sudog *sg = s->q.first; sg; sg = sg->next) n++;
  spin_unlock(&s->lock);
  return n;
}

TEST(waiters_are_served_in_order, .procs = "1", .chaos = true) {
  runtime_start();
  group g = {0};
  for (intptr_t i = 0; i < QUEUE; i++) { /* goroutines and threads in one queue */
    (i % 5 == 4 ? group_thread : group_go)(&g, stand_in_line, (void *)i);
    while (standing() != (uint32_t)i + 1) os_usleep(100);
  }
  for (int i = 0; i < QUEUE; i++) {
    gm_sema_release(&line, 1);
    while (load_rlx(&nserved) != i + 1) os_usleep(100);
  }
  group_wait(&g);
  for (int i = 0; i < QUEUE; i++) CHECK_EQ(served[i], i);
}

/* As many units come out as went in, whatever deadlines and cancels do. */
typedef struct units {
  sema s;
  _Atomic long given, taken;
  _Atomic int running;
  _Atomic(G *) g[4];
  _Atomic uint32_t next;
  int n;
} units;

static void hasty_taker(void *arg) {
  units *u = arg;
  rng r = rng_new();
  if (getm()) store_rel(&u->g[xadd(&u->next, 1) % 4], self());
  for (int i = u->n; i > 0; i--) {
    int64_t deadline = below(&r, 3) ? nanotime() + below(&r, 10000) : 0;
    wake_t w = semacquire(&u->s, waitReasonSemacquire, deadline || below(&r, 2), deadline ? deadline : 1);
    if (w == WAKE_OK) xadd(&u->taken, 1);
  }
  xadd(&u->running, -1);
}

static void giver(void *arg) {
  units *u = arg;
  rng r = rng_new();
  while (load_rlx(&u->running) > 0) {
    uint32_t n = below(&r, 3);
    if (load_rlx(&u->given) - load_rlx(&u->taken) < 5) {
      xadd(&u->given, n);
      semrelease(&u->s, n);
    }
    if (getm()) gosched();
    G *gp = load_acq(&u->g[below(&r, 4)]);
    if (gp && below(&r, 10) == 0) gocancel(gp, false);
  }
}

TEST(units_are_kept_count_of, .procs = "124", .chaos = true) {
  runtime_start();
  units u = {.running = 5, .n = rounds(20000)};
  group g = {0};
  for (int i = 0; i < 4; i++) group_go(&g, hasty_taker, &u);
  group_thread(&g, hasty_taker, &u);
  group_go(&g, giver, &u);
  group_thread(&g, giver, &u);
  group_wait(&g);
  CHECK_EQ(load_rlx(&u.given), load_rlx(&u.taken) + u.s.value);
  CHECK(!u.s.q.first);
  CHECK(load_rlx(&u.taken) > 0);
}

/* ---- Mutex ---------------------------------------------------------------------------------------------- */

static void mutex_alone(void *arg) {
  gm_mutex m = {0};
  CHECK(gm_mutex_trylock(&m));
  CHECK(!gm_mutex_trylock(&m));
  CHECK_EQ(gm_mutex_lock(&m, 0), GM_WOULDBLOCK);
  CHECK_EQ(gm_mutex_lock(&m, MS), GM_TIMEOUT);
  CHECK(gm_mutex_unlock(&m));
  CHECK(!gm_mutex_unlock(&m)); /* not locked */
  CHECK_EQ(gm_mutex_lock(&m, -1), GM_OK);
  CHECK(gm_mutex_unlock(&m));
  CHECK_EQ(m.state, 0);
  (void)arg;
}

TEST(a_mutex_is_locked_or_not, .procs = "12") {
  runtime_start();
  mutex_alone(NULL);
  in_goroutine(mutex_alone, NULL);
}

typedef struct guarded {
  gomutex m;
  long n, count; /* plain */
  _Atomic int inside;
  _Atomic long timeouts;
  bool impatient;
} guarded;

static void lock_and_count(void *arg) {
  guarded *x = arg;
  rng r = rng_new();
  for (long i = 0; i < x->n; i++) {
    for (;;) {
      int64_t deadline = x->impatient && below(&r, 2) ? nanotime() + below(&r, 30000) : 0;
      wake_t w = gomutex_lock(&x->m, !x->impatient || below(&r, 4), deadline);
      if (w == WAKE_OK) break;
      CHECK(w == WAKE_TIMEOUT || w == WAKE_WOULDBLOCK || w == WAKE_INTERRUPTED);
      xadd(&x->timeouts, 1);
      if (w == WAKE_WOULDBLOCK && getm()) gosched();
    }
    CHECK_EQ(xadd(&x->inside, 1), 0);
    x->count++;
    if (below(&r, 50) == 0 && getm()) gosched(); /* others come to wait */
    if (below(&r, 2000) == 0 && getm()) timesleep(2 * MS); /* ... and starve */
    xadd(&x->inside, -1);
    CHECK(gomutex_unlock(&x->m));
  }
}

static void check_guarded(guarded *x, int users) {
  CHECK_EQ(x->count, x->n * users);
  CHECK_EQ(load_rlx(&x->m.state), 0);
  CHECK(!x->m.q.first);
}

static void exclusion(bool impatient, long n, int goroutines, int threads) {
  guarded x = {.n = n, .impatient = impatient};
  group g = {0};
  for (int i = 0; i < goroutines; i++) group_go(&g, lock_and_count, &x);
  for (int i = 0; i < threads; i++) group_thread(&g, lock_and_count, &x);
  group_wait(&g);
  check_guarded(&x, goroutines + threads);
}

TEST(a_mutex_excludes_goroutines, .procs = "124", .chaos = true, .seconds = 60) {
  runtime_start();
  exclusion(false, rounds(4000), 6, 0);
  exclusion(true, rounds(2000), 6, 0);
}

TEST(a_mutex_excludes_threads_and_goroutines, .procs = "14", .chaos = true, .seconds = 60) {
  runtime_start();
  exclusion(false, rounds(1000), 2, 3);
  exclusion(true, rounds(1000), 2, 3);
}

TEST(a_hosted_mutex_excludes, .procs = "14", .chaos = true, .seconds = 60) {
  stub_start();
  guarded x = {.n = rounds(3000), .impatient = true, .m.hosted = true};
  job *j[6];
  host_take();
  for (int i = 0; i < 6; i++) j[i] = hosted_go(lock_and_count, &x);
  for (int i = 0; i < 6; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  host_drop();
  check_guarded(&x, 6);
}

/* One that locks, unlocks and locks again at once must not starve a waiter (Go: 1 ms, then hand-over). */
static gm_mutex wanted;
static _Atomic bool stop;
static _Atomic long greedy_rounds;

static void greedy(void *arg) {
  (void)arg;
  while (!load_rlx(&stop)) {
    CHECK_EQ(gm_mutex_lock(&wanted, -1), GM_OK);
    spin_ns(200000);
    xadd(&greedy_rounds, 1);
    CHECK(gm_mutex_unlock(&wanted));
  }
}

static void modest(void *arg) {
  (void)arg;
  for (int i = 0; i < 10; i++) {
    CHECK_EQ(gm_mutex_lock(&wanted, -1), GM_OK);
    CHECK(gm_mutex_unlock(&wanted));
    gm_sleep(MS);
  }
  store_rlx(&stop, true);
}

TEST(a_waiter_does_not_starve, .procs = "24") { /* one P would never let it try */
  runtime_start();
  group g = {0};
  group_go(&g, greedy, NULL);
  group_go(&g, greedy, NULL);
  group_go(&g, modest, NULL);
  group_wait(&g);
  CHECK(load_rlx(&greedy_rounds) < patient(10000)); /* 2 s of its life */
  CHECK_EQ(((gomutex *)&wanted)->state, 0);
}

/* The modes, one step at a time, in one goroutine and a half. */
static gomutex stepped;
static _Atomic int steps;
static void waits_for_stepped(void *arg) {
  (void)arg;
  CHECK_EQ(gomutex_lock(&stepped, true, 0), WAKE_OK);
  xadd(&steps, 1);
}

static void starving(void *arg) {
  (void)arg;
  CHECK_EQ(gomutex_lock(&stepped, true, 0), WAKE_OK);
  CHECK_EQ(gm_go(waits_for_stepped, NULL), GM_OK);
  CHECK_EQ(gm_go(waits_for_stepped, NULL), GM_OK);
  while (!stepped.q.first || !stepped.q.first->next) gosched();
  CHECK_EQ(load_rlx(&stepped.state), mutexLocked | mutexWaiters);
  spin_ns(2 * MS);
  CHECK(gomutex_unlock(&stepped)); /* normal mode: wakes the first ... */
  CHECK_EQ(load_rlx(&stepped.state), mutexWaiters | mutexWoken);
  CHECK_EQ(gomutex_lock(&stepped, true, 0), WAKE_OK); /* ... which comes too late */
  gosched();
  CHECK_EQ(load_rlx(&stepped.state), mutexLocked | mutexWaiters | mutexStarving);
  CHECK_EQ(gomutex_lock(&stepped, false, 0), WAKE_WOULDBLOCK);
  CHECK(gomutex_unlock(&stepped)); /* handed over, although it has not run yet */
  CHECK_EQ(load_rlx(&stepped.state), mutexLocked | mutexWaiters | mutexStarving);
  CHECK_EQ(gomutex_lock(&stepped, false, 0), WAKE_WOULDBLOCK);
  gosched();
  CHECK_EQ(load_rlx(&steps), 1);
  CHECK(gomutex_unlock(&stepped)); /* the last waiter: starvation ends */
  gosched();
  CHECK_EQ(load_rlx(&steps), 2);
  CHECK_EQ(load_rlx(&stepped.state), mutexLocked);
  CHECK(gomutex_unlock(&stepped));
  CHECK_EQ(load_rlx(&stepped.state), 0);
}

TEST(a_starving_waiter_is_handed_the_mutex, .procs = "1") {
  runtime_start();
  in_goroutine(starving, NULL);
}

/* ---- broadcast ------------------------------------------------------------------------------------------- */

static _Atomic int joined;
static void ends_late(void *arg) {
  (void)arg;
  timesleep(2 * MS);
}
static waitq crowd;
static _Atomic int waiting_crowd;
static void waits_in_crowd(void *arg) {
  bool hasty = arg != NULL;
  if (!getm()) host_take();
  xadd(&waiting_crowd, 1);
  wake_t r;
  do r = waitq_wait(&crowd, waitReasonJoin, hasty ? nanotime() + MS : 0);
  while (r == WAKE_INTERRUPTED);
  CHECK_EQ(r, hasty ? WAKE_TIMEOUT : WAKE_OK);
  xadd(&joined, 1);
  if (!getm()) host_drop();
}

TEST(a_broadcast_wakes_all_who_wait, .procs = "12", .chaos = true) {
  stub_start();
  group g = {0};
  job *j[20];
  host_take();
  for (int i = 0; i < 20; i++) j[i] = hosted_go(waits_in_crowd, i % 4 ? NULL : &g);
  for (int i = 0; i < 4; i++) group_thread(&g, waits_in_crowd, i % 2 ? NULL : &g);
  while (load_rlx(&waiting_crowd) < 24 || load_rlx(&joined) < 7) host_drop(), os_usleep(100), host_take();
  waitq_wakeall(&crowd);
  for (int i = 0; i < 20; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  CHECK_EQ(hosted_join(hosted_go(ends_late, NULL)), WAKE_OK);
  CHECK(!crowd.first);
  host_drop();
  group_wait(&g);
  CHECK_EQ(load_rlx(&joined), 24);
}
