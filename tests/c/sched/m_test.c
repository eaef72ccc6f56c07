/* m_test.c - threads: not too many of them, and none that nobody needs. */
#include "stubhost.h"

static void blocks(void *us) {
  gm_enter_blocking();
  os_usleep((uint32_t)(intptr_t)us);
  gm_exit_blocking();
}

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

TEST(idle_threads_end, .procs = "2") {
  runtime_start();
  enum { CREW = 12 };
  for (int round = 0; round < 3; round++) {
    group g = {0};
    store_rlx(&crew_inside, 0);
    for (int i = 0; i < CREW; i++) group_go(&g, blocks_with_crew, (void *)(intptr_t)CREW);
    group_wait(&g);
    CHECK(count_ms() >= CREW);
    while (count_ms() > 3) { /* two are kept, one may sleep in the poller */
      mreap_idle(nanotime() + 11 * 1000000000ll); /* as if eleven seconds had passed */
      os_usleep(1000);
    }
    in_goroutine(tallies, NULL);
  }
  CHECK(load_rlx(&counts.mreaped) >= 20);
}
