/* fork_test.c - a forked child: the runtime starts anew there, whatever the parent's threads were doing. */
#include "stubhost.h"

#include <sys/wait.h>

static _Atomic bool stop;
static _Atomic long ran;
static void runs(void *arg) {
  (void)arg;
  xadd(&ran, 1);
}

static int status_of(pid_t pid) {
  int status;
  NEED(pid > 0 && waitpid(pid, &status, 0) == pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int in_forked_child(int (*fn)(void)) {
  host_take();
  pid_t pid = host_fork(10);
  if (pid == 0) _exit(fn());
  host_drop();
  return status_of(pid);
}

/* Nobody has stopped the world or taken a lock. */
static int in_unprepared_child(int (*fn)(void)) {
  pid_t pid = fork();
  if (pid != 0) return status_of(pid);
  watched(10);
  _exit(fn());
}

/* No thread of the parent may just be starting when it forks: ASan allocates at the start of a thread, and leaves the lock
 * of its allocator held in the child. */
static void wait_for_sysmon(void) {
  while (!load_rlx(&sched.sysmonwait)) os_usleep(100);
}

static void starts(void *arg) {
  for (int i = *(int *)arg; i > 0; i--) {
    NEED(gm_go(runs, NULL) == GM_OK);
    if (i % 100 == 0) gm_yield();
  }
}

static int child(void) {
  sched_afterfork(NULL);
  store_rlx(&ran, 0);
  if (!schedinit()) return 2;
  int n = 500;
  group g = {0};
  for (int i = 0; i < 3; i++) group_go(&g, starts, &n);
  group_wait(&g);
  while (load_rlx(&ran) < 3 * n) os_usleep(50);
  gm_chan *c = gm_chan_make(8, 0);
  if (gm_chan_recv(c, NULL, MS) != GM_TIMEOUT) return 3;
  return sched.gomaxprocs != 2;
}

/* The first two hold both Ms until both run. */
static void yields_on_both(void *arg) {
  (void)arg;
  xadd(&ran, 1);
  while (load_rlx(&ran) < 2) cpu_relax();
  while (!load_rlx(&stop)) gm_yield();
}

TEST(a_forked_child_has_a_fresh_runtime, .procs = "2") {
  stub_start();
  wait_for_sysmon();
  group g = {0};
  for (int i = 0; i < 5; i++) group_go(&g, yields_on_both, NULL);
  while (load_rlx(&ran) < 2) os_usleep(100);
  for (int i = 0; i < 5; i++) CHECK_EQ(in_forked_child(child), 0);
  store_rlx(&stop, true);
  group_wait(&g);
}

/* sysmon walks the table of Ms, also in the child: those whose threads are gone must not lead it to goroutines that
 * are gone as well, whose states a host has freed. */
static _Atomic int calling;
static void calls_until_stop(void *arg) {
  (void)arg;
  hosted_outside(true);
  xadd(&calling, 1);
  while (!load_rlx(&stop)) os_usleep(100);
  hosted_outside(false);
}

static int no_m_runs(void) {
  sched_afterfork(NULL);
  for (uint32_t i = 1; i <= sched.nextmid; i++) {
    M *m = sched.allm[i];
    if (load_rlx(&m->curg) || load_rlx(&m->wiredg) || m->p || m->lockedg) return (int)i;
  }
  return 0;
}

TEST(ms_of_the_parent_run_nothing_in_the_child, .procs = "2") {
  stub_start();
  job *j[3];
  host_take();
  for (int i = 0; i < 3; i++) j[i] = hosted_go(calls_until_stop, NULL);
  host_drop();
  while (load_rlx(&calling) < 3) os_usleep(100);
  wait_for_sysmon();
  CHECK_EQ(in_forked_child(no_m_runs), 0);
  store_rlx(&stop, true);
  host_take();
  for (int i = 0; i < 3; i++) CHECK_EQ(hosted_join(j[i]), WAKE_OK);
  host_drop();
}

/* ---- locks of threads that are not there ----------------------------------------------------------------------- */

static int child_of_a_child(void) {
  sched_afterfork(NULL);
  return in_unprepared_child(child);
}

TEST(a_child_forks_before_it_starts_anything, .procs = "2") {
  stub_start();
  wait_for_sysmon();
  CHECK_EQ(in_forked_child(child_of_a_child), 0);
}

static int child_stops_the_world(void) {
  int err = child();
  if (err) return err;
  for (uint32_t i = 1; i <= sched.nextmid; i++)
    if (!sched.allm[i]) return 4;
  return gomaxprocs_set(1) != 2;
}

/* It has just begun to enter an M into the table. */
static _Atomic bool locked;
static void locks_until_stop(void *arg) {
  (void)arg;
  sched_fork_prepare();
  sched.nextmid++;
  store_rel(&locked, true);
  while (!load_rlx(&stop)) os_usleep(100);
  sched.nextmid--;
  sched_fork_parent();
}

TEST(locks_that_a_thread_of_the_parent_holds, .procs = "2") {
  runtime_start();
  wait_for_sysmon();
  group g = {0};
  group_thread(&g, locks_until_stop, NULL);
  while (!load_acq(&locked)) os_usleep(100);
  CHECK_EQ(in_unprepared_child(child_stops_the_world), 0);
  store_rlx(&stop, true);
  group_wait(&g);
}

/* A fork after each instruction of what takes a lock: the child finds the lock held, and what it guards half changed.
 * None of these may allocate: fork takes the allocator's locks. */
static void registers(void *arg) {
  (void)arg;
  NEED(preempt_register(starts, (char *)starts + 1));
}

static void makes_g(void *arg) {
  (void)arg;
  NEED(gfget_native(NULL) != NULL);
}

static void makes_m(void *arg) {
  (void)arg;
  NEED(lender_m() != NULL);
}

static int takes_all(void) {
  sched_afterfork(NULL);
  for (int i = 0; i < STACK_CHUNK_SLOTS; i++) makes_g(NULL); /* more than are left */
  makes_m(NULL);
  registers(NULL);
  return 0;
}

static int failed;
static bool forks(int n) {
  (void)n;
  failed = in_unprepared_child(takes_all);
  return failed == 0;
}

TEST(a_fork_after_each_instruction, .seconds = 120) {
  void (*all[])(void *) = {registers, makes_m, makes_g};
  runtime_start();
  wait_for_sysmon();
  lender_m_free(lender_m());
  makes_g(NULL);
  for (size_t i = 0; i < nelem(all) && !failed; i++) stepwise(all[i], NULL, forks);
  CHECK_EQ(failed, 0);
}
