/* start_test.c - a runtime that has stopped. */
#include "stubhost.h"

static _Atomic bool stop;

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
  CHECK_EQ(gm_go(tallies, NULL), GM_OK);    /* queued, never run: none starts */
  CHECK_EQ(count_ms(), 0);
  CHECK_EQ(load_rlx(&tally), 0);
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
  for (int i = 0; i < CREW; i++) group_go(&g, blocks_with_crew, (void *)(intptr_t)CREW);
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
