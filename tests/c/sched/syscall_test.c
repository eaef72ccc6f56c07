/* syscall_test.c - calls that block a thread, announced. */
#include "stubhost.h"

static void blocks(void *arg) {
  gm_enter_blocking();
  os_usleep((uint32_t)(intptr_t)arg);
  gm_exit_blocking();
}

TEST(blocked_goroutines_overlap, .procs = "124") {
  runtime_start();
  for (intptr_t n = 1; n <= 32; n *= 4) {
    group g = {0};
    store_rlx(&crew_inside, 0);
    for (int i = 0; i < n; i++) group_go(&g, blocks_with_crew, (void *)n);
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
