/* g_test.c - the pools of dead goroutines, and their ids. */
#include "test.h"

static void nothing(void *arg) { (void)arg; }

static uint32_t count_gs(uint32_t status) {
  uint32_t cursor = 0, n = 0;
  for (G *gp; (gp = allg_next(&cursor)) != NULL;) n += load_acq(&gp->status) == status;
  return n;
}

/* ---- reuse ------------------------------------------------------------------------------------------ */

TEST(dead_goroutines_are_used_again, .procs = "14") {
  runtime_start();
  group g = {0};
  for (int round = 0; round < 20; round++) {
    for (int i = 0; i < 300; i++) group_go(&g, nothing, NULL);
    group_wait(&g);
  }
  CHECK(count_gs(Gdead) + count_gs(Grunning) <= 700); /* not 6000: some lie in the pools of other Ps */
}

TEST(a_full_pool_gives_half_to_the_depot, .procs = "1") {
  runtime_start();
  stoptheworld();
  P *pp = sched.allp[0];
  uint32_t had = pp->ngfree + sched.ngfree;
  G *list = NULL;
  for (int i = 0; i < GFREE_LOCAL + 10; i++) {
    G *gp = gfget_native(pp);
    NEED(gp != NULL);
    gp->schedlink = list;
    list = gp;
  }
  CHECK(pp->ngfree < GFREE_LOCAL);
  while (list) {
    G *gp = list;
    list = gp->schedlink;
    gfput_native(pp, gp);
  }
  CHECK(pp->ngfree < GFREE_LOCAL);
  CHECK(sched.ngfree >= GFREE_LOCAL / 2);
  CHECK(pp->ngfree + sched.ngfree >= had + GFREE_LOCAL - 10);
  starttheworld();
}

/* ---- ids -------------------------------------------------------------------------------------------- */

enum { IDS = 3000 };
static _Atomic uint8_t seen[16 * IDS];

static void note_id(void *arg) {
  (void)arg;
  uint64_t id = gm_goid();
  CHECK(id > 0 && id < nelem(seen));
  if (id < nelem(seen)) CHECK_EQ(xchg(&seen[id], 1), 0);
}

static void spawn_some(void *arg) {
  group g = {0};
  for (int i = 0; i < IDS / 6; i++) group_go(&g, note_id, NULL);
  group_wait(&g);
  (void)arg;
}

TEST(ids_are_unique, .procs = "14", .chaos = true) {
  runtime_start();
  CHECK_EQ(gm_goid(), 0);
  group g = {0};
  for (int i = 0; i < 2; i++) group_go(&g, spawn_some, NULL);
  for (int i = 0; i < 2; i++) group_thread(&g, spawn_some, NULL);
  group_wait(&g);
}
