/* hook_sem.c - the semaphores that locks are made of, and a look at who waits for the GIL.
 *
 * A lock of the interpreter (Lock, RLock, and all that is built on them) is a semaphore of the C library.  A
 * goroutine that would block in one waits by its address (semaroot.c), in the same queue whatever the
 * lock is called in Python; ordinary threads wait in the kernel as ever.
 *
 * A semaphore that has a name (multiprocessing) may be posted by other processes, of which we hear
 * nothing: its waits are handed off, after a short while of trying again.  The thread then waits in
 * slices, between which it looks whether the goroutine has been cancelled. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>

#include "interpose.h"

/* ---- semaphores that other processes may post ------------------------------------------------------------ */

enum { NAMED_MAX = 4096, NAMED_TRIES = 10, NAMED_PAUSE_NS = 100000, NAMED_SLICE_NS = 20000000 };

static struct {
  spinlock lock; /* guards the rest; n is read without it */
  _Atomic uint32_t n;
  sem_t *at[NAMED_MAX];
} named = {.lock = {.rank = rank_stack}};

static void named_add(sem_t *s) {
  spin_lock(&named.lock);
  uint32_t n = load_rlx(&named.n);
  if (n < NAMED_MAX) {
    named.at[n] = s;
    store_rlx(&named.n, n + 1);
  }
  spin_unlock(&named.lock);
}

static bool is_named(sem_t *s) {
  if (likely(load_rlx(&named.n) == 0)) return false;
  bool found = false;
  spin_lock(&named.lock);
  for (uint32_t i = 0; i < load_rlx(&named.n); i++) found |= named.at[i] == s;
  spin_unlock(&named.lock);
  return found;
}

sem_t *hook_sem_open(const char *name, int flags, mode_t mode, unsigned value) {
  sem_t *s = real.sem_open(name, flags, mode, value);
  if (s != SEM_FAILED) named_add(s);
  return s;
}

int hook_sem_close(sem_t *s) {
  spin_lock(&named.lock);
  for (uint32_t i = 0, n = load_rlx(&named.n); i < n; i++) {
    if (named.at[i] != s) continue;
    named.at[i] = named.at[n - 1];
    store_rlx(&named.n, n - 1);
    break;
  }
  spin_unlock(&named.lock);
  return real.sem_close(s);
}

/* ---- waiting ------------------------------------------------------------------------------------------------- */

static bool try(void *s) { return real.sem_trywait(s) == 0; }

/* true: taken, in a while of trying that a deadline or a signal may end (*w). */
static bool try_for_a_while(call *c, sem_t *s, int64_t deadline, wake_t *w) {
  *w = WAKE_TIMEOUT;
  for (int i = 0; i < NAMED_TRIES && *w == WAKE_TIMEOUT; i++) {
    int64_t until = nanotime() + NAMED_PAUSE_NS;
    if (deadline && deadline < until) until = deadline;
    call_attach(c);
    *w = call_woken(c, gopark(NULL, NULL, waitReasonSemacquire, until));
    call_detach(c);
    if (*w == WAKE_OK) *w = WAKE_TIMEOUT; /* a cancel that was put off */
    if (try(s)) {
      if (*w == WAKE_CANCELLED) gocancel(c->g, false);
      return true;
    }
    if (deadline && nanotime() >= deadline) return false;
  }
  return false;
}

/* The thread waits; WAKE_OK: taken. */
static wake_t wait_in_slices(call *c, sem_t *s, int64_t deadline) {
  call_handoff();
  for (;;) {
    int64_t until = nanotime() + NAMED_SLICE_NS;
    if (deadline && deadline < until) until = deadline;
    struct timespec abs = {until / 1000000000, until % 1000000000};
    if (real.sem_clockwait(s, CLOCK_MONOTONIC, &abs) == 0) return WAKE_OK;
    int e = errno_get();
    if (e == EINTR) return WAKE_INTERRUPTED;
    if (e != ETIMEDOUT) throw("sem_clockwait: %d", e);
    if (deadline && nanotime() >= deadline) return WAKE_TIMEOUT;
    wake_t w = wait_pending(c->g, !c->nocancel);
    if (w == WAKE_CANCELLED) {
      call_attach(c);
      w = call_woken(c, w);
      call_detach(c);
    }
    if (w != WAKE_OK) return w;
  }
}

/* 0, or -1 with errno; *original: the caller must call it. */
static int sem_park(sem_t *s, int64_t deadline, bool *original) {
  call c;
  *original = false;
  if (!call_begin(&c, FAM_SEM)) {
    *original = true;
    return -1;
  }
  if (try(s)) return 0;
  wake_t w;
  if (unlikely(is_named(s))) {
    if (try_for_a_while(&c, s, deadline, &w)) return 0;
    if (w == WAKE_TIMEOUT) w = wait_in_slices(&c, s, deadline);
    if (w == WAKE_OK) return 0;
  } else {
    call_attach(&c);
    do w = semroot_wait(s, try, deadline);
    while (w == WAKE_CANCELLED && call_woken(&c, w) == WAKE_OK);
    call_detach(&c);
    if (w == WAKE_OK) return 0;
  }
  return call_fail(&c, w == WAKE_TIMEOUT ? ETIMEDOUT : call_errno(&c, w));
}

int hook_sem_wait(sem_t *s) {
  bool original;
  int r = sem_park(s, 0, &original);
  return original ? real.sem_wait(s) : r;
}

/* A point in time of another clock, on nanotime()'s. */
static int64_t deadline_on(clockid_t clock, const struct timespec *abs) {
  int64_t t = timespec_ns(abs);
  if (clock != CLOCK_MONOTONIC) {
    struct timespec now;
    clock_gettime(clock, &now);
    t = t - timespec_ns(&now) + nanotime();
  }
  return t > 0 ? t : 1; /* 0 would be none */
}

int hook_sem_clockwait(sem_t *s, clockid_t clock, const struct timespec *abs) {
  bool original = true;
  int r = -1;
  if (abs->tv_nsec >= 0 && abs->tv_nsec < 1000000000) r = sem_park(s, deadline_on(clock, abs), &original);
  return original ? real.sem_clockwait(s, clock, abs) : r;
}

int hook_sem_timedwait(sem_t *s, const struct timespec *abs) {
  bool original = true;
  int r = -1;
  if (abs->tv_nsec >= 0 && abs->tv_nsec < 1000000000)
    r = sem_park(s, deadline_on(CLOCK_REALTIME, abs), &original);
  return original ? real.sem_timedwait(s, abs) : r;
}

int hook_sem_post(sem_t *s) {
  int r = real.sem_post(s);
  if (interpose_in_fork()) return r;
  semroot_wake(s, have_gil());
  return r;
}

/* The interpreter reports any failure of sem_wait but EINTR on stderr; not one that we have made up. */
void hook_perror(const char *text) {
  G *gp = detached_g();
  shim *s = gp ? handle_of(gp)->shim : NULL;
  if (s && s->substituted) return;
  real.perror(text);
}

/* ---- the GIL ---------------------------------------------------------------------------------------------------- */

/* Only looked at: a goroutine must not leave its thread while that takes the GIL.
 *
 * The interpreter signals a condition whenever it drops the GIL (and at times when it takes it). */
int hook_pthread_cond_signal(pthread_cond_t *c) {
  M *m = getm();
  if (m) inc_rlx(&m->drops);
  return real.pthread_cond_signal(c);
}

/* The interpreter waits here for the GIL and for nothing else, with a timeout of the switch interval. */
int hook_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *mutex, const struct timespec *abs) {
  M *m = getm();
  if (likely(!m)) return real.pthread_cond_timedwait(c, mutex, abs);
  store_rlx(&m->wants, true);
  int r = real.pthread_cond_timedwait(c, mutex, abs);
  store_rlx(&m->wants, false);
  return r;
}
