/* stubhost.c - see stubhost.h. */
#define _GNU_SOURCE
#include "stubhost.h"

#include <errno.h>
#include <semaphore.h>
#include <time.h>

typedef struct state {
  _Atomic bool attached; /* current on some thread: what where() reads */
  int pins;              /* C frames below the running goroutine */
  bool hidden;           /* it sleeps without its stack */
  bool bound;            /* has got a stack */
} state;

static noinline state **current_slot(void) {
  static __thread state *current;
  state **slot = &current;
  __asm__ volatile("" : "+r"(slot));
  return slot;
}
static noinline state *current(void) { return *current_slot(); }
static noinline void set_current(state *s) { *current_slot() = s; }

/* ---- the host lock ---------------------------------------------------------------------------------- */

enum { INTERVAL_NS = 1000000 }; /* before a waiter asks for the lock */

static struct {
  pthread_mutex_t mutex;
  pthread_cond_t freed, switched;
  _Atomic bool locked;
  _Atomic bool drop_request;
  _Atomic(state *) holder; /* who has it, or had it last */
  uint64_t switches;
} big;

__attribute__((constructor)) static void big_init(void) {
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_mutex_init(&big.mutex, NULL);
  pthread_cond_init(&big.freed, &attr);
  pthread_cond_init(&big.switched, &attr);
}

/* One interval of waiting for the lock. */
static void big_wait(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  ts.tv_nsec += INTERVAL_NS;
  if (ts.tv_nsec >= 1000000000) {
    ts.tv_sec++;
    ts.tv_nsec -= 1000000000;
  }
  uint64_t before = big.switches;
  int err = pthread_cond_timedwait(&big.freed, &big.mutex, &ts);
  if (err == ETIMEDOUT && load_rlx(&big.locked) && big.switches == before)
    store_rlx(&big.drop_request, true);
}

static void big_take(state *s) {
  pthread_mutex_lock(&big.mutex);
  while (load_rlx(&big.locked)) big_wait();
  store_rlx(&big.locked, true);
  if (load_rlx(&big.holder) != s) {
    store_rlx(&big.holder, s);
    big.switches++;
  }
  store_rlx(&big.drop_request, false);
  pthread_cond_broadcast(&big.switched);
  pthread_mutex_unlock(&big.mutex);
  CHECK(current() == NULL);
  CHECK(!load_rlx(&s->attached));
  set_current(s);
  store_rlx(&s->attached, true);
}

static state *big_drop(void) {
  state *s = current();
  CHECK(s && load_rlx(&s->attached) && load_rlx(&big.holder) == s && load_rlx(&big.locked));
  store_rlx(&s->attached, false);
  set_current(NULL);
  pthread_mutex_lock(&big.mutex);
  bool force = load_rlx(&big.drop_request);
  store_rlx(&big.locked, false);
  pthread_cond_signal(&big.freed);
  while (force && load_rlx(&big.drop_request) && load_rlx(&big.holder) == s)
    pthread_cond_wait(&big.switched, &big.mutex);
  pthread_mutex_unlock(&big.mutex);
  return s;
}

/* In a forked child, whose one thread has the lock in its hand.  What the parent's other threads were doing to it nobody
 * will finish: an M that waits for the lock has the mutex after each interval, for a look, or it has asked for the lock,
 * and the next drop waits until it has had it.  That drop is the child's first_m(), which waits for its M: it would hang
 * there, its M asleep and none of its goroutines made. */
static void big_afterfork(void) {
  NEED(current() && load_rlx(&big.locked) && load_rlx(&big.holder) == current());
  big_init();
  store_rlx(&big.drop_request, false);
}

/* ---- the table -------------------------------------------------------------------------------------- */

static state *state_new(void) { return calloc(1, sizeof(state)); }

/* So many Ms are refused a state. */
_Atomic int stub_no_m;
_Atomic int stub_m_inits; /* how many have begun */
_Atomic bool stub_m_waits; /* they go no further, and neither do those that end */
static bool stub_m_init(M *m) {
  xadd(&stub_m_inits, 1);
  while (load_rlx(&stub_m_waits)) os_usleep(100);
  if (load_rlx(&stub_no_m) > 0 && xadd(&stub_no_m, -1) > 0) return false;
  return (m->host = state_new()) != NULL;
}

static void stub_attach(M *m) {
  CHECK(getm() == m);
  big_take(m->host);
}

static void stub_detach(M *m) {
  CHECK(current() == m->host);
  big_drop();
}

static void stub_swap(M *m, G *from, G *to) {
  state *a = from ? from->host : m->host, *b = to ? to->host : m->host;
  CHECK(getm() == m);
  CHECK(current() == a && load_rlx(&big.holder) == a && load_rlx(&big.locked));
  CHECK(load_rlx(&a->attached) && !load_rlx(&b->attached) && !b->hidden);
  store_rlx(&a->attached, false);
  store_rlx(&b->attached, true);
  set_current(b);
  store_rlx(&big.holder, b); /* waiters for a forced switch wait for another holder than this one */
}

static bool stub_pinned(G *gp) { return ((state *)gp->host)->pins > 0; }

bool stub_no_state;
_Atomic uint32_t stub_states;
static bool stub_g_init(G *gp) {
  if (stub_no_state) return false;
  state *s = state_new();
  xadd(&stub_states, 1);
  store_rel(&gp->host, s); /* sysmon reads it through where() */
  return s != NULL;
}

static void stub_g_fini(G *gp) {
  state *s = gp->host;
  CHECK(s && !load_rlx(&s->attached) && !s->hidden && load_rlx(&big.locked));
  store_rlx(&gp->host, (void *)NULL);
  xadd(&stub_states, -1);
  free(s);
}

/* States move from goroutine to goroutine with their stacks: each is bound once. */
static void stub_g_bind(G *gp) {
  state *s = gp->host;
  CHECK(s && !s->bound && load_rlx(&big.locked));
  CHECK(gp->stk.lo < gp->stk.hi);
  s->bound = true;
}

static host_where stub_where(G *gp) {
  state *s = load_acq(&gp->host);
  return s && load_rlx(&s->attached) ? HOST_INSIDE : HOST_UNKNOWN;
}

/* Most tests have others look at what lies on a goroutine's stack. */
bool stub_private_stacks;
static char *stub_drowsy(G *gp) {
  state *s = gp->host;
  CHECK(load_rlx(&big.locked) && !load_rlx(&s->attached));
  return stub_private_stacks && s->bound && s->pins == 0 ? gp->stk.hi : NULL;
}

static void *stub_hide(G *gp) {
  state *s = gp->host;
  CHECK(load_rlx(&big.locked) && !s->hidden);
  s->hidden = true;
  return s;
}

static void stub_show(G *gp, void *hidden) {
  state *s = gp->host;
  CHECK(load_rlx(&big.locked) && s->hidden && hidden == s);
  s->hidden = false;
}

static bool stub_locked(void) { return load_rlx(&big.locked); }

_Atomic int stub_m_exits;
static void stub_m_exit(M *m) {
  xadd(&stub_m_exits, 1);
  while (load_rlx(&stub_m_waits)) os_usleep(100);
  free(m->host);
  m->host = NULL;
}

static void *stub_leave(void) { return big_drop(); }
static void stub_enter(void *s) { big_take(s); }
static void stub_dump(void) { runtime_dump(); }

/* ---- goroutines ------------------------------------------------------------------------------------- */

void hosted_check(void) {
  state *s = current();
  M *m = getm();
  CHECK(s && load_rlx(&s->attached) && load_rlx(&big.locked) && load_rlx(&big.holder) == s);
  if (!m || !s) return;
  G *gp = load_rlx(&m->curg);
  CHECK(gp && gp->host == s && gp->m == m);
  if (gp) CHECK_EQ(load_rlx(&gp->status), Grunning);
}

static host_after stub_lent(G *gp);

static host_after stub_main(G *gp) {
  job *j = gp->handle;
  CHECK(current() == gp->host && current()->bound && current()->pins == 0);
  hosted_check();
  j->fn(j->arg);
  hosted_check();
  gp->handle = NULL;
  atomic_fetch_and(&gp->wait, ~(WAIT_C | WAIT_I));
  j->done = true;
  host_after after = stub_lent(gp);
  waitq_wakeall(&j->joiners);
  return after;
}

static void start(job *j, G *gp) {
  goid_assign(gp, &sched.l.goidcache, &sched.l.goidcacheend);
  gp->runticks = 0;
  gp->handle = j;
  j->g = gp;
  inc_rlx(&counts.started);
  casgstatus(gp, Gdead, Grunnable);
  newproc_host(gp);
}

job *hosted_go(void (*fn)(void *), void *arg) {
  job *j = calloc(1, sizeof *j);
  G *gp = gfget_host();
  NEED(j && gp);
  j->fn = fn;
  j->arg = arg;
  start(j, gp);
  return j;
}

wake_t hosted_join(job *j) {
  while (!j->done) {
    wake_t r = waitq_wait(&j->joiners, waitReasonJoin, 0);
    if (r != WAKE_OK && r != WAKE_INTERRUPTED) return r;
  }
  free(j);
  return WAKE_OK;
}

void hosted_outside(bool out) {
  G *gp = load_rlx(&getm()->curg);
  if (out)
    big_drop();
  else
    big_take(gp->host);
}

void hosted_block(uint32_t us) {
  hosted_outside(true);
  os_usleep(us);
  hosted_outside(false);
}

void hosted_call(uint32_t us) {
  hosted_check();
  spin_ns((int64_t)us * 1000);
}

void hosted_tick(void) {
  if (load_rlx(&big.drop_request)) big_take(big_drop());
}

void hosted_pin(bool on) { current()->pins += on ? 1 : -1; }

/* ---- ordinary threads ------------------------------------------------------------------------------- */

static state *thread_state(void) {
  static __thread state *mine;
  if (!mine) mine = state_new();
  return mine;
}

void host_take(void) { big_take(thread_state()); }
void host_drop(void) { CHECK(big_drop() == thread_state()); }
bool host_asked(void) { return load_rlx(&big.drop_request); }

/* In the order of an interpreter: the handlers of pthread_atfork, then its own lock. */
pid_t host_fork(int seconds) {
  sched_fork_prepare();
  pid_t pid = fork();
  if (pid != 0) {
    sched_fork_parent();
    return pid;
  }
  watched(seconds);
  sched_fork_child();
  big_afterfork();
  return 0;
}

/* ---- run() ------------------------------------------------------------------------------------------ */

/* One at a time is enough here. */
static struct {
  _Atomic(M *) m;
  G *g;
  job *j;
  sem_t poke;
  _Atomic bool ended;
  _Atomic uint32_t epoch;
  bool dead;
} lent;

static void lent_left(G *gp) {
  (void)gp;
  store_rel(&lent.ended, true);
  sem_post(&lent.poke);
}

static host_after stub_lent(G *gp) {
  if (gp != lent.g) return NULL;
  if (gp->lockedm) unwire(gp);
  return lent_left;
}

static void stub_wake_lender(M *m) {
  CHECK(load_rlx(&lent.m) == m);
  sem_post(&lent.poke);
}

_Atomic uint32_t stub_asleep;
static void stub_all_asleep(unsigned epoch) {
  xadd(&stub_asleep, 1);
  store_rel(&lent.epoch, epoch);
  if (load_acq(&lent.m)) sem_post(&lent.poke);
}

static void judge(void) {
  uint32_t epoch = load_acq(&lent.epoch);
  if (!epoch || !sched_asleep(epoch)) return;
  big_take(load_rlx(&lent.m)->host);
  if (sched_asleep(epoch) && load_acq(&lent.g->status) == Gwaiting &&
      wait_claim_open(lent.g, WAKE_DEADLOCK)) {
    lent.dead = true;
    goready_hosted(lent.g);
  }
  big_drop();
}

bool hosted_run(void (*fn)(void *), void *arg) {
  job *j = calloc(1, sizeof *j);
  M *m = lender_m();
  NEED(j && m);
  sem_init(&lent.poke, 0, 0);
  store_rlx(&lent.ended, false);
  lent.dead = false;
  host_take();
  G *gp = lent.g = gmake_big(1 << 20);
  NEED(gp != NULL);
  gp->host = state_new();
  ((state *)gp->host)->bound = true;
  m->host = state_new();
  store_rel(&lent.m, m);
  j->fn = fn;
  j->arg = arg;
  start(j, gp);
  setm(m);
  host_drop();
  while (!load_acq(&lent.ended)) {
    if (load_acq(&m->wiredg)) {
      run_wired(m);
      continue;
    }
    while (sem_wait(&lent.poke) != 0) {
    }
    if (!load_acq(&lent.ended)) judge();
  }
  setm(NULL);
  store_rel(&lent.m, (M *)NULL);
  free(m->host);
  lender_m_free(m);
  free(j);
  return !lent.dead;
}

void hosted_lock_thread(void) {
  M *m = getm();
  G *gp = load_rlx(&m->curg);
  if (gp != lent.g) {
    wire(gp, m);
    return;
  }
  M *to = load_rlx(&lent.m);
  if (m == to) return;
  gp->lockedm = to;
  to->lockedg = gp;
  gosched();
  CHECK(getm() == to);
}

void hosted_unlock_thread(void) { unwire(load_rlx(&getm()->curg)); }

/* ---- start ------------------------------------------------------------------------------------------ */

static const host_t stub_host = {
    .stack_size = 4 << 20,
    .stack_top = 32 << 10,
    .m_init = stub_m_init,
    .attach = stub_attach,
    .detach = stub_detach,
    .swap = stub_swap,
    .pinned = stub_pinned,
    .main = stub_main,
    .g_init = stub_g_init,
    .g_fini = stub_g_fini,
    .g_bind = stub_g_bind,
    .where = stub_where,
    .locked = stub_locked,
    .m_exit = stub_m_exit,
    .leave = stub_leave,
    .enter = stub_enter,
    .wake_lender = stub_wake_lender,
    .all_asleep = stub_all_asleep,
    .drowsy = stub_drowsy,
    .hide = stub_hide,
    .show = stub_show,
    .dump = stub_dump,
};

void stub_start(void) {
  if (load_acq(&sched.started)) return;
  host = &stub_host;
  static state starter; /* it keeps others out */
  big_take(&starter);
  runtime_start();
  CHECK(big_drop() == &starter);
}
