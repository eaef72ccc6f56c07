/* park_test.c - one open, one claim, one push, one resume.
 *
 * A goroutine parks over and over; wakers, its deadline, cancels and interrupts race for each wait.  Every
 * wait must end exactly once, with the result of whoever claimed it, and a wait's late wakers must lose.
 * No stack may be entered while somebody still stands on it. */
#include "test.h"

#include <fenv.h>

/* One goroutine that parks, and the wait that is open now, for wakers to see. */
typedef struct parker {
  spinlock lock; /* unlocked by the lander, like a channel's */
  _Atomic(G *) g;
  _Atomic uint64_t seq; /* of the wait being prepared; 0: the end */
  _Atomic uint32_t on_stack;
  _Atomic long claims; /* won by wakers */
  long ok, timeouts, cancelled, interrupted;
  long n;
  int64_t timeout; /* most; 0: no deadline */
} parker;

static void unlock_parker(void *arg) { spin_unlock(&((parker *)arg)->lock); }

static wake_t park_once(parker *p, G *gp, int64_t deadline) {
  char canary[64];
  memset(canary, (int)(gp->goid & 0x7f), sizeof canary);
  spin_lock(&p->lock);
  store_rel(&p->seq, wait_next(gp));
  CHECK_EQ(xchg(&p->on_stack, 0), 1);
  wake_t r = gopark(unlock_parker, p, waitReasonSemacquire, deadline);
  CHECK_EQ(xchg(&p->on_stack, 1), 0); /* else two threads run on this stack */
  CHECK(load_rlx(&getm()->curg) == gp && gp->m == getm());
  for (size_t i = 0; i < sizeof canary; i++) CHECK_EQ(canary[i], (char)(gp->goid & 0x7f));
  return r;
}

static void count(parker *p, wake_t r) {
  if (r == WAKE_OK) p->ok++;
  else if (r == WAKE_TIMEOUT) p->timeouts++;
  else if (r == WAKE_CANCELLED) p->cancelled++;
  else if (r == WAKE_INTERRUPTED) p->interrupted++;
  else CHECK(!"a wait ended with a result that nobody gave");
}

static void park_many(void *arg) {
  parker *p = arg;
  G *gp = self();
  rng r = rng_new();
  store_rlx(&p->on_stack, 1);
  store_rel(&p->g, gp);
  for (long i = 0; i < p->n; i++) {
    int64_t deadline = p->timeout ? nanotime() + below(&r, (uint32_t)p->timeout) + 1 : 0;
    count(p, park_once(p, gp, deadline));
    CHECK(timer_del(&gp->timer) == false); /* gopark took it out, if it has not fired */
    if (below(&r, 8) == 0) gosched();
  }
  store_rel(&p->seq, 0);
  CHECK_EQ(p->ok, load_rlx(&p->claims));
  CHECK_EQ(p->ok + p->timeouts + p->cancelled + p->interrupted, p->n);
}

/* Wakes p: tries each wait that it sees, some of them late. */
static void claim(parker *p, G *gp, uint64_t seq, rng *r) {
  if (below(r, 4) == 0)
    for (uint32_t n = below(r, 200); n > 0; n--) cpu_relax();
  if (!wait_claim(gp, seq)) return;
  xadd(&p->claims, 1);
  gp->param = NULL;
  gp->wakeres = WAKE_OK;
  goready(gp);
}

static void waker(void *arg) {
  parker *p = arg;
  rng r = rng_new();
  bool goroutine = getm() != NULL;
  G *gp;
  while (!(gp = load_acq(&p->g))) goroutine ? gosched() : (void)sched_yield();
  for (uint64_t seq; (seq = load_acq(&p->seq)) != 0;) {
    claim(p, gp, seq, &r);
    if (below(&r, 4)) continue;
    goroutine ? gosched() : (void)sched_yield();
  }
}

static void race(long n, int64_t timeout, int goroutines, int threads, void (*third)(void *)) {
  runtime_start();
  parker p = {.lock = {.rank = rank_chan}, .n = n, .timeout = timeout};
  group g = {0};
  store_rlx(&p.seq, 1 << 30); /* none yet: claims nothing */
  group_go(&g, park_many, &p);
  for (int i = 0; i < goroutines; i++) group_go(&g, waker, &p);
  for (int i = 0; i < threads; i++) group_thread(&g, waker, &p);
  if (third) group_thread(&g, third, &p);
  group_wait(&g);
  if (timeout && n > 10000) CHECK(p.timeouts > 0);
  CHECK(p.ok > 0);
}

TEST(two_goroutines_wake_one, .procs = "124", .chaos = true, .seconds = 60) {
  race(rounds(100000), 0, 2, 0, NULL);
}
TEST(two_threads_wake_one, .procs = "124", .chaos = true, .seconds = 60) {
  race(rounds(6000), 0, 0, 2, NULL);
}
TEST(deadline_against_waker, .procs = "124", .chaos = true, .seconds = 60) {
  race(rounds(60000), 3000, 1, 0, NULL);
}
TEST(deadline_against_two_wakers, .procs = "24", .chaos = true, .seconds = 60) {
  race(rounds(30000), 20000, 1, 1, NULL);
}

/* Every cancel is delivered exactly once: to the wait that is open, or to the next. */
static void canceller(void *arg) {
  parker *p = arg;
  rng r = rng_new();
  G *gp;
  while (!(gp = load_acq(&p->g))) sched_yield();
  while (load_acq(&p->seq) != 0) {
    gocancel(gp, false);
    if (below(&r, 2)) gointerrupt(gp, false);
    os_usleep(1);
  }
}

TEST(cancel_against_waker, .procs = "124", .chaos = true, .seconds = 60) {
  race(rounds(60000), 0, 1, 0, canceller);
}
TEST(cancel_against_waker_and_deadline, .procs = "124", .chaos = true, .seconds = 60) {
  race(rounds(60000), 3000, 1, 0, canceller);
}

/* One at a time, acknowledged: sent == received, none lost and none doubled. */
typedef struct ledger {
  _Atomic(G *) g;
  _Atomic long received;
  long n;
} ledger;

static void receive_cancels(void *arg) {
  ledger *l = arg;
  rng r = rng_new();
  G *gp = self();
  store_rel(&l->g, gp);
  while (load_rlx(&l->received) < l->n) {
    wake_t res = gopark(NULL, NULL, waitReasonSleep, nanotime() + 1 + below(&r, 2000));
    if (res == WAKE_CANCELLED)
      xadd(&l->received, 1);
    else
      CHECK_EQ(res, WAKE_TIMEOUT);
  }
  CHECK_EQ(gopark(NULL, NULL, waitReasonSleep, nanotime() + MS), WAKE_TIMEOUT); /* no echo */
}

TEST(every_cancel_is_delivered_once, .procs = "124", .chaos = true, .seconds = 60) {
  runtime_start();
  ledger l = {.n = rounds(2500)};
  group g = {0};
  group_go(&g, receive_cancels, &l);
  G *gp;
  while (!(gp = load_acq(&l.g))) sched_yield();
  for (long i = 0; i < l.n; i++) {
    gocancel(gp, false);
    while (load_acq(&l.received) == i) sched_yield();
    CHECK_EQ(load_rlx(&l.received), i + 1);
  }
  group_wait(&g);
}

/* ---- pending before the park -------------------------------------------------------------------------- */

static _Atomic int unlocked;
static void note_unlock(void *arg) {
  (void)arg;
  xadd(&unlocked, 1);
}

static void cancel_first(void *arg) {
  (void)arg;
  G *gp = self();
  gocancel(gp, false);
  gocancel(gp, false); /* one pending cancel is all there can be */
  gointerrupt(gp, false);
  uint64_t linked = wait_next(gp);
  CHECK_EQ(gopark(note_unlock, NULL, waitReasonSleep, nanotime() + 1000 * (int64_t)MS), WAKE_CANCELLED);
  CHECK_EQ(load_rlx(&unlocked), 1);
  CHECK(gp->param == NULL);
  CHECK(!wait_claim(gp, linked));
  CHECK(!wait_claim_open(gp, WAKE_OK));
  CHECK_EQ(gopark(note_unlock, NULL, waitReasonSleep, 0), WAKE_INTERRUPTED);
  CHECK_EQ(gopark(note_unlock, NULL, waitReasonSleep, nanotime() + MS), WAKE_TIMEOUT);
  CHECK_EQ(load_rlx(&unlocked), 3);
}

TEST(a_pending_cancel_ends_the_next_park, .procs = "12", .chaos = true) {
  runtime_start();
  in_goroutine(cancel_first, NULL);
}

/* ---- switching ------------------------------------------------------------------------------------------ */

/* Each goroutine keeps values in callee-saved registers and a rounding mode of its own. */
static void keep_context(void *arg) {
  static const int modes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
  uintptr_t id = (uintptr_t)arg;
  int mode = modes[id % 4];
  fesetround(mode);
  volatile double three = 3.0;
  double third = 1.0 / three;
  uint64_t a = id * 3, b = id * 5, c = id * 7, d = id * 11, e = id * 13, f = id * 17;
  for (int i = rounds(5000); i > 0; i--) {
    gosched();
    a += id, b ^= a, c += b, d ^= c, e += d, f ^= e;
    __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f));
    if (fegetround() != mode || 1.0 / three != third) {
      CHECK(!"rounding mode lost");
      return;
    }
  }
  uint64_t a2 = id * 3, b2 = id * 5, c2 = id * 7, d2 = id * 11, e2 = id * 13, f2 = id * 17;
  for (int i = rounds(5000); i > 0; i--) a2 += id, b2 ^= a2, c2 += b2, d2 ^= c2, e2 += d2, f2 ^= e2;
  CHECK(a == a2 && b == b2 && c == c2 && d == d2 && e == e2 && f == f2);
  fesetround(FE_TONEAREST);
}

TEST(a_switch_keeps_registers_and_rounding_mode, .procs = "14", .chaos = true) {
  runtime_start();
  group g = {0};
  for (uintptr_t i = 0; i < 50; i++) group_go(&g, keep_context, (void *)i);
  group_wait(&g);
}

static _Atomic long turns[8];
static _Atomic bool stop;
static _Atomic size_t started;

static void yielder(void *arg) {
  _Atomic long *mine = arg;
  while (!load_rlx(&stop)) {
    inc_rlx(mine);
    gosched();
  }
}

static void yielder_of_eight(void *arg) {
  xadd(&started, 1);
  while (load_rlx(&started) < nelem(turns)) gosched();
  yielder(arg);
}

TEST(yielding_goroutines_take_turns, .procs = "1") {
  runtime_start();
  group g = {0};
  for (size_t i = 0; i < nelem(turns); i++) group_go(&g, yielder_of_eight, &turns[i]);
  while (load_rlx(&turns[0]) < 1000) os_usleep(1000);
  store_rlx(&stop, true);
  group_wait(&g);
  long least = load_rlx(&turns[0]), most = least;
  for (size_t i = 1; i < nelem(turns); i++) {
    long n = load_rlx(&turns[i]);
    if (n < least) least = n;
    if (n > most) most = n;
  }
  CHECK(least > 900);
  CHECK(most - least <= most / 100 + 5);
}

/* A pair that talks to each other through runnext must not starve a third. */
static gm_chan *forth, *back;

static void talk(void *arg) {
  long v = 0;
  while (!load_rlx(&stop)) {
    if (arg) gm_chan_send(forth, &v, -1), gm_chan_recv(back, &v, -1);
    else gm_chan_recv(forth, &v, -1), gm_chan_send(back, &v, -1);
  }
  gm_chan_close(forth);
  gm_chan_close(back);
}

TEST(a_talking_pair_does_not_starve_a_third, .procs = "1") {
  runtime_start();
  forth = gm_chan_make(8, 0);
  back = gm_chan_make(8, 0);
  group g = {0};
  group_go(&g, talk, NULL);
  group_go(&g, talk, &g);
  group_go(&g, yielder, &turns[0]);
  while (load_rlx(&turns[0]) < 5) os_usleep(1000); /* one turn a slice of 10 ms */
  store_rlx(&stop, true);
  group_wait(&g);
}

/* ---- many ------------------------------------------------------------------------------------------------- */

static gm_chan *ring[64];
static void pass_on(void *arg) {
  uintptr_t i = (uintptr_t)arg;
  for (long v;;) {
    if (gm_chan_recv(ring[i], &v, -1) != GM_OK) break;
    v--;
    if (v <= 0 || gm_chan_send(ring[(i + 1) % nelem(ring)], &v, -1) != GM_OK) break;
  }
  gm_chan_close(ring[(i + 1) % nelem(ring)]);
}

TEST(tokens_run_round_a_ring, .procs = "124", .chaos = true, .seconds = 60) {
  runtime_start();
  for (size_t i = 0; i < nelem(ring); i++) ring[i] = gm_chan_make(sizeof(long), 0);
  group g = {0};
  for (uintptr_t i = 0; i < nelem(ring); i++) group_go(&g, pass_on, (void *)i);
  long v = rounds(500000);
  CHECK_EQ(gm_chan_send(ring[0], &v, -1), GM_OK);
  group_wait(&g);
}
