/* lock_test.c - the runtime's own locks, their ranks, notes, and throw(). */
#include "test.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

/* ---- exclusion -------------------------------------------------------------------------------------- */

static spinlock spin;
static mutex mu;
static long counted; /* plain: thread sanitizer sees a hole in the exclusion, and so does the sum */

static void with_spin(void *arg) {
  for (int i = *(int *)arg; i > 0; i--) {
    spin_lock(&spin);
    counted++;
    spin_unlock(&spin);
  }
}

static void with_mutex(void *arg) {
  rng r = rng_new();
  for (int i = *(int *)arg; i > 0; i--) {
    if (i % 3 || !trylock(&mu)) lock(&mu);
    counted++;
    if (below(&r, 1000) == 0) os_usleep(10); /* others go to sleep */
    unlock(&mu);
  }
}

static void four_threads(void (*fn)(void *), int n) {
  group g = {0};
  counted = 0;
  for (int i = 0; i < 4; i++) group_thread(&g, fn, &n);
  group_wait(&g);
  CHECK_EQ(counted, 4 * n);
}

TEST(spinlock_excludes) { four_threads(with_spin, rounds(500000)); }
/* C code on another thread may be about to read it. */
TEST(sleeping_leaves_errno_alone) {
  _Atomic uint32_t word = 0;
  note n = {0};
  errno = 77;
  futexsleep(&word, 1, -1);
  futexsleep(&word, 0, 1000);
  futexwakeup(&word, 1);
  CHECK(!notetsleep(&n, 1000));
  CHECK_EQ(errno, 77);
}

TEST(mutex_excludes) { four_threads(with_mutex, rounds(200000)); }

TEST(trylock_of_a_held_mutex_fails) {
  CHECK(trylock(&mu));
  CHECK(!trylock(&mu));
  unlock(&mu);
  CHECK(trylock(&mu));
  unlock(&mu);
}

/* ---- notes ------------------------------------------------------------------------------------------ */

static note ping, pong;

static void note_echo(void *arg) {
  for (int i = *(int *)arg; i > 0; i--) {
    notesleep(&ping);
    noteclear(&ping);
    notewakeup(&pong);
  }
}

TEST(notes_wake_once_each) {
  group g = {0};
  int n = rounds(50000);
  group_thread(&g, note_echo, &n);
  for (int i = 0; i < n; i++) {
    notewakeup(&ping);
    notesleep(&pong);
    noteclear(&pong);
  }
  group_wait(&g);
}

TEST(note_sleep_times_out) {
  int64_t start = nanotime();
  CHECK(!notetsleep(&ping, 5 * MS));
  CHECK(nanotime() - start >= 5 * MS);
  notewakeup(&ping);
  CHECK(notetsleep(&ping, 5 * MS));
  CHECK(notetsleep(&ping, -1));
}

/* ---- throw ------------------------------------------------------------------------------------------ */

static void throws(void *arg) {
  (void)arg;
  throw("the sky is %s", "green");
}

CRASH(throw_in_a_goroutine) {
  runtime_start();
  in_goroutine(throws, NULL);
}
CRASH(throw_in_a_thread) { gm_assert(1 + 1 == 3); }

TEST(throw_says_what_where_and_who) {
  char out[4096];
  int status = crash("throw_in_a_goroutine", out, sizeof out);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  CHECK(strstr(out, "fatal: gmprt: the sky is green\n"));
  CHECK(strstr(out, "lock_test.c:"));
  CHECK(strstr(out, "on goroutine 1 "));
  CHECK(strstr(out, "status running"));
  CHECK(strstr(out, ", M "));
  status = crash("throw_in_a_thread", out, sizeof out);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  CHECK(strstr(out, "assertion failed: 1 + 1 == 3\n"));
  CHECK(strstr(out, "on no goroutine"));
}

/* ---- ranks: debug builds ---------------------------------------------------------------------------- */

#ifdef GM_DEBUG
static spinlock chans[2] = {{.rank = rank_chan}, {.rank = rank_chan}};
static spinlock heap = {.rank = rank_timers};
static mutex scheduler = {.rank = rank_sched};

CRASH(ranks_in_the_wrong_order) {
  lock(&scheduler);
  spin_lock(&heap);
}
CRASH(equal_ranks_by_falling_address) {
  spin_lock(&chans[1]);
  spin_lock(&chans[0]);
}
CRASH(same_lock_twice) {
  spin_lock(&heap);
  spin_lock(&heap);
}
CRASH(unlock_of_a_free_lock) { spin_unlock(&heap); }

static void dies_with(const char *name, const char *words) {
  char out[4096];
  int status = crash(name, out, sizeof out);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  CHECK(strstr(out, words));
}

TEST(broken_lock_order_is_noticed) {
  dies_with("ranks_in_the_wrong_order", "lock rank 5 taken while holding rank 7");
  dies_with("equal_ranks_by_falling_address", "lock rank 3 taken while holding rank 3");
  dies_with("same_lock_twice", "lock rank 5 taken while holding rank 5");
  dies_with("unlock_of_a_free_lock", "unlock of a lock that is not held");
}

TEST(right_lock_order_is_not) {
  spin_lock(&chans[0]);
  spin_lock(&chans[1]);
  spin_lock(&heap);
  lock(&scheduler);
  spin_unlock(&chans[0]); /* in any order */
  unlock(&scheduler);
  spin_unlock(&heap);
  spin_unlock(&chans[1]);
  spin_lock(&heap);
  spin_unlock(&heap);
}
#endif
