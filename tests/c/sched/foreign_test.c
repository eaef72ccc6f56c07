/* foreign_test.c - ordinary threads in the queues of the runtime: deadlines, signals, ends of threads. */
#include "stubhost.h"

#include <errno.h>
#include <limits.h>
#include <semaphore.h>
#include <signal.h>

/* ---- senders and receivers with time-outs ---------------------------------------------------------------- */

static gm_chan *chan;
static _Atomic long sent, received;
static _Atomic int senders;
static int each;

static void hasty_sender(void *arg) {
  rng r = rng_new();
  for (long i = 1; i <= each;) {
    gm_result res = gm_chan_send(chan, &i, below(&r, 4) ? (int64_t)below(&r, 100000) : -1);
    if (res == GM_OK) i++, xadd(&sent, 1);
    else CHECK(res == GM_TIMEOUT || res == GM_WOULDBLOCK);
  }
  if (xadd(&senders, -1) == 1) CHECK_EQ(gm_chan_close(chan), GM_OK);
  (void)arg;
}

static void hasty_receiver(void *arg) {
  rng r = rng_new();
  for (;;) {
    long v = 0;
    gm_result res = gm_chan_recv(chan, &v, below(&r, 4) ? (int64_t)below(&r, 100000) : -1);
    if (res == GM_CLOSED) break;
    if (res == GM_OK) CHECK(v > 0), xadd(&received, 1);
    else CHECK(res == GM_TIMEOUT || res == GM_WOULDBLOCK);
  }
  (void)arg;
}

static void crowd(size_t capacity, int threads, int goroutines) {
  chan = gm_chan_make(8, capacity);
  each = rounds(3000);
  store_rlx(&senders, threads + goroutines);
  group g = {0};
  for (int i = 0; i < threads; i++) group_thread(&g, hasty_sender, NULL), group_thread(&g, hasty_receiver, NULL);
  for (int i = 0; i < goroutines; i++) group_go(&g, hasty_sender, NULL), group_go(&g, hasty_receiver, NULL);
  group_wait(&g);
  CHECK_EQ(load_rlx(&sent), load_rlx(&received));
  CHECK_EQ(foreign_waiting(NULL, NULL), 0);
  gm_chan_free(chan);
}

TEST(threads_with_time_outs, .procs = "14", .chaos = true, .seconds = 60) {
  runtime_start();
  crowd(0, 3, 0);
  crowd(2, 3, 0);
  crowd(0, 2, 2);
}

TEST(threads_need_no_runtime) { /* gm_start was never called */
  crowd(0, 2, 0);
  CHECK(!load_rlx(&sched.started));
}

/* ---- time-outs of single waits ----------------------------------------------------------------------------- */

TEST(a_time_out_is_neither_early_nor_late) {
  runtime_start();
  chan = gm_chan_make(8, 0);
  int64_t quickest = INT64_MAX; /* of ten: a busy machine is late now and then */
  for (int i = 0; i < 10; i++) {
    int64_t start = nanotime();
    CHECK_EQ(gm_chan_recv(chan, NULL, 5 * MS), GM_TIMEOUT);
    int64_t took = nanotime() - start;
    CHECK(took >= 5 * MS);
    if (took < quickest) quickest = took;
  }
  CHECK(quickest < patient(200 * MS));
  int64_t start = nanotime();
  CHECK_EQ(gm_sleep(5 * MS), GM_OK);
  CHECK(nanotime() - start >= 5 * MS);
  gm_yield();
}

/* ---- signals ------------------------------------------------------------------------------------------------ */

static _Atomic long signals;
static void count_signal(int sig) {
  (void)sig;
  xadd(&signals, 1);
}

static pthread_t victims[2];
static long sums[2];
static _Atomic int nvictims;
static _Atomic bool stop;

static void shooter(void *arg) {
  (void)arg;
  while (load_acq(&nvictims) < 2) sched_yield();
  while (!load_rlx(&stop)) {
    pthread_kill(victims[0], SIGUSR1);
    pthread_kill(victims[1], SIGUSR1);
    os_usleep(20);
  }
}

static void shot_receiver(void *arg) {
  long *sum = arg;
  victims[sum - sums] = pthread_self();
  xadd(&nvictims, 1);
  for (long v; gm_chan_recv(chan, &v, -1) == GM_OK;) *sum += v;
  gm_mutex m = {0};
  gm_sema s = {0};
  gm_result r;
  CHECK(gm_mutex_trylock(&m));
  CHECK_EQ(gm_mutex_lock(&m, 5 * MS), GM_TIMEOUT);
  CHECK_EQ(gm_sema_acquire(&s, 5 * MS), GM_TIMEOUT);
  CHECK_EQ(gm_select(&(gm_case){0}, 1, 5 * MS, &r), -1);
  CHECK_EQ(r, GM_TIMEOUT);
  CHECK_EQ(gm_sleep(5 * MS), GM_OK);
}

static void slow_sender(void *arg) {
  for (long i = 1; i <= *(long *)arg; i++) {
    if (i % 16 == 0) gm_sleep(50000);
    CHECK_EQ(gm_chan_send(chan, &i, -1), GM_OK);
  }
  gm_chan_close(chan);
}

static void under_fire(void (*start_sender)(group *, void (*)(void *), void *)) {
  struct sigaction sa = {.sa_handler = count_signal}; /* no SA_RESTART */
  sigaction(SIGUSR1, &sa, NULL);
  chan = gm_chan_make(8, 0);
  group g = {0}, victim = {0};
  long n = rounds(5000);
  for (int i = 0; i < 2; i++) group_thread(&victim, shot_receiver, &sums[i]);
  group_thread(&g, shooter, NULL);
  start_sender(&g, slow_sender, &n);
  for (int i = 1; i >= 0; i--) pthread_join(victim.thread[i], NULL);
  store_rlx(&stop, true);
  group_wait(&g);
  CHECK_EQ(sums[0] + sums[1], n * (n + 1) / 2);
  CHECK(load_rlx(&signals) > 0);
}

TEST(signals_interrupt_no_wait, .chaos = true) {
  runtime_start();
  under_fire(group_go);
}
TEST(signals_interrupt_no_wait_before_the_start) { under_fire(group_thread); }

/* A host is told of the signal: WAKE_INTERRUPTED, once, and the wait can go on. */
static pthread_t waiter_thread;
static _Atomic int interrupted;
static hchan hosted_chan;

static void hosted_waiter(void *arg) {
  (void)arg;
  uint64_t v = 0;
  wake_t r;
  waiter_thread = pthread_self();
  host_take();
  while ((r = chanrecv(&hosted_chan, &v, true, 0, true)) == WAKE_INTERRUPTED) xadd(&interrupted, 1);
  host_drop();
  CHECK_EQ(r, WAKE_OK);
  CHECK_EQ(v, 42);
}

TEST(a_host_hears_of_signals) {
  struct sigaction sa = {.sa_handler = count_signal};
  sigaction(SIGUSR1, &sa, NULL);
  stub_start();
  NEED(chan_init(&hosted_chan, 8, 0, true));
  group g = {0};
  group_thread(&g, hosted_waiter, NULL);
  while (foreign_waiting(NULL, NULL) == 0) os_usleep(100);
  while (load_rlx(&interrupted) == 0) { /* one that comes before the thread sleeps is not heard */
    pthread_kill(waiter_thread, SIGUSR1);
    os_usleep(100);
  }
  while (foreign_waiting(NULL, NULL) == 0) os_usleep(100);
  host_take();
  CHECK_EQ(chansend(&hosted_chan, &(uint64_t){42}, false, 0, true), WAKE_OK);
  host_drop();
  group_wait(&g);
  CHECK(load_rlx(&signals) >= 1);
}

/* ---- threads come and go -------------------------------------------------------------------------------------- */

static G *record[2];
static void one_wait(void *arg) {
  CHECK_EQ(gm_chan_recv(chan, NULL, 1), GM_TIMEOUT);
  *(G **)arg = getg(false);
  CHECK_EQ(record[0]->kind, GK_FOREIGN);
}

TEST(the_record_of_an_ended_thread_is_used_again) {
  runtime_start();
  chan = gm_chan_make(8, 0);
  group g = {0};
  for (int i = 0; i < 2; i++) {
    group_thread(&g, one_wait, &record[i]);
    group_wait(&g);
  }
  CHECK(record[0] == record[1]);
  CHECK_EQ(load_acq(&record[0]->status), Gdead);
}

static void short_life(void *arg) {
  long v = 1;
  if (arg) gm_chan_send(chan, &v, -1);
  else gm_chan_recv(chan, &v, -1);
}

TEST(many_short_threads) {
  runtime_start();
  chan = gm_chan_make(8, 0);
  for (int i = rounds(200); i > 0; i--) {
    group g = {0};
    for (int k = 0; k < 4; k++) group_thread(&g, short_life, k % 2 ? &g : NULL);
    group_wait(&g);
  }
}

/* ---- who waits -------------------------------------------------------------------------------------------------- */

static void wait_long(void *arg) { gm_chan_recv(chan, NULL, arg ? 1000 * (int64_t)MS : -1); }
static void count_waiter(G *gp, void *arg) {
  CHECK_EQ(load_rlx(&gp->reason), waitReasonChanReceive);
  ++*(int *)arg;
}

TEST(threads_that_wait_for_ever_are_counted) {
  runtime_start();
  chan = gm_chan_make(8, 0);
  group g = {0};
  for (int i = 0; i < 3; i++) group_thread(&g, wait_long, NULL);
  group_thread(&g, wait_long, &g); /* has a deadline: does not count */
  while (foreign_waiting(NULL, NULL) < 3) os_usleep(1000);
  os_usleep(5000);
  int n = 0;
  CHECK_EQ(foreign_waiting(count_waiter, &n), 3);
  CHECK_EQ(n, 3);
  gm_chan_close(chan);
  group_wait(&g);
  CHECK_EQ(foreign_waiting(NULL, NULL), 0);
}

/* A hosted goroutine that waits for a native channel has dropped the host lock: others run meanwhile. */
static long from_native;
static void crosses_over(void *arg) {
  (void)arg;
  hosted_outside(true);
  CHECK_EQ(gm_chan_recv(chan, &from_native, -1), GM_OK);
  hosted_outside(false);
}
static _Atomic bool other_ran;
static void sends_to_native(void *arg) {
  (void)arg;
  for (int i = 0; i < 1000 && !load_rlx(&other_ran); i++) CHECK_EQ(gm_sleep(3 * MS), GM_OK);
  CHECK(load_rlx(&other_ran));
  CHECK_EQ(gm_chan_send(chan, &(long){5}, -1), GM_OK);
}
static void other(void *arg) {
  (void)arg;
  store_rlx(&other_ran, true);
}

TEST(a_hosted_goroutine_may_wait_for_a_native_channel, .procs = "12", .chaos = true) {
  stub_start();
  chan = gm_chan_make(8, 0);
  host_take();
  job *j = hosted_go(crosses_over, NULL), *k = hosted_go(other, NULL);
  group g = {0};
  group_go(&g, sends_to_native, NULL);
  CHECK_EQ(hosted_join(j), WAKE_OK);
  CHECK_EQ(hosted_join(k), WAKE_OK);
  host_drop();
  group_wait(&g);
  CHECK_EQ(from_native, 5);
}

/* ---- records --------------------------------------------------------------------------------------------- */

static pthread_key_t late; /* its destructor runs after the runtime's own */
static G *records[3];
static sem_t ending, taken, both;

static void late_wait(void *arg) {
  (void)arg;
  sem_post(&ending);
  sem_wait(&taken);
  records[0] = foreign_g();
  sem_post(&both);
  CHECK_EQ(gm_chan_recv(chan, &(long){0}, 1000), GM_TIMEOUT);
}

static void *waits_in_a_destructor(void *arg) {
  NEED(foreign_g());
  NEED(pthread_key_create(&late, late_wait) == 0);
  NEED(pthread_setspecific(late, &late) == 0);
  return arg;
}

static void *takes_a_record(void *arg) {
  *(G **)arg = foreign_g();
  sem_post(&taken);
  sem_wait(&both);
  CHECK_EQ(gm_chan_recv(chan, &(long){0}, 1000), GM_TIMEOUT);
  return NULL;
}

TEST(a_thread_that_waits_in_a_destructor_shares_no_record) {
  chan = gm_chan_make(8, 0);
  sem_init(&ending, 0, 0);
  sem_init(&taken, 0, 0);
  sem_init(&both, 0, 0);
  pthread_t first, second;
  NEED(foreign_g());
  pthread_create(&first, NULL, waits_in_a_destructor, NULL);
  sem_wait(&ending);
  pthread_create(&second, NULL, takes_a_record, &records[1]);
  pthread_join(first, NULL);
  pthread_join(second, NULL);
  NEED(records[0] && records[1]);
  CHECK(records[0] != records[1]);
  sem_post(&both);
  pthread_create(&first, NULL, takes_a_record, &records[2]); /* both were given back */
  pthread_join(first, NULL);
  CHECK(records[2] == records[0] || records[2] == records[1]);
}

TEST(without_a_key_no_thread_waits_and_no_other_key_suffers) {
  static pthread_key_t keys[PTHREAD_KEYS_MAX];
  uintptr_t n = 0;
  while (n < nelem(keys) && pthread_key_create(&keys[n], NULL) == 0) n++;
  for (uintptr_t i = 0; i < n; i++) pthread_setspecific(keys[i], (void *)(i + 1));
  chan = gm_chan_make(8, 0);
  CHECK_EQ(gm_chan_recv(chan, &(long){0}, 1000), GM_NOMEM);
  for (uintptr_t i = 0; i < n; i++) CHECK(pthread_getspecific(keys[i]) == (void *)(i + 1));
  pthread_key_delete(keys[n - 1]);
  CHECK_EQ(gm_chan_recv(chan, &(long){0}, 1000), GM_TIMEOUT);
}
