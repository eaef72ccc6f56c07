/* sem.c - the semaphores that locks are made of, and a look at who waits for the GIL.
 *
 * A lock of the interpreter (Lock, RLock, and all that is built on them) is a semaphore of the C library.  A
 * goroutine that would block in one waits by its address (semaroot.c), in the same queue whatever the
 * lock is called in Python; ordinary threads wait in the kernel as ever.
 *
 * A semaphore that has a name (multiprocessing) may be posted by other processes, of which we hear nothing: its waits
 * are handed off.  The thread waits in slices, between which it looks whether the goroutine has been cancelled.
 *
 * Rejected: parking for a while first, so that a short wait costs no thread.  The goroutine may come back on another
 * one, and SemLock.acquire does not bear that: it has the address of errno from its sem_trywait, and looks there when it
 * has taken the GIL again, so long after the wait that what is stored there (homes.c) may have been overwritten.  A
 * time-out was then read as the ENOENT of somebody else. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#include "base/clock.h"
#include "sync/sema.h"
#include "py/host/fork.h"
#include "py/interpose/hooks/hooks.h"

/* ---- semaphores that other processes may post ------------------------------------------------------------ */

enum { NAMED_SLICE_NS = 20000000, BUCKETS = 256 };

/* In a table without locks, for a fork may come at any moment.  Entries are never freed, but used again.  What has been
 * opened twice stands there twice. */
typedef struct entry {
  struct entry *next;
  sem_t *_Atomic s; /* NULL: free */
} entry;

static entry *_Atomic named[BUCKETS];

static entry *_Atomic *bucket(const sem_t *s) {
  return &named[(uintptr_t)s * UINT64_C(0x9e3779b97f4a7c15) >> 56];
}

static bool replace(const sem_t *key, sem_t *from, sem_t *to) {
  for (entry *e = load_acq(bucket(key)); e; e = e->next)
    if (cas(&e->s, from, to)) return true;
  return false;
}

static bool named_add(sem_t *s) {
  if (replace(s, NULL, s)) return true;
  entry *e = malloc(sizeof *e);
  if (!e) return false;
  *e = (entry){.s = s};
  do e->next = load_acq(bucket(s));
  while (!cas(bucket(s), e->next, e));
  return true;
}

static bool is_named(const sem_t *s) {
  for (entry *e = load_acq(bucket(s)); e; e = e->next)
    if (load_rlx(&e->s) == s) return true;
  return false;
}

sem_t *hook_sem_open(const char *name, int flags, mode_t mode, unsigned value) {
  sem_t *s = real.sem_open(name, flags, mode, value);
  if (s == SEM_FAILED || named_add(s)) return s;
  real.sem_close(s);
  errno_set(ENOMEM);
  return SEM_FAILED;
}

int hook_sem_close(sem_t *s) {
  replace(s, s, NULL);
  return real.sem_close(s);
}

/* ---- waiting ------------------------------------------------------------------------------------------------- */

static bool try(void *s) { return real.sem_trywait(s) == 0; }

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
    w = wait_in_slices(&c, s, deadline);
  } else {
    call_attach(&c);
    do w = semroot_wait(s, try, deadline);
    while (w == WAKE_CANCELLED && call_woken(&c, w) == WAKE_OK);
    call_detach(&c);
  }
  return w == WAKE_OK ? 0 : call_fail(&c, w == WAKE_TIMEOUT ? ETIMEDOUT : call_errno(&c, w));
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
  if (fork_in_progress()) return r;
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
