/* find_test.c - every goroutine runs, wherever it was started, and idle threads wake for it. */
#include "stubhost.h"

#include <sys/socket.h>

static _Atomic bool stop;

static void starts(void *arg) {
  for (int i = *(int *)arg; i > 0; i--) {
    CHECK_EQ(gm_go(tallies, NULL), GM_OK);
    if (i % 100 == 0) gm_yield();
  }
}

TEST(every_goroutine_runs_once, .procs = "124", .chaos = true) {
  runtime_start();
  group g = {0};
  int n = MANY / 2;
  for (int i = 0; i < 3; i++) group_go(&g, starts, &n);
  for (int i = 0; i < 2; i++) group_thread(&g, starts, &n);
  group_wait(&g);
  tallied(5 * n);
}

static void branches(void *arg) {
  intptr_t depth = (intptr_t)arg;
  xadd(&tally, 1);
  if (depth == 0) return;
  CHECK_EQ(gm_go(branches, (void *)(depth - 1)), GM_OK);
  CHECK_EQ(gm_go(branches, (void *)(depth - 1)), GM_OK);
}

TEST(goroutines_start_goroutines, .procs = "124", .chaos = true) {
  runtime_start();
#ifdef GM_TSAN
  intptr_t depth = 9;
#else
  intptr_t depth = 15;
#endif
  CHECK_EQ(gm_go(branches, (void *)depth), GM_OK);
  tallied((2l << depth) - 1);
}

/* The runtime sleeps between two bursts: whoever pushes must wake it. */
TEST(idle_threads_wake_for_work, .procs = "124") {
  runtime_start();
  int64_t worst = 0;
  rng r = rng_new();
  long n = 0;
  for (int i = rounds(5000); i > 0; i--) {
    int64_t start = nanotime();
    CHECK_EQ(gm_go(tallies, NULL), GM_OK);
    n++;
    while (load_rlx(&tally) < n) cpu_relax();
    if (nanotime() - start > worst) worst = nanotime() - start;
    if (below(&r, 3)) spin_ns(below(&r, 60000)); /* until they sleep, or just before */
  }
  CHECK(worst < patient(1000 * (int64_t)MS));
}

static void answers(void *arg) {
  int fd = *(int *)arg;
  for (char c; gm_read(fd, &c, 1) == 1;) CHECK_EQ(gm_write(fd, &c, 1), 1);
}

/* Whose descriptor is ready runs on the M that slept in the poller: no other is woken for it. */
TEST(who_comes_out_of_the_poller_runs_what_is_ready, .procs = "1") {
  runtime_start();
  int fd[2];
  NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
  CHECK_EQ(gm_go(answers, &fd[1]), GM_OK);
  uint64_t before = 0;
  enum { N = 200 };
  for (int i = 0; i < N + 1; i++) {
    while (load_rlx(&sched.lastpoll) != 0 || netpoll_waiters() == 0) usleep(100);
    if (i == 1) before = load_rlx(&counts.wakes);
    char c = (char)i, back = 0;
    CHECK_EQ(write(fd[0], &c, 1), 1);
    CHECK_EQ(read(fd[0], &back, 1), 1);
    CHECK_EQ(back, c);
  }
  CHECK(load_rlx(&counts.wakes) - before < N / 2);
  shutdown(fd[0], SHUT_RDWR);
}

/* A goroutine that computes must not keep the others from running: they are stolen. */
static void hog(void *arg) {
  starts(arg);
  while (!load_rlx(&stop)) cpu_relax();
}

TEST(work_behind_a_hog_is_stolen, .procs = "24", .chaos = true) {
  runtime_start();
  int n = 600; /* more than the ring */
  group g = {0};
  group_go(&g, hog, &n);
  tallied(n);
  CHECK(load_rlx(&counts.stolen) > 0 || load_rlx(&counts.overflows) > 0);
  store_rlx(&stop, true);
  group_wait(&g);
}

/* One in runnext behind a hog: nobody is woken for it, sysmon has to see it. */
TEST(runnext_behind_a_hog_is_not_forgotten, .procs = "2") {
  runtime_start();
  int n = 1;
  for (int i = 0; i < 20; i++) {
    group g = {0};
    store_rlx(&stop, false);
    store_rlx(&tally, 0);
    group_go(&g, hog, &n);
    tallied(1);
    store_rlx(&stop, true);
    group_wait(&g);
  }
}
