/* hibernate_test.c - goroutines that sleep without a stack: what was on it is there again, whenever they are woken. */
#include "sched/hibernate.h"
#include "stubhost.h"

#if !defined(GM_TSAN) && !defined(GM_ASAN)

enum { CROWD = 300, WORDS = 40, ROUNDS = 1000 };

static hchan gate;
static _Atomic long served;

static uint64_t sum_of(const uint64_t *words) {
  uint64_t sum = 0;
  for (int i = 0; i < WORDS; i++) sum = sum * 31 + words[i];
  return sum;
}

/* Waits with a pattern on its stack, until it gets 0. */
static void waits(void *arg) {
  uint64_t words[WORDS], got = 1;
  rng r = rng_new();
  (void)arg;
  while (got) {
    for (int i = 0; i < WORDS; i++) words[i] = below(&r, 1u << 30);
    uint64_t before = sum_of(words), *volatile at = words;
    CHECK_EQ(chanrecv(&gate, &got, true, 0, true), WAKE_OK);
    CHECK(at == words && sum_of(words) == before);
    hosted_check();
    inc_rlx(&served);
  }
}

static void start_crowd(job **jobs) {
  NEED(chan_init(&gate, 8, 0, true));
  stub_private_stacks = true;
  for (int i = 0; i < CROWD; i++) jobs[i] = hosted_go(waits, NULL);
}

static void end_crowd(job **jobs) {
  uint64_t end = 0;
  for (int i = 0; i < CROWD; i++) CHECK_EQ(chansend(&gate, &end, true, 0, true), WAKE_OK);
  for (int i = 0; i < CROWD; i++) CHECK_EQ(hosted_join(jobs[i]), WAKE_OK);
  CHECK_EQ(load_rlx(&hibernating), 0);
  CHECK_EQ(load_rlx(&hibernated_bytes), 0);
}

static void all_sleep_and_wake(void *arg) {
  static job *jobs[CROWD];
  (void)arg;
  start_crowd(jobs);
  while (load_rlx(&hibernating) < CROWD) timesleep(10000000);
  CHECK(load_rlx(&hibernations) >= CROWD);
  end_crowd(jobs);
}

TEST(a_crowd_falls_asleep_and_wakes, .procs = "124") {
  stub_start();
  CHECK(hosted_run(all_sleep_and_wake, NULL));
}

/* With chaos they fall asleep at once: wakes meet every stage of it. */
static void storm(void *arg) {
  static job *jobs[CROWD];
  rng r = rng_new();
  (void)arg;
  chaos_on = true;
  start_crowd(jobs);
  for (int round = 0; round < ROUNDS; round++) {
    for (uint64_t i = below(&r, CROWD); i > 0; i--) CHECK_EQ(chansend(&gate, &i, true, 0, true), WAKE_OK);
    if (below(&r, 2)) timesleep(below(&r, 3000000));
    if (below(&r, 20) == 0) rouse_all();
  }
  CHECK(load_rlx(&rousings) > 0);
  end_crowd(jobs);
}

TEST(wakes_meet_every_stage, .procs = "124", .seconds = 60) {
  stub_start();
  CHECK(hosted_run(storm, NULL));
}

/* A native channel reads and writes the stack of who waits. */
static hchan native;
static void waits_natively(void *arg) {
  uint64_t got = 0;
  (void)arg;
  CHECK_EQ(chanrecv(&native, &got, true, 0, true), WAKE_OK);
  CHECK_EQ(got, 77);
}

static void lent_element(void *arg) {
  static job *jobs[CROWD];
  (void)arg;
  NEED(chan_init(&native, 8, 0, false));
  job *j = hosted_go(waits_natively, NULL);
  while (load_rlx(&j->g->status) != Gwaiting) gosched();
  start_crowd(jobs);
  while (load_rlx(&hibernating) < CROWD) timesleep(10000000);
  CHECK(!j->g->saved && j->g->judged);
  uint64_t value = 77;
  CHECK_EQ(chansend(&native, &value, true, 0, true), WAKE_OK);
  CHECK_EQ(hosted_join(j), WAKE_OK);
  end_crowd(jobs);
}

TEST(who_lends_an_element_keeps_its_stack, .procs = "2") {
  stub_start();
  CHECK(hosted_run(lent_element, NULL));
}

#endif
