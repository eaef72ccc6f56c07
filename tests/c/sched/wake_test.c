/* wake_test.c - wakes that depend on who is quicker, and the last that goes to sleep. */
#include "stubhost.h"

static _Atomic bool stop;

/* All Ps idle, all Ms asleep on their notes, and no wake on its way: so it stays. */
static bool at_rest(void) {
  lock(&sched.lock);
  bool rest = sched.nmidle == sched.mcount && load_rlx(&sched.nmspinning) == 0 &&
              load_rlx(&sched.npidle) == (uint32_t)sched.gomaxprocs;
  unlock(&sched.lock);
  return rest;
}
static void wait_for_poller(void) {
  while (load_rlx(&sched.lastpoll) != 0) os_usleep(20);
}

static bool ms_asleep(void) {
  lock(&sched.lock);
  bool yes = sched.nmidle == sched.mcount && load_rlx(&sched.nmspinning) == 0;
  unlock(&sched.lock);
  return yes;
}

static P *mine; /* the only one */
static int leaves_at;
static uint64_t polls;

/* The M in the poller wakes after the n-th instruction, and has gone to sleep again before the next. */
static bool poller_wakes(int n) {
  if (n < leaves_at || load_rlx(&sched.lock.word)) return true;
  netpollbreak();
  while (!ms_asleep() && load_rlx(&counts.netpolls) == polls) os_usleep(20);
  return false;
}

static void hands_off(void *arg) {
  (void)arg;
  handoffp(mine);
}

static void waits_for_a_byte(void *arg) {
  char c;
  CHECK_EQ(gm_read(*(int *)arg, &c, 1), 1);
}

/* Whoever gives the only P away sees somebody in the poller, who leaves it meanwhile and finds no P.  Somebody must
 * sleep there again: the rest of this process would not hear of the byte. */
TEST(the_poller_is_not_left_in_a_hand_off, .procs = "1", .seconds = 60) {
  runtime_start();
  int fd[2];
  group g = {0};
  NEED(pipe(fd) == 0);
  group_go(&g, waits_for_a_byte, &fd[0]);
  bool orphaned = false;
  for (leaves_at = 1; leaves_at < 200 && !orphaned; leaves_at++) {
    wait_for_poller();
    while (!(mine = pidleget())) os_usleep(20);
    wait_for_poller();
    polls = load_rlx(&counts.netpolls);
    if (!stepwise(hands_off, NULL, poller_wakes)) {
      releasep_idle(mine);
      break;
    }
    while (load_rlx(&sched.lastpoll) != 0 && !orphaned) {
      orphaned = at_rest() && load_rlx(&sched.lastpoll) != 0;
      os_usleep(20);
    }
  }
  CHECK(!orphaned);
  NEED(write(fd[1], "x", 1) == 1);
  group_wait(&g);
}

/* One that wakes counts itself as spinning, and then finds no P, for one has been taken since it looked.  That one
 * becomes idle again, and another thread has work for it: it sees somebody spin, and wakes nobody. */
static int takes_at, pushes_at;
static bool pushed;
static bool takes_then_pushes(int n) {
  if (load_rlx(&sched.lock.word)) return true;
  if (!mine && n >= takes_at) mine = pidleget();
  if (n < pushes_at) return true;
  if (!mine) return false; /* the wake was quicker */
  releasep_idle(mine);
  CHECK_EQ(gm_go(tallies, NULL), GM_OK);
  pushed = true;
  return false;
}

static void wakes(void *arg) {
  (void)arg;
  wakep();
}

TEST(a_push_beside_a_vain_wake_is_not_forgotten, .procs = "1", .seconds = 60) {
  runtime_start();
  long due = 0;
  bool forgotten = false;
  for (int i = 0; i < 40 * 20 && !forgotten; i++) {
    takes_at = i / 20 + 1;
    pushes_at = takes_at + i % 20 * 2;
    while (!at_rest() || !load_rlx(&sched.sysmonwait)) os_usleep(20);
    mine = NULL;
    pushed = false;
    if (!stepwise(wakes, NULL, takes_then_pushes)) break;
    if (mine && !pushed) releasep_idle(mine);
    due += pushed;
    while (load_rlx(&tally) < due && !forgotten) {
      forgotten = at_rest() && load_rlx(&tally) < due;
      os_usleep(20);
    }
  }
  CHECK(!forgotten);
}

/* ---- all asleep ---------------------------------------------------------------------------------------------------- */

static gm_chan *chan;
static void waits(void *arg) {
  (void)arg;
  gm_chan_recv(chan, NULL, -1);
}

static void blocks_until_stop(void *arg) {
  (void)arg;
  gm_enter_blocking();
  while (!load_rlx(&stop)) os_usleep(100);
  gm_exit_blocking();
}

TEST(the_last_to_sleep_tells_the_host, .procs = "124", .chaos = true) {
  stub_start();
  chan = gm_chan_make(8, 0);
  for (int i = 0; i < 20; i++) {
    uint32_t before = load_rlx(&stub_asleep);
    group g = {0};
    group_go(&g, waits, NULL);
    group_go(&g, waits, NULL);
    uint32_t epoch = 0; /* it may have slept between the two, too */
    for (int k = 0; k < 3000; k++) {
      epoch = load_rlx(&sched.idle_epoch);
      if (load_rlx(&stub_asleep) != before && sched_asleep(epoch)) break;
      os_usleep(1000);
    }
    CHECK(load_rlx(&stub_asleep) != before);
    CHECK(sched_asleep(epoch));
    CHECK(!sched_asleep(epoch - 1));
    for (int k = 0; k < 2; k++) CHECK_EQ(gm_chan_send(chan, &(long){1}, -1), GM_OK);
    group_wait(&g);
  }
  while (!sched_asleep(load_rlx(&sched.idle_epoch))) os_usleep(1000);
  uint32_t before = load_rlx(&stub_asleep);
  group g = {0};
  group_go(&g, blocks_until_stop, NULL); /* blocked is not asleep */
  while (load_rlx(&sched.nblocked) == 0) os_usleep(100);
  os_usleep(15000);
  CHECK_EQ(load_rlx(&stub_asleep), before);
  store_rlx(&stop, true);
  group_wait(&g);
}
