/* gmprt_test.c - the C interface: what its table holds, and how it takes wrong arguments. */
#include "test.h"

#include <errno.h>

static _Atomic int calls;
static void counted(void *arg) {
  xadd(&calls, (int)(intptr_t)arg);
}

TEST(the_table_is_complete) {
  const gm_api *api = gm_api_table();
  CHECK_EQ(api->version, GM_API_VERSION);
  CHECK_EQ(api->size, sizeof *api);
  CHECK(api == gm_api_table());
  void *const *entries = (void *const *)(const void *)&api->go;
  size_t n = (sizeof *api - offsetof(gm_api, go)) / sizeof *entries;
  for (size_t i = 0; i < n; i++) {
    CHECK(entries[i] != NULL);
    for (size_t k = 0; k < i; k++) CHECK(entries[i] != entries[k]);
  }
  CHECK(api->go == gm_go && api->exit_blocking == gm_exit_blocking);
  CHECK(api->chan_cap == gm_chan_cap && api->close == gm_close);
}

TEST(zeroed_objects_are_ready) {
  gm_mutex m;
  gm_sema s;
  memset(&m, 0, sizeof m);
  memset(&s, 0, sizeof s);
  CHECK(gm_mutex_trylock(&m));
  CHECK(gm_mutex_unlock(&m));
  gm_sema_release(&s, 1);
  CHECK_EQ(gm_sema_acquire(&s, 0), GM_OK);
}

TEST(go_starts_the_runtime, .procs = "12") {
  CHECK_EQ(gm_go(counted, (void *)1), GM_OK);
  while (load_rlx(&calls) == 0) os_usleep(100);
  CHECK_EQ(gm_start(), 0); /* once more does no harm */
  CHECK_EQ(gm_start(), 0);
}

static void many_ids(void *arg) {
  (void)arg;
  uint64_t id = gm_goid();
  CHECK(id > 0);
  gm_yield();
  CHECK_EQ(gm_goid(), id);
  gm_sleep(1000);
  CHECK_EQ(gm_goid(), id);
}

TEST(an_id_is_for_life, .procs = "14") {
  runtime_start();
  CHECK_EQ(gm_goid(), 0);
  group g = {0};
  for (int i = 0; i < 50; i++) group_go(&g, many_ids, NULL);
  group_wait(&g);
}

/* Time-outs: negative for ever, 0 poll, else nanoseconds; huge ones do not overflow. */
static void waits_huge(void *arg) {
  gm_chan *c = arg;
  long v = 0;
  CHECK_EQ(gm_chan_recv(c, &v, INT64_MAX), GM_OK);
  CHECK_EQ(v, 9);
  CHECK_EQ(gm_chan_recv(c, &v, INT64_MIN), GM_OK);
  CHECK_EQ(v, 9);
}

TEST(huge_time_outs_are_long, .procs = "2") {
  runtime_start();
  gm_chan *c = gm_chan_make(8, 0);
  group g = {0};
  group_go(&g, waits_huge, c);
  group_thread(&g, waits_huge, c);
  for (int i = 0; i < 4; i++) {
    os_usleep(2000);
    CHECK_EQ(gm_chan_send(c, &(long){9}, -1), GM_OK);
  }
  group_wait(&g);
}

TEST(blocking_calls_outside_a_goroutine_do_nothing) {
  gm_enter_blocking();
  gm_exit_blocking();
  runtime_start();
  gm_enter_blocking();
  gm_exit_blocking();
  CHECK_EQ(load_rlx(&sched.nblocked), 0);
}

TEST(every_wait_reason_has_a_word) {
  for (int i = 1; i < waitReasonCount; i++) {
    const char *name = waitreason_name((uint8_t)i);
    CHECK(name && *name && strcmp(name, "?") != 0);
  }
  CHECK(strcmp(waitreason_name(waitReasonCount), "?") == 0);
}
