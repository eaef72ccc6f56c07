/* runq_test.c - the ring of a P, runnext, the global queue, and thieves.
 *
 * The runtime is not started: Ps and Gs are bare structs, so that the rings can be driven into every
 * corner and each goroutine be counted. */
#include "test.h"

static P ps[4];
static G gs[4 * RUNQ_SIZE];
static __thread bool inherit;

static void setup(int procs) {
  for (int i = 0; i < procs; i++) {
    ps[i].id = (uint32_t)i;
    sched.allp[i] = &ps[i];
  }
  sched.gomaxprocs = procs;
  for (size_t i = 0; i < nelem(gs); i++) gs[i].goid = i;
}

static long long get(P *pp) {
  G *gp = runqget(pp, &inherit);
  return gp ? (long long)gp->goid : -1;
}

/* Returns the goid, or -1. */
static long long global_get(P *pp, uint32_t max) {
  lock(&sched.lock);
  G *gp = globrunqget(pp, max);
  unlock(&sched.lock);
  return gp ? (long long)gp->goid : -1;
}

TEST(ring_is_first_in_first_out) {
  setup(1);
  for (int lap = 0; lap < 5; lap++) { /* the indices wrap */
    for (int i = 0; i < RUNQ_SIZE; i++) runqput(&ps[0], &gs[i], false);
    CHECK(!runqempty(&ps[0]));
    for (int i = 0; i < RUNQ_SIZE; i++) CHECK_EQ(get(&ps[0]), i);
    CHECK_EQ(get(&ps[0]), -1);
    CHECK(!inherit);
    CHECK(runqempty(&ps[0]));
    runqput(&ps[0], &gs[0], false);
    CHECK_EQ(get(&ps[0]), 0);
  }
}

TEST(runnext_comes_first_and_kicks_the_former_to_the_tail) {
  setup(1);
  runqput(&ps[0], &gs[0], false);
  runqput(&ps[0], &gs[1], true);
  runqput(&ps[0], &gs[2], true);
  CHECK_EQ(get(&ps[0]), 2);
  CHECK(inherit);
  CHECK_EQ(get(&ps[0]), 0);
  CHECK(!inherit);
  CHECK_EQ(get(&ps[0]), 1);
}

TEST(runnext_goes_to_the_tail_when_the_slice_is_over) {
  setup(1);
  runqput(&ps[0], &gs[0], false);
  runqput(&ps[0], &gs[1], true);
  store_rlx(&ps[0].expired, true);
  CHECK_EQ(get(&ps[0]), 0);
  CHECK(!load_rlx(&ps[0].expired));
  CHECK_EQ(get(&ps[0]), 1);
}

TEST(a_full_ring_sends_its_older_half_to_the_global_queue) {
  setup(1);
  for (int i = 0; i <= RUNQ_SIZE; i++) runqput(&ps[0], &gs[i], false);
  CHECK_EQ(sched.runqsize, RUNQ_SIZE / 2 + 1);
  CHECK_EQ(load_rlx(&counts.overflows), 1);
  for (int i = RUNQ_SIZE / 2; i < RUNQ_SIZE; i++) CHECK_EQ(get(&ps[0]), i);
  CHECK_EQ(get(&ps[0]), -1);
  for (int i = 0; i < RUNQ_SIZE / 2; i++) CHECK_EQ(global_get(&ps[0], 1), i);
  CHECK_EQ(global_get(&ps[0], 1), RUNQ_SIZE); /* the newcomer */
  CHECK_EQ(global_get(&ps[0], 1), -1);
  CHECK(!sched.runqhead && !sched.runqtail);
}

TEST(global_queue_is_shared_out_among_the_ps) {
  setup(4);
  lock(&sched.lock);
  for (int i = 0; i < 600; i++) globrunqput(&gs[i]);
  unlock(&sched.lock);
  CHECK_EQ(global_get(&ps[0], GLOBAL_BATCH), 0); /* 600 / 4 + 1, but no more than a batch */
  CHECK_EQ(sched.runqsize, 600 - GLOBAL_BATCH);
  for (int i = 1; i < GLOBAL_BATCH; i++) CHECK_EQ(get(&ps[0]), i);
  CHECK_EQ(get(&ps[0]), -1);
  CHECK_EQ(global_get(&ps[1], 10), GLOBAL_BATCH);
  for (int i = 1; i < 10; i++) CHECK_EQ(get(&ps[1]), GLOBAL_BATCH + i);
  long left = 600 - GLOBAL_BATCH - 10, seen = 0;
  while (global_get(&ps[2], GLOBAL_BATCH) >= 0) {
    for (seen++; get(&ps[2]) >= 0;) seen++;
  }
  CHECK_EQ(seen, left);
  CHECK_EQ(sched.runqsize, 0);
  CHECK(!sched.runqhead && !sched.runqtail);
}

TEST(a_dying_p_gives_all_it_has_to_the_global_queue) {
  setup(1);
  for (int i = 0; i < 10; i++) runqput(&ps[0], &gs[i], i == 9);
  store_rlx(&ps[0].expired, true);
  lock(&sched.lock);
  runqdrain(&ps[0]);
  unlock(&sched.lock);
  CHECK(runqempty(&ps[0]));
  CHECK_EQ(sched.runqsize, 10);
}

TEST(a_thief_takes_the_older_half) {
  setup(2);
  CHECK(!runqsteal(&ps[1], &ps[0], true));
  for (int i = 0; i < 7; i++) runqput(&ps[0], &gs[i], false);
  G *gp = runqsteal(&ps[1], &ps[0], false);
  NEED(gp);
  CHECK_EQ(gp->goid, 3); /* the last of the four stolen; the others wait in the thief's ring */
  for (int i = 0; i < 3; i++) CHECK_EQ(get(&ps[1]), i);
  for (int i = 4; i < 7; i++) CHECK_EQ(get(&ps[0]), i);
  CHECK_EQ(load_rlx(&counts.stolen), 4);
}

TEST(a_thief_takes_runnext_only_if_told_and_only_from_an_empty_ring) {
  setup(2);
  runqput(&ps[0], &gs[0], true);
  CHECK(!runqsteal(&ps[1], &ps[0], false));
  CHECK(runqsteal(&ps[1], &ps[0], true) == &gs[0]);
  CHECK(runqempty(&ps[0]));
  runqput(&ps[0], &gs[0], true);
  runqput(&ps[0], &gs[1], false);
  CHECK(runqsteal(&ps[1], &ps[0], true) == &gs[1]);
  CHECK_EQ(get(&ps[0]), 0);
}

/* ---- many at once ------------------------------------------------------------------------------------ */

/* Every goroutine is in one queue or in one hand: `out` is set by whoever takes it, cleared by whoever
 * puts it back. */
static _Atomic uint32_t out[nelem(gs)];
static _Atomic uint64_t taken;
static _Atomic bool stop;

static void take(G *gp) {
  CHECK_EQ(xchg(&out[gp - gs], 1), 0);
  xadd(&taken, 1);
}
static void put(P *pp, G *gp, bool next) {
  CHECK_EQ(xchg(&out[gp - gs], 0), 1);
  runqput(pp, gp, next);
}

/* One P's life: runs what it has, steals, puts back; long queues and short ones by turns. */
static void owner(void *arg) {
  P *pp = arg;
  rng r = rng_new();
  G *hand[RUNQ_SIZE + 64];
  uint32_t n = 0;
  while (!load_rlx(&stop)) {
    uint32_t most = below(&r, 4) ? below(&r, 8) + 1 : nelem(hand);
    while (n < most) {
      G *gp = runqget(pp, &inherit);
      if (!gp) gp = runqsteal(pp, &ps[below(&r, (uint32_t)sched.gomaxprocs)], below(&r, 2));
      if (!gp && load_rlx(&sched.runqsize) > 0) {
        lock(&sched.lock);
        gp = globrunqget(pp, GLOBAL_BATCH);
        unlock(&sched.lock);
      }
      if (!gp) break;
      take(gp);
      hand[n++] = gp;
    }
    while (n > 0) {
      put(pp, hand[--n], below(&r, 3) == 0);
      if (below(&r, 100) == 0) store_rlx(&pp->expired, true);
    }
  }
}

static void no_goroutine_is_lost_or_taken_twice(int procs, size_t ngs) {
  setup(procs);
  for (size_t i = 0; i < ngs; i++) runqput(&ps[0], &gs[i], false);
  group g = {0};
  for (int i = 0; i < procs; i++) group_thread(&g, owner, &ps[i]);
  uint64_t want = (uint64_t)rounds(4000000);
  while (load_rlx(&taken) < want) os_usleep(1000);
  store_rlx(&stop, true);
  group_wait(&g);
  size_t left = 0;
  for (int i = 0; i < procs; i++)
    while (get(&ps[i]) >= 0) left++;
  while (global_get(&ps[0], GLOBAL_BATCH) >= 0)
    for (left++; get(&ps[0]) >= 0;) left++;
  CHECK_EQ(left, ngs);
  CHECK(load_rlx(&counts.steals) > 0 || ngs < 4);
}

TEST(thieves_few_goroutines) { no_goroutine_is_lost_or_taken_twice(4, 3); }
TEST(thieves_half_a_ring) { no_goroutine_is_lost_or_taken_twice(4, RUNQ_SIZE / 2); }
TEST(thieves_overflowing_rings) { no_goroutine_is_lost_or_taken_twice(3, nelem(gs)); }

/* runqempty() must not be fooled by a runnext on its way to the tail. */
static void looker(void *arg) {
  (void)arg;
  while (!load_rlx(&stop)) CHECK(!runqempty(&ps[0]));
}

TEST(a_ring_with_work_never_looks_empty) {
  setup(1);
  runqput(&ps[0], &gs[0], true);
  group g = {0};
  group_thread(&g, looker, NULL);
  for (int i = rounds(2000000); i > 0; i--) {
    runqput(&ps[0], &gs[i % 2], true); /* two of them are there for a moment, one always */
    runqget(&ps[0], &inherit);
    if (i % 2) continue;
    runqput(&ps[0], &gs[2], false);
    runqget(&ps[0], &inherit);
  }
  store_rlx(&stop, true);
  group_wait(&g);
}
