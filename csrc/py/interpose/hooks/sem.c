/* sem.c - the semaphores that locks are made of, and a look at who waits for the GIL.
 *
 * A lock of the interpreter (Lock, RLock, and all that is built on them) is a semaphore of the C library.  A
 * goroutine that would block in one waits by its address (semaroot.c), in the same queue whatever the
 * lock is called in Python; ordinary threads wait in the kernel as ever.
 *
 * A semaphore that has a name (multiprocessing) may be posted by other processes, of which we hear nothing: its waits
 * are handed off.  The thread waits in slices, between which it looks whether the goroutine has been cancelled.
 *
 * The semaphore itself says that it is shared.  Rejected: a table of what sem_open returns.  Locks that a program makes
 * before its first go() are not in it, and a goroutine that waited for one never heard of another process's post.
 *
 * Rejected: parking for a while first, so that a short wait costs no thread.  The goroutine may come back on another
 * one, and SemLock.acquire does not bear that: it has the address of errno from its sem_trywait, and looks there when it
 * has taken the GIL again, so long after the wait that what is stored there (homes.c) may have been overwritten.  A
 * time-out was then read as the ENOENT of somebody else. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "sync/sema.h"
#include "py/cpython/bucket.h"
#include "py/host/fork.h"
#include "py/host/pythread.h"
#include "py/interpose/hooks/hooks.h"

/* ---- semaphores that other processes may post ------------------------------------------------------------ */

enum { NAMED_SLICE_NS = 20000000 };

/* Where a semaphore says so, and how: {how, the number of the word + 1}; 0: not looked yet. */
typedef uint64_t mark;
static _Atomic mark shared_mark;
enum { NO_MARK = 255 };

static uint32_t word(const sem_t *s, size_t i) {
  uint32_t w;
  memcpy(&w, (const char *)s + i * sizeof w, sizeof w);
  return w;
}

/* The word in which two differ that were made for one process and for several. */
static mark find_mark(void) {
  sem_t ours, shared;
  memset(&ours, 0, sizeof ours);
  memset(&shared, 0, sizeof shared);
  sem_init(&ours, 0, 0);
  sem_init(&shared, 1, 0);
  for (size_t i = 0; i < sizeof(sem_t) / sizeof(uint32_t); i++)
    if (word(&ours, i) != word(&shared, i)) return (mark)word(&shared, i) << 8 | (i + 1);
  return NO_MARK;
}

/* In doubt it is. */
static bool is_shared(const sem_t *s) {
  mark m = load_rlx(&shared_mark);
  if (unlikely(!m)) store_rlx(&shared_mark, m = find_mark());
  size_t at = m & 255;
  return at == NO_MARK || word(s, at - 1) == (uint32_t)(m >> 8);
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

/* The failure that was made up for this call was not taken for one.  The parking lot (from 3.13 on) waits once more if
 * somebody has begun to wake its caller between the end of the wait and its look: for a post that is certain.  What the
 * call does then is open: it may have got the lock, or have to park anew.  So a cancel is pending again, and ends neither
 * this wait, which would be begun again and again, nor one that succeeds. */
static void failed_in_vain(call *c, shim *s) {
  if (s->substituted == WAKE_CANCELLED) gocancel(c->g, false);
  s->substituted = WAKE_OK;
  c->nocancel = true;
}

static wake_t take(call *c, sem_t *s, int64_t deadline) {
  if (unlikely(is_shared(s))) return wait_in_slices(c, s, deadline);
  wake_t w;
  call_attach(c);
  do w = semroot_wait(s, try, deadline);
  while (w == WAKE_CANCELLED && call_woken(c, w) == WAKE_OK);
  call_detach(c);
  return w;
}

/* Else it is what the parking lot wakes a waiter with (from 3.14 on all locks are its own), who then has no lock yet. */
static bool is_lock(const G *gp, const void *s) { return (const char *)s < gp->stk.lo || (const char *)s >= gp->stk.hi; }

/* 0, or -1 with errno; *original: the caller must call it. */
static int sem_park(sem_t *s, int64_t deadline, bool *original) {
  call c;
  *original = false;
  if (!call_begin(&c, FAM_SEM)) {
    *original = true;
    return -1;
  }
  shim *above = handle_of(c.g)->shim;
  if (unlikely(above && above->family == FAM_SEM && above->substituted != WAKE_OK)) failed_in_vain(&c, above);
  wake_t w = try(s) ? WAKE_OK : take(&c, s, deadline);
  if (w == WAKE_OK && above && is_lock(c.g, s)) shim_has_lock(above);
  return w == WAKE_OK ? 0 : call_fail(&c, w == WAKE_TIMEOUT ? ETIMEDOUT : call_errno(&c, w));
}

int hook_sem_wait(sem_t *s) {
  if (unlikely(waits_for_bucket(__builtin_dwarf_cfa(), s))) return real.sem_wait(s);
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
  if (likely(!semroot_waited(s)) || fork_in_progress()) return r;
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
  if (m) {
    inc_rlx(&m->drops);
    if (unlikely(pythreads)) pythread_left(m);
  }
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
